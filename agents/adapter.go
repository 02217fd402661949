// Package agents runs broker adapters: it connects them, takes their
// statistics and taps, and hands what they see to the export side.
package agents

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// ErrNotConnected is returned by an adapter's methods when the connection is
// gone. Runner then calls Connect again, with back-off.
var ErrNotConnected = errors.New("not connected")

// Adapter is one broker, seen from the agent beside it. Scheduling, retries
// and export belong to Runner, so an adapter is only the translation. Methods
// may be called concurrently after Connect has returned.
type Adapter interface {
	// System is the messaging.system value, such as "rabbitmq".
	System() string
	// Connect dials and probes product, version and rights. Runner calls it
	// again, with back-off, whenever another method returns ErrNotConnected.
	Connect(ctx context.Context) (Product, error)
	// Observe appends the broker's present channels and their state to md, in
	// the names of controlbus/semconv.go.
	Observe(ctx context.Context, md pmetric.Metrics) error
	// Close ends every connection. It returns when nothing runs any more.
	Close(ctx context.Context) error
}

// Identity is what an adapter needs to name the artefacts it makes on a
// broker: sb.<kind>.<agent>.<incarnation>.<n>.
type Identity struct {
	Agent       string // configured agent id
	Incarnation string // new at every start of the agent; lower-case letters and digits
}

// Product is what a broker says it is.
type Product struct {
	Name     string // "RabbitMQ", "NATS"
	Version  string
	Features []string
}

func (p Product) String() string { return p.Name + " " + p.Version }

// Tapper is implemented by adapters that can copy a channel's messages. The
// console offers for a broker exactly the abilities its adapter implements.
type Tapper interface {
	// Channels lists the channels whose name matches the pattern.
	Channels(ctx context.Context, pattern string) ([]string, error)
	// PlanTap says how the channel would be tapped, without touching it.
	// It wraps controlbus.ErrUnsupported, with the reason, when no technique is safe.
	PlanTap(ctx context.Context, channel string) (TapPlan, error)
	// Tap copies messages into out until ctx ends (returns nil) or the tap
	// breaks. When it returns nothing of it is left on the broker. from is the
	// position after which a resumable tap goes on; the zero Position starts
	// with what is published from now on. ready is called once the broker
	// copies messages.
	Tap(ctx context.Context, plan TapPlan, from Position, out TapSink, ready func()) error
}

// Sweeper is implemented by adapters whose artefacts can outlive a crash.
type Sweeper interface {
	// Leftovers lists artefacts of dead incarnations of this agent.
	Leftovers(ctx context.Context) ([]string, error)
}

// TapPlan is the dry run of a tap.
type TapPlan struct {
	Channel   string
	Technique string   // "mirrored-binding", "firehose", "ordered-consumer", "core-subscription"
	Artefacts []string // what will exist on the broker meanwhile
	Impact    []string // what people should know, as sentences
	// Resumable: positions are the broker's and survive a restart, so the tap
	// waits for room instead of dropping.
	Resumable bool
	// Data is the adapter's own.
	Data any
}

// Position is where a resumable tap stands: stream identity and sequence.
type Position = export.Position

// TapSink takes what a tap sees. It is safe for concurrent use.
type TapSink interface {
	// Put hands over one event, which the sink owns from then on. It fills in
	// agent, environment, broker and tap. For a resumable tap it blocks until
	// there is room or ctx ends; else it never blocks, drops the oldest event
	// and counts it.
	Put(ctx context.Context, ev *controlbus.MessageEvent, pos Position) error
	// Begin tells where a resumable tap that was given no position begins: the
	// position after which its first message will be. It returns once that is
	// durable, so that a tap killed before its first message goes on from there.
	// A tap calls it before ready.
	Begin(ctx context.Context, pos Position) error
	// LostByBroker counts messages the broker dropped before the tap saw them;
	// n < 0 means that an unknown number was.
	LostByBroker(n int64)
	// Blind counts a time during which the tap was not attached.
	Blind(d time.Duration)
}
