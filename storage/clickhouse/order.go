package clickhouse

import (
	"bytes"
	"container/heap"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// order sorts the events of a conversation by cause before time. Clocks of
// different machines disagree by more than a message takes, so what must have
// come first does come first: an attempt's send before its receive before its
// process before its settle, and a parent span before its children. Everything
// else goes by corrected time.
//
//	time order        1 receive   2 send   3 process
//	                       └───── before ─────┘ (send < receive < process)
//	causal order      1 send      2 receive   3 process
func order(events []storage.ConversationEvent) []storage.ConversationEvent {
	g := newGraph(events)
	g.chain()
	g.parents()
	return g.sorted()
}

// stage is an operation's place in the life of a message. A tap has none: it
// may sit before or behind any of them.
func stage(op controlbus.Op) int {
	switch op {
	case controlbus.OpCreate:
		return 1
	case controlbus.OpSend:
		return 2
	case controlbus.OpReceive:
		return 3
	case controlbus.OpProcess:
		return 4
	case controlbus.OpSettle:
		return 5
	}
	return 0
}

const (
	stages   = 6
	maxEdges = 10_000 // between two stages of one attempt
)

// attempt is one delivery of one message on one channel by one consumer.
type attempt struct {
	message, channel string
	delivery         int
}

type graph struct {
	events []storage.ConversationEvent
	after  [][]int // event to those that must follow it
	before []int   // how many must still come before an event
}

func newGraph(events []storage.ConversationEvent) *graph {
	return &graph{events: events, after: make([][]int, len(events)), before: make([]int, len(events))}
}

func (g *graph) edge(from, to int) {
	g.after[from] = append(g.after[from], to)
	g.before[to]++
}

// chain puts the stages of every attempt in their order. Sending happens once,
// before all attempts.
func (g *graph) chain() {
	sends := make(map[attempt][]int)
	attempts := make(map[attempt]*[stages][]int)
	for i := range g.events {
		var key attempt
		var op controlbus.Op
		switch e := &g.events[i]; {
		case e.Message != nil:
			key = attempt{message: e.Message.MessageID, channel: e.Message.Destination, delivery: max(e.Message.Delivery, 1)}
			op = e.Message.Op
		case e.Span != nil:
			key = attempt{message: e.Span.MessageID, channel: e.Span.Destination, delivery: 1}
			op = e.Span.Op
		}
		at := stage(op)
		if key.message == "" || at == 0 {
			continue
		}
		if at <= stage(controlbus.OpSend) {
			key.delivery = 0
			sends[key] = append(sends[key], i)
			continue
		}
		a := attempts[key]
		if a == nil {
			a = new([stages][]int)
			attempts[key] = a
		}
		a[at] = append(a[at], i)
	}
	for key, a := range attempts {
		key.delivery = 0
		last := sends[key]
		for _, list := range a {
			// A producer that gives all its messages one id must not make
			// millions of edges; then time has to do.
			if len(list) == 0 || len(last)*len(list) > maxEdges {
				continue
			}
			for _, from := range last {
				for _, to := range list {
					g.edge(from, to)
				}
			}
			last = list
		}
	}
}

// parents puts every span before the spans it started, and before the message
// events that happened within it.
func (g *graph) parents() {
	spans := make(map[spanKey]int)
	for i := range g.events {
		if s := g.events[i].Span; s != nil && s.SpanID != ([8]byte{}) {
			spans[spanKey{s.TraceID, s.SpanID}] = i
		}
	}
	for i := range g.events {
		if s := g.events[i].Span; s != nil && s.ParentID != ([8]byte{}) {
			if p, ok := spans[spanKey{s.TraceID, s.ParentID}]; ok && p != i {
				g.edge(p, i)
			}
		}
	}
}

// sorted takes, again and again, the earliest event that waits for none. When
// all that are left wait for one another (a forged parent may form a circle),
// the earliest of them goes next.
func (g *graph) sorted() []storage.ConversationEvent {
	out := make([]storage.ConversationEvent, 0, len(g.events))
	ready := &queue{g: g}
	all := &queue{g: g}
	done := make([]bool, len(g.events))
	for i := range g.events {
		if g.before[i] == 0 {
			ready.list = append(ready.list, i)
		}
		all.list = append(all.list, i)
	}
	heap.Init(ready)
	heap.Init(all)
	for len(out) < len(g.events) {
		from := ready
		if ready.Len() == 0 {
			from = all
		}
		i := heap.Pop(from).(int)
		if done[i] {
			continue
		}
		done[i] = true
		out = append(out, g.events[i])
		for _, next := range g.after[i] {
			if g.before[next]--; g.before[next] == 0 && !done[next] {
				heap.Push(ready, next)
			}
		}
	}
	return out
}

// queue is a heap of event numbers, earliest first.
type queue struct {
	g    *graph
	list []int
}

func (q *queue) Len() int      { return len(q.list) }
func (q *queue) Swap(i, j int) { q.list[i], q.list[j] = q.list[j], q.list[i] }
func (q *queue) Push(x any)    { q.list = append(q.list, x.(int)) }

func (q *queue) Pop() any {
	last := len(q.list) - 1
	x := q.list[last]
	q.list = q.list[:last]
	return x
}

func (q *queue) Less(i, j int) bool {
	a, b := &q.g.events[q.list[i]], &q.g.events[q.list[j]]
	if !a.At.Equal(b.At) {
		return a.At.Before(b.At)
	}
	if sa, sb := eventStage(a), eventStage(b); sa != sb {
		return sa < sb
	}
	ua, ub := eventID(a), eventID(b)
	return bytes.Compare(ua[:], ub[:]) < 0
}

func eventStage(e *storage.ConversationEvent) int {
	switch {
	case e.Message != nil:
		return stage(e.Message.Op)
	case e.Span != nil:
		return stage(e.Span.Op)
	}
	return stages
}

func eventID(e *storage.ConversationEvent) (id controlbus.ID) {
	switch {
	case e.Message != nil:
		return e.Message.UID
	case e.Log != nil:
		return e.Log.UID
	case e.Span != nil:
		copy(id[:], e.Span.SpanID[:])
	}
	return id
}
