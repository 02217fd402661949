package export

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector answers exports in memory, so that synctest's clock drives the
// retries. It checks what every request must have.
type collector struct {
	t *testing.T

	mu       sync.Mutex
	answer   func(n int, batch uint64) (status int, header http.Header) // nil: 200
	requests []uint64                                                   // batch numbers, as they came
	times    []time.Time
	last     map[string]uint64 // by sender: the high-water mark of what was accepted
	records  []plog.LogRecord
	resource pcommon.Map
	points   int
}

func newCollector(t *testing.T) *collector { return &collector{t: t, last: map[string]uint64{}} }

func (c *collector) RoundTrip(req *http.Request) (*http.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	batch, err := strconv.ParseUint(req.Header.Get(controlbus.HeaderBatch), 10, 64)
	sent, err2 := strconv.ParseInt(req.Header.Get(controlbus.HeaderSentAt), 10, 64)
	sender := req.Header.Get(controlbus.HeaderSender)
	if err != nil || err2 != nil || time.Unix(0, sent).After(time.Now()) || !strings.HasPrefix(sender, "a1/") || req.Header.Get("Content-Encoding") != "zstd" {
		c.t.Errorf("headers %v", req.Header)
	}
	c.requests, c.times = append(c.requests, batch), append(c.times, time.Now())
	if c.answer != nil {
		status, header := c.answer(len(c.requests), batch)
		if status == 0 {
			return nil, errors.New("connection refused")
		}
		if status != http.StatusOK {
			return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: header, Body: io.NopCloser(strings.NewReader("because"))}, nil
		}
	}
	body, _ := io.ReadAll(req.Body)
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		c.t.Error(err)
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(body, nil)
	if err != nil {
		c.t.Errorf("batch %d: %v", batch, err)
	}
	if batch <= c.last[sender] { // the Idempotent Receiver
		return ok(), nil
	}
	c.last[sender] = batch
	switch req.URL.Path {
	case "/v1/logs":
		r := plogotlp.NewExportRequest()
		if err := r.UnmarshalProto(plain); err != nil {
			c.t.Errorf("batch %d: %v", batch, err)
		}
		for _, rl := range r.Logs().ResourceLogs().All() {
			c.resource = rl.Resource().Attributes()
			for _, sl := range rl.ScopeLogs().All() {
				for _, lr := range sl.LogRecords().All() {
					c.records = append(c.records, lr)
				}
			}
		}
	case "/v1/metrics":
		r := pmetricotlp.NewExportRequest()
		if err := r.UnmarshalProto(plain); err != nil {
			c.t.Errorf("batch %d: %v", batch, err)
		}
		c.points += r.Metrics().DataPointCount()
	default:
		c.t.Errorf("path %s", req.URL.Path)
	}
	return ok(), nil
}

func ok() *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(bytes.NewReader(nil))}
}

func (c *collector) set(answer func(n int, batch uint64) (int, http.Header)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

// bodies are those of the accepted records, in their order.
func (c *collector) bodies() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, r := range c.records {
		out = append(out, string(r.Body().Bytes().AsRaw()))
	}
	return out
}

func exporter(t *testing.T, dir string, c http.RoundTripper, edit func(*Config)) *Exporter {
	t.Helper()
	cfg := DefaultConfig()
	cfg.MaxBytes = 16 << 20
	if edit != nil {
		edit(&cfg)
	}
	x, err := New(Options{
		Config: cfg, Redaction: DefaultRedaction(), Dir: dir, URL: "http://console:8470/", Agent: "a1", Env: "test",
		Host: "h", Version: "v", HTTP: &http.Client{Transport: c}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// start runs the exporter until the returned function is called.
func start(t *testing.T, x *Exporter) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := x.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	return func() { cancel(); <-done }
}

func event(n int) *controlbus.MessageEvent {
	body := fmt.Sprintf("m%04d", n)
	return &controlbus.MessageEvent{UID: controlbus.HashID(body), Time: int64(n), System: "fake", Broker: "b", Destination: "q", Op: controlbus.OpTap, Position: -1, Body: []byte(body), BodySize: 5}
}

func put(t *testing.T, q *Queue, from, to int, resumable bool) {
	t.Helper()
	for n := from; n < to; n++ {
		var pos Position
		if resumable {
			pos = Position{"s", uint64(n)}
		}
		if err := q.Put(t.Context(), event(n), pos); err != nil {
			t.Fatal(err)
		}
	}
}

func numbered(from, to int) (out []string) {
	for n := from; n < to; n++ {
		out = append(out, fmt.Sprintf("m%04d", n))
	}
	return out
}

func rising(t *testing.T, batches []uint64) {
	t.Helper()
	for i := 1; i < len(batches); i++ {
		if batches[i] < batches[i-1] {
			t.Errorf("batch numbers fall: %v", batches)
			return
		}
	}
}

func TestEventsArriveWholeAndInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t)
		x := exporter(t, dir, c, func(c *Config) { c.BatchMessages = 7 })
		stop := start(t, x)
		q := x.Open("b/q")
		ev := event(0)
		ev.TraceID, ev.SpanID, ev.AgentTime, ev.TimeSource = [16]byte{1}, [8]byte{2}, 99, controlbus.TimeBroker
		ev.MessageID, ev.CorrelationID, ev.CausationID, ev.ReplyTo = "mid", "cid", "cause", "reply"
		ev.Position, ev.Delivery, ev.Outcome, ev.GapBefore = 1<<40, 3, controlbus.OutcomeDeadLettered, 5
		ev.Headers = []controlbus.Header{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}, {Key: "Cookie", Value: "x"}, {Key: "bin", Value: "\xff\x00"}}
		if err := q.Put(t.Context(), ev, Position{}); err != nil {
			t.Fatal(err)
		}
		put(t, q, 1, 100, false)
		time.Sleep(time.Second)
		stop()
		if diff := cmp.Diff(numbered(0, 100), c.bodies()); diff != "" {
			t.Fatal(diff)
		}
		rising(t, c.requests)
		for key, want := range map[string]string{
			controlbus.AttrEnvironment: "test", controlbus.AttrServiceInstance: "a1", controlbus.AttrSystem: "fake", controlbus.AttrBroker: "b",
		} {
			if v, _ := c.resource.Get(key); v.Str() != want {
				t.Errorf("%s of the resource: got %q, want %q", key, v.Str(), want)
			}
		}
		r := c.records[0]
		want := map[string]any{
			controlbus.AttrUID: hex.EncodeToString(ev.UID[:]), controlbus.AttrDestination: "q",
			controlbus.AttrOperationType: "tap", controlbus.AttrOperationName: "tap", controlbus.AttrOutcome: "dead_lettered", controlbus.AttrTimeSource: "broker",
			controlbus.AttrPosition: int64(1 << 40), controlbus.AttrDelivery: int64(3), controlbus.AttrMessageID: "mid",
			controlbus.AttrConversationID: "cid", controlbus.AttrCausationID: "cause", controlbus.AttrReplyTo: "reply",
			controlbus.AttrBodySize: int64(5), controlbus.AttrGapBefore: int64(5), controlbus.AttrRedacted: []any{"header cookie"},
		}
		got := r.Attributes().AsRaw()
		delete(got, controlbus.AttrHeaders)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		if r.EventName() != controlbus.EventMessage || r.ObservedTimestamp() != 99 || r.TraceID() != [16]byte{1} || r.SpanID() != [8]byte{2} {
			t.Errorf("record: event %q, observed %d, trace %v, span %v", r.EventName(), r.ObservedTimestamp(), r.TraceID(), r.SpanID())
		}
		h, _ := r.Attributes().Get(controlbus.AttrHeaders)
		var headers []string
		for k, v := range h.Map().All() {
			text := v.Str()
			if v.Type() == pcommon.ValueTypeBytes {
				text = string(v.Bytes().AsRaw())
			}
			headers = append(headers, k+"="+text)
		}
		if diff := cmp.Diff([]string{"a=1", "a=2", "Cookie=***", "bin=\xff\x00"}, headers); diff != "" {
			t.Errorf("headers: %s", diff)
		}
		if s := x.Status(); s.Records != 0 || s.Error != "" || s.SentLast.IsZero() {
			t.Errorf("status after all was sent: %+v", s)
		}
	})
}

func TestCollectorAwayAndBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t)
		c.set(func(int, uint64) (int, http.Header) { return 0, nil })
		x := exporter(t, dir, c, nil)
		stop := start(t, x)
		q := x.Open("b/q")
		for i := range 60 { // an hour of one batch a minute
			put(t, q, 10*i, 10*i+10, false)
			time.Sleep(time.Minute)
		}
		if s := x.Status(); s.Records != 60 || s.Error == "" || s.Bytes == 0 {
			t.Errorf("status while the collector is away: %+v", s)
		}
		if n := len(c.requests); n < 60 || n > 200 {
			t.Errorf("%d tries in an hour, want about 120", n)
		}
		c.set(nil)
		time.Sleep(62 * time.Second)
		if diff := cmp.Diff(numbered(0, 600), c.bodies()); diff != "" {
			t.Fatal(diff)
		}
		rising(t, c.requests)
		if got := q.Stats(); got.Received != 600 || got.Dropped != 0 {
			t.Errorf("queue: %+v", got)
		}
		stop()
	})
}

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t)
		c.set(func(n int, _ uint64) (int, http.Header) {
			if n == 1 {
				return http.StatusTooManyRequests, http.Header{"Retry-After": {"77"}}
			}
			return http.StatusOK, nil
		})
		x := exporter(t, dir, c, nil)
		stop := start(t, x)
		put(t, x.Open("b/q"), 0, 1, false)
		time.Sleep(3 * time.Minute)
		stop()
		if len(c.times) != 2 || c.times[1].Sub(c.times[0]) < 77*time.Second || c.requests[0] != c.requests[1] {
			t.Errorf("tries at %v of batches %v, want the same batch again after 77s", c.times, c.requests)
		}
	})
}

func TestRefusedBatchIsSetAsideAndTheNextGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t)
		var bad uint64
		c.set(func(_ int, batch uint64) (int, http.Header) {
			if bad == 0 {
				bad = batch
			}
			if batch == bad {
				return http.StatusBadRequest, nil
			}
			return http.StatusOK, nil
		})
		x := exporter(t, dir, c, nil)
		stop := start(t, x)
		q := x.Open("b/q")
		put(t, q, 0, 3, false)
		time.Sleep(time.Second)
		put(t, q, 3, 5, false)
		time.Sleep(time.Second)
		stop()
		if diff := cmp.Diff(numbered(3, 5), c.bodies()); diff != "" {
			t.Error(diff)
		}
		counts, _ := x.Counts()
		if counts.Quarantined != 3 || counts.Exported != 2 {
			t.Errorf("counts: %+v, want 3 set aside and 2 exported", counts)
		}
		kept, err := filepath.Glob(filepath.Join(dir, "quarantine", "*-logs.zst"))
		if err != nil || len(kept) != 1 {
			t.Fatalf("quarantine has %q, %v", kept, err)
		}
		b, err := os.ReadFile(kept[0])
		if err != nil {
			t.Fatal(err)
		}
		dec, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
		defer dec.Close()
		plain, err := dec.DecodeAll(b, nil)
		r := plogotlp.NewExportRequest()
		if err != nil || r.UnmarshalProto(plain) != nil || r.Logs().LogRecordCount() != 3 {
			t.Errorf("what was set aside cannot be read: %v", err)
		}
	})
}

// A fault of the collector or of what is between must not cost messages; only
// a batch that makes it fail again and again is given up.
func TestStatusesThatSayNothingOfTheBatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status  int
		givenUp bool
	}{{401, false}, {403, false}, {404, false}, {408, false}, {429, false}, {502, false}, {503, false}, {301, false}, {500, true}, {413, true}} {
		t.Run(strconv.Itoa(c.status), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				col := newCollector(t)
				col.set(func(int, uint64) (int, http.Header) { return c.status, nil })
				x := exporter(t, dir, col, nil)
				stop := start(t, x)
				put(t, x.Open("b/q"), 0, 1, false)
				time.Sleep(time.Hour)
				col.set(nil)
				time.Sleep(2 * time.Minute)
				stop()
				counts, _ := x.Counts()
				if got := counts.Quarantined == 1; got != c.givenUp || len(col.records) == 1 == c.givenUp {
					t.Errorf("after an hour of %d: %+v, %d records arrived", c.status, counts, len(col.records))
				}
			})
		})
	}
}

func TestFullSpoolDropsOldestOrWaits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t)
		c.set(func(int, uint64) (int, http.Header) { return 0, nil })
		x := exporter(t, dir, c, func(c *Config) {
			c.MaxBytes, c.QueueMessages, c.BatchMessages = 1<<20, 50, 20
			c.MemoryBytes = 64 << 20
		})
		stop := start(t, x)
		lossy, patient := x.Open("b/lossy"), x.Open("b/patient")
		patient.SetResumable(true)

		fillers := make(chan int)
		go func() { // waits when the queue is full
			n := 0
			for ; n < 1000; n++ {
				ev := event(n)
				ev.Destination, ev.Body = "patient", noise(n)
				if patient.Put(t.Context(), ev, Position{"s", uint64(n + 1)}) != nil {
					break
				}
			}
			fillers <- n
		}()
		const sent = 1000
		for n := range sent {
			ev := event(n)
			ev.Destination, ev.Body = "lossy", noise(n)
			if err := lossy.Put(t.Context(), ev, Position{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		s := lossy.Stats()
		if s.Received != sent || s.Dropped == 0 {
			t.Errorf("a tap that drops: %+v, want all received and some dropped", s)
		}
		if s := patient.Stats(); s.Dropped != 0 || s.Received == 1000 {
			t.Errorf("a tap that waits: %+v, want none dropped and not all received yet", s)
		}
		if st := x.Status(); st.Bytes > st.MaxBytes {
			t.Errorf("spool: %d bytes of at most %d", st.Bytes, st.MaxBytes)
		}
		c.set(nil)
		if n := <-fillers; n != 1000 {
			t.Errorf("the waiting tap put %d of 1,000", n)
		}
		time.Sleep(5 * time.Minute)
		stop()
		var arrived, gaps, waited int64
		for _, r := range c.records {
			if d, _ := r.Attributes().Get(controlbus.AttrDestination); d.Str() == "patient" {
				waited++
				continue
			}
			arrived++
			if g, ok := r.Attributes().Get(controlbus.AttrGapBefore); ok {
				gaps += g.Int()
			}
		}
		if waited != 1000 {
			t.Errorf("%d of 1,000 messages of the waiting tap arrived", waited)
		}
		s = lossy.Stats()
		if arrived+s.Dropped != sent || gaps != s.Dropped || s.Gaps == 0 {
			t.Errorf("of %d sent %d arrived, %d were counted as dropped and %d in %d gaps", sent, arrived, s.Dropped, gaps, s.Gaps)
		}
	})
}

// noise does not compress.
func noise(n int) []byte {
	var b []byte
	for i := 0; len(b) < 1500; i++ {
		id := controlbus.HashID("noise", strconv.Itoa(n), strconv.Itoa(i))
		b = append(b, id[:]...)
	}
	return b
}

func TestRestartGoesOnWhereItStood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t)
		x := exporter(t, dir, c, nil)
		stop := start(t, x)
		q := x.Open("b/q")
		put(t, q, 1, 11, true)
		time.Sleep(5 * time.Second)
		c.set(func(int, uint64) (int, http.Header) { return 0, nil })
		put(t, q, 11, 21, true)
		ended := x.Open("b/ended")
		put(t, ended, 21, 23, true)
		ended.Close(true)
		time.Sleep(time.Second)
		q.Close(false)
		stop()
		for i := range 3 { // further restarts change nothing
			x = exporter(t, dir, c, nil)
			if got := x.Status().Records; got != 1 && got != 2 {
				t.Errorf("restart %d: %d records wait, want what was not sent", i, got)
			}
			if got := x.Open("b/q").Position(); got != (Position{"s", 20}) {
				t.Errorf("restart %d: position %+v, want 20", i, got)
			}
			if got := x.Open("b/ended").Position(); got != (Position{}) {
				t.Errorf("restart %d: a tap that ended has position %+v", i, got)
			}
			start(t, x)()
		}
		c.set(nil)
		x = exporter(t, dir, c, nil)
		stop = start(t, x)
		time.Sleep(2 * time.Minute)
		stop()
		if diff := cmp.Diff(numbered(1, 23), c.bodies()); diff != "" {
			t.Error(diff)
		}
		rising(t, c.requests)
	})
}

func TestMetricsGoTheSameWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := newCollector(t)
		x := exporter(t, dir, c, nil)
		stop := start(t, x)
		md := pmetric.NewMetrics()
		m := md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
		m.SetName("x")
		m.SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
		if err := errors.Join(x.Metrics(t.Context(), md), x.Metrics(t.Context(), pmetric.NewMetrics())); err != nil {
			t.Fatal(err)
		}
		put(t, x.Open("b/q"), 0, 2, false)
		time.Sleep(time.Second)
		stop()
		if c.points != 1 || len(c.records) != 2 || len(c.requests) != 2 {
			t.Errorf("%d points and %d records in %d requests, want 1, 2 and 2", c.points, len(c.records), len(c.requests))
		}
		rising(t, c.requests)
	})
}

func TestPutNeverWaitsForTapsThatDrop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { // the exporter does not run: nothing is ever taken
		x := exporter(t, dir, newCollector(t), func(c *Config) { c.QueueMessages = 10 })
		q := x.Open("b/q")
		began := time.Now()
		q.LostByBroker(4)
		put(t, q, 0, 100, false)
		if d := time.Since(began); d != 0 {
			t.Errorf("100 puts into a full queue took %v", d)
		}
		q.LostByBroker(-1)
		if got := q.Stats(); got.Received != 100 || got.Dropped != 90 || got.DroppedByBroker != -1 {
			t.Errorf("%+v", got)
		}
		it, _ := q.take()
		if it.ev.GapBefore != 94 || string(it.ev.Body) != "m0090" {
			t.Errorf("oldest left is %q with a gap of %d, want m0090 with 94", it.ev.Body, it.ev.GapBefore)
		}
		q.SetResumable(true)
		put(t, q, 100, 101, true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := q.Put(ctx, event(0), Position{"s", 1}); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("a full resumable queue: got %v after %v, want to wait for the whole minute", err, time.Since(began))
		}
		q.Close(false)
		if err := q.Put(t.Context(), event(0), Position{}); !errors.Is(err, controlbus.ErrUnavailable) {
			t.Errorf("a closed queue: got %v", err)
		}
		start(t, x)()
	})
}

func FuzzSpoolRecord(f *testing.F) {
	good, err := appendRecord(nil, record{logs, 3, map[string]Position{"b/q": {"s", 7}}, []byte("body")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{1, 1, 0, 0})
	f.Add([]byte{1, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		again, err := appendRecord(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if r2, err := parseRecord(again); err != nil || !cmp.Equal(r.positions, r2.positions) || !bytes.Equal(r.body, r2.body) || r.count != r2.count {
			t.Errorf("%x: read %+v, then %+v, %v", b, r, r2, err)
		}
	})
}
