package clickhouse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// endpoint is one server's HTTP interface, for what does not go through the
// driver: DDL and inserts of finished blocks.
type endpoint struct {
	client *http.Client
	base   url.URL
	header http.Header
}

// maxReply bounds what is read of an answer that should be empty.
const maxReply = 64 << 10

// exec runs a statement that returns no rows, or few.
func (e *endpoint) exec(ctx context.Context, sql string, settings url.Values) (string, error) {
	return e.post(ctx, settings, strings.NewReader(sql))
}

// insert posts one finished block. The settings travel in the URL, never
// in the statement, so that no value is ever quoted.
func (e *endpoint) insert(ctx context.Context, sql, token string, buf *proto.Buffer) (reusable bool, err error) {
	v := url.Values{"query": {sql}, "async_insert": {"0"}}
	if token != "" {
		v.Set("insert_deduplication_token", token)
	}
	body := &blockBody{Reader: bytes.NewReader(buf.Buf), closed: make(chan struct{})}
	_, err = e.post(ctx, v, body)
	select {
	case <-body.closed:
		return true, err
	default: // the transport may still read it
		return false, err
	}
}

// blockBody tells when the transport has let go of the buffer: an answer can
// come before the request has been sent whole.
type blockBody struct {
	*bytes.Reader
	closed chan struct{}
}

func (b *blockBody) Close() error {
	close(b.closed)
	return nil
}

func (e *endpoint) post(ctx context.Context, v url.Values, body io.Reader) (string, error) {
	u := e.base
	u.RawQuery = v.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		return "", fmt.Errorf("%w: %w", controlbus.ErrInvalid, err)
	}
	if b, ok := body.(*blockBody); ok {
		req.ContentLength = int64(b.Len())
	}
	for k, v := range e.header {
		req.Header[k] = v
	}
	res, err := e.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its URL holds the whole statement
		}
		return "", fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(res.Body, maxReply))
	text := string(reply)
	c, _ := strconv.Atoi(res.Header.Get("X-ClickHouse-Exception-Code"))
	if c == 0 && strings.HasPrefix(text, "Code: ") {
		_, _ = fmt.Sscanf(text, "Code: %d.", &c)
	}
	switch {
	case c != 0:
		return "", &exception{Code: int32(c), Message: brief(text)}
	case res.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%w: status %d: %s", controlbus.ErrUnavailable, res.StatusCode, brief(text))
	case err != nil:
		return "", fmt.Errorf("%w: read answer: %w", controlbus.ErrUnavailable, err)
	case strings.Contains(text, "__exception__"):
		// The status line had gone out when it failed.
		return "", fmt.Errorf("%w: %s", controlbus.ErrUnavailable, brief(text))
	}
	return text, nil
}
