package live

import (
	"strconv"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// tally counts a group's messages since it exists. Differences of two tallies
// are what a reader is told.
type tally struct {
	matched  int64
	admitted int64 // of those, written into frames; the others were left out by the rate limit
}

// frame is what went out at once. It does not change.
type frame struct {
	payload    []byte
	from, to   tally
	fromB, toB int64 // bytes of all frames before, and with this one
}

// group is one distinct query with its readers.
type group struct {
	hub    *Hub
	key    string
	id     uint64
	match  matcher
	form   controlbus.LiveForm
	expiry *time.Timer // guarded by the hub's lock, as is awaited
	// awaited: some reader has gone that may come back.
	awaited bool
	logged  loggedSum

	mu      sync.Mutex
	subs    map[*Subscription]struct{}
	total   tally
	pending []byte // rows since the last frame
	rows    int
	cut     *time.Timer
	armed   bool
	ended   bool
	lastCut time.Time
	frames  []frame
	first   int64 // number of frames[0]
	sent    tally // at the end of the last frame
	sentB   int64
	// The rate limit counts in windows of one second. keep is "1 of keep",
	// chosen from the second before.
	window   time.Time
	inWindow int64
	keep     int64
}

func newGroup(h *Hub, key string, id uint64, m matcher) *group {
	g := &group{hub: h, key: key, id: id, match: m, form: m.q.Form, subs: make(map[*Subscription]struct{}), keep: 1, window: time.Now()}
	g.cut = time.AfterFunc(time.Hour, g.flush)
	g.cut.Stop()
	return g
}

// stop ends the group.
func (g *group) stop() {
	if g.expiry != nil {
		g.expiry.Stop()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	g.cut.Stop()
	g.first += int64(len(g.frames))
	g.frames, g.pending = nil, nil
}

// join places a reader: where its token says, else at the end.
func (g *group) join(who controlbus.LiveReader) *Subscription {
	s := &Subscription{group: g, user: who.User, born: time.Now(), wake: make(chan struct{}, 1), gone: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.at, s.told = g.first+int64(len(g.frames)), g.sent
	s.hello = greeting{due: true, asked: who.Resume != ""}
	if told, ok := g.readToken(who.Resume); ok {
		s.hello.known = true
		s.told = told
		for s.at > g.first && g.frames[s.at-1-g.first].to.admitted > told.admitted {
			s.at--
		}
		s.catchUp = g.sent.admitted
	}
	g.subs[s] = struct{}{}
	return s
}

func (g *group) leave(s *Subscription) (left int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.subs, s)
	return len(g.subs)
}

// offer takes what matches.
func (g *group) offer(now time.Time, b *batch) {
	hits, here, any := b.hits[:0], b.here[:0], false
	for _, at := range b.places {
		s := g.match.place(at.env, at.channel)
		any = any || s != nothing
		here = append(here, s)
	}
	b.here = here
	if !any {
		return
	}
	for i, at := range b.place {
		if s := here[at]; s != nothing && g.match.filter.Match(b.event(i, s)) {
			hits = append(hits, i)
		}
	}
	b.hits = hits
	if len(hits) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	for _, i := range hits {
		g.total.matched++
		// A group that nobody else's frames can wait for is bounded too.
		if !g.admit(now) || len(g.pending) > g.hub.cfg.MaxBytes {
			continue
		}
		if g.rows > 0 {
			g.pending = append(g.pending, ',')
		}
		g.pending = append(g.pending, b.row(i, g.form, here[b.place[i]], g.hub.encode)...)
		g.rows++
		g.total.admitted++
	}
	if !g.armed {
		g.armed = true
		g.cut.Reset(max(0, g.hub.cfg.FrameInterval-now.Sub(g.lastCut)))
	}
}

// admit is the "1 of n" sampling: n is what would have brought the second
// before down to the limit, so the choice is even instead of a burst at the
// start of each second. Within a second the limit still holds.
func (g *group) admit(now time.Time) bool {
	limit := int64(g.hub.cfg.MaxRate)
	if now.Sub(g.window) >= time.Second {
		g.keep = max(1, (g.inWindow+limit-1)/limit)
		if now.Sub(g.window) >= 2*time.Second {
			g.keep = 1 // the second before was silent
		}
		g.window, g.inWindow = now, 0
	}
	g.inWindow++
	return g.inWindow%g.keep == 0 && g.inWindow/g.keep <= limit
}

// flush cuts a frame and wakes the readers.
func (g *group) flush() {
	g.mu.Lock()
	if g.ended {
		g.mu.Unlock()
		return
	}
	g.armed, g.lastCut = false, time.Now()
	f := frame{from: g.sent, to: g.total, fromB: g.sentB}
	f.payload = appendFrame(make([]byte, 0, len(g.pending)+160), g.pending, counts{
		matched: f.to.matched - f.from.matched,
		sampled: f.to.matched - f.from.matched - (f.to.admitted - f.from.admitted),
	}, g.token(f.to))
	f.toB = f.fromB + int64(len(f.payload))
	g.sent, g.sentB = f.to, f.toB
	g.frames = append(g.frames, f)
	g.pending, g.rows = g.pending[:0], 0
	if cap(g.pending) > 256<<10 {
		g.pending = nil // after a burst
	}
	for s := range g.subs {
		s.poke()
	}
	g.mu.Unlock()
	g.hub.frameSum.Inc()
	for _, victim := range g.hub.log.add(g, len(f.payload)) {
		victim.forget()
	}
}

// forget drops the oldest frame.
func (g *group) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.frames) == 0 {
		return // it was stopped meanwhile
	}
	g.frames[0] = frame{}
	g.frames = g.frames[1:]
	g.first++
}

// token names a place in this group's messages, so that a reader can go on
// there. It holds nothing that the reader may not know.
func (g *group) token(t tally) string {
	b := make([]byte, 0, 48)
	b = append(b, g.hub.epoch...)
	for _, n := range [...]uint64{g.id, uint64(t.matched), uint64(t.admitted)} {
		b = append(b, '.')
		b = strconv.AppendUint(b, n, 36)
	}
	return string(b)
}

// readToken says where a token points to; false when it is not of this group,
// or not of this process.
func (g *group) readToken(text string) (tally, bool) {
	var parts [4]string
	rest := text
	for i := range parts {
		var more bool
		parts[i], rest, more = cutDot(rest)
		if more != (i < 3) {
			return tally{}, false
		}
	}
	if parts[0] != g.hub.epoch {
		return tally{}, false
	}
	id, err1 := strconv.ParseUint(parts[1], 36, 63)
	matched, err2 := strconv.ParseUint(parts[2], 36, 63)
	admitted, err3 := strconv.ParseUint(parts[3], 36, 63)
	t := tally{int64(matched), int64(admitted)}
	if err1 != nil || err2 != nil || err3 != nil || id != g.id || t.matched > g.sent.matched || t.admitted > g.sent.admitted || t.admitted > t.matched ||
		t.matched-t.admitted > g.sent.matched-g.sent.admitted {
		return tally{}, false
	}
	return t, true
}
