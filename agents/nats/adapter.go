package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

const system = "nats"

// consumerPrefix begins the names of the consumers that taps make. Consumer
// names cannot have dots.
const consumerPrefix = "sb-tap-"

// metricRedelivered is messages delivered more than once and not acknowledged.
const metricRedelivered = "signalbox.channel.redelivered"

// Adapter is one NATS account. It implements agents.Adapter, agents.Tapper,
// agents.Sweeper and, of the verbs that commands are built of, all but Gater and
// Separator, for which NATS has no means. Its methods may be called concurrently.
type Adapter struct {
	name   string
	id     agents.Identity
	agent  string // as it appears in consumer names
	prefix string // of this incarnation's consumers
	cfg    Config
	log    *slog.Logger
	http   *http.Client
	serial atomic.Uint64

	mu     sync.Mutex
	nc     *nats.Conn
	denied *denials        // of nc
	life   context.Context // ends with Close
	finish context.CancelFunc
	taps   sync.WaitGroup // and sessions
	// orphans are consumers that could not be removed because the link was cut;
	// Connect removes them.
	orphans []consumer
	tallies map[string]*counters // by stream and when it was made
	product agents.Product       // as Connect found it; without a version: never
}

// consumer is one that a tap made.
type consumer struct{ stream, name string }

var unsuited = regexp.MustCompile(`[^A-Za-z0-9_]+`)

// New returns the adapter of the broker that the configuration calls name. It
// does not connect. The configuration must be valid.
func New(name string, id agents.Identity, cfg Config, log *slog.Logger) *Adapter {
	agent := unsuited.ReplaceAllString(id.Agent, "_")
	return &Adapter{
		name: name, id: id, cfg: cfg, log: log, agent: agent,
		tallies: map[string]*counters{},
		prefix:  consumerPrefix + agent + "-" + unsuited.ReplaceAllString(id.Incarnation, "_") + "-",
		http:    &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}},
	}
}

// System is "nats".
func (a *Adapter) System() string { return system }

// Connect dials the control connection, unless it stands already.
func (a *Adapter) Connect(ctx context.Context) (agents.Product, error) {
	a.mu.Lock()
	nc := a.nc
	if a.life == nil || a.life.Err() != nil {
		a.life, a.finish = context.WithCancel(context.Background())
	}
	a.mu.Unlock()
	if nc == nil || a.ping(ctx, nc) != nil {
		if nc != nil {
			nc.Close()
		}
		var err error
		if nc, err = a.dial(ctx, "control"); err != nil {
			return agents.Product{}, err
		}
		denied := &denials{}
		nc.SetErrorHandler(denied.take)
		a.mu.Lock()
		a.nc, a.denied = nc, denied
		a.mu.Unlock()
	}
	p := agents.Product{Name: "NATS", Version: nc.ConnectedServerVersion()}
	if nc.HeadersSupported() {
		p.Features = append(p.Features, "headers")
	}
	js, err := a.jetstream(nc)
	if err != nil {
		return p, err
	}
	ask, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	if _, err := js.AccountInfo(ask); err == nil {
		p.Features = append(p.Features, "jetstream")
		a.dropOrphans(js)
	} else if a.ping(ctx, nc) != nil {
		return p, fmt.Errorf("nats: %w: %w", agents.ErrNotConnected, err)
	}
	a.mu.Lock()
	a.product = p
	a.mu.Unlock()
	return p, nil
}

// dial makes a connection that ends when it breaks: the Runner decides when to
// connect again, and a tap must not come back behind its back with a gap.
func (a *Adapter) dial(ctx context.Context, purpose string) (*nats.Conn, error) {
	c := a.cfg
	opts := []nats.Option{
		nats.Name("signalbox " + a.id.Agent + "." + a.id.Incarnation + " " + purpose),
		nats.NoReconnect(), nats.Timeout(c.Timeout),
		nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(2),
		// Errors of single subscriptions are counted by the tap; the library
		// would print them.
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	if deadline, ok := ctx.Deadline(); ok {
		opts = append(opts, nats.Timeout(min(c.Timeout, max(time.Until(deadline), time.Millisecond))))
	}
	switch {
	case c.CredsFile != "":
		opts = append(opts, nats.UserCredentials(c.CredsFile))
	case c.NkeyFile != "":
		opt, err := nats.NkeyOptionFromSeed(c.NkeyFile)
		if err != nil {
			return nil, fmt.Errorf("nats: nkey_file: %w", err)
		}
		opts = append(opts, opt)
	case c.TokenFile != "":
		s, err := controlbus.SecretFromFile(c.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("nats: token_file: %w", err)
		}
		opts = append(opts, nats.Token(s.Reveal()))
	case c.User != "":
		s := c.Password
		if s == "" {
			var err error
			if s, err = controlbus.SecretFromFile(c.PasswordFile); err != nil {
				return nil, fmt.Errorf("nats: password_file: %w", err)
			}
		}
		opts = append(opts, nats.UserInfo(c.User, s.Reveal()))
	}
	if c.TLS != (TLSConfig{}) {
		conf, err := c.TLS.load()
		if err != nil {
			return nil, fmt.Errorf("nats: %w", err)
		}
		opts = append(opts, nats.Secure(conf))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	nc, err := nats.Connect(strings.Join(c.URLs, ","), opts...)
	if err != nil {
		return nil, fmt.Errorf("nats: connect to %s: %w", hosts(c.URLs), sentinel(err))
	}
	return nc, nil
}

// hosts are the servers' addresses without what a URL may carry of credentials.
func hosts(urls []string) string {
	out := make([]string, len(urls))
	for i, raw := range urls {
		if u, err := url.Parse(raw); err == nil {
			out[i] = u.Host
		}
	}
	return strings.Join(out, ", ")
}

func (a *Adapter) jetstream(nc *nats.Conn) (jetstream.JetStream, error) {
	opts := []jetstream.JetStreamOpt{jetstream.WithDefaultTimeout(a.cfg.Timeout)}
	if a.cfg.Domain != "" {
		return jetstream.NewWithDomain(nc, a.cfg.Domain, opts...)
	}
	return jetstream.New(nc, opts...)
}

// drop removes a tap's consumer. With the link gone the server does it after
// tap.inactive_threshold, or the next Connect does.
func (a *Adapter) drop(js jetstream.JetStream, c consumer) {
	err := nats.ErrConnectionClosed
	if js.Conn().IsConnected() {
		// Not the tap's context: that has ended.
		ctx, cancel := context.WithTimeout(context.Background(), min(a.cfg.Timeout, 5*time.Second))
		defer cancel()
		err = js.DeleteConsumer(ctx, c.stream, c.name)
	}
	if err == nil || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.orphans = append(a.orphans, c)
}

func (a *Adapter) dropOrphans(js jetstream.JetStream) {
	a.mu.Lock()
	orphans := a.orphans
	a.orphans = nil
	a.mu.Unlock()
	for _, c := range orphans {
		a.drop(js, c)
	}
}

func (a *Adapter) ping(ctx context.Context, nc *nats.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	return nc.FlushWithContext(ctx)
}

// sentinel gives the library's errors ours.
func sentinel(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Errorf("%w: %w", controlbus.ErrDenied, err)
	case errors.Is(err, jetstream.ErrStreamNotFound), errors.Is(err, jetstream.ErrConsumerNotFound):
		return fmt.Errorf("%w: %w", controlbus.ErrNotFound, err)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: %w", controlbus.ErrUnsupported, err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("%w: %w", agents.ErrNotConnected, err)
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
	default:
		return err
	}
}

// control returns the live control connection or ErrNotConnected.
func (a *Adapter) control(ctx context.Context) (*nats.Conn, jetstream.JetStream, error) {
	a.mu.Lock()
	nc := a.nc
	a.mu.Unlock()
	if nc == nil {
		return nil, nil, fmt.Errorf("nats: %w", agents.ErrNotConnected)
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if err := a.ping(ctx, nc); err != nil {
		return nil, nil, fmt.Errorf("nats: %w: %w", agents.ErrNotConnected, err)
	}
	js, err := a.jetstream(nc)
	return nc, js, err
}

// noJetStream says that the account or server has none, which is no error for
// a look at everything.
func noJetStream(err error) bool {
	return errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) ||
		errors.Is(err, nats.ErrNoResponders)
}

// Observe appends the state of every stream, of its consumers, and of the
// subjects of the configuration.
func (a *Adapter) Observe(ctx context.Context, md pmetric.Metrics) error {
	_, js, err := a.control(ctx)
	if err != nil {
		return err
	}
	o := agents.NewObservation(md, system, a.name, time.Now())
	o.Gauge(controlbus.MetricBrokerUp, "1", "", 1)
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	there := map[string]bool{}
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		there[info.Config.Name+"@"+stamp(info.Created)] = true
		if err := a.observeStream(ctx, js, o, info); err != nil {
			return err
		}
	}
	if err := streams.Err(); err != nil && !noJetStream(err) {
		return fmt.Errorf("nats: list streams: %w", sentinel(err))
	}
	a.mu.Lock()
	maps.DeleteFunc(a.tallies, func(stream string, _ *counters) bool { return !there[stream] })
	a.mu.Unlock()
	for _, s := range a.cfg.Subjects {
		if a.cfg.MonitorURL == "" {
			break
		}
		n, err := a.listeners(ctx, s)
		if err != nil {
			return fmt.Errorf("nats: subscriptions of %q: %w", s, err)
		}
		o.Gauge(controlbus.MetricChannelConsumers, "{consumer}", s, n, controlbus.AttrChannelKind, "subject")
	}
	return nil
}

// observeStream tells what waits in a stream, which is not what it stores: a
// stream with limits retention keeps what everybody has read.
//
//   - waiting is what the consumer furthest behind has not been given, and at
//     least what is stored beyond messages in flight where a stream deletes what
//     is acknowledged (work queue, interest). Without any consumer it is all that
//     is stored: a stream nobody reads, such as one of dead letters, is a
//     backlog.
//   - published is the stream's last sequence; delivered and acknowledged are
//     added up over the consumers, so two groups that read everything count
//     twice.
//
// Taps are not consumers in this sense.
func (a *Adapter) observeStream(ctx context.Context, js jetstream.JetStream, o *agents.Observation, info *jetstream.StreamInfo) error {
	name, kind := info.Config.Name, []string{controlbus.AttrChannelKind, "stream"}
	var all []*jetstream.ConsumerInfo
	if info.State.Consumers > 0 {
		s, err := js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil // gone since it was listed
		}
		if err != nil {
			return fmt.Errorf("nats: stream %q: %w", name, sentinel(err))
		}
		consumers := s.ListConsumers(ctx)
		for c := range consumers.Info() {
			if !ours(c.Name) {
				all = append(all, c)
			}
		}
		if err := consumers.Err(); err != nil {
			return fmt.Errorf("nats: list consumers of %q: %w", name, sentinel(err))
		}
	}
	for _, c := range all {
		group := append([]string{controlbus.AttrConsumerGroup, c.Name}, kind...)
		o.Gauge(controlbus.MetricChannelLag, "{message}", name, int64(c.NumPending), group...)
		o.Gauge(metricRedelivered, "{message}", name, int64(c.NumRedelivered), group...)
	}
	stored := int64(info.State.Msgs)
	waiting, unacked := waits(info, all)
	state := func(s string) []string { return append([]string{controlbus.AttrMessageState, s}, kind...) }
	o.Gauge(controlbus.MetricChannelMessages, "{message}", name, waiting, state("ready")...)
	o.Gauge(controlbus.MetricChannelMessages, "{message}", name, unacked, state("unacked")...)
	o.Gauge(controlbus.MetricChannelStored, "{message}", name, stored, kind...)
	o.Gauge(controlbus.MetricChannelBytes, "By", name, int64(info.State.Bytes), kind...)
	o.Gauge(controlbus.MetricChannelConsumers, "{consumer}", name, int64(len(all)), kind...)
	delivered, acked := a.tally(name+"@"+stamp(info.Created), all)
	o.Sum(controlbus.MetricChannelPublished, "{message}", name, int64(info.State.LastSeq), kind...)
	o.Sum(controlbus.MetricChannelDelivered, "{message}", name, delivered, kind...)
	o.Sum(controlbus.MetricChannelAcked, "{message}", name, acked, kind...)
	return nil
}

// waits is what waits in a stream for its readers, and what they have been given
// and not acknowledged.
func waits(info *jetstream.StreamInfo, readers []*jetstream.ConsumerInfo) (waiting, unacked int64) {
	stored := int64(info.State.Msgs)
	for _, c := range readers {
		waiting = max(waiting, int64(c.NumPending))
		unacked += int64(c.NumAckPending)
	}
	switch {
	case len(readers) == 0:
		return stored, 0
	case info.Config.Retention != jetstream.LimitsPolicy:
		// Messages that no consumer will be given any more, such as those past
		// max_deliver, are stored and wait for somebody.
		return max(waiting, stored-unacked), unacked
	}
	return waiting, unacked
}

// counters of one stream's consumers, added up.
type counters struct {
	delivered, acked int64
	seen             map[string][2]int64 // delivered and acknowledged, by consumer
}

// tally adds up the consumers' counters so that the sums go on when a consumer
// goes away and takes its own with it.
func (a *Adapter) tally(stream string, consumers []*jetstream.ConsumerInfo) (delivered, acked int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tallies[stream]
	if t == nil {
		t = &counters{}
		a.tallies[stream] = t
	}
	seen := make(map[string][2]int64, len(consumers))
	for _, c := range consumers {
		id := c.Name + "@" + stamp(c.Created)
		now, before := [2]int64{int64(c.Delivered.Consumer), int64(c.AckFloor.Consumer)}, t.seen[id]
		t.delivered += max(now[0]-before[0], 0)
		t.acked += max(now[1]-before[1], 0)
		seen[id] = now
	}
	t.seen = seen
	return t.delivered, t.acked
}

// listeners is how many subscriptions a subject has, as the monitoring port of
// one server knows.
func (a *Adapter) listeners(ctx context.Context, subject string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	// A test subject must be literal: any token stands for a wildcard.
	literal := strings.NewReplacer("*", "x", ">", "x").Replace(subject)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		strings.TrimRight(a.cfg.MonitorURL, "/")+"/subsz?"+url.Values{"subs": {"1"}, "limit": {"1024"}, "test": {literal}}.Encode(), nil)
	if err != nil {
		return 0, err
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return 0, fmt.Errorf("monitoring: %w: %w", controlbus.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("monitoring: %w: %s", controlbus.ErrUnavailable, resp.Status)
	}
	var answer struct {
		Total int64 `json:"total"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4<<20)).Decode(&answer); err != nil {
		return 0, fmt.Errorf("monitoring: %w", err)
	}
	return answer.Total, nil
}

// Channels lists the streams and configured subjects whose name matches.
func (a *Adapter) Channels(ctx context.Context, pattern string) ([]string, error) {
	_, js, err := a.control(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	var out []string
	names := js.StreamNames(ctx)
	for n := range names.Name() {
		if controlbus.MatchPattern(pattern, n) {
			out = append(out, n)
		}
	}
	if err := names.Err(); err != nil && !noJetStream(err) {
		return nil, fmt.Errorf("nats: list streams: %w", sentinel(err))
	}
	for _, s := range a.cfg.Subjects {
		if controlbus.MatchPattern(pattern, s) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out, nil
}

// Leftovers lists the consumers of dead incarnations of this agent. They hold
// nothing back and go by themselves after tap.inactive_threshold.
func (a *Adapter) Leftovers(ctx context.Context) ([]string, error) {
	_, js, err := a.control(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	var out []string
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		if info.State.Consumers == 0 {
			continue
		}
		s, err := js.Stream(ctx, info.Config.Name)
		if err != nil {
			continue // gone since it was listed
		}
		names := s.ConsumerNames(ctx)
		for n := range names.Name() {
			if strings.HasPrefix(n, consumerPrefix+a.agent+"-") && !strings.HasPrefix(n, a.prefix) {
				out = append(out, "consumer "+n+" of stream "+info.Config.Name)
			}
		}
		if err := names.Err(); err != nil {
			return nil, fmt.Errorf("nats: list consumers of %q: %w", info.Config.Name, sentinel(err))
		}
	}
	if err := streams.Err(); err != nil && !noJetStream(err) {
		return nil, fmt.Errorf("nats: list streams: %w", sentinel(err))
	}
	return out, nil
}

// Close ends every tap and connection and returns when nothing runs any more.
func (a *Adapter) Close(ctx context.Context) error {
	a.mu.Lock()
	nc, finish := a.nc, a.finish
	a.nc, a.life, a.finish = nil, nil, nil
	a.mu.Unlock()
	if finish != nil {
		finish()
	}
	done := make(chan struct{})
	go func() {
		a.taps.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("nats: close: taps still end: %w", ctx.Err())
	}
	if nc != nil {
		nc.Close()
	}
	return nil
}

// atLeast compares dotted versions.
func atLeast(version string, want ...int) bool {
	parts := strings.SplitN(version, ".", 3)
	for i, w := range want {
		if i >= len(parts) {
			return false
		}
		digits := strings.FieldsFunc(parts[i], func(r rune) bool { return r < '0' || r > '9' })
		if len(digits) == 0 {
			return false
		}
		n, err := strconv.Atoi(digits[0])
		if err != nil || n < w {
			return false
		}
		if n > w {
			return true
		}
	}
	return true
}
