package clickhouse

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	chdriver "github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// scanned counts what queries read, as the server tells in the header
// X-ClickHouse-Summary. The driver does not pass that on, so the transport
// puts it into the request's context.
type scanned struct{ rows, bytes atomic.Uint64 }

type scannedKey struct{}

// summaries is the driver's transport with an ear for the summary.
type summaries struct{ next http.RoundTripper }

func (t summaries) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	n, ok := req.Context().Value(scannedKey{}).(*scanned)
	if text := res.Header.Get("X-ClickHouse-Summary"); ok && text != "" {
		var sum struct {
			Rows  string `json:"read_rows"`
			Bytes string `json:"read_bytes"`
		}
		if json.Unmarshal([]byte(text), &sum) == nil {
			rows, _ := strconv.ParseUint(sum.Rows, 10, 64)
			bytes, _ := strconv.ParseUint(sum.Bytes, 10, 64)
			n.rows.Add(rows)
			n.bytes.Add(bytes)
		}
	}
	return res, nil
}

// read runs a query and calls row for each row of the answer. What it read is
// added to n. The deadline is that of ctx, else the configured one, and is
// enforced by the server too, so that nothing works on for nobody.
func (s *Store) read(ctx context.Context, n *scanned, q *selection, row func(chdriver.Rows) error) error {
	return s.run(ctx, n, q, driver.Settings{
		// Buffer the answer, which a limit keeps small: an error then has a
		// status of its own, and the summary is complete.
		"wait_end_of_query": 1,
	}, row)
}

// stream is read for answers that are too long to be held back: rows come
// while the server still works, and an error may come behind some of them.
func (s *Store) stream(ctx context.Context, q *selection, row func(chdriver.Rows) error) error {
	return s.run(ctx, nil, q, driver.Settings{}, row)
}

func (s *Store) run(ctx context.Context, n *scanned, q *selection, settings driver.Settings, row func(chdriver.Rows) error) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if n == nil {
		n = new(scanned)
	}
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline).Seconds()
	if left <= 0 {
		return context.DeadlineExceeded
	}
	settings["max_execution_time"] = strconv.FormatFloat(max(left, 0.01), 'f', 3, 64)
	if release(s.version) >= 2407 { // older ones have neither the buffers nor the setting
		// A search that reads in the key's order stops when its page is full.
		// With the buffers that servers would put behind each part, every
		// part is read far ahead of that: ten times the rows and more.
		settings["read_in_order_use_buffering"] = 0
	}
	if s.cfg.QueryMemory > 0 {
		settings["max_memory_usage"] = s.cfg.QueryMemory
	}
	maps.Copy(settings, q.settings)
	ctx = driver.Context(context.WithValue(ctx, scannedKey{}, n), driver.WithSettings(settings))
	text, args, err := q.limitedTo(ctx)
	if err != nil {
		return err
	}
	rows, err := s.conn.Query(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// bounded gives ctx the configured deadline if it has none.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.cfg.QueryTimeout)
}

// collect reads every row of a query into a slice.
func collect[T any](ctx context.Context, s *Store, n *scanned, q *selection) ([]T, error) {
	var list []T
	err := s.read(ctx, n, q, func(rows chdriver.Rows) error {
		var v T
		if err := rows.ScanStruct(&v); err != nil {
			return err
		}
		list = append(list, v)
		return nil
	})
	return list, err
}
