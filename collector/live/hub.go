package live

import (
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Encoder writes a message as a row: one JSON value, appended to dst. It is
// called concurrently. The event may be a view; nothing of it may be kept.
type Encoder func(dst []byte, ev *controlbus.MessageEvent, form controlbus.LiveForm) []byte

// maxAbandoned is how many groups without a reader are kept for one that may
// come back. Each costs its filter.
const maxAbandoned = 50

// Hub knows the open live taps. Its methods may be called concurrently.
type Hub struct {
	cfg    Config
	encode Encoder
	epoch  string // of this process, so that a token of another is known
	closed chan struct{}
	list   atomic.Pointer[[]*group] // read without a lock on every batch
	pool   sync.Pool                // *batch
	log    frameLog

	dropped                        *metrics.Counter
	refusedAll, refusedUser        *metrics.Counter
	resumed, resumedLate, frameSum *metrics.Counter

	mu        sync.Mutex
	groups    map[string]*group
	abandoned []*group // without a reader, longest first
	nextID    uint64
	taps      int
	perUser   map[string]int
	shut      bool
}

// NewHub starts nothing; its goroutines are timers that cut frames of open taps.
func NewHub(cfg Config, encode Encoder, set *metrics.Set) *Hub {
	h := &Hub{
		cfg: cfg, encode: encode, epoch: rand.Text()[:10],
		closed:      make(chan struct{}),
		groups:      make(map[string]*group),
		perUser:     make(map[string]int),
		dropped:     set.NewCounter(`signalbox_live_messages_dropped_total{reason="slow_reader"}`),
		refusedAll:  set.NewCounter(`signalbox_live_refused_total{reason="max_taps"}`),
		refusedUser: set.NewCounter(`signalbox_live_refused_total{reason="max_taps_per_user"}`),
		resumed:     set.NewCounter(`signalbox_live_resumed_total{result="whole"}`),
		resumedLate: set.NewCounter(`signalbox_live_resumed_total{result="gap"}`),
		frameSum:    set.NewCounter(`signalbox_live_frames_total`),
	}
	h.log.limit = cfg.ResumeBytes
	h.list.Store(new([]*group))
	h.pool.New = func() any { return new(batch) }
	set.NewGauge("signalbox_live_taps", func() float64 { return float64(h.Taps()) })
	set.NewGauge("signalbox_live_filters", func() float64 { return float64(len(*h.list.Load())) })
	set.NewGauge("signalbox_live_log_bytes", func() float64 { return float64(h.log.size()) })
	return h
}

// Subscribe opens a live tap. It is refused with a *filter.Error, which is
// controlbus.ErrInvalid, when the filter cannot be read, with
// controlbus.ErrOverloaded when the reader has too many, with
// controlbus.ErrUnavailable when everybody together has, or when the console is
// stopping. The caller closes the subscription.
func (h *Hub) Subscribe(q controlbus.LiveQuery, who controlbus.LiveReader) (*Subscription, error) {
	m, err := newMatcher(q, time.Now())
	if err != nil {
		return nil, err
	}
	key := m.key()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.shut:
		return nil, fmt.Errorf("console is stopping: %w", controlbus.ErrUnavailable)
	case h.taps >= h.cfg.MaxTaps:
		h.refusedAll.Inc()
		return nil, fmt.Errorf("%d live taps are open, the most this console allows; close some: %w", h.taps, controlbus.ErrUnavailable)
	case who.User != "" && h.perUser[who.User] >= h.cfg.MaxTapsPerUser:
		h.refusedUser.Inc()
		return nil, fmt.Errorf("you have %d live taps open, the most one person may have; close one: %w", h.perUser[who.User], controlbus.ErrOverloaded)
	}
	g := h.groups[key]
	if g == nil {
		h.nextID++
		g = newGroup(h, key, h.nextID, m)
		h.groups[key] = g
		h.publishList()
	} else if i := slices.Index(h.abandoned, g); i >= 0 {
		g.expiry.Stop()
		h.abandoned = slices.Delete(h.abandoned, i, i+1)
	}
	h.taps++
	h.perUser[who.User]++
	return g.join(who), nil
}

// Active says whether anybody watches; the collector skips decoding for live
// taps when nobody does.
func (h *Hub) Active() bool { return len(*h.list.Load()) > 0 }

// Taps is the number of open live taps.
func (h *Hub) Taps() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.taps
}

// Stats of the hub since it started, for pages.
type Stats struct {
	Taps, MaxTaps int
	Refused       uint64 // taps that were not opened
	Dropped       uint64 // messages that slow readers did not get
}

// Stats returns the present figures.
func (h *Hub) Stats() Stats {
	return Stats{Taps: h.Taps(), MaxTaps: h.cfg.MaxTaps, Refused: h.refusedAll.Get() + h.refusedUser.Get(), Dropped: h.dropped.Get()}
}

// Publish offers a batch to every live tap. It never blocks on a reader, and
// keeps nothing of the events: they may be views.
func (h *Hub) Publish(events []*controlbus.MessageEvent) {
	groups := *h.list.Load()
	if len(events) == 0 || len(groups) == 0 {
		return
	}
	now := time.Now()
	b := h.pool.Get().(*batch)
	b.begin(events)
	for _, g := range groups {
		g.offer(now, b)
	}
	b.end()
	h.pool.Put(b)
}

// Close ends every live tap and refuses new ones.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.shut {
		return
	}
	h.shut = true
	close(h.closed)
	for _, g := range h.groups {
		g.stop()
	}
	clear(h.groups)
	h.abandoned = nil
	h.publishList()
}

// leave takes a reader out. A group without one is kept for a while where the
// reader may come back.
func (h *Hub) leave(s *Subscription, comesBack bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taps--
	if h.perUser[s.user]--; h.perUser[s.user] <= 0 {
		delete(h.perUser, s.user)
	}
	g := s.group
	if g.leave(s) > 0 || h.groups[g.key] != g {
		return
	}
	if !comesBack && !g.awaited || h.cfg.ResumeFor == 0 {
		h.remove(g)
		return
	}
	if len(h.abandoned) >= maxAbandoned {
		h.remove(h.abandoned[0])
	}
	g.awaited = true
	h.abandoned = append(h.abandoned, g)
	g.expiry = time.AfterFunc(h.cfg.ResumeFor, func() { h.expire(g) })
}

func (h *Hub) expire(g *group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.abandoned, g) {
		h.remove(g)
	}
}

// remove forgets a group and its frames.
func (h *Hub) remove(g *group) {
	if i := slices.Index(h.abandoned, g); i >= 0 {
		h.abandoned = slices.Delete(h.abandoned, i, i+1)
	}
	delete(h.groups, g.key)
	g.stop()
	h.log.drop(g)
	h.publishList()
}

func (h *Hub) publishList() {
	all := make([]*group, 0, len(h.groups))
	for _, g := range h.groups {
		all = append(all, g)
	}
	h.list.Store(&all)
}

// key is the same for queries that select and write the same.
func (m *matcher) key() string {
	return fmt.Sprintf("%q %q %q %d %t %q %t %q", m.q.Env, m.q.Channels, m.filter.String(), m.q.Form,
		m.q.Scope.All(), m.q.Scope.Sets(), m.q.Bodies.All(), m.q.Bodies.Sets())
}

// batch is what the groups share while a batch is published: each event is
// encoded at most once per form.
type batch struct {
	events []*controlbus.MessageEvent
	bare   []controlbus.MessageEvent // without payloads, made when first asked for
	rows   [2 * controlbus.LiveForms][]span
	text   []byte
	hits   []int
	// Messages of a batch come from few channels: what depends on the channel
	// alone is asked once for each. place says which one an event has.
	places []where
	place  []int32
	index  map[where]int32
	here   []sight
}

// where is what a query can choose by without looking at the message.
type where struct{ env, channel string }

type span struct{ from, to int }

func (b *batch) begin(events []*controlbus.MessageEvent) {
	b.events, b.text = events, b.text[:0]
	for f := range b.rows {
		b.rows[f] = slices.Grow(b.rows[f][:0], len(events))[:len(events)]
		clear(b.rows[f])
	}
	if b.index == nil {
		b.index = make(map[where]int32)
	}
	for _, ev := range events {
		at := where{ev.Env, ev.Destination}
		i, known := b.index[at]
		if !known {
			i = int32(len(b.places))
			b.index[at] = i
			b.places = append(b.places, at)
		}
		b.place = append(b.place, i)
	}
}

// end lets go of the events: they are views.
func (b *batch) end() {
	b.events = nil
	clear(b.index)
	clear(b.places)
	clear(b.bare)
	b.places, b.place, b.bare = b.places[:0], b.place[:0], b.bare[:0]
	if cap(b.places) > 4096 { // somebody sent a channel for every message
		*b = batch{}
	}
}

// event is what somebody with that sight sees of an event.
func (b *batch) event(i int, s sight) *controlbus.MessageEvent {
	if s == whole {
		return b.events[i]
	}
	if len(b.bare) == 0 {
		b.bare = slices.Grow(b.bare, len(b.events))[:len(b.events)]
		for j, ev := range b.events {
			b.bare[j] = *ev
			b.bare[j].Body, b.bare[j].BodySHA256 = nil, "" // a hash tells of short payloads
		}
	}
	return &b.bare[i]
}

// row is an event as somebody with that sight sees it, encoded.
func (b *batch) row(i int, form controlbus.LiveForm, s sight, encode Encoder) []byte {
	which := int(form)
	if s != whole {
		which += controlbus.LiveForms
	}
	at := &b.rows[which][i]
	if at.to == 0 {
		at.from = len(b.text)
		b.text = encode(b.text, b.event(i, s), form)
		at.to = len(b.text)
	}
	return b.text[at.from:at.to]
}

// frameLog says which frames leave first when all groups together hold too
// much: the oldest, whoever they belong to, so that every tap can look back
// equally far.
type frameLog struct {
	mu    sync.Mutex
	limit int
	bytes int
	queue []logged
	head  int
	dead  int // entries of groups that are gone
}

type logged struct {
	group *group
	bytes int
}

// loggedSum is what the log holds of a group; guarded by the log's lock.
type loggedSum struct {
	bytes, entries int
	gone           bool
}

// perFrame is what a frame costs besides its text.
const perFrame = 160

func (l *frameLog) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// add notes a frame and returns the groups that must drop their oldest one.
func (l *frameLog) add(g *group, bytes int) (victims []*group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if g.logged.gone {
		return nil
	}
	bytes += perFrame
	l.queue = append(l.queue, logged{g, bytes})
	l.bytes += bytes
	g.logged.bytes += bytes
	g.logged.entries++
	// The newest stays, however large: its readers are about to take it.
	for l.head < len(l.queue)-1 && (l.bytes > l.limit || l.queue[l.head].group.logged.gone) {
		first := l.queue[l.head]
		l.queue[l.head] = logged{}
		l.head++
		if first.group.logged.gone {
			l.dead--
			continue
		}
		l.bytes -= first.bytes
		first.group.logged.bytes -= first.bytes
		first.group.logged.entries--
		victims = append(victims, first.group)
	}
	if l.head > 1024 && l.head > len(l.queue)/2 || l.dead > 1024 && l.dead > len(l.queue)/2 {
		l.queue = slices.DeleteFunc(l.queue[l.head:], func(e logged) bool { return e.group.logged.gone })
		l.head, l.dead = 0, 0
	}
	return victims
}

// drop forgets a group.
func (l *frameLog) drop(g *group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes -= g.logged.bytes
	l.dead += g.logged.entries
	g.logged = loggedSum{gone: true}
}
