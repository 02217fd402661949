package decode

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"errors"
	"io"
	"regexp"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
)

// unpack undoes a content encoding. What it cannot undo stays as it is, with a
// note.
func (d *decoder) unpack(body []byte) []byte {
	name := strings.ToLower(strings.TrimSpace(d.o.ContentEncoding))
	guessed := false
	if name == "" || name == "identity" {
		switch { // both begin with what no text, JSON, XML or map begins with
		case bytes.HasPrefix(body, []byte{0x1f, 0x8b, 0x08}):
			name, guessed = "gzip", true
		case bytes.HasPrefix(body, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			name, guessed = "zstd", true
		}
	}
	var in io.Reader = bytes.NewReader(body)
	var err error
	switch name {
	case "", "identity", "binary", "7bit", "8bit":
		return body
	case "gzip", "x-gzip":
		name = "gzip"
		in, err = gzip.NewReader(in)
	case "deflate", "zlib":
		in, err = zlib.NewReader(in)
	case "zstd":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(8<<20), zstd.WithDecoderMaxWindow(8<<20)); err == nil {
			defer z.Close()
			in = z
		}
	case "base64":
		in = base64.NewDecoder(base64.StdEncoding, in)
	default:
		// Some brokers' clients put the charset there.
		if charsetByName(name) != nil {
			if d.charset == "" {
				d.charset = name
			}
			return body
		}
		d.note("its content encoding " + short(d.o.ContentEncoding) + " cannot be undone here, so the bytes are shown as they are")
		return body
	}
	var out []byte
	if err == nil {
		out, err = io.ReadAll(io.LimitReader(in, int64(d.o.Limits.Bytes)+1))
	}
	cutShort := errors.Is(err, io.ErrUnexpectedEOF) && d.o.Truncated
	if err != nil && (!cutShort || len(out) == 0) {
		if !guessed {
			d.note("its content encoding says " + name + ", but it does not unpack: " + err.Error())
		}
		return body
	}
	d.r.Unpacked = name
	if !cutShort && len(out) <= d.o.Limits.Bytes {
		d.o.Truncated = false // all of it is here
	}
	return out
}

var (
	bom8    = []byte{0xef, 0xbb, 0xbf}
	bom16le = []byte{0xff, 0xfe}
	bom16be = []byte{0xfe, 0xff}
	xmlDecl = regexp.MustCompile(`^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']`)
)

// decodeText turns a body into UTF-8 by its byte order mark, its declared
// charset or its XML declaration, in this order, and names what it was.
func (d *decoder) decodeText(body []byte) (text []byte, charset string) {
	switch {
	case bytes.HasPrefix(body, bom8):
		return body[len(bom8):], "UTF-8 with a byte order mark"
	case bytes.HasPrefix(body, bom16le), bytes.HasPrefix(body, bom16be):
		name := "UTF-16LE"
		if body[0] == 0xfe {
			name = "UTF-16BE"
		}
		even := body[:len(body)&^1]
		if out, err := unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM).NewDecoder().Bytes(even); err == nil && readable(out) {
			return out, name
		}
	}
	name := d.charset
	if name == "" {
		if m := xmlDecl.FindSubmatch(body[:min(len(body), 512)]); m != nil {
			name = string(m[1])
		}
	}
	if name != "" {
		e := charsetByName(name)
		if e == nil {
			d.note("its charset " + short(name) + " is not known here, so it is read as UTF-8")
			return body, "UTF-8"
		}
		canonical, _ := ianaindex.MIME.Name(e)
		if canonical == "" {
			canonical = strings.ToUpper(name)
		}
		if canonical != "UTF-8" && canonical != "US-ASCII" {
			if out, err := e.NewDecoder().Bytes(body); err == nil {
				return out, canonical
			}
		}
	}
	return body, "UTF-8"
}

func charsetByName(name string) encoding.Encoding {
	e, err := ianaindex.MIME.Encoding(name)
	if err != nil {
		if e, err = ianaindex.IANA.Encoding(name); err != nil {
			return nil
		}
	}
	return e
}
