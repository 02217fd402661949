package probe

import (
	"sync"
	"sync/atomic"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Watcher sees messages as they come in and tells those who wait for a test
// message. It is a collector.Live; while nobody waits it costs one load.
type Watcher struct {
	waiting atomic.Int64
	mu      sync.Mutex
	runs    map[string]*watch
}

type watch struct {
	in, out controlbus.ChannelName
	seen    chan Arrival
}

// Arrival is a marked message as a tap saw it.
type Arrival struct {
	Event *controlbus.MessageEvent // a copy
	// Output says that it was seen at the output channel, else at the input.
	Output bool
}

// NewWatcher returns a watcher nobody waits at.
func NewWatcher() *Watcher { return &Watcher{runs: map[string]*watch{}} }

// Active says whether anybody waits.
func (w *Watcher) Active() bool { return w.waiting.Load() > 0 }

// Watch waits for the messages of a run until stop is called. The channel holds a
// few sightings; later ones are of no interest.
func (w *Watcher) Watch(run string, in, out controlbus.ChannelName) (seen <-chan Arrival, stop func()) {
	one := &watch{in: in, out: out, seen: make(chan Arrival, 8)}
	w.mu.Lock()
	w.runs[run] = one
	w.mu.Unlock()
	w.waiting.Add(1)
	return one.seen, sync.OnceFunc(func() {
		w.mu.Lock()
		delete(w.runs, run)
		w.mu.Unlock()
		w.waiting.Add(-1)
	})
}

// Publish looks through messages that have come in. It keeps none of them and
// does not block.
func (w *Watcher) Publish(events []*controlbus.MessageEvent) {
	if !w.Active() {
		return
	}
	for _, e := range events {
		run := mark(e)
		if run == "" && e.CorrelationID == "" {
			continue
		}
		w.mu.Lock()
		one := w.runs[run]
		if one == nil {
			// An application that answers need not copy headers it does not know;
			// the correlation id is the same.
			one = w.runs[e.CorrelationID]
		}
		w.mu.Unlock()
		if one == nil {
			continue
		}
		at := func(c controlbus.ChannelName) bool {
			return c.Name != "" && e.Destination == c.Name && e.Broker == c.Broker && (c.Env == "" || e.Env == c.Env)
		}
		// Where input and output are one channel the message has arrived.
		output := at(one.out)
		if !output && !at(one.in) {
			continue
		}
		select {
		case one.seen <- Arrival{Event: e.Clone(), Output: output}:
		default:
		}
	}
}

func mark(e *controlbus.MessageEvent) string {
	for i := range e.Headers {
		if e.Headers[i].Key == controlbus.HeaderTest {
			return e.Headers[i].Value
		}
	}
	return ""
}
