package broker_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/demo/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStreamsSurviveARestart(t *testing.T) {
	cfg := broker.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"}
	visit := func(do func(jetstream.JetStream)) {
		t.Helper()
		b, err := broker.New(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Stop()
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		nc, err := nats.Connect(b.URL(), nats.Timeout(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		do(js)
	}
	visit(func(js jetstream.JetStream) {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), "s.one", []byte("kept")); err != nil {
			t.Fatal(err)
		}
	})
	visit(func(js jetstream.JetStream) {
		s, err := js.Stream(t.Context(), "S")
		if err != nil {
			t.Fatal(err)
		}
		msg, err := s.GetMsg(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(msg.Data); got != "kept" {
			t.Errorf("message after restart: got %q, want %q", got, "kept")
		}
	})
}

func TestRefusesTheNetwork(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "192.0.2.1:4222", ":4222", "nonsense"} {
		if _, err := broker.New(broker.Config{Dir: t.TempDir(), Addr: addr}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("address %q was accepted", addr)
		}
	}
}
