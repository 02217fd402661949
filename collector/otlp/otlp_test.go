package otlp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/collector/otlp"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// keeper is a Consumer that keeps what it was given and is well formed.
type keeper struct {
	mu    sync.Mutex
	got   []collector.Request
	res   collector.Result
	err   error
	panic bool
	hold  chan struct{} // where set, Consume waits for it
}

func (k *keeper) Consume(ctx context.Context, r collector.Request) (collector.Result, error) {
	if k.hold != nil {
		select {
		case <-k.hold:
		case <-ctx.Done():
			return collector.Result{}, ctx.Err()
		}
	}
	if k.panic {
		panic("boom")
	}
	if err := telemetry.NewDecoder(telemetry.DefaultLimits()).Decode(telemetry.Signal(r.Signal), r.Payload, 1, nothing{}); err != nil {
		return collector.Result{}, err
	}
	r.Payload = bytes.Clone(r.Payload)
	r.ReceivedAt = time.Time{}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.got = append(k.got, r)
	return k.res, k.err
}

// nothing is a Visitor that looks away.
type nothing struct{}

func (nothing) Message(*controlbus.MessageEvent) {}
func (nothing) Log(*storage.Log)                 {}
func (nothing) Span(*storage.Span)               {}
func (nothing) Sample(*storage.Sample, bool)     {}
func (nothing) Resource(*storage.Resource)       {}
func (nothing) Invalid(string, []byte)           {}

func receiver(cfg otlp.Config, k *keeper) *otlp.Receiver {
	return otlp.New(cfg, k, metrics.NewSet(), slog.New(slog.DiscardHandler))
}

func logs(body string) plogotlp.ExportRequest {
	ld := plog.NewLogs()
	rl := ld.ResourceLogs().AppendEmpty()
	rl.Resource().Attributes().PutStr("service.name", "shop")
	lr := rl.ScopeLogs().AppendEmpty().LogRecords().AppendEmpty()
	lr.SetEventName(controlbus.EventMessage)
	lr.Body().SetStr(body)
	lr.Attributes().PutEmptyMap("signalbox.headers").PutStr("x", "y")
	return plogotlp.NewExportRequestFromLogs(ld)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func gzipped(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	must(z.Write(b))
	if err := z.Close(); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func zstandard(b []byte) []byte {
	z := must(zstd.NewWriter(nil))
	defer z.Close()
	return z.EncodeAll(b, nil)
}

func post(h http.Handler, path, kind, encoding string, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, path, body)
	req.Header.Set("Content-Type", kind)
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

const (
	protobuf = "application/x-protobuf"
	jsonType = "application/json"
)

func TestEveryEncodingDeliversTheSameBytes(t *testing.T) {
	t.Parallel()
	wire := must(logs("hello").MarshalProto())
	text := must(logs("hello").MarshalJSON())
	for _, c := range []struct {
		name, kind, encoding string
		body                 []byte
	}{
		{"protobuf", protobuf, "", wire},
		{"protobuf gzip", protobuf, "gzip", gzipped(wire)},
		{"protobuf zstd", protobuf, "zstd", zstandard(wire)},
		{"json", jsonType, "", text},
		{"json with charset", jsonType + "; charset=utf-8", "identity", text},
		{"json gzip", jsonType, "gzip", gzipped(text)},
		{"json zstd", jsonType, "zstd", zstandard(text)},
	} {
		k := &keeper{}
		h := receiver(otlp.DefaultConfig(), k).Handler()
		for range 2 { // the second reuses the decoder
			if w := post(h, "/v1/logs", c.kind, c.encoding, bytes.NewReader(c.body),
				controlbus.HeaderSender, "a/1", controlbus.HeaderBatch, "7", controlbus.HeaderSentAt, "5"); w.Code != http.StatusOK {
				t.Errorf("%s: got %d %s", c.name, w.Code, w.Body)
			}
		}
		one := collector.Request{Signal: collector.Logs, Payload: wire, Sender: "a/1", Batch: 7, SentAt: 5}
		if diff := cmp.Diff([]collector.Request{one, one}, k.got); diff != "" {
			t.Errorf("%s: request (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestPartialSuccessCountsWhatWasRejected(t *testing.T) {
	t.Parallel()
	h := receiver(otlp.DefaultConfig(), &keeper{res: collector.Result{Rejected: 3, Reason: "no destination"}}).Handler()
	w := post(h, "/v1/logs", protobuf, "", bytes.NewReader(must(logs("x").MarshalProto())))
	got := plogotlp.NewExportResponse()
	if err := got.UnmarshalProto(w.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	if p := got.PartialSuccess(); w.Code != http.StatusOK || p.RejectedLogRecords() != 3 || p.ErrorMessage() != "no destination" {
		t.Errorf("got %d, %d rejected, %q", w.Code, p.RejectedLogRecords(), p.ErrorMessage())
	}
}

func TestRefusalsTellTheSenderWhetherToRetry(t *testing.T) {
	t.Parallel()
	wire := must(logs("x").MarshalProto())
	for _, c := range []struct {
		name       string
		err        error
		panic      bool
		http       int
		grpc       codes.Code
		retryAfter string
	}{
		{"invalid", controlbus.ErrInvalid, false, 400, codes.InvalidArgument, ""},
		{"too large", controlbus.ErrTooLarge, false, 413, codes.InvalidArgument, ""},
		{"overloaded", controlbus.ErrOverloaded, false, 429, codes.ResourceExhausted, "1"},
		{"overloaded for a while", &collector.RetryError{After: 2500 * time.Millisecond, Err: controlbus.ErrOverloaded}, false, 429, codes.ResourceExhausted, "3"},
		{"unavailable", controlbus.ErrUnavailable, false, 503, codes.Unavailable, "5"},
		{"denied", controlbus.ErrDenied, false, 403, codes.PermissionDenied, ""},
		{"our own fault", errors.New("no idea"), false, 503, codes.Unavailable, "5"},
		{"panic", nil, true, 503, codes.Unavailable, "5"},
	} {
		r := receiver(otlp.DefaultConfig(), &keeper{err: c.err, panic: c.panic})
		w := post(r.Handler(), "/v1/logs", protobuf, "", bytes.NewReader(wire))
		if w.Code != c.http || w.Header().Get("Retry-After") != c.retryAfter {
			t.Errorf("%s: got HTTP %d, Retry-After %q, want %d, %q", c.name, w.Code, w.Header().Get("Retry-After"), c.http, c.retryAfter)
		}
		conn := dial(t, r)
		_, err := plogotlp.NewGRPCClient(conn).Export(t.Context(), logs("x"))
		st := status.Convert(err)
		if st.Code() != c.grpc {
			t.Errorf("%s: got gRPC %v, want %v", c.name, st.Code(), c.grpc)
		}
		var delay *errdetails.RetryInfo
		for _, d := range st.Details() {
			if info, ok := d.(*errdetails.RetryInfo); ok {
				delay = info
			}
		}
		if (delay != nil) != (c.retryAfter != "") {
			t.Errorf("%s: RetryInfo %v, want it exactly when a retry makes sense", c.name, delay)
		}
	}
}

func dial(t *testing.T, r *otlp.Receiver) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := r.GRPCServer()
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn
}

func TestGRPCDeliversAllSignalsPlainAndCompressed(t *testing.T) {
	t.Parallel()
	k := &keeper{}
	conn := dial(t, receiver(otlp.DefaultConfig(), k))
	td := ptrace.NewTraces()
	td.ResourceSpans().AppendEmpty().ScopeSpans().AppendEmpty().Spans().AppendEmpty().SetName("send orders")
	md := pmetric.NewMetrics()
	md.ResourceMetrics().AppendEmpty().ScopeMetrics().AppendEmpty().Metrics().AppendEmpty().SetEmptyGauge().DataPoints().AppendEmpty().SetIntValue(1)
	ctx := metadata.AppendToOutgoingContext(t.Context(), controlbus.HeaderSender, "a/1", controlbus.HeaderBatch, "9")
	var want []collector.Request
	for _, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor("gzip")}, {grpc.UseCompressor("zstd")}} {
		must(plogotlp.NewGRPCClient(conn).Export(ctx, logs("x"), opts...))
		must(ptraceotlp.NewGRPCClient(conn).Export(ctx, ptraceotlp.NewExportRequestFromTraces(td), opts...))
		must(pmetricotlp.NewGRPCClient(conn).Export(ctx, pmetricotlp.NewExportRequestFromMetrics(md), opts...))
		want = append(want,
			collector.Request{Signal: collector.Logs, Payload: must(logs("x").MarshalProto()), Sender: "a/1", Batch: 9},
			collector.Request{Signal: collector.Traces, Payload: must(ptraceotlp.NewExportRequestFromTraces(td).MarshalProto()), Sender: "a/1", Batch: 9},
			collector.Request{Signal: collector.Metrics, Payload: must(pmetricotlp.NewExportRequestFromMetrics(md).MarshalProto()), Sender: "a/1", Batch: 9})
	}
	if diff := cmp.Diff(want, k.got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestWhatIsNoRequestIsRefused(t *testing.T) {
	t.Parallel()
	wire := must(logs("x").MarshalProto())
	k := &keeper{}
	h := receiver(otlp.DefaultConfig(), k).Handler()
	zeros := make([]byte, 1<<20)
	for _, c := range []struct {
		name, kind, encoding string
		body                 io.Reader
		headers              []string
		want                 int
	}{
		{"truncated protobuf", protobuf, "", bytes.NewReader(wire[:len(wire)-1]), nil, 400},
		{"not protobuf", protobuf, "", strings.NewReader("hello, world"), nil, 400},
		{"truncated json", jsonType, "", strings.NewReader(`{"resourceLogs":[`), nil, 400},
		{"json of a wrong type", jsonType, "", strings.NewReader(`{"resourceLogs":"x"}`), nil, 400},
		{"deep json", jsonType, "", strings.NewReader(strings.Repeat(`{"a":[`, 100_000)), nil, 400},
		{"not gzip", protobuf, "gzip", bytes.NewReader(wire), nil, 400},
		{"truncated gzip", protobuf, "gzip", bytes.NewReader(gzipped(wire)[:20]), nil, 400},
		{"not zstd", protobuf, "zstd", bytes.NewReader(wire), nil, 400},
		{"unknown encoding", protobuf, "br", bytes.NewReader(wire), nil, 415},
		{"unknown type", "text/plain", "", bytes.NewReader(wire), nil, 415},
		{"gzip bomb", protobuf, "gzip", bytes.NewReader(gzipped(bytes.Repeat(zeros, 40))), nil, 413},
		{"zstd bomb", protobuf, "zstd", bytes.NewReader(zstandard(bytes.Repeat(zeros, 40))), nil, 413},
		{"100 MB", protobuf, "", io.LimitReader(endless{}, 100<<20), nil, 413},
		{"batch without sender", protobuf, "", bytes.NewReader(wire), []string{controlbus.HeaderBatch, "1"}, 400},
		{"sender without batch", protobuf, "", bytes.NewReader(wire), []string{controlbus.HeaderSender, "a"}, 400},
		{"batch that is no number", protobuf, "", bytes.NewReader(wire), []string{controlbus.HeaderSender, "a", controlbus.HeaderBatch, "-1"}, 400},
		{"endless sender", protobuf, "", bytes.NewReader(wire), []string{controlbus.HeaderSender, strings.Repeat("a", 301), controlbus.HeaderBatch, "1"}, 400},
		{"clock that is no number", protobuf, "", bytes.NewReader(wire), []string{controlbus.HeaderSentAt, "noon"}, 400},
	} {
		if w := post(h, "/v1/logs", c.kind, c.encoding, c.body, c.headers...); w.Code != c.want {
			t.Errorf("%s: got %d %q, want %d", c.name, w.Code, w.Body, c.want)
		}
	}
	if len(k.got) != 0 {
		t.Errorf("the consumer kept %d of them", len(k.got))
	}
	get := httptest.NewRecorder()
	h.ServeHTTP(get, httptest.NewRequest(http.MethodGet, "/v1/logs", nil))
	if get.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: got %d, want 405", get.Code)
	}
	if w := post(h, "/v1/logs", protobuf, "", bytes.NewReader(wire)); w.Code != http.StatusOK {
		t.Errorf("a good request after all of them: got %d", w.Code)
	}
}

// deep is a log record whose body is a list of a list of a list ...
func deep(levels int) []byte {
	var value []byte
	field := func(number byte, b []byte) []byte {
		out := append(make([]byte, 0, len(b)+11), number<<3|2)
		for n := len(b); ; n >>= 7 {
			if n < 0x80 {
				out = append(out, byte(n))
				break
			}
			out = append(out, byte(n)|0x80)
		}
		return append(out, b...)
	}
	// Built from the inside out in one buffer would be linear; this is small
	// enough up to a few thousand levels, and deeper ones are cut there.
	for range min(levels, 5_000) {
		value = field(5, field(1, value))
	}
	return field(1, field(2, field(2, field(5, value))))
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// A crowd of bombs and giants at once stays within the budget.
func TestMemoryStaysBounded(t *testing.T) {
	cfg := otlp.DefaultConfig()
	cfg.MaxPending = 64 << 20
	h := receiver(cfg, &keeper{}).Handler()
	bomb := gzipped(make([]byte, 64<<20))
	var before, peak runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			w := post(h, "/v1/logs", protobuf, "gzip", bytes.NewReader(bomb))
			if w.Code != http.StatusRequestEntityTooLarge && w.Code != http.StatusTooManyRequests {
				t.Errorf("bomb: got %d", w.Code)
			}
		})
	}
	wg.Wait()
	runtime.ReadMemStats(&peak)
	// Sys never shrinks: it is the most that was ever mapped.
	if grown := int64(peak.Sys) - int64(before.Sys); grown > 400<<20 {
		t.Errorf("memory grew by %d MiB", grown>>20)
	}
	if w := post(h, "/v1/logs", protobuf, "", bytes.NewReader(must(logs("x").MarshalProto()))); w.Code != http.StatusOK {
		t.Errorf("afterwards: got %d; the budget was not given back", w.Code)
	}
}

func TestAFullBudgetRefusesWithADelay(t *testing.T) {
	t.Parallel()
	cfg := otlp.Config{MaxRequest: 64 << 10, MaxPending: 64 << 10, Timeout: time.Minute}
	k := &keeper{hold: make(chan struct{})}
	h := receiver(cfg, k).Handler()
	first := make(chan int)
	big := must(logs(strings.Repeat("x", 60<<10)).MarshalProto())
	reading := make(chan struct{})
	go func() {
		first <- post(h, "/v1/logs", protobuf, "", &notifying{Reader: bytes.NewReader(big), done: reading}).Code
	}()
	<-reading
	w := post(h, "/v1/logs", protobuf, "", bytes.NewReader(big))
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("second: got %d, Retry-After %q, want 429 with a delay", w.Code, w.Header().Get("Retry-After"))
	}
	close(k.hold)
	if code := <-first; code != http.StatusOK {
		t.Errorf("first: got %d", code)
	}
}

// notifying closes done when its reader has been read to the end.
type notifying struct {
	io.Reader
	done chan struct{}
	once sync.Once
}

func (n *notifying) Read(p []byte) (int, error) {
	c, err := n.Reader.Read(p)
	if err == io.EOF {
		n.once.Do(func() { close(n.done) })
	}
	return c, err
}

func FuzzHTTP(f *testing.F) {
	wire := must(logs("hello").MarshalProto())
	f.Add("logs", false, "", wire)
	f.Add("logs", true, "", must(logs("hello").MarshalJSON()))
	f.Add("traces", false, "gzip", gzipped(wire))
	f.Add("metrics", false, "zstd", zstandard(wire))
	f.Add("logs", false, "", deep(100))
	k := &keeper{}
	h := receiver(otlp.DefaultConfig(), k).Handler()
	f.Fuzz(func(t *testing.T, signal string, asJSON bool, encoding string, body []byte) {
		if signal != "logs" && signal != "traces" && signal != "metrics" {
			return
		}
		kind := protobuf
		if asJSON {
			kind = jsonType
		}
		w := post(h, "/v1/"+signal, kind, encoding, bytes.NewReader(body))
		switch w.Code {
		case 400, 413, 415:
		case 200:
			k.got = k.got[:0]
		default:
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	})
}

func BenchmarkHTTP(b *testing.B) {
	ld := plog.NewLogs()
	records := ld.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty().LogRecords()
	for i := range 512 {
		lr := records.AppendEmpty()
		lr.SetEventName(controlbus.EventMessage)
		lr.Body().SetEmptyBytes().FromRaw([]byte(fmt.Sprintf(`{"orderId":"ORD-%d","total":"129.90","items":[{"sku":"TEA-0412","qty":2}]}`, i)))
		lr.Attributes().PutStr("messaging.destination.name", "orders.new")
		lr.Attributes().PutInt("signalbox.position", int64(i))
	}
	wire := must(plogotlp.NewExportRequestFromLogs(ld).MarshalProto())
	for _, c := range []struct {
		encoding string
		body     []byte
	}{{"", wire}, {"zstd", zstandard(wire)}, {"gzip", gzipped(wire)}} {
		b.Run("encoding="+c.encoding, func(b *testing.B) {
			h := receiver(otlp.DefaultConfig(), &keeper{}).Handler()
			b.ReportAllocs()
			for b.Loop() {
				if w := post(h, "/v1/logs", protobuf, c.encoding, bytes.NewReader(c.body)); w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
			b.ReportMetric(float64(b.N*512)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
