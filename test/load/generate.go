// Package load fills a store with believable traffic and measures the queries
// the console's pages stand on. The same seed makes the same messages, so that
// figures of different days can be compared.
package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/collector/detect"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Config says what to generate.
type Config struct {
	Seed     uint64
	Messages int           // message events
	Span     time.Duration // over which they are spread, ending at End
	End      time.Time
	Batch    int // rows an insert has
	Bodies   bool
}

// DefaultConfig is the ten million messages of the acceptance figures.
func DefaultConfig() Config {
	return Config{Seed: 1, Messages: 10_000_000, Span: 24 * time.Hour, End: time.Now().UTC().Truncate(time.Second), Batch: 50_000, Bodies: true}
}

// step is one hop of the order flow: who does what on which channel.
type step struct {
	channel, service string
	op               controlbus.Op
	delay, work      time.Duration // typical, before and during
}

// flow is what happens to an order: each message is tapped on its channel, two
// of them are also told of by the service that processed them.
var flow = []step{
	{"orders.new", "shop", controlbus.OpTap, 0, 0},
	{"orders.new", "orders", controlbus.OpProcess, 5 * time.Millisecond, 20 * time.Millisecond},
	{"payments.requested", "orders", controlbus.OpTap, 40 * time.Millisecond, 0},
	{"payments.requested", "payment", controlbus.OpProcess, 5 * time.Millisecond, 120 * time.Millisecond},
	{"shipping.%s", "payment", controlbus.OpTap, 200 * time.Millisecond, 0},
}

var regions = [...]string{"eu", "us", "jp", "br", "in"}

// Generator makes events one conversation after the other, in order of time.
type Generator struct {
	cfg    Config
	rng    *rand.Rand
	n      int
	order  int
	events []controlbus.MessageEvent
	body   []byte
}

// NewGenerator begins at the first message.
func NewGenerator(cfg Config) *Generator {
	return &Generator{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x5ba1)), events: make([]controlbus.MessageEvent, len(flow))}
}

// Start is the time of the first message.
func (g *Generator) Start() time.Time { return g.cfg.End.Add(-g.cfg.Span) }

// shops are the tenants' own order channels; a few do most of the business.
const shops = 60

// Order returns the events of the next conversation. They are valid until the
// next call.
func (g *Generator) Order() []controlbus.MessageEvent {
	orders := max(g.cfg.Messages/len(flow), 1)
	start := g.Start().UnixNano()
	span := int64(g.cfg.Span) - int64(2*time.Second)
	at := start + int64(float64(span)*float64(g.order)/float64(orders)) + g.rng.Int64N(1e6)
	shop := int(math.Min(shops-1, g.rng.ExpFloat64()*8))
	region := regions[g.rng.IntN(len(regions))]
	correlation := CorrelationID(g.cfg.Seed, g.order)
	trace := TraceID(g.cfg.Seed, g.order)
	tenant := fmt.Sprintf("tenant-%03d", shop*3+g.rng.IntN(3))
	var previous string
	for i := range g.events {
		st := &flow[i]
		e := &g.events[i]
		at += int64(float64(st.delay) * (0.5 + g.rng.ExpFloat64()))
		*e = controlbus.MessageEvent{
			Time: at, AgentTime: at + int64(g.rng.IntN(8e6)), TimeSource: controlbus.TimeBroker,
			Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Destination: st.channel, Op: st.op, Service: st.service,
			RoutingKey: "order." + region, Position: int64(g.n), Delivery: 1,
			CorrelationID: correlation, TraceID: trace, CausationID: previous,
			ContentType: "application/json", Tap: "tap-1", Headers: e.Headers[:0],
		}
		switch i {
		case 0, 1:
			e.Destination = fmt.Sprintf("orders.shop-%02d", shop)
		case 4:
			e.Destination = "shipping." + region
		}
		binary.BigEndian.PutUint64(e.SpanID[:], mix(g.cfg.Seed, uint64(g.n)))
		e.MessageID = MessageID(g.cfg.Seed, g.order, i)
		if st.op == controlbus.OpProcess {
			e.Tap, e.ConsumerGroup = "", st.service
			e.TimeSource = controlbus.TimeProducer
			e.LatencyNs = int64(float64(st.work) * (0.2 + g.rng.ExpFloat64()))
			if g.rng.IntN(200) == 0 {
				e.Outcome, e.ErrorType = controlbus.OutcomeFailed, "payment.Timeout"
			}
		} else {
			previous = e.MessageID
			g.body = fmt.Appendf(g.body[:0], `{"order":%d,"customer":%d,"currency":"EUR","total":%d.%02d,"region":%q,"lines":[{"sku":"A-%04d","n":%d},{"sku":"B-%04d","n":1}],"note":"please ring twice","at":%d}`,
				g.order, g.rng.IntN(50_000), g.rng.IntN(500), g.rng.IntN(100), region, g.rng.IntN(10_000), 1+g.rng.IntN(4), g.rng.IntN(777), at)
			e.BodySize = int64(len(g.body))
			if g.cfg.Bodies {
				e.Body = append([]byte(nil), g.body...)
			}
		}
		e.UID = controlbus.HashID("load", e.MessageID, e.Op.String())
		e.Headers = append(e.Headers,
			controlbus.Header{Key: "x-tenant", Value: tenant},
			controlbus.Header{Key: "x-schema", Value: "order/3"},
			controlbus.Header{Key: "app_id", Value: st.service},
			controlbus.Header{Key: "traceparent", Value: fmt.Sprintf("00-%x-%x-01", e.TraceID, e.SpanID)},
		)
		g.n++
	}
	g.order++
	return g.events
}

// mix spreads numbers over 64 bits (splitmix64), so that ids look random and
// can still be told from their number.
func mix(seed, n uint64) uint64 {
	z := seed*0x9e3779b97f4a7c15 + (n+1)*0xbf58476d1ce4e5b9
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// CorrelationID is that of the n-th order.
func CorrelationID(seed uint64, n int) string {
	return fmt.Sprintf("order-%016x", mix(seed, uint64(n)))
}

// MessageID is that of the message of a step; the step that processes a
// message has the id of the message before it.
func MessageID(seed uint64, order, step int) string {
	if flow[step].op == controlbus.OpProcess {
		step--
	}
	a := mix(seed, uint64(order*len(flow)+step))
	return fmt.Sprintf("0192f0c1-%04x-7%03x-%04x-%012x", a>>48, a>>36&0xfff, a>>20&0xffff, mix(a, 7)&0xffffffffffff)
}

// TraceID is that of the n-th order.
func TraceID(seed uint64, n int) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], mix(seed+1, uint64(n)))
	binary.BigEndian.PutUint64(id[8:], mix(seed+2, uint64(n)))
	return id
}

// Channels a fill writes to, busiest first.
func Channels() []string {
	list := []string{"payments.requested"}
	for _, r := range regions {
		list = append(list, "shipping."+r)
	}
	for i := range shops {
		list = append(list, fmt.Sprintf("orders.shop-%02d", i))
	}
	return list
}

// spanEvery is the share of conversations that are traced with spans.
const spanEvery = 10

// Fill writes what cfg says, the way the collector does: in batches with a
// token, panes beside the messages they count. Filling twice stores it once.
// Progress is called after each batch with the number of messages written.
func Fill(ctx context.Context, sink collector.Sink, cfg Config, progress func(int)) error {
	g := NewGenerator(cfg)
	panes := detect.NewPanes()
	b := sink.NewBatch()
	flush := func(number int) error {
		for _, p := range panes.All() {
			b.AppendPane(p)
		}
		// The number of rows is part of what the token names.
		token := fmt.Sprintf("load/%d/%d/%d/%d/%d", cfg.Seed, cfg.Messages, cfg.End.Unix(), cfg.Batch, number)
		if err := sink.Write(ctx, token, b); err != nil {
			return fmt.Errorf("load: batch %d: %w", number, err)
		}
		b.Reset()
		if progress != nil {
			progress(min(g.n, cfg.Messages))
		}
		return nil
	}
	number, rows, sampled := 0, 0, g.Start().UnixNano()
	for g.n < cfg.Messages {
		events := g.Order()
		for i := range events {
			b.AppendMessage(&events[i])
			panes.Add(&events[i])
		}
		if g.order%spanEvery == 0 {
			appendSpans(b, events)
		}
		for ; sampled < events[0].Time; sampled += int64(sampleEvery) {
			appendSamples(b, sampled, g.n)
		}
		if rows += len(events); rows >= cfg.Batch {
			if err := flush(number); err != nil {
				return err
			}
			number, rows = number+1, 0
		}
	}
	if b.Rows() == 0 {
		return nil
	}
	return flush(number)
}

func appendSpans(b collector.Batch, events []controlbus.MessageEvent) {
	for i := range events {
		e := &events[i]
		s := storage.Span{
			Time: e.Time, DurationNs: uint64(max(e.LatencyNs, 1e6)), TraceID: e.TraceID, SpanID: e.SpanID, Env: e.Env, Service: e.Service,
			Name: e.Op.String() + " " + e.Destination, Kind: 4, System: e.System, Destination: e.Destination,
			MessageID: e.MessageID, CorrelationID: e.CorrelationID, Op: e.Op,
			Attrs: []storage.Attr{{Key: controlbus.AttrMessageID, Value: e.MessageID}},
		}
		if e.Op == controlbus.OpProcess {
			s.Kind = 5
			s.Links = []storage.SpanLink{{TraceID: e.TraceID, SpanID: events[i-1].SpanID}}
		}
		b.AppendSpan(&s)
	}
}

const sampleEvery = 15 * time.Second

// appendSamples is what an agent says of every channel's state.
func appendSamples(b collector.Batch, at int64, n int) {
	for i, ch := range Channels() {
		labels := []storage.Attr{
			{Key: controlbus.AttrEnvironment, Value: "production"}, {Key: controlbus.AttrBroker, Value: "rabbit-eu1"},
			{Key: controlbus.AttrDestination, Value: ch}, {Key: controlbus.AttrSystem, Value: "rabbitmq"},
			{Key: controlbus.AttrChannelKind, Value: "queue"},
		}
		for j, m := range []string{controlbus.MetricChannelMessages, controlbus.MetricChannelConsumers, controlbus.MetricChannelPublished, controlbus.MetricChannelDelivered} {
			kind, value := "gauge", float64((n/100+i*7)%50)
			if j >= 2 {
				kind, value = "counter", float64(n/len(Channels()))
			}
			b.AppendSample(&storage.Sample{Metric: m, Series: mix(uint64(j), uint64(i)), Kind: kind, Time: at, Value: value, Labels: labels})
		}
	}
}
