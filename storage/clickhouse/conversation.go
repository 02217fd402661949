package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

const (
	defaultConversation = 500
	maxConversation     = 5000
	// maxFollowed bounds the ids of one kind that are followed at once.
	maxFollowed = 200
)

// Reasons for which an event belongs to a conversation.
const (
	whyCorrelation = "correlation"
	whyTrace       = "trace"
	whyCause       = "cause"
	whyLink        = "link"
	whyMessage     = "message"
)

// Conversation returns everything stored about one conversation, in causal
// order. It looks for the correlation and the trace that q names, then for the
// causes and effects of what that found, and then once more for the
// correlations and traces that these led to. Each of the three steps asks each
// table once, at the same time, and only for what was not asked before.
func (s *Store) Conversation(ctx context.Context, q storage.ConversationQuery) (storage.Conversation, error) {
	defer s.timed("history")()
	c, err := s.conversation(ctx, q)
	return c, wrap("conversation", err)
}

func (s *Store) conversation(ctx context.Context, q storage.ConversationQuery) (storage.Conversation, error) {
	begin := time.Now()
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if q.Correlation.IsZero() && q.TraceID == ([16]byte{}) && q.MessageID == "" {
		return storage.Conversation{}, fmt.Errorf("%w: a conversation wants a correlation, a trace or a message id", controlbus.ErrInvalid)
	}
	w := &walk{
		s: s, limit: q.Limit, whole: nanos(q.Range),
		messages: make(map[controlbus.ID]bool), spans: make(map[spanKey]bool), logs: make(map[controlbus.ID]bool),
		asked: map[string]map[string]bool{},
	}
	switch {
	case w.limit <= 0:
		w.limit = defaultConversation
	case w.limit > maxConversation:
		w.limit = maxConversation
	}
	err := w.walk(ctx, q)
	stopped := storage.StopEnd
	switch {
	case err != nil && timedOut(err):
		stopped = storage.StopDeadline
		w.truncated = true
	case err != nil:
		return storage.Conversation{}, err
	case w.truncated:
		stopped = storage.StopLimit
	}
	events := order(w.events)
	if len(events) > w.limit {
		events, w.truncated = events[:w.limit], true
	}
	return storage.Conversation{
		Events: events, Truncated: w.truncated,
		Scan: storage.Scan{
			Rows: w.n.rows.Load(), Bytes: w.n.bytes.Load(), Elapsed: time.Since(begin),
			Range: q.Range, Reached: instant(w.whole.to), Stopped: stopped,
		},
	}, nil
}

type spanKey struct {
	trace [16]byte
	span  [8]byte
}

// walk gathers a conversation.
type walk struct {
	s     *Store
	limit int
	whole nanoRange // of the question
	n     scanned

	mu        sync.Mutex
	events    []storage.ConversationEvent
	messages  map[controlbus.ID]bool
	spans     map[spanKey]bool
	logs      map[controlbus.ID]bool
	truncated bool
	asked     map[string]map[string]bool // kind to the ids already looked for
}

// fresh leaves the values that have not been asked for, and notes them.
func fresh[T interface{ ~string | ~[16]byte }](w *walk, kind string, values []T, text func(T) string) []T {
	seen := w.asked[kind]
	if seen == nil {
		seen = make(map[string]bool)
		w.asked[kind] = seen
	}
	var out []T
	for _, v := range values {
		k := text(v)
		if k == "" || k == zeroID || seen[k] {
			continue
		}
		if len(out) == maxFollowed {
			w.truncated = true
			break
		}
		seen[k] = true
		out = append(out, v)
	}
	return out
}

const zeroID = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func rawID(id [16]byte) string { return string(id[:]) }
func same(s string) string     { return s }

// walk takes the three steps.
func (w *walk) walk(ctx context.Context, q storage.ConversationQuery) error {
	if err := w.byID(ctx, [][16]byte{q.Correlation}, [][16]byte{q.TraceID}, nil); err != nil {
		return err
	}
	consumers, err := w.byMessage(ctx, q.MessageID)
	if err != nil {
		return err
	}
	var correlations, traces [][16]byte
	linked := consumers
	for _, e := range w.events {
		switch {
		case e.Message != nil:
			correlations = append(correlations, e.Message.Correlation)
			traces = append(traces, e.Message.TraceID)
		case e.Span != nil:
			correlations = append(correlations, controlbus.CorrelationKey(e.Span.CorrelationID))
			traces = append(traces, e.Span.TraceID)
			for i := range e.Span.Links {
				linked = append(linked, e.Span.Links[i].TraceID)
			}
		case e.Log != nil:
			correlations = append(correlations, controlbus.CorrelationKey(e.Log.CorrelationID))
			traces = append(traces, e.Log.TraceID)
		}
	}
	return w.byID(ctx, correlations, traces, linked)
}

// byID gathers messages, spans and logs by correlation key or trace id; linked
// are traces reached through span links.
func (w *walk) byID(ctx context.Context, correlations, traces, linked [][16]byte) error {
	correlations = fresh(w, "correlation", correlations, rawID)
	traces = fresh(w, "trace", traces, rawID)
	linked = fresh(w, "trace", linked, rawID)
	all := slices.Concat(traces, linked)
	if len(correlations)+len(all) == 0 {
		return nil
	}
	r, err := w.s.idRange(ctx, &w.n, slices.Concat(correlations, all))
	if err != nil {
		return err
	}
	r.from, r.to = max(r.from, w.whole.from), min(r.to, w.whole.to)
	if r.empty() {
		return nil
	}
	cond := func(q *selection, bucket bool) {
		q.between("ts", r, bucket)
		q.anyOf(idSet("correlation", "correlations", correlations), idSet("trace_id", "traces", all))
	}
	why := func(correlation, trace [16]byte) string {
		switch {
		case slices.Contains(correlations, correlation):
			return whyCorrelation
		case slices.Contains(linked, trace):
			return whyLink
		}
		return whyTrace
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return w.addMessages(ctx, cond, func(m *storage.Message) string { return why(m.Correlation, m.TraceID) })
	})
	g.Go(func() error {
		return w.addLogs(ctx, cond, func(l *storage.Log) string { return why(controlbus.CorrelationKey(l.CorrelationID), l.TraceID) })
	})
	g.Go(func() error {
		return w.addSpans(ctx, cond, func(s *storage.Span) string { return why(controlbus.CorrelationKey(s.CorrelationID), s.TraceID) })
	})
	return g.Wait()
}

// byMessage gathers what bears the message ids of what was found so far, their
// causes and their effects, and returns the traces of the consumers: those
// whose spans link to a trace that was found.
func (w *walk) byMessage(ctx context.Context, id string) ([][16]byte, error) {
	ids, causes := []string{id}, []string{}
	traces := make([][16]byte, 0, len(w.events))
	for _, e := range w.events {
		switch {
		case e.Message != nil:
			ids, causes = append(ids, e.Message.MessageID), append(causes, e.Message.CausationID)
			traces = append(traces, e.Message.TraceID)
		case e.Span != nil:
			traces = append(traces, e.Span.TraceID)
		case e.Log != nil:
			traces = append(traces, e.Log.TraceID)
		}
	}
	ids = fresh(w, "message", ids, same)
	causes = fresh(w, "message", causes, same)
	traces = fresh(w, "target", traces, rawID)
	vicinity := w.vicinity()
	known := make([][16]byte, 0, maxFollowed)
	for uid := range w.messages {
		if known = append(known, uid); len(known) == maxFollowed {
			break
		}
	}

	g, ctx := errgroup.WithContext(ctx)
	if len(ids)+len(causes) > 0 {
		either := slices.Concat(ids, causes)
		g.Go(func() error {
			return w.addMessages(ctx, func(q *selection, bucket bool) {
				q.between("ts", vicinity, bucket)
				q.anyOf(textSet("message_id", "ids", either), textSet("causation_id", "caused", ids))
				// Mostly there is nothing new; then only the columns of these
				// conditions are read, and not those of the answer.
				q.noneOf(idSet("uid", "known", known))
			}, func(m *storage.Message) string {
				if slices.Contains(ids, m.MessageID) {
					return whyMessage
				}
				return whyCause
			})
		})
		g.Go(func() error {
			return w.addSpans(ctx, func(q *selection, bucket bool) {
				q.between("ts", vicinity, bucket)
				q.anyOf(textSet("message_id", "ids", either))
			}, func(s *storage.Span) string {
				if slices.Contains(ids, s.MessageID) {
					return whyMessage
				}
				return whyCause
			})
		})
	}
	var consumers [][16]byte
	if len(traces) > 0 {
		g.Go(func() (err error) {
			consumers, err = w.consumers(ctx, traces)
			return err
		})
	}
	err := g.Wait()
	return consumers, err
}

func (w *walk) addMessages(ctx context.Context, cond func(*selection, bool), why func(*storage.Message) string) error {
	q := newSelection(w.s.query("messages"))
	cond(q, true)
	q.visible("env", "destination")
	q.add("ORDER BY ts, uid\nLIMIT 1 BY uid\nLIMIT {limit:UInt32}")
	q.bind("limit", w.limit+1)
	rows, err := collect[messageRow](ctx, w.s, &w.n, q)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.truncated = w.truncated || len(rows) > w.limit
	for i := range rows {
		m := rows[i].message()
		if w.messages[m.UID] {
			continue
		}
		w.messages[m.UID] = true
		e := storage.ConversationEvent{Message: &m, Why: why(&m), At: instant(m.Time)}
		if f := w.s.cfg.ClockOffset; f != nil && m.TimeSource == controlbus.TimeAgent {
			e.Offset = f(&m)
			e.At = e.At.Add(-e.Offset)
		}
		w.events = append(w.events, e)
	}
	return nil
}

func (w *walk) addSpans(ctx context.Context, cond func(*selection, bool), why func(*storage.Span) string) error {
	q := newSelection(w.s.query("spans"))
	cond(q, false)
	q.visible("env", "destination")
	q.add("ORDER BY ts, span_id\nLIMIT 1 BY trace_id, span_id\nLIMIT {limit:UInt32}")
	q.bind("limit", w.limit+1)
	rows, err := collect[spanRow](ctx, w.s, &w.n, q)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.truncated = w.truncated || len(rows) > w.limit
	for i := range rows {
		sp := rows[i].span()
		k := spanKey{sp.TraceID, sp.SpanID}
		if w.spans[k] {
			continue
		}
		w.spans[k] = true
		w.events = append(w.events, storage.ConversationEvent{Span: &sp, Why: why(&sp), At: instant(sp.Time)})
	}
	return nil
}

func (w *walk) addLogs(ctx context.Context, cond func(*selection, bool), why func(*storage.Log) string) error {
	q := newSelection(w.s.query("logs"))
	cond(q, true)
	q.visible("env", "destination")
	q.add("ORDER BY ts, uid\nLIMIT {limit:UInt32}")
	q.bind("limit", w.limit+1)
	rows, err := collect[logRow](ctx, w.s, &w.n, q)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.truncated = w.truncated || len(rows) > w.limit
	for i := range rows {
		l := rows[i].log()
		if !l.UID.IsZero() {
			if w.logs[l.UID] {
				continue
			}
			w.logs[l.UID] = true
		}
		w.events = append(w.events, storage.ConversationEvent{Log: &l, Why: why(&l), At: instant(l.Time)})
	}
	return nil
}

// near is how far from the events of a conversation its causes and effects are
// looked for. What comes later, such as a redrive after days, shares the
// correlation or the trace and is found by that.
const near = int64(time.Hour)

// vicinity is where message ids are looked for: they have no index of the days
// they were seen on, so beside a key that has one they are looked for near what
// that key led to.
func (w *walk) vicinity() nanoRange {
	if len(w.events) == 0 {
		return w.whole
	}
	first, last := w.events[0].At.UnixNano(), w.events[0].At.UnixNano()
	for _, e := range w.events {
		first, last = min(first, e.At.UnixNano()), max(last, e.At.UnixNano())
	}
	return nanoRange{from: max(w.whole.from, first-near), to: min(w.whole.to, last+near)}
}

// consumers are the traces whose spans link to the given ones.
func (w *walk) consumers(ctx context.Context, traces [][16]byte) ([][16]byte, error) {
	q := newSelection(w.s.sql("SELECT DISTINCT trace_id\nFROM @db.link_back\nWHERE")).unlimited("trace ids; what they lead to is limited")
	q.between("ts", w.whole, false)
	q.anyOf(idSet("target_trace", "ids", traces))
	q.add("LIMIT {limit:UInt32}")
	q.bind("limit", maxFollowed+1)
	rows, err := collect[struct {
		Trace string `ch:"trace_id"`
	}](ctx, w.s, &w.n, q)
	if err != nil {
		return nil, err
	}
	list := make([][16]byte, len(rows))
	for i := range rows {
		list[i] = id16(rows[i].Trace)
	}
	return list, nil
}
