// Package fault kills the real programs with kill -9, again and again, and
// counts what is left: everything that was sent, and nothing twice.
package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/demo/broker"
	"github.com/signalbox-dev/signalbox/test/program"
)

func TestMain(m *testing.M) { program.Main(m) }

const (
	stream   = "LOAD"
	agentEnv = "fault"
)

// size is how many messages a run sends: enough to be in the middle of
// something at every kill, or a million where there is time.
func size() int {
	if os.Getenv("SIGNALBOX_SOAK") == "1" {
		return 1_000_000
	}
	return 50_000
}

// seed makes a failed run repeatable as far as processes can be.
const seed = 20260901

// source is a JetStream stream that is published to at a steady pace.
type source struct {
	url string
	js  jetstream.JetStream
}

func newSource(t *testing.T) *source {
	t.Helper()
	b, err := broker.New(broker.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(b.URL(), nats.Timeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: stream, Subjects: []string{"load.>"}}); err != nil {
		t.Fatal(err)
	}
	return &source{url: b.URL(), js: js}
}

// publish sends n messages over at least d and returns when the broker has all.
func (s *source) publish(ctx context.Context, n int, d time.Duration) error {
	begin := time.Now()
	const burst = 500
	for i := 0; i < n; i += burst {
		for k := i; k < min(i+burst, n); k++ {
			m := nats.NewMsg(fmt.Sprintf("load.%d", k%7))
			m.Header["Correlation-Id"] = []string{fmt.Sprintf("conversation-%d", k/5)}
			m.Data = fmt.Appendf(nil, `{"n":%d,"orderId":"ORD-%d","text":"a body of about the size that messages have, so that batches are real"}`, k, k)
			// A busy machine may keep the broker waiting; that is no failure.
			if _, err := s.js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute)); err != nil {
				return fmt.Errorf("publish: %w", err)
			}
		}
		due := time.Duration(float64(d) * float64(min(i+burst, n)) / float64(n))
		if err := sleep(ctx, due-time.Since(begin)); err != nil {
			return err
		}
	}
	select {
	case <-s.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tick publishes one message: the way to see whether a tap is in place.
func (s *source) tick(ctx context.Context) error {
	_, err := s.js.Publish(ctx, "load.tick", []byte(`{"tick":true}`))
	return err
}

// last is the sequence number of the newest message.
func (s *source) last(ctx context.Context) (uint64, error) {
	st, err := s.js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	info, err := st.Info(ctx)
	if err != nil {
		return 0, err
	}
	return info.State.LastSeq, nil
}

// victim is a program that is killed and started again with the same data.
type victim struct {
	t     *testing.T
	name  string
	env   []string
	args  []string
	alone bool // kill it alone and leave its children to themselves

	mu    sync.Mutex
	proc  *program.Process
	kills int
}

func (v *victim) start() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.proc = program.Start(v.t, v.name, v.env, v.args...)
}

func (v *victim) kill() {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.proc.Done():
		// It is not supposed to end by itself, whatever happens to the others.
		v.t.Errorf("%s ended by itself:\n%s", v.name, v.proc.Output())
	default:
	}
	if v.alone {
		v.proc.KillAlone()
	} else {
		v.proc.Kill()
	}
	v.kills++
}

func (v *victim) pid() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.proc.PID()
}

// chaos runs the faults, one at a time at seeded moments, until ctx ends, and
// returns when the last one is over.
func chaos(ctx context.Context, gap time.Duration, faults ...func(*rand.Rand)) {
	rng := rand.New(rand.NewPCG(seed, 1))
	for turn := 0; ; turn++ {
		if sleep(ctx, time.Duration((.5+rng.Float64())*float64(gap))) != nil {
			return
		}
		faults[turn%len(faults)](rng)
	}
}

// agentConfig writes an agent's configuration.
func agentConfig(t *testing.T, broker, console string) string {
	t.Helper()
	dir := t.TempDir()
	// YAML reads JSON; no quoting to get wrong.
	text, err := json.Marshal(map[string]any{
		"agent":   map[string]any{"id": "fault-agent", "env": agentEnv, "data_dir": filepath.Join(dir, "data")},
		"console": map[string]any{"url": console, "report_interval": "1s"},
		"brokers": []any{map[string]any{
			"name": "nats-fault", "type": "nats",
			"taps":    []any{map[string]any{"id": "load", "channel": stream}},
			"options": map[string]any{"urls": []string{broker}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
