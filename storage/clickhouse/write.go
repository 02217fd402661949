package clickhouse

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"golang.org/x/sync/errgroup"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/controlbus"
)

var _ collector.Sink = (*Store)(nil)

// Write stores b under token, as collector.Sink asks. Each table and day is an
// insert of its own with a token of its own, so a Write that was cut off
// between two of them is completed by repeating it.
func (s *Store) Write(ctx context.Context, token string, b collector.Batch) error {
	batch, ok := b.(*Batch)
	if !ok {
		return fmt.Errorf("clickhouse: write: %w: batch of type %T is not from this store", controlbus.ErrInvalid, b)
	}
	if token == "" {
		return fmt.Errorf("clickhouse: write: %w: empty token", controlbus.ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.InsertTimeout)
	defer cancel()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(s.cfg.InsertParallel)
	e := s.writer(token)
	batch.each(func(table string, day uint16, blk block) {
		g.Go(func() error { return s.insert(gctx, e, table, day, token, blk) })
	})
	if err := g.Wait(); err != nil {
		return wrap("write", err)
	}
	s.once.add(batch.told)
	return nil
}

// writer picks the server for a token: always the same one, because where
// tables are sharded only that shard remembers the token.
func (s *Store) writer(token string) *endpoint {
	if len(s.endpoints) == 1 {
		return s.endpoints[0]
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(token))
	return s.endpoints[int(h.Sum32())%len(s.endpoints)]
}

func (s *Store) insert(ctx context.Context, e *endpoint, table string, day uint16, token string, blk block) error {
	columns := blk.columns()
	buf := s.buffers.Get().(*proto.Buffer)
	buf.Reset()
	head := proto.Block{Columns: len(columns), Rows: blk.rows()}
	// Revision 0: what Native over HTTP is.
	if err := head.EncodeRawBlock(buf, 0, columns); err != nil {
		return fmt.Errorf("%w: encode %s: %w", controlbus.ErrInvalid, table, err)
	}
	date := time.Unix(int64(day)*24*3600, 0).UTC().Format(time.DateOnly)
	part := token + "/" + table + "/" + date
	if table == "series" || table == "resources" {
		// Which of these rows a batch brings depends on what has been stored
		// before, so its token does not name their content. They replace one
		// another, so repeating them is harmless.
		part = ""
	}
	began := time.Now()
	reusable, err := e.insert(ctx, s.insertSQL(table, columns), part, buf)
	s.writes.Load().Observe(table, time.Since(began))
	if reusable && cap(buf.Buf) <= maxPooledBuffer {
		s.buffers.Put(buf)
	}
	if err != nil {
		return fmt.Errorf("insert %d rows into %s of %s: %w", blk.rows(), table, date, err)
	}
	return nil
}

const maxPooledBuffer = 64 << 20

// insertSQL is made once per table.
func (s *Store) insertSQL(table string, columns []proto.InputColumn) string {
	if sql, ok := s.inserts.Load(table); ok {
		return sql.(string)
	}
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = "`" + c.Name + "`"
	}
	sql := "INSERT INTO " + s.local(table) + " (" + strings.Join(names, ", ") + ") FORMAT Native"
	s.inserts.Store(table, sql)
	return sql
}
