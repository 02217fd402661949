package clickhouse

import (
	"context"
	"fmt"
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
// order. It looks for what q names, then once for what that leads to: causes
// and effects, linked spans, and the traces and correlation ids found.
func (s *Store) Conversation(ctx context.Context, q storage.ConversationQuery) (storage.Conversation, error) {
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
	first := keys{}
	if !q.Correlation.IsZero() {
		first.correlations = [][16]byte{q.Correlation}
	}
	if q.TraceID != ([16]byte{}) {
		first.traces, first.traceWhy = [][16]byte{q.TraceID}, whyTrace
	}
	if q.MessageID != "" {
		first.messages, first.causes = []string{q.MessageID}, []string{q.MessageID}
	}
	// Message ids have no index of the days they were seen on. Beside a key
	// that has one they are looked for near what that key leads to.
	w.near = w.whole
	if q.MessageID != "" && (len(first.correlations) > 0 || len(first.traces) > 0) {
		later := first
		first.messages, first.causes = nil, nil
		if err := w.round(ctx, first); err != nil && !timedOut(err) {
			return storage.Conversation{}, err
		}
		if len(w.events) > 0 {
			w.approach()
		}
		first = keys{messages: later.messages, causes: later.causes, traceWhy: whyTrace}
	}
	stopped := storage.StopEnd
	err := w.round(ctx, first)
	if err == nil {
		err = w.follow(ctx)
	}
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

// keys are what a round looks for.
type keys struct {
	correlations [][16]byte
	traces       [][16]byte
	traceWhy     string
	linked       [][16]byte // traces reached through span links
	messages     []string   // message ids
	causes       []string   // message ids whose effects are wanted
	causedBy     []string   // message ids that are causes of what was found
}

// walk gathers a conversation.
type walk struct {
	s     *Store
	limit int
	whole nanoRange // of the question
	near  nanoRange // in which message ids are looked for
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

// round runs every query that k asks for.
func (w *walk) round(ctx context.Context, k keys) error {
	correlations := fresh(w, "correlation", k.correlations, rawID)
	traces := fresh(w, "trace", k.traces, rawID)
	linked := fresh(w, "trace", k.linked, rawID)
	messages := fresh(w, "message", k.messages, same)
	causedBy := fresh(w, "message", k.causedBy, same)
	causes := fresh(w, "cause", k.causes, same)

	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	if len(correlations) > 0 {
		g.Go(func() error { return w.byID(ctx, "correlation", correlations, whyCorrelation, false) })
	}
	if len(traces) > 0 {
		g.Go(func() error { return w.byID(ctx, "trace_id", traces, k.traceWhy, true) })
	}
	if len(linked) > 0 {
		g.Go(func() error { return w.byID(ctx, "trace_id", linked, whyLink, true) })
	}
	if len(messages) > 0 {
		g.Go(func() error { return w.byMessage(ctx, "message_id", messages, whyMessage) })
	}
	if len(causedBy) > 0 {
		g.Go(func() error { return w.byMessage(ctx, "message_id", causedBy, whyCause) })
	}
	if len(causes) > 0 {
		g.Go(func() error { return w.byMessage(ctx, "causation_id", causes, whyCause) })
	}
	return g.Wait()
}

// byID gathers messages, spans and logs by correlation key or trace id.
func (w *walk) byID(ctx context.Context, column string, ids [][16]byte, why string, isTrace bool) error {
	r, err := w.s.idRange(ctx, &w.n, ids)
	if err != nil {
		return err
	}
	r.from, r.to = max(r.from, w.whole.from), min(r.to, w.whole.to)
	if r.empty() {
		return nil
	}
	cond := func(q *selection, bucket bool) {
		q.between("ts", r, bucket)
		q.fixedIn(column, "ids", ids)
	}
	if err := w.addMessages(ctx, why, cond); err != nil {
		return err
	}
	if err := w.addLogs(ctx, why, cond); err != nil {
		return err
	}
	return w.addSpans(ctx, why, cond)
}

// byMessage gathers messages, and spans that name them.
func (w *walk) byMessage(ctx context.Context, column string, ids []string, why string) error {
	cond := func(q *selection, bucket bool) {
		q.between("ts", w.near, bucket)
		q.textIn(column, "ids", ids)
	}
	if err := w.addMessages(ctx, why, cond); err != nil {
		return err
	}
	if column != "message_id" {
		return nil
	}
	return w.addSpans(ctx, why, cond)
}

func (w *walk) addMessages(ctx context.Context, why string, cond func(*selection, bool)) error {
	q := newSelection(w.s.query("messages"))
	cond(q, true)
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
		e := storage.ConversationEvent{Message: &m, Why: why, At: instant(m.Time)}
		if f := w.s.cfg.ClockOffset; f != nil && m.TimeSource == controlbus.TimeAgent {
			e.Offset = f(&m)
			e.At = e.At.Add(-e.Offset)
		}
		w.events = append(w.events, e)
	}
	return nil
}

func (w *walk) addSpans(ctx context.Context, why string, cond func(*selection, bool)) error {
	q := newSelection(w.s.query("spans"))
	cond(q, false)
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
		w.events = append(w.events, storage.ConversationEvent{Span: &sp, Why: why, At: instant(sp.Time)})
	}
	return nil
}

func (w *walk) addLogs(ctx context.Context, why string, cond func(*selection, bool)) error {
	q := newSelection(w.s.query("logs"))
	cond(q, true)
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
		w.events = append(w.events, storage.ConversationEvent{Log: &l, Why: why, At: instant(l.Time)})
	}
	return nil
}

// vicinity is how far from the events of a conversation its causes and effects
// are looked for. What comes later, such as a redrive after days, shares the
// correlation or the trace and is found by that.
const vicinity = int64(time.Hour)

// approach narrows the search for message ids to the vicinity of what has been
// found.
func (w *walk) approach() {
	first, last := w.events[0].At.UnixNano(), w.events[0].At.UnixNano()
	for _, e := range w.events {
		first, last = min(first, e.At.UnixNano()), max(last, e.At.UnixNano())
	}
	w.near.from, w.near.to = max(w.whole.from, first-vicinity), min(w.whole.to, last+vicinity)
}

// follow is the one round of what the first led to.
func (w *walk) follow(ctx context.Context) error {
	if len(w.events) == 0 {
		return nil
	}
	w.approach()
	k := keys{traceWhy: whyTrace}
	var traces [][16]byte
	for _, e := range w.events {
		switch {
		case e.Message != nil:
			m := e.Message
			k.correlations = append(k.correlations, m.Correlation)
			traces = append(traces, m.TraceID)
			k.causes = append(k.causes, m.MessageID)
			k.messages = append(k.messages, m.MessageID)
			k.causedBy = append(k.causedBy, m.CausationID)
		case e.Span != nil:
			sp := e.Span
			traces = append(traces, sp.TraceID)
			k.correlations = append(k.correlations, controlbus.CorrelationKey(sp.CorrelationID))
			for i := range sp.Links {
				k.linked = append(k.linked, sp.Links[i].TraceID)
			}
		case e.Log != nil:
			traces = append(traces, e.Log.TraceID)
			k.correlations = append(k.correlations, controlbus.CorrelationKey(e.Log.CorrelationID))
		}
	}
	// One trace may be found many times; ask for its consumers once.
	unique := make([][16]byte, 0, len(traces))
	seen := make(map[[16]byte]bool)
	for _, t := range traces {
		if t != ([16]byte{}) && !seen[t] && len(unique) < maxFollowed {
			seen[t] = true
			unique = append(unique, t)
		}
	}
	if len(unique) > 0 {
		consumers, err := w.consumers(ctx, unique)
		if err != nil {
			return err
		}
		k.linked = append(k.linked, consumers...)
	}
	k.traces = unique
	return w.round(ctx, k)
}

// consumers are the traces whose spans link to the given ones.
func (w *walk) consumers(ctx context.Context, traces [][16]byte) ([][16]byte, error) {
	q := newSelection(w.s.sql("SELECT DISTINCT trace_id\nFROM @db.link_back\nWHERE"))
	q.between("ts", w.whole, false)
	q.fixedIn("target_trace", "ids", traces)
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
