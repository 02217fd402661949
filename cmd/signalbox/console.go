package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/signalbox-dev/signalbox/collector"
	"github.com/signalbox-dev/signalbox/collector/ingest"
	"github.com/signalbox-dev/signalbox/collector/live"
	"github.com/signalbox-dev/signalbox/collector/otlp"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/access/oidc"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	orders "github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/controlbus/probe"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/clickhouse"
	"github.com/signalbox-dev/signalbox/storage/engine"
	"github.com/signalbox-dev/signalbox/storage/state"
	"github.com/signalbox-dev/signalbox/ui"
	"github.com/signalbox-dev/signalbox/ui/guard"
	uilive "github.com/signalbox-dev/signalbox/ui/live"
	accesspages "github.com/signalbox-dev/signalbox/ui/page/access"
	"github.com/signalbox-dev/signalbox/ui/prometheus"
)

// console is everything behind `signalbox serve`, put together. Its stages run
// in the order of the data, last one first: what takes requests in starts last
// and stops first.
type console struct {
	cfg    config
	log    *slog.Logger
	set    *metrics.Set
	assets fs.FS  // from disk in -dev
	file   string // of the configuration; empty: none

	hub       *live.Hub
	collector *collector.Collector
	ingest    *ingest.Ingest
	receiver  *otlp.Receiver
	engine    *engine.Supervisor // nil with a DSN
	state     *state.Store
	roster    *link.Roster
	ledger    *ledger.Ledger
	opamp     *link.Server

	dispatcher *link.Dispatcher
	guard      *guard.Guard
	started    time.Time

	// store and what needs it are set by the store stage before it is ready.
	store    *clickhouse.Store
	commands *orders.Service
	probes   *probe.Service
	watcher  *probe.Watcher // sees test messages come in
	copy     *ledger.Copy

	http, grpc net.Listener
	cert       *certificate // nil: plain HTTP
}

// newConsole opens what is on disk and the listeners, so that a second console
// on the same data or ports fails at once. Close gives all of it back.
func newConsole(ctx context.Context, cfg config, log *slog.Logger) (_ *console, err error) {
	c := &console{cfg: cfg, log: log, started: time.Now(), set: metrics.NewSet()}
	c.hub, c.watcher = live.NewHub(cfg.Live, uilive.AppendRow, c.set), probe.NewWatcher()
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	part := func(name string) *slog.Logger { return log.With("component", name) }
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if c.collector, err = collector.New(cfg.Collector, tee{c.hub, c.watcher}, c.set, part("collector")); err != nil {
		if errors.Is(err, controlbus.ErrConflict) {
			return nil, fmt.Errorf("another signalbox uses %s: stop it, or give this one another data_dir: %w", cfg.DataDir, err)
		}
		return nil, err
	}
	c.receiver = otlp.New(cfg.OTLP, c.collector, c.set, part("otlp"))
	if c.state, err = openState(ctx, cfg, part("state")); err != nil {
		return nil, err
	}
	if c.roster, err = link.NewRoster(ctx, c.state, part("link")); err != nil {
		return nil, err
	}
	if c.ledger, err = ledger.New(cfg.Commands, c.state, part("ledger")); err != nil {
		return nil, err
	}
	c.dispatcher = link.NewDispatcher(c.ledger, part("link"))
	if c.state.Shared() {
		c.roster.Share()
		c.dispatcher.Elsewhere(c.roster.Elsewhere)
	}
	c.ledger.Wake(c.dispatcher.Wake)
	c.roster.Wake(c.dispatcher.Wake)
	service, err := access.New(cfg.Access, cfg.Privacy, c.state, part("access"))
	if err != nil {
		return nil, err
	}
	public, err := cfg.public()
	if err != nil {
		return nil, err
	}
	if c.guard, err = guard.New(guard.Config{
		Access: service, Log: part("guard"), AgentsOpen: cfg.agentsOpen(), Public: public, HTTPS: cfg.TLS.TerminatedByProxy, Proxies: cfg.TrustedProxies,
	}); err != nil {
		return nil, err
	}
	c.receiver.Guard(c.guard.Sender)
	if own, err := loopback(cfg.Listen); err == nil && !own && cfg.agentsOpen() {
		part("guard").WarnContext(ctx, "access.agents is open: whoever reaches the port may send telemetry and report as any agent")
	}
	if cfg.TLS.speaks() {
		if c.cert, err = newCertificate(cfg.TLS, part("tls")); err != nil {
			return nil, err
		}
	}
	c.opamp = link.NewServer(link.ServerConfig{
		Dispatcher: c.dispatcher, Roster: c.roster, Log: part("link"),
		Still: func(ctx context.Context, id access.Identity) error {
			if id.ID == "" {
				return nil // a console that takes agents without a credential
			}
			_, err := service.Still(ctx, id)
			return err
		},
	})
	if cfg.Storage.DSN == "" {
		c.engine = engine.New(cfg.Storage.Engine, part("engine"))
	}
	c.measure()
	if c.http, err = listen(ctx, cfg.Listen, "listen"); err != nil {
		return nil, err
	}
	if cfg.ListenGRPC != "" {
		if c.grpc, err = listen(ctx, cfg.ListenGRPC, "listen_grpc"); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func listen(ctx context.Context, addr, key string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w (give another address with the key %s)", err, key)
	}
	return l, nil
}

// url is where the pages are.
func (c *console) url() string {
	if c.cfg.PublicURL != "" {
		return strings.TrimSuffix(c.cfg.PublicURL, "/")
	}
	scheme, addr := "http://", c.http.Addr().String()
	if c.cert != nil {
		scheme = "https://"
	}
	if host, port, err := net.SplitHostPort(addr); err == nil && net.ParseIP(host).IsUnspecified() {
		addr = net.JoinHostPort("localhost", port)
	}
	return scheme + addr
}

// invite prints, while there is no user, the one-time link with which the first
// is made. It goes to standard output and not into the log, which others read.
func (c *console) invite(ctx context.Context, out io.Writer) error {
	secret, err := c.guard.Access().Setup(ctx)
	if err != nil || secret == "" {
		return err
	}
	_, err = fmt.Fprintf(out, "\nThis console has no user yet. Make the first one, within 24 hours, at\n\n    %s/setup?token=%s\n\n", c.url(), secret.Reveal())
	return err
}

// close gives back what newConsole opened. The stages have ended.
func (c *console) close() error {
	var errs []error
	for _, l := range []net.Listener{c.http, c.grpc} {
		if l != nil {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	if c.collector != nil {
		errs = append(errs, c.collector.Close())
	}
	if c.state != nil {
		errs = append(errs, c.state.Close())
	}
	return errors.Join(errs...)
}

// stages lists the parts in starting order.
func (c *console) stages() []stage {
	var all []stage
	if c.engine != nil {
		all = append(all, stage{name: "engine", run: c.engine.Run})
	}
	storeReady, httpReady := make(chan struct{}), make(chan struct{})
	all = append(all,
		stage{name: "audit", run: func(ctx context.Context) error {
			return keepHeads(ctx, c.state, c.cfg.AuditHeads, c.log.With("component", "audit"))
		}},
		stage{name: "store", run: func(ctx context.Context) error { return c.runStore(ctx, storeReady) }, ready: storeReady},
		stage{name: "ingest", run: func(ctx context.Context) error { return c.ingest.Run(ctx) }},
		stage{name: "ledger copy", run: func(ctx context.Context) error { return c.copy.Run(ctx) }},
		stage{name: "commands", run: c.dispatcher.Run},
		stage{name: "state", run: c.followState},
		stage{name: "own commands", run: func(ctx context.Context) error { return c.commands.Run(ctx) }},
		stage{name: "probes", run: func(ctx context.Context) error { return c.probes.Run(ctx) }},
		stage{name: "http", run: func(ctx context.Context) error { return c.runHTTP(ctx, httpReady) }, ready: httpReady},
	)
	if c.grpc != nil {
		all = append(all, stage{name: "otlp/grpc", run: c.runGRPC})
	}
	if c.cfg.MetricsInterval > 0 {
		all = append(all, stage{name: "self", run: c.reportSelf})
	}
	return all
}

// runStore opens the store, however long it takes to be there, and keeps its
// retention.
func (c *console) runStore(ctx context.Context, ready chan<- struct{}) error {
	log := c.log.With("component", "store")
	cfg := c.cfg.Storage.Config
	if c.engine != nil {
		cfg.DialContext = c.engine.DialContext
	}
	cfg.ClockOffset = func(m *storage.Message) time.Duration {
		return c.roster.BrokerClockOffset(m.Broker)
	}
	for retry := (backoff.Backoff{Base: 200 * time.Millisecond, Cap: 10 * time.Second, Floor: 100 * time.Millisecond}); ; {
		store, err := clickhouse.Open(ctx, cfg, log)
		if err == nil {
			store.Measure(c.set)
			c.store = store
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, controlbus.ErrUnavailable) {
			return err
		}
		log.WarnContext(ctx, "store is not there yet; trying again", "error", err)
		if !backoff.Sleep(ctx, retry.Next()) {
			return ctx.Err()
		}
	}
	defer func() {
		if err := c.store.Close(); err != nil {
			log.WarnContext(ctx, "close", "error", err)
		}
	}()
	c.ingest = ingest.New(c.cfg.Ingest, c.collector.Queue(), c.store, c.set, c.log.With("component", "ingest"))
	c.commands = orders.New(orders.Config{
		Ledger: c.ledger, Agents: c.dispatcher, Roster: c.roster, Store: c.store, Record: c.guard.Access().Record, Log: c.log.With("component", "commands"),
	})
	c.probes = probe.New(probe.Deps{
		Store: c.state, Sender: probe.BusSender{Bus: c.commands, Policy: c.ledger.Policy}, Taps: probeTaps{c.roster}, Watcher: c.watcher,
		Record: c.guard.Access().Record, Log: c.log.With("component", "probes"), Metrics: c.set,
	})
	c.copy = ledger.NewCopy(c.state, c.store, c.set, c.log.With("component", "ledger"))
	close(ready)
	return clickhouse.NewJanitor(c.store, c.set, log).Run(ctx)
}

// runHTTP serves pages, OTLP, agents and live taps on the one port.
func (c *console) runHTTP(ctx context.Context, ready chan<- struct{}) error {
	// A nil provider must not become a non-nil interface.
	var provider accesspages.Provider
	if c.cfg.OIDC.Issuer != "" {
		p, err := oidc.New(c.cfg.OIDC, c.url()+accesspages.CallbackPath)
		if err != nil {
			return err
		}
		defer p.Close()
		provider = p
	}
	pages, err := ui.New(ui.Config{
		Provider: provider,
		Guard:    c.guard, Log: c.log.With("component", "ui"), Version: version, Store: c.store, Roster: c.roster, Metrics: c.set, Assets: c.assets, Searches: c.state,
		Live: uilive.SourceFunc(func(q controlbus.LiveQuery, who controlbus.LiveReader) (uilive.Subscription, error) {
			return c.hub.Subscribe(q, who)
		}),
		Self: health{c}, Effective: c.effective, Commands: c.commands, Probes: c.probes, Verifier: trailVerifier{c.cfg},
	})
	if err != nil {
		return err
	}
	mux := c.guard.Mux()
	for _, path := range []string{"/v1/logs", "/v1/traces", "/v1/metrics"} {
		mux.Handle(path, access.IngestTelemetry, c.receiver.Handler(), nil)
	}
	mux.Handle(link.Path, access.AgentLink, c.roster.Handler(), nil)
	mux.Handle(link.OpAMPPath, access.AgentLink, c.opamp, nil)
	mux.Handle("GET "+link.FetchPath, access.AgentLink, c.commands.FetchHandler(), nil)
	mux.Handle(link.EnrolPath, access.Enrol, link.EnrolHandler(c.guard.Access()), nil)
	mux.Handle("GET /healthz", access.Public, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n") // for load balancers: the program answers
	}), nil)
	mux.Handle("GET /metrics", access.Scrape, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		c.set.WritePrometheus(w)
		metrics.WriteProcessMetrics(w)
	}), nil)
	queries := prometheus.New(c.cfg.Prometheus, prometheus.Deps{
		Querier: c.store, Version: version, Log: c.log.With("component", "prometheus"), Metrics: c.set,
		Scope: func(ctx context.Context) controlbus.Scope {
			scope, _ := controlbus.ScopeFrom(ctx)
			return scope
		},
	})
	mux.Handle(prometheus.Path+"/", access.ViewMetrics, queries, prometheus.Refuse)
	var p pulse
	if c.engine != nil {
		p.client = c.engine.HTTPClient()
	}
	var feeling sync.WaitGroup
	feelCtx, enough := context.WithCancel(ctx)
	defer feeling.Wait()
	defer enough()
	feeling.Go(func() { p.run(feelCtx) })
	mux.Mount("/", guard.Wrap(pages, p.hurry))
	if err := mux.Err(); err != nil {
		return err
	}

	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(c.log.With("component", "http").Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() {
		if c.cert != nil {
			server.TLSConfig = c.cert.config("h2", "http/1.1")
			served <- server.ServeTLS(c.http, "", "")
			return
		}
		served <- server.Serve(c.http)
	}()
	close(ready)
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	c.hub.Close() // sockets end first: Shutdown does not know them
	c.opamp.Close()
	pages.Close()
	shutdown, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.Grace/2)
	defer cancel()
	err = server.Shutdown(shutdown)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	err = errors.Join(err, queries.Close())
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// runGRPC serves OTLP/gRPC.
func (c *console) runGRPC(ctx context.Context) error {
	var opts []grpc.ServerOption
	if c.cert != nil {
		opts = append(opts, grpc.Creds(credentials.NewTLS(c.cert.config("h2"))))
	}
	server := c.receiver.GRPCServer(opts...)
	served := make(chan error, 1)
	go func() { served <- server.Serve(c.grpc) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	force := time.AfterFunc(c.cfg.Grace/2, server.Stop)
	defer force.Stop()
	server.GracefulStop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}
