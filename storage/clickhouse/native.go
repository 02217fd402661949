package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	chdriver "github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// blocks runs a query whose answer may be millions of rows and decodes it into
// columns, a block at a time: what the driver hands out row by row costs more
// than the reading itself. results name the columns; each is called when they
// hold a block.
func (s *Store) blocks(ctx context.Context, q *selection, results proto.Results, each func(rows int) error) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline).Seconds()
	if left <= 0 {
		return context.DeadlineExceeded
	}
	text, args, err := q.limitedTo(ctx)
	if err != nil {
		return err
	}
	v := url.Values{
		"default_format": {"Native"}, "max_execution_time": {strconv.FormatFloat(max(left, 0.01), 'f', 3, 64)},
	}
	if s.cfg.QueryMemory > 0 {
		v.Set("max_memory_usage", strconv.FormatInt(s.cfg.QueryMemory, 10))
	}
	if s.cfg.DSN != "" {
		v.Set("enable_http_compression", "1") // the transport asks for it and unpacks
	}
	for _, a := range args {
		named, ok := a.(chdriver.NamedValue)
		if !ok {
			return fmt.Errorf("%w: argument %v has no name", controlbus.ErrInvalid, a)
		}
		value, err := parameter(named.Value)
		if err != nil {
			return fmt.Errorf("argument %s: %w", named.Name, err)
		}
		v.Set("param_"+named.Name, value)
	}
	body, err := s.endpoints[rand.IntN(len(s.endpoints))].open(ctx, v, text)
	if err != nil {
		return err
	}
	defer body.Close()
	r := proto.NewReader(body)
	for {
		for _, column := range results {
			if c, ok := column.Data.(proto.Resettable); ok {
				c.Reset()
			}
		}
		// Revision 0: what Native over HTTP is.
		var b proto.Block
		err := b.DecodeRawBlock(r, 0, results)
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && b.Columns == 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			// Cut off, or an error of the server behind rows already sent.
			return fmt.Errorf("%w: the answer broke off: %w", controlbus.ErrUnavailable, err)
		case b.Rows > 0:
			if err := each(b.Rows); err != nil {
				return err
			}
		}
	}
}

// parameter is a value as the server reads it in an address.
func parameter(v any) (string, error) {
	switch v := v.(type) {
	case int64, uint64, int, uint32, uint16, uint8:
		return fmt.Sprint(v), nil
	case []uint64:
		b := []byte{'['}
		for i, n := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendUint(b, n, 10)
		}
		return string(append(b, ']')), nil
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			if strings.Trim(s, "0123456789abcdef") != "" {
				return "", fmt.Errorf("%w: %.40q: texts travel as hexadecimal digits", controlbus.ErrInvalid, s)
			}
			quoted[i] = "'" + s + "'"
		}
		return "[" + strings.Join(quoted, ",") + "]", nil
	}
	return "", fmt.Errorf("%w: %T is no parameter", controlbus.ErrInvalid, v)
}

// open runs a statement and returns its answer, unread.
func (e *endpoint) open(ctx context.Context, v url.Values, sql string) (io.ReadCloser, error) {
	u := e.base
	u.RawQuery = v.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(sql))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", controlbus.ErrInvalid, err)
	}
	for k, v := range e.header {
		req.Header[k] = v
	}
	res, err := e.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its URL holds every parameter
		}
		return nil, fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
	}
	if res.StatusCode == http.StatusOK && res.Header.Get("X-ClickHouse-Exception-Code") == "" {
		return res.Body, nil
	}
	defer res.Body.Close()
	reply, _ := io.ReadAll(io.LimitReader(res.Body, maxReply)) // what came of it tells enough
	c, _ := strconv.Atoi(res.Header.Get("X-ClickHouse-Exception-Code"))
	if c == 0 {
		_, _ = fmt.Sscanf(string(reply), "Code: %d.", &c)
	}
	if c != 0 {
		return nil, &exception{Code: int32(c), Message: brief(string(reply))}
	}
	return nil, fmt.Errorf("%w: status %d: %s", controlbus.ErrUnavailable, res.StatusCode, brief(string(reply)))
}
