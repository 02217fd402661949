package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

const system = "rabbitmq"

// Adapter is one RabbitMQ. It implements agents.Adapter, agents.Tapper,
// agents.Sweeper and the verbs of commands but for agents.Pauser, because no
// queue can be told to stop. Its methods may be called concurrently.
type Adapter struct {
	name   string
	id     agents.Identity
	prefix string // of the names of this agent's artefacts, after the kind
	cfg    Config
	log    *slog.Logger
	api    *management // nil without management_url
	vhosts []string
	serial atomic.Uint64
	hose   firehose
	// stepped, where set, is told of each change of the topology; tests end the
	// connection there.
	stepped func(what string)

	mu       sync.Mutex
	ctrl     map[string]*conn // per virtual host
	product  agents.Product
	detailed bool // the broker has /api/queues/detailed
	// tired are queues that are not looked into again before the time.
	tired map[string]time.Time
	// tests are the queues, by virtual host and name, from whose consumers test
	// messages are kept.
	tests map[string]testState
	// life ends when Close is called; taps watch it.
	life   context.Context
	finish context.CancelFunc
	taps   sync.WaitGroup
}

var unsuited = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// New returns the adapter of the broker that the configuration calls name. It
// does not connect. The configuration must be valid.
func New(name string, id agents.Identity, cfg Config, log *slog.Logger) *Adapter {
	a := &Adapter{
		name: name, id: id, cfg: cfg, log: log,
		prefix: unsuited.ReplaceAllString(id.Agent, "_") + "." + unsuited.ReplaceAllString(id.Incarnation, "_") + ".",
		vhosts: slices.Clone(cfg.VHosts),
	}
	a.hose.a = a
	if len(a.vhosts) == 0 {
		vhost := "/"
		if u, err := amqp.ParseURI(cfg.URL); err == nil {
			vhost = u.Vhost
		}
		a.vhosts = []string{vhost}
	}
	return a
}

// System is "rabbitmq".
func (a *Adapter) System() string { return system }

// Connect dials one control connection for each virtual host, unless it stands
// already, and asks who the broker is.
func (a *Adapter) Connect(ctx context.Context) (agents.Product, error) {
	api, err := a.newManagement()
	if err != nil {
		return agents.Product{}, err
	}
	a.mu.Lock()
	old := a.ctrl
	if a.life == nil || a.life.Err() != nil {
		a.life, a.finish = context.WithCancel(context.Background())
	}
	a.mu.Unlock()

	ctrl := map[string]*conn{}
	for _, vhost := range a.vhosts {
		if c := old[vhost]; c != nil && c.ping(ctx, a.cfg.Timeout) == nil {
			ctrl[vhost] = c
			continue
		} else if c != nil {
			c.cut()
		}
		c, err := a.dial(ctx, vhost, "control")
		if err != nil {
			for v, c := range ctrl {
				if old[v] != c {
					c.end(time.Second)
				}
			}
			return agents.Product{}, err
		}
		c.shared = true
		ctrl[vhost] = c
	}
	p := product(ctrl[a.vhosts[0]].Properties)
	if api != nil {
		if err := api.probe(ctx, &p); err != nil {
			// Observing by passive declaration still works; say what is missing.
			a.log.WarnContext(ctx, "management API does not answer; taps cannot be planned", "error", err)
		} else {
			p.Features = append(p.Features, "management")
		}
	}
	a.mu.Lock()
	if a.api != nil {
		a.api.client.CloseIdleConnections()
	}
	a.ctrl, a.product, a.api = ctrl, p, api
	a.detailed = major(p.Version) >= 4
	a.mu.Unlock()
	if api != nil {
		if err := a.sweepSeparations(ctx, api); err != nil {
			a.log.WarnContext(ctx, "taking away what a dead agent left of a test", "error", err)
		}
	}
	if a.cfg.Firehose.Allowed {
		if err := a.hose.sweep(ctx); err != nil {
			a.log.WarnContext(ctx, "looking for a firehose that a dead agent left on", "error", err)
		}
	}
	return p, nil
}

func (a *Adapter) newManagement() (*management, error) {
	if a.cfg.ManagementURL == "" {
		return nil, nil
	}
	u, err := url.Parse(a.cfg.ManagementURL)
	if err != nil {
		return nil, fmt.Errorf("rabbitmq: %w: management_url", controlbus.ErrInvalid)
	}
	tr := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second,
		TLSHandshakeTimeout: a.cfg.Timeout, ResponseHeaderTimeout: a.cfg.Timeout,
	}
	if u.Scheme == "https" {
		if tr.TLSClientConfig, err = a.cfg.TLS.load(u.Hostname()); err != nil {
			return nil, fmt.Errorf("rabbitmq: %w", err)
		}
	}
	login := a.cfg.credentials
	if own := u.User; own != nil {
		login = func() (string, string, error) {
			password, _ := own.Password()
			return own.Username(), password, nil
		}
	}
	u.User = nil
	return &management{base: trimSlash(u.String()), user: login, client: &http.Client{Transport: tr}, timeout: a.cfg.Timeout}, nil
}

func (m *management) probe(ctx context.Context, p *agents.Product) error {
	var overview struct {
		Version string `json:"rabbitmq_version"`
		Product string `json:"product_name"`
	}
	if err := m.do(ctx, http.MethodGet, "/api/overview", nil, &overview); err != nil {
		return err
	}
	if p.Version == "" {
		p.Version = overview.Version
	}
	return nil
}

func product(props amqp.Table) agents.Product {
	p := agents.Product{Name: "RabbitMQ"}
	if s, _ := props["product"].(string); s != "" {
		p.Name = s
	}
	p.Version, _ = props["version"].(string)
	caps, _ := props["capabilities"].(amqp.Table)
	for k, v := range caps {
		if on, _ := v.(bool); on {
			p.Features = append(p.Features, k)
		}
	}
	slices.Sort(p.Features)
	return p
}

func major(version string) int {
	head, _, _ := strings.Cut(version, ".")
	n, _ := strconv.Atoi(head)
	return n
}

// ping is a round trip.
func (c *conn) ping(ctx context.Context, timeout time.Duration) error {
	if c.IsClosed() {
		return agents.ErrNotConnected
	}
	ch, err := c.channel(ctx, timeout)
	if err != nil {
		return err
	}
	return c.do(ctx, timeout, ch.Close)
}

// control returns the connections and the API, or ErrNotConnected when one of
// the connections is gone.
func (a *Adapter) control(ctx context.Context) (map[string]*conn, *management, error) {
	a.mu.Lock()
	ctrl, api := a.ctrl, a.api
	a.mu.Unlock()
	if ctrl == nil {
		return nil, nil, fmt.Errorf("rabbitmq: %w", agents.ErrNotConnected)
	}
	for vhost, c := range ctrl {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		if err := c.ping(ctx, a.cfg.Timeout); err != nil {
			return nil, nil, fmt.Errorf("rabbitmq: virtual host %q: %w: %w", vhost, agents.ErrNotConnected, err)
		}
	}
	return ctrl, api, nil
}

// Observe appends the state of every queue but the agents' own.
func (a *Adapter) Observe(ctx context.Context, md pmetric.Metrics) error {
	ctrl, api, err := a.control(ctx)
	if err != nil {
		return err
	}
	o := agents.NewObservation(md, system, a.name, time.Now())
	o.Gauge(controlbus.MetricBrokerUp, "1", "", 1)
	if api == nil {
		return a.observePassive(ctx, ctrl, o)
	}
	a.mu.Lock()
	detailed := a.detailed
	a.mu.Unlock()
	for _, vhost := range a.vhosts {
		err := api.queues(ctx, vhost, stateColumns, a.cfg.PageSize, detailed, func(q queueInfo) {
			if !own(q.Name) {
				a.observeQueue(o, q)
			}
		})
		if err != nil {
			return fmt.Errorf("rabbitmq: list queues of %q: %w", vhost, err)
		}
	}
	return nil
}

func (a *Adapter) observeQueue(o *agents.Observation, q queueInfo) {
	ch, kind := a.channelName(q.VHost, q.Name), []string{controlbus.AttrChannelKind, kindOf(q.Type)}
	gauge := func(metric, unit string, v *int64, attrs ...string) {
		if v != nil { // the statistics of a new queue come seconds later
			o.Gauge(metric, unit, ch, *v, append(attrs, kind...)...)
		}
	}
	if q.Type == "stream" {
		// A stream keeps what was read, and the API does not tell how far its
		// consumers are: what waits is known only where there are none.
		gauge(controlbus.MetricChannelStored, "{message}", q.Ready)
		if q.Consumers == nil || *q.Consumers > 0 {
			q.Ready = nil
		}
	}
	gauge(controlbus.MetricChannelMessages, "{message}", q.Ready, controlbus.AttrMessageState, "ready")
	gauge(controlbus.MetricChannelMessages, "{message}", q.Unacked, controlbus.AttrMessageState, "unacked")
	gauge(controlbus.MetricChannelBytes, "By", q.Bytes)
	gauge(controlbus.MetricChannelConsumers, "{consumer}", q.Consumers)
	if q.Stats == nil {
		return
	}
	sum := func(metric string, v *int64) {
		if v != nil {
			o.Sum(metric, "{message}", ch, *v, kind...)
		}
	}
	sum(controlbus.MetricChannelPublished, q.Stats.Publish)
	sum(controlbus.MetricChannelDelivered, q.Stats.DeliverGet)
	sum(controlbus.MetricChannelAcked, q.Stats.Ack)
}

func kindOf(queueType string) string {
	switch queueType {
	case "quorum":
		return "quorum queue"
	case "stream":
		return "stream"
	default:
		return "queue"
	}
}

// observePassive asks for the queues of the configuration one by one, all that
// AMQP itself offers: ready messages and consumers.
func (a *Adapter) observePassive(ctx context.Context, ctrl map[string]*conn, o *agents.Observation) error {
	for _, name := range a.cfg.Queues {
		vhost, queue := a.resolve(name)
		st, err := a.inspect(ctx, ctrl[vhost], queue)
		if errors.Is(err, controlbus.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("rabbitmq: queue %q: %w", name, err)
		}
		kind := []string{controlbus.AttrChannelKind, "queue"}
		o.Gauge(controlbus.MetricChannelMessages, "{message}", name, int64(st.Messages), append([]string{controlbus.AttrMessageState, "ready"}, kind...)...)
		o.Gauge(controlbus.MetricChannelConsumers, "{consumer}", name, int64(st.Consumers), kind...)
	}
	return nil
}

// inspect declares passively, on a channel of its own: the broker closes the
// channel when there is no such queue.
func (a *Adapter) inspect(ctx context.Context, c *conn, queue string) (amqp.Queue, error) {
	var st amqp.Queue
	err := a.rpc(ctx, c, func(ch *amqp.Channel) (err error) {
		st, err = ch.QueueDeclarePassive(queue, false, false, false, false, nil)
		return err
	})
	return st, err
}

// Channels lists the queues whose name matches, but not the agents' own.
func (a *Adapter) Channels(ctx context.Context, pattern string) ([]string, error) {
	_, api, err := a.control(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	if api == nil {
		for _, name := range a.cfg.Queues {
			if controlbus.MatchPattern(pattern, name) {
				out = append(out, name)
			}
		}
		return out, nil
	}
	for _, vhost := range a.vhosts {
		err := api.queues(ctx, vhost, nameColumns, a.cfg.PageSize, false, func(q queueInfo) {
			if ch := a.channelName(vhost, q.Name); !own(q.Name) && controlbus.MatchPattern(pattern, ch) {
				out = append(out, ch)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("rabbitmq: list queues of %q: %w", vhost, err)
		}
	}
	return out, nil
}

// own says that a queue belongs to some agent's machinery. The backlogs of gates
// and parked messages do not: they hold what is the customers', and are channels.
func own(queue string) bool {
	return strings.HasPrefix(queue, "sb.tap.") || strings.HasPrefix(queue, "sb.fire.") || strings.HasPrefix(queue, streamPrefix) ||
		strings.HasPrefix(queue, separatePrefix)
}

// channelName is the queue's name, with the virtual host in front where that is
// not the first.
func (a *Adapter) channelName(vhost, queue string) string {
	if vhost == a.vhosts[0] {
		return queue
	}
	return vhost + "/" + queue
}

func (a *Adapter) resolve(channel string) (vhost, queue string) {
	for _, v := range a.vhosts[1:] {
		if q, ok := strings.CutPrefix(channel, v+"/"); ok {
			return v, q
		}
	}
	return a.vhosts[0], channel
}

// Leftovers lists what dead incarnations of this agent left: nothing of a tap
// survives its connection, but one whose link was cut stays until the broker
// misses the heartbeats, and a traced virtual host stays traced. The streams of
// stream taps are listed whoever made them: they stay on purpose.
func (a *Adapter) Leftovers(ctx context.Context) ([]string, error) {
	_, api, err := a.control(ctx)
	if err != nil {
		return nil, err
	}
	if api == nil {
		return nil, nil // the names are not known without a list
	}
	agent, _, _ := strings.Cut(a.prefix, ".")
	var out []string
	for _, vhost := range a.vhosts {
		err := api.queues(ctx, vhost, nameColumns, a.cfg.PageSize, false, func(q queueInfo) {
			if tapped, ok := strings.CutPrefix(q.Name, streamPrefix+agent+"."); ok {
				out = append(out, a.streamLeftover(a.channelName(vhost, tapped), a.channelName(vhost, q.Name)))
			}
			for _, kind := range []string{"sb.tap.", "sb.fire."} {
				if strings.HasPrefix(q.Name, kind+agent+".") && !strings.HasPrefix(q.Name, kind+a.prefix) {
					out = append(out, "queue "+a.channelName(vhost, q.Name))
				}
			}
		})
		if err != nil {
			return nil, fmt.Errorf("rabbitmq: list queues of %q: %w", vhost, err)
		}
	}
	for _, vhost := range a.vhosts {
		left, err := a.leftSeparations(ctx, api, vhost)
		if err != nil {
			return nil, fmt.Errorf("rabbitmq: list exchanges of %q: %w", vhost, err)
		}
		for name, queue := range left {
			out = append(out, "exchange "+name+" (of a test of "+a.channelName(vhost, queue)+"; other messages pass; the next connect removes it)")
		}
	}
	marks, err := a.hose.marks(ctx, api)
	if err != nil {
		return nil, err
	}
	for _, m := range marks {
		if strings.HasPrefix(m.name, markPrefix+agent+".") && !strings.HasPrefix(m.name, markPrefix+a.prefix) {
			out = append(out, "traced virtual host "+m.vhost+" ("+m.name+")")
		}
	}
	return out, nil
}

// Close ends every tap and connection and returns when nothing runs any more.
func (a *Adapter) Close(ctx context.Context) error {
	a.mu.Lock()
	ctrl, api, finish := a.ctrl, a.api, a.finish
	a.ctrl, a.life, a.finish = nil, nil, nil
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
		// Every tap ends by its own time-outs; the caller does not wait for them.
		return fmt.Errorf("rabbitmq: close: taps still end: %w", ctx.Err())
	}
	for _, c := range ctrl {
		c.end(5 * time.Second)
	}
	if api != nil {
		api.client.CloseIdleConnections()
	}
	return nil
}
