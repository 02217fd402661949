package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/collector/detect"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// A world is a company's traffic, the same for the same seed: conversations of
// five messages over forty channels of two brokers, spread evenly over a time
// range. Ids follow from a conversation's number, so that queries can ask for
// some that exist without remembering any.
type world struct {
	seed          uint64
	from, to      time.Time
	conversations int
}

const perConversation = 5

// flows are the channels a conversation of each kind passes, in order.
var flows = makeFlows()

func makeFlows() [][perConversation]controlbus.ChannelName {
	steps := [perConversation]string{"placed", "checked", "paid", "packed", "notified"}
	var all [][perConversation]controlbus.ChannelName
	for i, area := range []string{"orders", "returns", "subscriptions", "vouchers", "gifts", "repairs", "b2b", "samples"} {
		var flow [perConversation]controlbus.ChannelName
		for j, step := range steps {
			flow[j] = controlbus.ChannelName{Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Name: area + "." + step}
			if (i+j)%2 == 1 {
				flow[j].System, flow[j].Broker = "nats", "nats-eu1"
			}
		}
		all = append(all, flow)
	}
	return all
}

func (w world) at(i int) time.Time {
	return w.from.Add(time.Duration(float64(w.to.Sub(w.from)) * float64(i) / float64(w.conversations)))
}

// flow of a conversation: the first kinds are far more frequent than the last.
func (w world) flow(i int) int {
	r := w.rand(i, 1)
	return int(float64(len(flows)) * r.Float64() * r.Float64())
}

func (w world) rand(i int, salt uint64) *rand.Rand {
	return rand.New(rand.NewPCG(w.seed, uint64(i)<<8|salt))
}

func (w world) correlationID(i int) string   { return fmt.Sprintf("ORD-%d-%09d", w.seed, i) }
func (w world) messageID(i, step int) string { return fmt.Sprintf("%d-%09d-%d", w.seed, i, step) }
func (w world) traceID(i int) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:], w.seed+1)
	binary.BigEndian.PutUint64(id[8:], uint64(i)*0x9e3779b97f4a7c15)
	return id
}

// conversation fills events with the messages of conversation i. The events are
// reused by the next call.
func (w world) conversation(i int, events *[perConversation]controlbus.MessageEvent) {
	r := w.rand(i, 2)
	at := w.at(i)
	flow := flows[w.flow(i)]
	trace := w.traceID(i)
	correlation := w.correlationID(i)
	tenant := fmt.Sprintf("tenant-%02d", r.IntN(40))
	for step := range events {
		at = at.Add(time.Duration(r.ExpFloat64() * float64(400*time.Millisecond)))
		ch := flow[step]
		ev := &events[step]
		body := fmt.Appendf(ev.Body[:0],
			`{"orderId":%q,"paymentId":9007199254740%06d,"step":%q,"amount":{"value":"%d.%02d","currency":"EUR"},`+
				`"customer":{"id":%d,"region":"EU-DE","email":"c%d@example.org"},"items":[{"sku":"TEA-%04d","qty":%d,"price":"24.95"},{"sku":"POT-%04d","qty":1,"price":"80.00"}],`+
				`"delivery":{"carrier":"parcel","window":"09-12","note":"please ring twice at number %d"}}`,
			correlation, r.IntN(1e6), ch.Name, r.IntN(400), r.IntN(100), r.IntN(5e6), r.IntN(5e6), r.IntN(3000), 1+r.IntN(4), r.IntN(900), r.IntN(300))
		*ev = controlbus.MessageEvent{
			Time: at.UnixNano(), AgentTime: at.Add(3 * time.Millisecond).UnixNano(), TimeSource: controlbus.TimeProducer,
			Env: ch.Env, System: ch.System, Broker: ch.Broker, Destination: ch.Name, Op: controlbus.OpTap,
			RoutingKey: ch.Name, Position: int64(i), MessageID: w.messageID(i, step), CorrelationID: correlation,
			TraceID: trace, SpanID: [8]byte(binary.BigEndian.AppendUint64(nil, r.Uint64())),
			ContentType: "application/json", Tap: "all", LatencyNs: int64(r.ExpFloat64() * 8e6),
			Body: body, BodySize: int64(len(body)),
			UID: controlbus.HashID("load", w.messageID(i, step)),
			Headers: append(ev.Headers[:0],
				controlbus.Header{Key: "message_id", Value: w.messageID(i, step)},
				controlbus.Header{Key: "correlation_id", Value: correlation},
				controlbus.Header{Key: "content_type", Value: "application/json"},
				controlbus.Header{Key: "x-tenant", Value: tenant},
				controlbus.Header{Key: "x-attempts", Value: "1"},
				controlbus.Header{Key: "x-producer", Value: fmt.Sprintf("pod-%02d", r.IntN(30))}),
		}
		if step > 0 {
			ev.CausationID = w.messageID(i, step-1)
		}
		if r.IntN(100) == 0 {
			ev.Outcome, ev.ErrorType, ev.DeadLetterReason = controlbus.OutcomeDeadLettered, "GatewayTimeout", "rejected"
		}
	}
}

// span of a conversation's step, as the service that sent the message told it.
func (w world) span(i, step int, ev *controlbus.MessageEvent) storage.Span {
	return storage.Span{
		Time: ev.Time - 2e6, DurationNs: 2e6 + uint64(ev.LatencyNs), TraceID: ev.TraceID, SpanID: ev.SpanID,
		Env: ev.Env, Service: fmt.Sprintf("service-%d", step), Name: "send " + ev.Destination, Kind: 4,
		System: ev.System, Destination: ev.Destination, MessageID: ev.MessageID, CorrelationID: ev.CorrelationID, Op: controlbus.OpSend,
	}
}

// samplesEvery is the interval of the channels' statistics.
const samplesEvery = 10 * time.Second

// channelSamples appends what agents would have said of every channel at a time.
func channelSamples(b collector.Batch, at time.Time) {
	for _, flow := range flows {
		for _, ch := range flow {
			labels := []storage.Attr{
				{Key: controlbus.AttrEnvironment, Value: ch.Env}, {Key: controlbus.AttrDestination, Value: ch.Name},
				{Key: controlbus.AttrSystem, Value: ch.System}, {Key: controlbus.AttrBroker, Value: ch.Broker},
			}
			for _, m := range []struct {
				name, kind string
				value      float64
			}{
				{controlbus.MetricChannelMessages, "gauge", float64(at.Unix() / 10 % 60)},
				{controlbus.MetricChannelConsumers, "gauge", 4},
				{controlbus.MetricChannelPublished, "counter", float64(at.Unix() % 1e6)},
			} {
				id := controlbus.HashID(m.name, ch.Broker, ch.Name)
				b.AppendSample(&storage.Sample{
					Metric: m.name, Series: binary.BigEndian.Uint64(id[:]), Kind: m.kind, Labels: labels,
					Time: at.UnixNano(), Value: m.value,
				})
			}
		}
	}
}

// fill writes the world into sink, in blocks of batchRows messages.
func (w world) fill(ctx context.Context, sink collector.Sink, batchRows int, progress func(messages int)) error {
	batches := make(chan numbered, 1)
	free := make(chan collector.Batch, 2)
	free <- sink.NewBatch()
	free <- sink.NewBatch()
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for b := range batches {
			if err := sink.Write(ctx, fmt.Sprintf("load-%d-%d-%d-%d", w.seed, w.conversations, w.from.Unix(), b.number), b.batch); err != nil {
				failed <- err
				for range batches { // let the builder end
				}
				return
			}
			progress(b.messages)
			b.batch.Reset()
			free <- b.batch
		}
	}()

	var events [perConversation]controlbus.MessageEvent
	panes := detect.NewPanes()
	nextSamples := w.from.Truncate(samplesEvery)
	number, inBatch := 0, 0
	b := <-free
	flush := func() bool {
		for _, p := range panes.All() {
			b.AppendPane(p)
		}
		select {
		case batches <- numbered{number, inBatch, b}:
		case <-ctx.Done():
			return false
		}
		number, inBatch = number+1, 0
		select {
		case b = <-free:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for i := range w.conversations {
		w.conversation(i, &events)
		for at := w.at(i); !nextSamples.After(at); nextSamples = nextSamples.Add(samplesEvery) {
			channelSamples(b, nextSamples)
		}
		for step := range events {
			b.AppendMessage(&events[step])
			panes.Add(&events[step])
		}
		if i%10 == 0 {
			s := w.span(i, 0, &events[0])
			b.AppendSpan(&s)
		}
		if inBatch += perConversation; inBatch >= batchRows && !flush() {
			break
		}
	}
	if inBatch > 0 && ctx.Err() == nil {
		select {
		case batches <- numbered{number, inBatch, b}:
		case <-ctx.Done():
		}
	}
	close(batches)
	if err := <-failed; err != nil {
		return err
	}
	return ctx.Err()
}

type numbered struct {
	number, messages int
	batch            collector.Batch
}
