// Package detect is what passing traffic tells: for now the 10 s panes of each
// channel, added up from a fixed range of the durable queue so that they are
// stored exactly once with the rows they count.
package detect

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// PaneStep is the length of a pane.
const PaneStep = 10 * time.Second

// Panes adds up message events. It is used by one goroutine at a time.
type Panes struct {
	panes map[paneKey]*storage.Pane
}

type paneKey struct {
	time                                      int64
	env, system, broker, destination, service string
	op                                        controlbus.Op
}

// NewPanes returns an empty set.
func NewPanes() *Panes { return &Panes{panes: make(map[paneKey]*storage.Pane)} }

// Add counts one event. The event's strings may be views.
func (p *Panes) Add(ev *controlbus.MessageEvent) {
	key := paneKey{
		time: ev.Time - ev.Time%int64(PaneStep), env: ev.Env, system: ev.System, broker: ev.Broker,
		destination: ev.Destination, service: ev.Service, op: ev.Op,
	}
	pane := p.panes[key]
	if pane == nil {
		// The key is kept, so it must own its strings.
		key.env, key.system, key.broker = strings.Clone(key.env), strings.Clone(key.system), strings.Clone(key.broker)
		key.destination, key.service = strings.Clone(key.destination), strings.Clone(key.service)
		pane = &storage.Pane{
			Time: key.time, Env: key.env, System: key.system, Broker: key.broker,
			Destination: key.destination, Service: key.service, Op: key.op,
		}
		p.panes[key] = pane
	}
	pane.Count++
	pane.Bytes += uint64(max(0, ev.BodySize))
	if ev.Outcome != controlbus.OutcomeOK {
		pane.Failed++
	}
	if ev.LatencyNs > 0 {
		ns := uint64(ev.LatencyNs)
		pane.LatencySumNs += ns
		pane.LatencyMaxNs = max(pane.LatencyMaxNs, ns)
		pane.LatencyN++
		if pane.Latency == nil {
			pane.Latency = make(map[uint8]uint64)
		}
		pane.Latency[LatencyBucket(ns)]++
	}
}

// All returns the panes in a fixed order, so that the same events always make
// the same block, and forgets them.
func (p *Panes) All() []*storage.Pane {
	all := make([]*storage.Pane, 0, len(p.panes))
	for _, pane := range p.panes {
		all = append(all, pane)
	}
	clear(p.panes)
	slices.SortFunc(all, func(a, b *storage.Pane) int {
		return cmp.Or(
			cmp.Compare(a.Time, b.Time), cmp.Compare(a.Env, b.Env), cmp.Compare(a.System, b.System), cmp.Compare(a.Broker, b.Broker),
			cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Op, b.Op),
		)
	})
	return all
}

// Latency buckets are exponential: eight to an octave, so a value is known to
// within 9 %, from 1 µs (bucket 0) to about 66 minutes (bucket 255).
const (
	bucketsPerOctave = 8
	bucketOffset     = 80 // 8*log2(1024 ns)
)

// LatencyBucket is the bucket of a duration in nanoseconds.
func LatencyBucket(ns uint64) uint8 {
	if ns == 0 {
		return 0
	}
	b := int(math.Floor(bucketsPerOctave*math.Log2(float64(ns)))) - bucketOffset
	return uint8(min(max(b, 0), math.MaxUint8))
}

// BucketNs is the middle of a bucket in nanoseconds.
func BucketNs(b uint8) float64 {
	return math.Exp2((float64(b) + bucketOffset + 0.5) / bucketsPerOctave)
}
