package export

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Position is where a resumable tap stands: stream identity and sequence.
type Position struct {
	Stream string `json:"stream"` // changes when the stream was deleted and made anew
	Seq    uint64 `json:"seq"`
}

// Queue is one tap's bounded buffer between the broker's reader and the spool.
// It outlives a restart of the tap, so that going on after Position neither
// repeats nor skips a message. Its methods may be called concurrently.
type Queue struct {
	key    string // of its position: broker and channel
	limits queueLimits
	memory *atomic.Int64 // of all queues
	wake   chan<- struct{}

	mu        sync.Mutex
	ring      []item // a circle: n items from head
	head, n   int
	bytes     int64
	resumable bool
	last      Position // of the newest message that was put
	room      chan struct{}
	closed    bool
	forget    bool
	lostHead  int64 // dropped just before the item at head
	lostTail  int64 // lost before the next item that is put
	policy    controlbus.BodyPolicy
	maxBody   int64
	stats     QueueStats
}

type queueLimits struct {
	messages      int
	bytes, memory int64
}

type item struct {
	ev   *controlbus.MessageEvent
	pos  Position
	size int64
	// What the tap asked for when the event came.
	policy  controlbus.BodyPolicy
	maxBody int64
}

// QueueStats counts what a queue took and lost.
type QueueStats struct {
	Received        int64
	Dropped         int64 // by the queue, because it was full
	DroppedByBroker int64 // -1 unknown
	Gaps            int64
}

// errClosed: the queue belongs to a tap that has ended.
var errClosed = fmt.Errorf("export: queue is closed: %w", controlbus.ErrUnavailable)

// weigh is about what an event takes in memory.
func weigh(ev *controlbus.MessageEvent) int64 {
	n := 600 + len(ev.Body) + len(ev.MessageID) + len(ev.CorrelationID)
	for _, h := range ev.Headers {
		n += 32 + len(h.Key) + len(h.Value)
	}
	return int64(n)
}

// Put hands over one event. A resumable queue that is full waits for room
// until ctx ends; any other never waits, drops its oldest event and counts it.
func (q *Queue) Put(ctx context.Context, ev *controlbus.MessageEvent, pos Position) error {
	it := item{ev: ev, pos: pos, size: weigh(ev)}
	q.mu.Lock()
	for !q.closed && !q.fits(it.size) {
		if !q.resumable {
			if q.n == 0 { // others hold all the memory
				q.lostTail += 1 + ev.GapBefore
				q.stats.Received++
				q.stats.Dropped++
				q.mu.Unlock()
				return nil
			}
			q.dropOldest()
			continue
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room := q.room
		q.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
		q.mu.Lock()
	}
	if q.closed {
		q.mu.Unlock()
		return errClosed
	}
	ev.GapBefore += q.lostTail
	q.lostTail = 0
	it.policy, it.maxBody = q.policy, q.maxBody
	q.push(it)
	q.stats.Received++
	if pos != (Position{}) {
		q.last = pos
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return nil
}

// fits says whether one more event may come in. An empty resumable queue takes
// any event, else a large one would wait for ever.
func (q *Queue) fits(size int64) bool {
	if q.n == 0 && (q.resumable || size > q.limits.bytes) {
		return true
	}
	return q.n < q.limits.messages && q.bytes+size <= q.limits.bytes && q.memory.Load()+size <= q.limits.memory
}

func (q *Queue) push(it item) {
	if q.n == len(q.ring) {
		bigger := make([]item, max(64, 2*len(q.ring)))
		for i := range q.n {
			bigger[i] = q.ring[(q.head+i)%len(q.ring)]
		}
		q.ring, q.head = bigger, 0
	}
	q.ring[(q.head+q.n)%len(q.ring)] = it
	q.n++
	q.bytes += it.size
	q.memory.Add(it.size)
}

func (q *Queue) pop() item {
	it := q.ring[q.head]
	q.ring[q.head] = item{}
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	q.bytes -= it.size
	q.memory.Add(-it.size)
	return it
}

func (q *Queue) dropOldest() {
	it := q.pop()
	q.lostHead += 1 + it.ev.GapBefore
	q.stats.Dropped++
	if q.n == 0 { // the gap is before what comes next
		q.lostTail += q.lostHead
		q.lostHead = 0
	}
}

// take hands the oldest event over.
func (q *Queue) take() (item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.n == 0 {
		return item{}, false
	}
	it := q.pop()
	it.ev.GapBefore += q.lostHead
	q.lostHead = 0
	if it.ev.GapBefore > 0 {
		q.stats.Gaps++
	}
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	return it, true
}

// LostByBroker counts messages that the broker dropped before the tap saw
// them; n < 0 means that an unknown number was.
func (q *Queue) LostByBroker(n int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case n < 0:
		q.stats.DroppedByBroker = -1
		q.stats.Gaps++
	case n > 0:
		q.lostTail += n
		if q.stats.DroppedByBroker >= 0 {
			q.stats.DroppedByBroker += n
		}
	}
}

// SetResumable says whether the tap waits for room (true) or drops.
func (q *Queue) SetResumable(resumable bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.resumable = resumable
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
}

// Ask says what is to be kept of bodies: the stricter of policy and the
// configured one, and at most maxBody bytes where that is not 0.
func (q *Queue) Ask(policy controlbus.BodyPolicy, maxBody int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.policy, q.maxBody = policy, maxBody
}

// Position is that after which a resumable tap goes on.
func (q *Queue) Position() Position {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last
}

// begin sets the position of a queue that has none.
func (q *Queue) begin(pos Position) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last == (Position{}) {
		q.last = pos
	}
}

// Stats returns the present counts.
func (q *Queue) Stats() QueueStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stats
}

// Close refuses further events; what the queue holds is still exported. With
// forget the tap's position is dropped too: it ended for good, and one that is
// asked for later begins anew.
func (q *Queue) Close(forget bool) {
	q.mu.Lock()
	q.closed, q.forget = true, forget
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// finished says that nothing will ever come out of the queue again.
func (q *Queue) finished() (done, forget bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed && q.n == 0, q.forget
}
