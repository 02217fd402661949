package clickhouse

import (
	"context"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// newSelected is the search of a selection, oldest first. What is stored while
// it is walked is not in it.
func (s *Store) newSelected(sel storage.Selection, cursor string, limit int) (*search, error) {
	sr, err := s.newSearch(storage.MessageQuery{
		Range: sel.Range, Env: sel.Env, Filter: sel.Filter, Order: storage.OldestFirst, Cursor: cursor, Limit: limit,
	})
	if err != nil {
		return nil, err
	}
	sr.selected = &sel
	sr.lookup = sr.lookup || len(sel.UIDs) > 0
	return sr, nil
}

// chosen adds the conditions of a selection.
func (sr *search) chosen(q *selection) {
	sel := sr.selected
	if sel == nil {
		return
	}
	if !sel.StoredBefore.IsZero() {
		q.where("stored_at <= fromUnixTimestamp64Milli({stored:Int64}, 'UTC')")
		q.bind("stored", sel.StoredBefore.UnixMilli())
	}
	if len(sel.UIDs) > 0 {
		ids := make([][16]byte, 0, len(sel.UIDs))
		for _, id := range sel.UIDs {
			ids = append(ids, id)
		}
		q.anyOf(idSet("uid", "uids", ids))
		return
	}
	q.where("op IN ('unknown', 'send', 'tap')") // not what became of it later
}

// Selected returns a page of a selection with bodies: at most limit messages and
// maxBytes of bodies, but one message at least. It may be empty and not the last.
func (s *Store) Selected(ctx context.Context, sel storage.Selection, after string, limit int, maxBytes int64) (storage.SelectionPage, error) {
	defer s.timed("selection")()
	page, err := s.selected(ctx, sel, after, limit, maxBytes)
	return page, wrap("read a selection", err)
}

func (s *Store) selected(ctx context.Context, sel storage.Selection, after string, limit int, maxBytes int64) (storage.SelectionPage, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	sr, err := s.newSelected(sel, after, limit)
	if err != nil {
		return storage.SelectionPage{}, err
	}
	// What is found must be read, too, before the time is over.
	walk, enough := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok {
		walk, enough = context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/3))
	}
	stopped, err := sr.run(walk)
	enough()
	if err != nil {
		return storage.SelectionPage{}, err
	}
	var page storage.SelectionPage
	found, size := sr.found, int64(0)
	if stopped != storage.StopEnd {
		page.Next = sr.at.String()
	}
	for i := range found {
		if size += min(found[i].BodySize, usualBody); i > 0 && size > maxBytes {
			last := &found[i-1]
			page.Next = cursor{order: storage.OldestFirst, ts: last.Time, uid: last.UID}.String()
			found = found[:i]
			break
		}
	}
	bodies, err := s.bodies(ctx, found)
	if err != nil {
		return storage.SelectionPage{}, err
	}
	page.Messages = make([]storage.MessageDetail, len(found))
	for i := range found {
		d := storage.MessageDetail{Message: found[i]}
		d.Body, d.BodyStored = bodies[d.UID], bodies[d.UID] != nil
		page.Messages[i] = d
	}
	return page, nil
}

// CountSelected counts a selection until its deadline, oldest first.
func (s *Store) CountSelected(ctx context.Context, sel storage.Selection) (storage.SelectionCount, error) {
	defer s.timed("count a selection")()
	n, err := s.countSelected(ctx, sel)
	return n, wrap("count a selection", err)
}

// selectedRow is a slice of a selection, counted. One event that two agents
// stored is one message.
type selectedRow struct {
	N         uint64 `ch:"n"`
	Truncated uint64 `ch:"truncated"`
	Redacted  uint64 `ch:"redactions"`
	Bodyless  uint64 `ch:"bodyless"`
	Told      uint64 `ch:"told"`
	Bytes     uint64 `ch:"size"`
	First     int64  `ch:"first_ns"`
	Last      int64  `ch:"last_ns"`
}

func (s *Store) countSelected(ctx context.Context, sel storage.Selection) (storage.SelectionCount, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	sr, err := s.newSelected(sel, "", 0)
	if err != nil {
		return storage.SelectionCount{}, err
	}
	total := storage.SelectionCount{AtMost: !sr.filter.Exact}
	more := func(part nanoRange) error {
		rows, err := collect[selectedRow](ctx, s, &sr.n, sr.countOf(part))
		for _, r := range rows {
			if r.N == 0 {
				continue
			}
			if total.Messages == 0 {
				total.Oldest = instant(r.First)
			}
			total.Newest = instant(r.Last)
			total.Messages += r.N
			total.Truncated += r.Truncated
			total.Redacted += r.Redacted
			total.Bodyless += r.Bodyless
			total.Told += r.Told
			total.Bytes += r.Bytes
		}
		return err
	}
	if err = sr.narrow(ctx); err == nil {
		err = sr.slices(ctx, more)
	}
	if timedOut(err) {
		total.AtLeast, err = true, nil
	}
	return total, err
}

// slices calls f for the range of an oldest-first search, slice by slice, or at
// once where an index answers.
func (sr *search) slices(ctx context.Context, f func(nanoRange) error) error {
	slice := firstSlice
	if sr.bodies {
		slice = bodySlice
	}
	for rest := sr.whole; !rest.empty(); {
		part := rest
		if !sr.lookup {
			part = sr.cut(rest, slice)
		}
		begin, read := time.Now(), sr.n.bytes.Load()
		if err := f(part); err != nil {
			return err
		}
		rest.from = part.to
		slice = nextSlice(slice, time.Since(begin), sr.n.bytes.Load()-read)
		if deadline, ok := ctx.Deadline(); ok && !rest.empty() && time.Until(deadline) < sliceMargin {
			return context.DeadlineExceeded
		}
	}
	return nil
}

// countOf counts one slice.
func (sr *search) countOf(part nanoRange) *selection {
	q := newSelection(sr.s.sql(`SELECT
    uniqExact(uid) AS n,
    uniqExactIf(uid, body_truncated) AS truncated,
    uniqExactIf(uid, notEmpty(redacted)) AS redactions,
    uniqExactIf(uid, body_policy != 'full' OR body_size > 0 AND ts < fromUnixTimestamp64Nano({bodies_from:Int64}, 'UTC')) AS bodyless,
    uniqExactIf(uid, op != 'tap') AS told,
    sum(body_size) AS size,
    toUnixTimestamp64Nano(min(ts)) AS first_ns,
    toUnixTimestamp64Nano(max(ts)) AS last_ns
FROM @db.messages
WHERE`))
	q.between("ts", part, true)
	sr.where(q, true)
	q.visible("env", "destination")
	q.bind("bodies_from", sr.s.bodiesFrom())
	return q
}

// bodiesFrom is since when bodies are kept: what is older has none.
func (s *Store) bodiesFrom() int64 {
	if s.cfg.Retention.Bodies == 0 {
		return minTime
	}
	return nanosOf(time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -s.cfg.Retention.Bodies))
}

// Clock is the server's, by which rows are stamped as they are stored.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	q := newSelection("SELECT toUnixTimestamp64Milli(now64(3)) AS ms").unlimited("the time of day")
	list, err := collect[struct {
		Ms int64 `ch:"ms"`
	}](ctx, s, nil, q)
	if err != nil {
		return time.Time{}, wrap("read the clock", err)
	}
	if len(list) != 1 {
		return time.Time{}, wrap("read the clock", controlbus.ErrUnavailable)
	}
	return time.UnixMilli(list[0].Ms).UTC(), nil
}
