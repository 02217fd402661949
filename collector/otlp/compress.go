package otlp

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/encoding"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Decoders are reused: building one costs more than a small request.
var (
	gzipReaders sync.Pool
	zstdReaders sync.Pool
)

// zstdMaxWindow bounds what a frame may ask a decoder to keep; senders' default
// levels use 8 MiB at most.
const zstdMaxWindow = 8 << 20

// decompress wraps src by the name of a Content-Encoding. The reader must be
// closed, which gives the decoder back.
func decompress(name string, src io.Reader) (io.ReadCloser, error) {
	switch name {
	case "", "identity":
		return io.NopCloser(src), nil
	case "gzip":
		z, _ := gzipReaders.Get().(*gzip.Reader)
		var err error
		if z == nil {
			z, err = gzip.NewReader(src)
		} else {
			err = z.Reset(src)
		}
		if err != nil {
			return nil, fmt.Errorf("otlp: body is not gzip: %w: %w", controlbus.ErrInvalid, err)
		}
		return &pooledGzip{z}, nil
	case "zstd":
		z, _ := zstdReaders.Get().(*zstd.Decoder)
		var err error
		if z == nil {
			z, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdMaxWindow))
		} else {
			err = z.Reset(src)
		}
		if err != nil {
			return nil, fmt.Errorf("otlp: body is not zstd: %w: %w", controlbus.ErrInvalid, err)
		}
		return &pooledZstd{z}, nil
	}
	return nil, fmt.Errorf("otlp: Content-Encoding %.40q: %w: want identity, gzip or zstd", name, controlbus.ErrUnsupported)
}

type pooledGzip struct{ *gzip.Reader }

func (p *pooledGzip) Close() error {
	gzipReaders.Put(p.Reader)
	return nil
}

type pooledZstd struct{ *zstd.Decoder }

func (p *pooledZstd) Close() error {
	if err := p.Reset(nil); err != nil {
		return err
	}
	zstdReaders.Put(p.Decoder)
	return nil
}

// zstdGRPC makes zstd known to gRPC, which brings gzip itself.
type zstdGRPC struct{}

func init() { encoding.RegisterCompressor(zstdGRPC{}) }

func (zstdGRPC) Name() string { return "zstd" }

func (zstdGRPC) Compress(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
}

// Decompress returns a reader that gives its decoder back at the end of the
// stream; gRPC knows no Close.
func (zstdGRPC) Decompress(r io.Reader) (io.Reader, error) {
	d, err := decompress("zstd", r)
	if err != nil {
		return nil, err
	}
	return &closeAtEnd{d}, nil
}

type closeAtEnd struct{ src io.ReadCloser }

func (c *closeAtEnd) Read(p []byte) (int, error) {
	if c.src == nil {
		return 0, io.EOF
	}
	n, err := c.src.Read(p)
	if err != nil {
		if closeErr := c.src.Close(); closeErr != nil && errors.Is(err, io.EOF) {
			err = closeErr
		}
		c.src = nil
	}
	return n, err
}
