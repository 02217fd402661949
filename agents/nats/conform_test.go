package nats_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"testing"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// TestVerbs runs the suite of the verbs that commands are built of. A stream with
// interest retention stores nothing before somebody reads it, so it is left out.
func TestVerbs(t *testing.T) {
	// Headers count towards the payload: 1 MiB beside them is more than the default.
	t.Run("packaged", func(t *testing.T) {
		testVerbs(t, newBench(t, broker.NATSWith(t, "max_payload: 4MB").URL, ""))
	})
	t.Run("embedded", func(t *testing.T) {
		testVerbs(t, newBench(t, broker.NATSEmbedded(t, func(o *natsserver.Options) { o.MaxPayload = 4 << 20 }).URL, ""))
	})
}

func testVerbs(t *testing.T, b *bench) {
	for name, retention := range map[string]jetstream.RetentionPolicy{"limits": jetstream.LimitsPolicy, "work queue": jetstream.WorkQueuePolicy} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(b.url)
			must(t, err)
			proxy := agenttest.NewProxy(t, u.Host)
			agenttest.TestVerbs(t, agenttest.Verbs{
				New: func(*testing.T) agents.Adapter {
					return nats.New("nats-test", identity(), config("nats://"+proxy.Addr()), slog.New(slog.DiscardHandler))
				},
				Channel: func(t *testing.T) string {
					return b.stream(t, retention, func(c *jetstream.StreamConfig) { c.Subjects = []string{c.Name + ".in"} }).CachedInfo().Config.Name
				},
				Waiting: func(t *testing.T, channel string) int64 { return b.waiting(t, channel) },
				Remove: func(t *testing.T, channel string) {
					if err := b.js.DeleteStream(t.Context(), channel); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
						t.Fatal(err)
					}
				},
				Missing: fmt.Sprintf("NOSUCH%d", serial.Add(1)),
				Fields: []agents.Field{
					{Key: "text", Value: "ü ☃"}, {Key: "many", Value: "1"}, {Key: "many", Value: "2"}, {Key: "Many", Value: "3"},
					{Key: "empty", Value: ""}, {Key: "bytes", Value: []byte{0xff, 0x01, 0xfe}}, {Key: "sb-hops", Value: "agent@channel;1"},
				},
				NoProperties: true,
				Cut:          func(*testing.T) { proxy.Cut() }, Heal: func(*testing.T) { proxy.Heal() },
			})
		})
	}
}

// waiting is what the consumer furthest behind has not dealt with, or all that is
// stored where nobody reads.
func (b *bench) waiting(t *testing.T, stream string) int64 {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	must(t, err)
	info := s.CachedInfo()
	if info.State.Consumers == 0 || info.Config.Retention != jetstream.LimitsPolicy {
		return int64(info.State.Msgs)
	}
	var n int64
	list := s.ListConsumers(t.Context())
	for c := range list.Info() {
		n = max(n, int64(c.NumPending)+int64(c.NumAckPending))
	}
	must(t, list.Err())
	return n
}
