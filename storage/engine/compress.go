package engine

import (
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// requestBody undoes the compression of a request: an HTTP content encoding,
// or ClickHouse's own frames where the URL says decompress=1.
func requestBody(r *http.Request, native bool) (io.Reader, error) {
	var body io.Reader = r.Body
	var err error
	switch enc := strings.ToLower(r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	case "zstd":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(body, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20)); err == nil {
			body = d.IOReadCloser()
		}
	default:
		return nil, exceptionf(codeBadCompression, "Content-Encoding %q is not supported; use gzip, deflate, zstd or none. (UNKNOWN_COMPRESSION_METHOD)", enc)
	}
	if errors.Is(err, io.EOF) {
		return strings.NewReader(""), nil
	}
	if err != nil {
		return nil, exceptionf(codeCannotRead, "Cannot decompress the request: %v. (CANNOT_READ_ALL_DATA)", err)
	}
	if native {
		body = frameReader{compress.NewReader(body)}
	}
	return body, nil
}

// frameReader gives the end of the frames its usual form: ch-go wraps io.EOF,
// which callers compare. A request cut short is io.ErrUnexpectedEOF instead.
type frameReader struct{ r io.Reader }

func (f frameReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return n, err
}

// encoder compresses a response. Flush makes all that was written readable.
type encoder interface {
	io.Writer
	Flush() error
	Close() error
}

// responseEncoder chooses what the client can read: ClickHouse frames if it
// asked for compress=1, else gzip or zstd by Accept-Encoding, else nothing.
func responseEncoder(w io.Writer, h http.Header, accept string, native, wanted bool, method string) encoder {
	if native {
		m := compress.LZ4
		if strings.EqualFold(method, "ZSTD") {
			m = compress.ZSTD
		}
		return &frames{w: w, c: compress.NewWriter(compress.LevelZero, m), plain: compress.NewWriter(compress.LevelZero, compress.None)}
	}
	if !wanted {
		return plain{w}
	}
	var offers []string
	for part := range strings.SplitSeq(accept, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(part), ";")
		if v, err := strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(q), "q="), 64); err == nil && v == 0 {
			continue
		}
		offers = append(offers, strings.ToLower(strings.TrimSpace(name)))
	}
	switch {
	case slices.Contains(offers, "gzip"):
		h.Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is valid
		return z
	case slices.Contains(offers, "zstd"):
		h.Set("Content-Encoding", "zstd")
		z, _ := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest)) // the options are valid
		return z
	case slices.Contains(offers, "deflate"):
		h.Set("Content-Encoding", "deflate")
		z, _ := zlib.NewWriterLevel(w, zlib.BestSpeed) // the level is valid
		return z
	}
	return plain{w}
}

type plain struct{ io.Writer }

func (plain) Flush() error { return nil }
func (plain) Close() error { return nil }

// frameSize is ClickHouse's usual amount of data in one compressed frame.
const frameSize = 1 << 20

// frames writes ClickHouse's compressed frames.
type frames struct {
	w        io.Writer
	c, plain *compress.Writer
}

func (f *frames) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		m := min(len(p)-n, frameSize)
		if err := f.frame(f.c, p[n:n+m]); err != nil {
			return n, err
		}
		n += m
	}
	return len(p), nil
}

func (f *frames) frame(c *compress.Writer, p []byte) error {
	if err := c.Compress(p); err != nil {
		return err
	}
	_, err := f.w.Write(c.Data)
	return err
}

// verbatim writes p in a frame that is not compressed: clients look for an
// exception in the raw bytes of the response.
func (f *frames) verbatim(p []byte) error { return f.frame(f.plain, p) }

func (*frames) Flush() error { return nil }
func (*frames) Close() error { return nil }
