package agents_test

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// childEnv makes the test binary an agent: its value is childConfig as JSON.
const childEnv = "SIGNALBOX_TEST_AGENT"

type childConfig struct {
	Dir, URL string
	Messages int
	Rate     int // per second; 0 as fast as the agent takes them
	Size     int // of a body
	// Head names a file with the newest number there is. A tap without a position
	// begins after it, as those of brokers do, instead of at the first number.
	Head string
}

// child runs a real agent over a counter until it is killed.
func child() {
	var c childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	debug.SetMemoryLimit(48 << 20) // as the program does
	cfg := agents.DefaultConfig()
	cfg.Agent.ID, cfg.Agent.DataDir, cfg.Console.URL = "crash", c.Dir, c.URL
	cfg.Brokers = []agents.BrokerConfig{{
		Name: "b", Taps: []controlbus.TapSpec{{Channel: "numbers"}},
		New: func(agents.Identity, *slog.Logger) (agents.Adapter, error) { return &counter{c}, nil },
	}}
	a, err := agents.New(cfg, "test", slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err == nil {
		err = a.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// counter is a broker with one endless, resumable stream of numbers.
type counter struct{ childConfig }

func (c *counter) System() string { return "counter" }
func (c *counter) Connect(context.Context) (agents.Product, error) {
	return agents.Product{Name: "Counter", Version: "1"}, nil
}
func (c *counter) Observe(context.Context, pmetric.Metrics) error { return nil }
func (c *counter) Close(context.Context) error                    { return nil }
func (c *counter) Channels(context.Context, string) ([]string, error) {
	return []string{"numbers"}, nil
}
func (c *counter) PlanTap(_ context.Context, channel string) (agents.TapPlan, error) {
	return agents.TapPlan{Channel: channel, Technique: "count", Resumable: true}, nil
}

func (c *counter) Tap(ctx context.Context, _ agents.TapPlan, from agents.Position, out agents.TapSink, ready func()) error {
	if c.Head != "" {
		head, err := os.ReadFile(c.Head)
		if err != nil {
			return err
		}
		newest, err := strconv.Atoi(string(head))
		if err != nil {
			return err
		}
		if c.Messages = newest; from == (agents.Position{}) {
			from = agents.Position{Stream: "s", Seq: uint64(newest)}
			if err := out.Begin(ctx, from); err != nil {
				return err
			}
		}
	}
	ready()
	began := time.Now()
	pad := strings.Repeat("0123456789abcdef", c.Size/16)
	for n := from.Seq + 1; n <= uint64(c.Messages); n++ {
		if c.Rate > 0 && n%20 == 0 {
			due := began.Add(time.Duration(n-from.Seq) * time.Second / time.Duration(c.Rate))
			select {
			case <-time.After(time.Until(due)):
			case <-ctx.Done():
				return nil
			}
		}
		now := time.Now().UnixNano()
		ev := &controlbus.MessageEvent{
			Time: now, AgentTime: now, TimeSource: controlbus.TimeBroker, Op: controlbus.OpTap, Position: int64(n),
			MessageID: strconv.FormatUint(n, 10), Body: fmt.Appendf(nil, "%d %s", n, pad),
			Headers: []controlbus.Header{{Key: "content-type", Value: "text/plain"}, {Key: "x-tenant", Value: "acme"}},
		}
		ev.BodySize = int64(len(ev.Body))
		if err := out.Put(ctx, ev, agents.Position{Stream: "s", Seq: n}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return nil
}

// console takes exports and reports over HTTP, as a collector with an
// Idempotent Receiver would, and refuses some of them.
type console struct {
	mu     sync.Mutex
	flaky  int // percent of requests that are refused
	last   map[string]uint64
	uids   map[string]string // number -> uid
	total  int
	other  []string         // what went wrong
	report controlbus.Agent // the last
}

func (c *console) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == link.Path {
		var a controlbus.Agent
		if json.NewDecoder(req.Body).Decode(&a) == nil {
			c.mu.Lock()
			c.report = a
			c.mu.Unlock()
		}
		_, _ = io.WriteString(w, `{"revision":1,"taps":[]}`)
		return
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the agent was killed in the middle
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if rand.IntN(100) < c.flaky {
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	sender := req.Header.Get(controlbus.HeaderSender)
	batch, _ := strconv.ParseUint(req.Header.Get(controlbus.HeaderBatch), 10, 64)
	if batch <= c.last[sender] {
		return
	}
	c.last[sender] = batch
	if !strings.HasSuffix(req.URL.Path, "/logs") {
		return
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		c.other = append(c.other, err.Error())
		return
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(body, nil)
	r := plogotlp.NewExportRequest()
	if err := cmp.Or(err, r.UnmarshalProto(plain)); err != nil {
		c.other = append(c.other, err.Error())
		return
	}
	for _, rl := range r.Logs().ResourceLogs().All() {
		for _, sl := range rl.ScopeLogs().All() {
			for _, lr := range sl.LogRecords().All() {
				c.total++
				id, _ := lr.Attributes().Get(controlbus.AttrMessageID)
				uid, _ := lr.Attributes().Get(controlbus.AttrUID)
				if old, ok := c.uids[id.Str()]; ok && old != uid.Str() {
					c.other = append(c.other, "message "+id.Str()+" came with two uids")
				}
				c.uids[id.Str()] = uid.Str()
			}
		}
	}
}

func (c *console) counts() (distinct, total int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.uids), c.total
}

func startChild(t *testing.T, c childConfig) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(b))
	if testing.Verbose() {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// An agent killed at any moment loses no message of a tap that can resume, and
// what it reads again keeps its uid.
func TestKilledAgentLosesNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("kills real processes")
	}
	srvState := &console{flaky: 10, last: map[string]uint64{}, uids: map[string]string{}}
	srv := httptest.NewServer(srvState)
	defer srv.Close()
	c := childConfig{Dir: t.TempDir(), URL: srv.URL, Messages: 60_000, Rate: 15_000, Size: 100}
	kills := 0
	for ; kills < 8; kills++ {
		cmd := startChild(t, c)
		time.Sleep(150*time.Millisecond + rand.N(350*time.Millisecond)) // the moment of the kill, not a wait
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	cmd := startChild(t, c)
	deadline := time.Now().Add(50 * time.Second)
	for {
		distinct, total := srvState.counts()
		if distinct == c.Messages {
			t.Logf("%d messages, %d copies, %d kills", distinct, total, kills)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d messages arrived", distinct, c.Messages)
		}
		time.Sleep(20 * time.Millisecond) // a poll of another process
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the agent's end: %v", err)
	}
	srvState.mu.Lock()
	defer srvState.mu.Unlock()
	for _, o := range srvState.other {
		t.Error(o)
	}
	uids := map[string]bool{}
	for _, u := range srvState.uids {
		uids[u] = true
	}
	if len(uids) != c.Messages {
		t.Errorf("%d distinct uids of %d messages", len(uids), c.Messages)
	}
	if srvState.total != c.Messages {
		// Positions are in the same record as the messages, so the collector,
		// which knows the batches, sees every message exactly once.
		t.Errorf("%d copies of %d messages were accepted", srvState.total, c.Messages)
	}
}

// An agent killed between a tap's start and its first message goes on from
// where the tap began: what was published meanwhile is seen after the restart.
func TestKilledBeforeTheFirstMessage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("kills real processes")
	}
	srvState := &console{last: map[string]uint64{}, uids: map[string]string{}}
	srv := httptest.NewServer(srvState)
	defer srv.Close()
	dir := t.TempDir()
	c := childConfig{Dir: dir, URL: srv.URL, Rate: 15_000, Size: 100, Head: filepath.Join(dir, "head")}
	head := func(n int) {
		t.Helper()
		if err := os.WriteFile(c.Head, []byte(strconv.Itoa(n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(what string, ok func() bool) {
		t.Helper()
		deadline := time.Now().Add(30 * time.Second)
		for !ok() {
			if time.Now().After(deadline) {
				t.Fatalf("waited 30s for %s", what)
			}
			time.Sleep(5 * time.Millisecond) // a poll of another process
		}
	}
	head(100)
	cmd := startChild(t, c)
	wait("the tap to run", func() bool {
		srvState.mu.Lock()
		defer srvState.mu.Unlock()
		taps := srvState.report.Taps
		return len(taps) == 1 && taps[0].State == controlbus.TapRunning
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	head(150) // published while nobody looked
	startChild(t, c)
	wait("what was published meanwhile", func() bool {
		distinct, _ := srvState.counts()
		return distinct >= 50
	})
	srvState.mu.Lock()
	defer srvState.mu.Unlock()
	for n := 101; n <= 150; n++ {
		if srvState.uids[strconv.Itoa(n)] == "" {
			t.Errorf("message %d is missing", n)
		}
	}
	if len(srvState.uids) != 50 {
		t.Errorf("%d messages arrived, want 101 to 150", len(srvState.uids))
	}
}

// BenchmarkAgent is a whole agent as a process at 20,000 messages of 500 bytes
// a second; it reports what the process keeps in memory.
func BenchmarkAgent(b *testing.B) {
	for b.Loop() {
		srvState := &console{last: map[string]uint64{}, uids: map[string]string{}}
		srv := httptest.NewServer(srvState)
		c := childConfig{Dir: b.TempDir(), URL: srv.URL, Messages: 1 << 40, Rate: 20_000, Size: 500}
		js, _ := json.Marshal(c)
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+string(js))
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		time.Sleep(10 * time.Second)
		n, _ := srvState.counts()
		rate := float64(n) / time.Since(began).Seconds()
		peak := status(b, cmd.Process.Pid, "VmHWM")
		now := status(b, cmd.Process.Pid, "VmRSS")
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		srv.Close()
		b.ReportMetric(rate, "msg/s")
		b.ReportMetric(float64(peak)/1024, "peak-MiB")
		b.ReportMetric(float64(now)/1024, "rss-MiB")
		b.ReportMetric(cpu.Seconds()/time.Since(began).Seconds(), "cores")
	}
}

func status(b *testing.B, pid int, key string) int {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("no /proc here")
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), key+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	b.Fatalf("no %s of process %d", key, pid)
	return 0
}
