package company

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/demo/broker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collected is an OTLP/HTTP endpoint that keeps what it is sent.
type collected struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []span
	logs    []record
	metrics map[string]map[string]bool // metric by service
}

type span struct {
	ptrace.Span
	service string
}

type record struct {
	plog.LogRecord
	service string
}

func newCollected(t *testing.T) *collected {
	c := &collected{metrics: map[string]map[string]bool{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collected) take(r *http.Request) error {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return err
		}
		body = z
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.URL.Path {
	case "/v1/traces":
		req := ptraceotlp.NewExportRequest()
		if err := req.UnmarshalProto(b); err != nil {
			return err
		}
		for _, rs := range req.Traces().ResourceSpans().All() {
			for _, ss := range rs.ScopeSpans().All() {
				for _, s := range ss.Spans().All() {
					c.spans = append(c.spans, span{s, attr(rs.Resource().Attributes(), "service.name")})
				}
			}
		}
	case "/v1/logs":
		req := plogotlp.NewExportRequest()
		if err := req.UnmarshalProto(b); err != nil {
			return err
		}
		for _, rl := range req.Logs().ResourceLogs().All() {
			for _, sl := range rl.ScopeLogs().All() {
				for _, l := range sl.LogRecords().All() {
					c.logs = append(c.logs, record{l, attr(rl.Resource().Attributes(), "service.name")})
				}
			}
		}
	case "/v1/metrics":
		req := pmetricotlp.NewExportRequest()
		if err := req.UnmarshalProto(b); err != nil {
			return err
		}
		for _, rm := range req.Metrics().ResourceMetrics().All() {
			service := attr(rm.Resource().Attributes(), "service.name")
			if c.metrics[service] == nil {
				c.metrics[service] = map[string]bool{}
			}
			for _, sm := range rm.ScopeMetrics().All() {
				for _, m := range sm.Metrics().All() {
					if m.Type() != pmetric.MetricTypeEmpty {
						c.metrics[service][m.Name()] = true
					}
				}
			}
		}
	}
	return nil
}

func attr(m pcommon.Map, k string) string {
	v, ok := m.Get(k)
	if !ok {
		return ""
	}
	return v.AsString()
}

// wire is everything that passed the broker, seen by a client that only listens.
type wire struct {
	mu   sync.Mutex
	seen []*nats.Msg
	more chan struct{}
}

func listen(t *testing.T, url string) *wire {
	t.Helper()
	nc, err := nats.Connect(url, nats.Timeout(5*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{more: make(chan struct{}, 1)}
	for _, subject := range []string{"orders.>", "payments.>", "shipping.>", "dead.>", "notifications.>", "fraud.>", "_INBOX.order-service.>"} {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) {
			if header(m.Header, headerCorrelation) == "" {
				return // acknowledgements of the broker share the inbox
			}
			w.mu.Lock()
			w.seen = append(w.seen, m)
			w.mu.Unlock()
			select {
			case w.more <- struct{}{}:
			default:
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.FlushTimeout(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return w
}

// conversations groups what was seen by correlation id, and those by subject.
func (w *wire) conversations() map[string]map[string]*nats.Msg {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]map[string]*nats.Msg{}
	for _, m := range w.seen {
		id := header(m.Header, headerCorrelation)
		if all[id] == nil {
			all[id] = map[string]*nats.Msg{}
		}
		subject := m.Subject
		if inbox(subject) {
			subject = "(reply)"
		}
		if header(m.Header, headerCausation) != "" && subject == "notifications.email" {
			subject += " " + mailTemplate(m.Data)
		}
		all[id][subject] = m
	}
	return all
}

func mailTemplate(body []byte) string {
	var m mail
	if json.Unmarshal(body, &m) != nil {
		return "?"
	}
	return m.Template
}

// until waits for enough conversations that end says are at their end.
func (w *wire) until(t *testing.T, want int, what string, end func(map[string]*nats.Msg) bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		n := 0
		for _, c := range w.conversations() {
			if end(c) {
				n++
			}
		}
		if n >= want {
			return
		}
		select {
		case <-w.more:
		case <-deadline:
			t.Fatalf("%s: got %d in 30 s, want %d", what, n, want)
		}
	}
}

func has(subject string) func(map[string]*nats.Msg) bool {
	return func(c map[string]*nats.Msg) bool { return c[subject] != nil }
}

// start runs a company on a broker of its own, until the function it returns
// has been called and everything has stopped.
func start(t *testing.T, cfg Config) (w *wire, stop func()) {
	t.Helper()
	b, err := broker.New(broker.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg.Broker = b.URL()
	if err := Declare(t.Context(), cfg.Broker); err != nil {
		t.Fatal(err)
	}
	w = listen(t, cfg.Broker)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg, slog.New(slog.DiscardHandler)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(2 * (grace + flushTimeout)):
			t.Error("the company did not stop")
		}
	})
	t.Cleanup(stop)
	return w, stop
}

func TestOrdersTravelThroughTheCompany(t *testing.T) {
	t.Parallel()
	otlp := newCollected(t)
	cfg := DefaultConfig()
	cfg.Endpoint, cfg.Rate, cfg.Faults = otlp.URL, 50, Faults{}
	w, stop := start(t, cfg)
	w.until(t, 40, "parcels sent", has("notifications.email parcel-sent"))
	stop()

	hops := []string{"orders.placed", "fraud.check", "(reply)", "payments.capture", "orders.paid", "shipping.labels",
		"notifications.email order-confirmed", "shipping.dispatched", "notifications.email parcel-sent"}
	cause := map[string]string{"fraud.check": "orders.placed", "(reply)": "fraud.check", "payments.capture": "orders.placed",
		"orders.paid": "payments.capture", "shipping.labels": "orders.paid", "notifications.email order-confirmed": "orders.paid",
		"shipping.dispatched": "shipping.labels", "notifications.email parcel-sent": "shipping.labels"}
	whole := 0
	traces := map[string]string{} // trace by correlation id
	for id, c := range w.conversations() {
		if c["notifications.email parcel-sent"] == nil {
			continue // the company stopped in the middle of it
		}
		whole++
		trace := traceOf(c["orders.placed"])
		traces[id] = trace
		for _, hop := range hops {
			m := c[hop]
			if m == nil {
				t.Errorf("conversation %s has no %s", id, hop)
				continue
			}
			if got := traceOf(m); got != trace {
				t.Errorf("%s of %s: trace %s, want that of orders.placed, %s", hop, id, got, trace)
			}
			if got, want := header(m.Header, headerTenant), header(c["orders.placed"].Header, headerTenant); got != want || got == "" {
				t.Errorf("%s of %s: tenant %q, want %q", hop, id, got, want)
			}
			if of := cause[hop]; of != "" {
				if got, want := header(m.Header, headerCausation), header(c[of].Header, nats.MsgIdHdr); got != want {
					t.Errorf("%s of %s: caused by %s, want %s (%s)", hop, id, got, want, of)
				}
			}
		}
		if diff := cmp.Diff(len(hops), len(c)); diff != "" {
			t.Errorf("messages of %s (-want +got):\n%s", id, diff)
		}
	}
	if whole < 40 {
		t.Errorf("whole conversations: got %d, want at least 40", whole)
	}

	otlp.mu.Lock()
	defer otlp.mu.Unlock()
	byID := map[string]span{}
	services := map[string]int{}
	for _, s := range otlp.spans {
		byID[s.SpanID().String()] = s
		services[s.service]++
	}
	linked := map[string]int{}
	for _, s := range otlp.spans {
		if s.Kind() != ptrace.SpanKindConsumer {
			continue
		}
		if s.Links().Len() != 1 {
			t.Errorf("%s of %s has %d links, want one to the sender", s.Name(), s.service, s.Links().Len())
			continue
		}
		sender, ok := byID[s.Links().At(0).SpanID().String()]
		if !ok {
			t.Errorf("%s of %s links to a span nobody sent", s.Name(), s.service)
			continue
		}
		a, b := attr(sender.Attributes(), "messaging.message.id"), attr(s.Attributes(), "messaging.message.id")
		if a != b || a == "" {
			t.Errorf("%s: message id %q, its sender's %q", s.Name(), b, a)
		}
		if got, want := s.TraceID().String(), traces[attr(s.Attributes(), "messaging.message.conversation_id")]; want != "" && got != want {
			t.Errorf("%s: trace %s, want %s", s.Name(), got, want)
		}
		linked[s.service]++
	}
	for _, s := range serviceNames() {
		if services[s] == 0 {
			t.Errorf("no spans of %s", s)
		}
		if s != "storefront" && linked[s] < 40 {
			t.Errorf("messages processed by %s: got %d, want at least 40", s, linked[s])
		}
		for _, m := range []string{"messaging.client.operation.duration", "messaging.client.sent.messages"} {
			if s != "notifier" && !otlp.metrics[s][m] {
				t.Errorf("%s did not report %s", s, m)
			}
		}
		if s != "storefront" && !otlp.metrics[s]["messaging.process.duration"] {
			t.Errorf("%s did not report messaging.process.duration", s)
		}
	}
	withTrace := 0
	for _, l := range otlp.logs {
		if !l.TraceID().IsEmpty() && attr(l.Attributes(), "messaging.message.conversation_id") != "" {
			withTrace++
		}
	}
	if withTrace < 40*3 {
		t.Errorf("log records with trace and conversation: got %d, want at least %d", withTrace, 40*3)
	}
}

func serviceNames() (names []string) {
	for _, s := range services {
		names = append(names, s.name)
	}
	return names
}

func traceOf(m *nats.Msg) string {
	if m == nil {
		return ""
	}
	parts := strings.Split(header(m.Header, "traceparent"), "-")
	if len(parts) != 4 {
		return ""
	}
	return parts[1]
}

func TestOutageOpensTheBreakerAndBuriesPayments(t *testing.T) {
	t.Parallel()
	otlp := newCollected(t)
	cfg := DefaultConfig()
	cfg.Endpoint, cfg.Rate = otlp.URL, 20
	cfg.Faults = Faults{Outage: Phases{Length: time.Hour}}
	w, stop := start(t, cfg)
	w.until(t, 1, "dead payments", has("dead.payments"))
	stop()

	for id, c := range w.conversations() {
		dead := c["dead.payments"]
		if dead == nil {
			continue
		}
		capture := c["payments.capture"]
		if diff := cmp.Diff(string(capture.Data), string(dead.Data)); diff != "" {
			t.Errorf("body of dead letter %s (-want +got):\n%s", id, diff)
		}
		got := map[string]string{}
		for _, k := range []string{headerOriginalSubject, headerOriginalStream, headerAttempts, headerCausation} {
			got[k] = header(dead.Header, k)
		}
		want := map[string]string{headerOriginalSubject: "payments.capture", headerOriginalStream: "PAYMENTS",
			headerAttempts: "3", headerCausation: header(capture.Header, nats.MsgIdHdr)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("headers of dead letter %s (-want +got):\n%s", id, diff)
		}
		if kind := header(dead.Header, headerErrorType); kind != "GatewayTimeout" && kind != "GatewayUnavailable" {
			t.Errorf("error type of dead letter %s: got %q", id, kind)
		}
	}
	otlp.mu.Lock()
	defer otlp.mu.Unlock()
	opened := false
	for _, l := range otlp.logs {
		opened = opened || l.EventName() == "breaker.state_changed" && attr(l.Attributes(), "breaker.to") == "open"
	}
	if !opened {
		t.Error("no log record says that the breaker opened")
	}
	for _, m := range []string{"breaker.state", "breaker.calls", "breaker.transitions", "breaker.failure_ratio"} {
		if !otlp.metrics["payment-service"][m] {
			t.Errorf("payment-service did not report %s", m)
		}
	}
}

func TestPoisonOrderIsADeadLetterAtOnce(t *testing.T) {
	t.Parallel()
	otlp := newCollected(t)
	cfg := DefaultConfig()
	cfg.Endpoint, cfg.Rate, cfg.Faults = otlp.URL, 20, Faults{Poison: 1}
	w, stop := start(t, cfg)
	w.until(t, 3, "dead orders", has("dead.orders"))
	stop()
	for id, c := range w.conversations() {
		if dead := c["dead.orders"]; dead != nil {
			want := []string{"ValidationError", `ValidationError: unknown field "giftWrap"`, "1"}
			got := []string{header(dead.Header, headerErrorType), header(dead.Header, headerError), header(dead.Header, headerAttempts)}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("dead letter %s (-want +got):\n%s", id, diff)
			}
		}
		if c["payments.capture"] != nil {
			t.Errorf("poison order %s was charged", id)
		}
	}
}

func TestCollectorThatIsDownDoesNotHurt(t *testing.T) {
	t.Parallel()
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done() // accepts and never answers
	}))
	t.Cleanup(hangs.Close)
	for name, endpoint := range map[string]string{"refuses": "http://127.0.0.1:1", "hangs": hangs.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := DefaultConfig()
			cfg.Endpoint, cfg.Rate, cfg.Faults = endpoint, 50, Faults{}
			w, stop := start(t, cfg)
			w.until(t, 20, "parcels sent", has("notifications.email parcel-sent"))
			begin := time.Now()
			stop()
			if took, limit := time.Since(begin), grace+flushTimeout+2*time.Second; took > limit {
				t.Errorf("stopping took %v, want at most %v", took, limit)
			}
		})
	}
}

func TestSeedMeansTheSameCustomers(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)
	draw := func(seed uint64) (all []visit) {
		v := &visitors{rng: rand.New(rand.NewPCG(seed, 1)), faults: DefaultFaults()}
		for range 50 {
			all = append(all, v.next(now))
		}
		return all
	}
	opt := cmp.AllowUnexported(visit{}, placedOrder{})
	if diff := cmp.Diff(draw(1), draw(1), opt); diff != "" {
		t.Errorf("two draws with one seed differ:\n%s", diff)
	}
	if cmp.Equal(draw(1), draw(2), opt) {
		t.Error("two seeds gave the same customers")
	}
}

func TestBodiesKeepWhatMatters(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(capture{PaymentID: firstPaymentID, Amount: euros(12990)})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"paymentId":9007199254740993127`, `"value":"129.90"`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 100 {
		if n := cardNumber(rng); !luhn(n) || len(n) != 16 {
			t.Errorf("card number %s: want 16 digits with the right check digit", n)
		}
	}
	if a, b := derivedID("x", "orders.paid"), derivedID("x", "orders.paid"); a != b || a == derivedID("x", "orders.declined") {
		t.Errorf("derived ids: %s and %s", a, b)
	}
	if _, err := hex.DecodeString(strings.ReplaceAll(newID(), "-", "")); err != nil {
		t.Errorf("id is no UUID: %v", err)
	}
}

func luhn(digits string) bool {
	sum := 0
	for i := range len(digits) {
		d := int(digits[len(digits)-1-i] - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

func TestPhases(t *testing.T) {
	t.Parallel()
	p := Phases{First: 10 * time.Second, Length: 5 * time.Second, Every: time.Minute}
	for at, want := range map[time.Duration]bool{
		0: false, 9 * time.Second: false, 10 * time.Second: true, 14 * time.Second: true,
		15 * time.Second: false, 70 * time.Second: true, 76 * time.Second: false,
	} {
		if got := p.active(at); got != want {
			t.Errorf("at %v: got %v, want %v", at, got, want)
		}
	}
	if (Phases{}).active(0) {
		t.Error("the zero value is active")
	}
}

func TestValidateNamesEveryProblem(t *testing.T) {
	t.Parallel()
	err := Config{Endpoint: "ftp://x", Rate: -1, Faults: Faults{Poison: 2}}.Validate()
	for _, key := range []string{"broker:", "endpoint:", "environment:", "rate:", "faults.poison:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("error %v does not name %s", err, key)
		}
	}
	good := DefaultConfig()
	good.Broker = "nats://127.0.0.1:4222"
	if err := good.Validate(); err != nil {
		t.Errorf("the default with a broker: %v", err)
	}
}
