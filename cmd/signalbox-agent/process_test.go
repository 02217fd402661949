package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/storage"
)

// receiver is a console as far as an agent sees one: it takes reports, and
// exports as an Idempotent Receiver.
type receiver struct {
	mu    sync.Mutex
	last  map[string]uint64
	seen  map[controlbus.ID]int // by uid
	bad   []string
	event controlbus.MessageEvent // the last, for its shape
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // killed in the middle
	}
	switch req.URL.Path {
	case "/v1/agents/report":
		_, _ = io.WriteString(w, `{"revision":1,"taps":[]}`)
		return
	case "/v1/logs":
	default:
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	sender := req.Header.Get(controlbus.HeaderSender)
	batch, err := strconv.ParseUint(req.Header.Get(controlbus.HeaderBatch), 10, 64)
	if err != nil {
		r.bad = append(r.bad, err.Error())
	}
	if batch <= r.last[sender] {
		return
	}
	r.last[sender] = batch
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		r.bad = append(r.bad, err.Error())
		return
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(body, nil)
	if err == nil {
		err = telemetry.NewDecoder(telemetry.DefaultLimits()).Decode(telemetry.Logs, plain, 0, r)
	}
	if err != nil {
		r.bad = append(r.bad, err.Error())
	}
}

// Message is called with the mutex held.
func (r *receiver) Message(ev *controlbus.MessageEvent) {
	r.seen[ev.UID]++
	r.event = controlbus.MessageEvent{Env: ev.Env, System: ev.System, Broker: ev.Broker, Op: ev.Op}
}
func (r *receiver) Log(*storage.Log)             {}
func (r *receiver) Span(*storage.Span)           {}
func (r *receiver) Sample(*storage.Sample, bool) {}
func (r *receiver) Resource(*storage.Resource)   {}
func (r *receiver) Invalid(reason string, _ []byte) {
	r.bad = append(r.bad, reason)
}

// The built program over a real JetStream, killed again and again: every
// message of the stream arrives, once.
func TestKilledProgramLosesNothingOfAStream(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds and kills real processes")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "signalbox-agent")
	_ = os.Getenv("SIGNALBOX_TEST_RUN") // keeps the result out of the test cache (test/run.sh)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	broker, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	broker.Start()
	t.Cleanup(func() { broker.Shutdown(); broker.WaitForShutdown() })
	if !broker.ReadyForConnections(10 * time.Second) {
		t.Fatal("NATS does not start")
	}
	nc, err := nats.Connect(broker.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 55*time.Second)
	defer cancel()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}

	rec := &receiver{last: map[string]uint64{}, seen: map[controlbus.ID]int{}}
	srv := httptest.NewServer(rec)
	t.Cleanup(srv.Close)
	file := filepath.Join(dir, "agent.yaml")
	config := fmt.Sprintf("agent: {id: a1, env: test, data_dir: %q}\nconsole: {url: %q}\nbrokers:\n- name: n1\n  type: nats\n  options: {urls: [%q]}\n  taps: [{channel: ORDERS}]\n",
		filepath.Join(dir, "data"), srv.URL, broker.ClientURL())
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func() *exec.Cmd {
		cmd := exec.Command(bin, "--config", file)
		log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer log.Close()
		cmd.Stderr = log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	count := func() int {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		return len(rec.seen)
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			if ctx.Err() != nil {
				log, _ := os.ReadFile(filepath.Join(dir, "log"))
				t.Fatalf("%s: %d arrived\n%s", what, count(), log[max(0, len(log)-3000):])
			}
			time.Sleep(20 * time.Millisecond) // a poll of another process
		}
	}

	// A tap begins with what is published once it is ready, so the first
	// messages only wait for that; then the count begins.
	cmd := run()
	published := 0
	wait("the first message", func() bool {
		if _, err := js.Publish(ctx, "orders.first", []byte("first")); err != nil {
			t.Fatal(err)
		}
		return count() > 0
	})
	first := 0
	wait("the first messages", func() bool {
		n := count()
		settled := n == first
		first = n
		if !settled {
			time.Sleep(300 * time.Millisecond) // longer than a batch lingers
		}
		return settled
	})
	const messages = 20_000
	sent := make(chan error, 1)
	go func() {
		for n := range messages {
			if _, err := js.PublishAsync("orders.new", fmt.Appendf(nil, `{"n":%d}`, n)); err != nil {
				sent <- err
				return
			}
			published++
			if n%200 == 0 {
				time.Sleep(25 * time.Millisecond) // some 8,000 a second, so that kills fall in between
			}
		}
		<-js.PublishAsyncComplete()
		sent <- nil
	}()
	for range 5 {
		time.Sleep(200*time.Millisecond + rand.N(400*time.Millisecond)) // the moment of the kill, not a wait
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		cmd = run()
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	wait("all messages", func() bool { return count() >= first+messages })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the agent's end: %v", err)
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if len(rec.seen) != first+messages {
		t.Errorf("%d distinct uids of %d messages", len(rec.seen), first+messages)
	}
	copies := 0
	for _, n := range rec.seen {
		copies += n
	}
	t.Logf("%d messages, %d copies accepted, 5 kills", len(rec.seen), copies)
	if copies != len(rec.seen) {
		t.Errorf("%d copies of %d messages were accepted", copies, len(rec.seen))
	}
	for _, b := range rec.bad {
		t.Error(b)
	}
	if want := (controlbus.MessageEvent{Env: "test", System: "nats", Broker: "n1", Op: controlbus.OpTap}); rec.event.Env != want.Env || rec.event.System != want.System || rec.event.Broker != want.Broker || rec.event.Op != want.Op {
		t.Errorf("event: %+v", rec.event)
	}
	if info, err := js.Stream(ctx, "ORDERS"); err == nil {
		if s, err := info.Info(ctx); err == nil && s.State.Consumers > 5 {
			t.Errorf("%d consumers are left on the stream; only those of killed agents, until they expire, may be", s.State.Consumers)
		}
	}
}
