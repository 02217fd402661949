package fault

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/program"
)

// receiver is a collector reduced to its promise towards agents: what it
// acknowledged it has, and a batch that comes again changes nothing.
type receiver struct {
	mu        sync.Mutex
	high      map[string]uint64 // highest batch per sender
	seen      map[int64]int     // how often each position was stored
	uids      map[string]bool
	resent    int
	refuse    bool
	swallow   int // requests that are stored and never answered
	swallowed int
	changed   chan struct{}
}

func newReceiver() *receiver {
	return &receiver{high: map[string]uint64{}, seen: map[int64]int{}, uids: map[string]bool{}, changed: make(chan struct{}, 1)}
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != "/v1/logs" {
		_, _ = io.Copy(io.Discard, req.Body) // metrics and reports are not counted here
		_, _ = io.WriteString(w, "{}")
		return
	}
	r.mu.Lock()
	refuse := r.refuse
	r.mu.Unlock()
	if refuse {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	logs, err := readLogs(req)
	if err != nil {
		// Cut off in the middle: the agent died while it sent.
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := r.store(req.Header.Get(controlbus.HeaderSender), req.Header.Get(controlbus.HeaderBatch), logs)
	if !answer {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func readLogs(req *http.Request) (plogotlp.ExportRequest, error) {
	logs := plogotlp.NewExportRequest()
	var body io.Reader = req.Body
	if req.Header.Get("Content-Encoding") == "zstd" {
		z, err := zstd.NewReader(req.Body)
		if err != nil {
			return logs, err
		}
		defer z.Close()
		body = z
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return logs, err
	}
	return logs, logs.UnmarshalProto(b)
}

func (r *receiver) store(sender, batch string, logs plogotlp.ExportRequest) (answer bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := strconv.ParseUint(batch, 10, 64)
	high, known := r.high[sender]
	if err == nil && known && n <= high {
		r.resent++
	} else {
		r.high[sender] = n
		for _, rl := range logs.Logs().ResourceLogs().All() {
			for _, sl := range rl.ScopeLogs().All() {
				for _, rec := range sl.LogRecords().All() {
					if rec.EventName() != controlbus.EventMessage {
						continue
					}
					pos, _ := rec.Attributes().Get(controlbus.AttrPosition)
					uid, _ := rec.Attributes().Get(controlbus.AttrUID)
					r.seen[pos.Int()]++
					r.uids[uid.AsString()] = true
				}
			}
		}
	}
	select {
	case r.changed <- struct{}{}:
	default:
	}
	if r.swallow > 0 {
		r.swallow--
		r.swallowed++
		return false
	}
	return true
}

// first is the lowest position that arrived, and has says whether every one
// from there to last did.
func (r *receiver) state(last uint64) (first int64, whole bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pos := range r.seen {
		if first == 0 || pos < first {
			first = pos
		}
	}
	return first, first > 0 && int64(len(r.seen)) == int64(last)-first+1
}

// TestFaultAgent kills the agent in the middle of its work, while the collector
// refuses for a while, or takes a batch and dies before it says so.
func TestFaultAgent(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and kills them")
	}
	src := newSource(t)
	recv := newReceiver()
	srv := httptest.NewServer(recv)
	t.Cleanup(srv.Close)
	agent := &victim{t: t, name: program.Agent, args: []string{"-config", agentConfig(t, src.url, srv.URL)}}
	agent.start()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	awaitTap(ctx, t, src, func() bool { first, _ := recv.state(0); return first > 0 }, agent)

	n := size()
	lasts := time.Duration(n) * 400 * time.Microsecond // 2,500 a second, whatever the size
	troubled, calm := context.WithCancel(ctx)
	var faults sync.WaitGroup
	faults.Go(func() {
		chaos(troubled, 700*time.Millisecond,
			func(rng *rand.Rand) {
				agent.kill()
				_ = sleep(troubled, time.Duration(rng.Int64N(int64(500*time.Millisecond))))
				agent.start()
			},
			func(rng *rand.Rand) {
				recv.mu.Lock()
				recv.swallow = 1 + rng.IntN(3)
				recv.mu.Unlock()
			},
			func(rng *rand.Rand) {
				recv.set(true)
				_ = sleep(troubled, time.Duration(rng.Int64N(int64(time.Second))))
				recv.set(false)
			},
			func(*rand.Rand) { // both at once: a batch is stored, and nobody knows
				recv.mu.Lock()
				recv.swallow = 1
				recv.mu.Unlock()
				agent.kill()
				agent.start()
			})
	})
	err := src.publish(ctx, n, lasts)
	calm()
	faults.Wait()
	if err != nil {
		t.Fatal(err)
	}
	last, err := src.last(ctx)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(2 * time.Minute)
	for {
		if _, whole := recv.state(last); whole {
			break
		}
		select {
		case <-recv.changed:
		case <-deadline:
			first, _ := recv.state(last)
			t.Fatalf("got %d distinct messages, want %d", len(recv.seen), int64(last)-first+1)
		}
	}

	first, _ := recv.state(last)
	recv.mu.Lock()
	defer recv.mu.Unlock()
	want := int(int64(last) - first + 1)
	twice := 0
	for _, times := range recv.seen {
		if times > 1 {
			twice++
		}
	}
	t.Logf("%d messages sent; agent killed %d times; %d batches unanswered, %d came again",
		want, agent.kills, recv.swallowed, recv.resent)
	if want < n {
		t.Errorf("only %d of at least %d messages were expected: the tap began too late", want, n)
	}
	if len(recv.uids) != want {
		t.Errorf("distinct uids: got %d, want %d", len(recv.uids), want)
	}
	if twice > 0 {
		t.Errorf("%d messages are in the store twice", twice)
	}
	if agent.kills < 3 || recv.swallowed == 0 {
		t.Errorf("the test was too kind: %d kills, %d batches unanswered", agent.kills, recv.swallowed)
	}
}

func (r *receiver) set(refuse bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = refuse
}

// awaitTap publishes until something arrives: from then on nothing may be
// missing, because the tap has a position it goes on from.
func awaitTap(ctx context.Context, t *testing.T, src *source, arrived func() bool, v *victim) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !arrived() {
		select {
		case <-v.proc.Done():
			t.Fatalf("%s ended:\n%s", v.name, v.proc.Output())
		default:
		}
		if err := src.tick(ctx); err != nil {
			t.Fatalf("no tapped message arrived: %v\n%s", err, v.proc.Output())
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			t.Fatalf("no tapped message arrived in a minute\n%s", v.proc.Output())
		}
	}
}
