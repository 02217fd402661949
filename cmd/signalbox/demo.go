package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/action"
	"github.com/signalbox-dev/signalbox/agents/export"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/demo/broker"
	"github.com/signalbox-dev/signalbox/demo/company"
)

var demoCommand = command{
	name:    "demo",
	summary: "run a console with a broker, an agent and a small company to watch",
	run: func(ctx context.Context, args []string) error {
		return runDemo(ctx, args, os.Stdout, os.Stderr)
	},
}

// demoGrace is what each part of the demo gets to stop.
const demoGrace = 10 * time.Second

// demoOptions are the flags of signalbox demo.
type demoOptions struct {
	console string // URL of another console; the demo has its own otherwise
	listen  string
	grpc    string
	dev     bool
	data    string
	rate    float64
	seed    uint64
}

func parseDemo(args []string, stderr io.Writer) (demoOptions, error) {
	var o demoOptions
	fs := flag.NewFlagSet("signalbox demo", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, `Usage: signalbox demo [flags]

Runs a console with its store, a NATS broker, an agent beside it, and a small
order-processing company that sends real messages and fails in real ways.
Everything is in this process, but for the store's engine, and listens on
loopback only.

`)
		fs.PrintDefaults()
	}
	fs.StringVar(&o.console, "console", "", "`URL` of a console that is told instead of one of the demo's own")
	fs.StringVar(&o.listen, "listen", defaultConfig().Listen, "`address` of the console")
	fs.StringVar(&o.grpc, "listen-grpc", defaultConfig().ListenGRPC, "`address` of OTLP/gRPC; empty for none")
	fs.BoolVar(&o.dev, "dev", false, "serve browser assets from ui/asset/dist instead of the built-in copy")
	fs.StringVar(&o.data, "data", filepath.Join(".data", "demo"), "data `directory`")
	fs.Float64Var(&o.rate, "rate", company.DefaultConfig().Rate, "orders per second")
	fs.Uint64Var(&o.seed, "seed", 1, "seed of what customers buy and what goes wrong")
	if err := parseFlags(fs, args); err != nil {
		return o, err
	}
	if u, err := url.Parse(o.console); o.console != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return o, fmt.Errorf("%w: demo: -console: want an http or https URL, have %q", errUsage, o.console)
	}
	if o.data == "" {
		return o, fmt.Errorf("%w: demo: -data: want a directory", errUsage)
	}
	if !(o.rate > 0 && o.rate <= company.MaxRate) { // also refuses NaN
		return o, fmt.Errorf("%w: demo: -rate: want more than 0 and at most %d, have %v", errUsage, company.MaxRate, o.rate)
	}
	return o, nil
}

func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseDemo(args, stderr)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p := &progress{out: stdout, begin: time.Now()}
	var stages []stage
	if o.console == "" {
		c, err := demoConsole(ctx, o, log)
		if err != nil {
			return err
		}
		defer func() {
			if err := c.close(); err != nil {
				log.Error("close the console", "error", err)
			}
		}()
		o.console = c.url()
		for _, s := range c.stages() {
			stages = append(stages, s)
			if s.ready != nil {
				stages = append(stages, p.stage(s.name+" ready"))
			}
		}
	}
	parts, err := demoStages(o, log, p)
	if err != nil {
		return err
	}
	stages = append(stages, parts...)
	stages = append(stages, stage{name: "greeting", run: func(ctx context.Context) error {
		p.say("Signalbox watches the demo at %s (Ctrl-C ends it)", o.console)
		<-ctx.Done()
		return nil
	}})
	err = runStages(ctx, log, demoGrace, stages...)
	p.step("stopped")
	return err
}

// demoConsole is the console of signalbox serve, with the demo's addresses.
func demoConsole(ctx context.Context, o demoOptions, log *slog.Logger) (*console, error) {
	cfg := defaultConfig()
	cfg.DataDir, cfg.Listen, cfg.ListenGRPC = filepath.Join(o.data, "console"), o.listen, o.grpc
	// To be looked at at once, by whoever sits at this machine.
	cfg.Access.Mode = access.ModeOpen
	cfg.derive()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("%w: demo:\n%w", errUsage, err)
	}
	c, err := newConsole(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	if o.dev {
		c.assets = os.DirFS("ui/asset/dist")
	}
	return c, nil
}

// demoStages are the demo's parts, from the broker to the company that needs
// all the others. They stop in reverse: the company finishes its orders, the
// agent takes its taps off and sends what it has, then the broker ends.
func demoStages(o demoOptions, log *slog.Logger, p *progress) ([]stage, error) {
	if err := os.MkdirAll(o.data, 0o700); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	b, err := broker.New(broker.Config{Dir: filepath.Join(o.data, "broker"), Addr: "127.0.0.1:0"},
		log.With("component", "broker"))
	if err != nil {
		return nil, err
	}
	brokerReady, agentReady, companyReady := make(chan struct{}), make(chan struct{}), make(chan struct{})
	return []stage{
		{name: "broker", ready: brokerReady, run: func(ctx context.Context) error {
			defer b.Stop()
			if err := b.Start(ctx); err != nil {
				return err
			}
			// The channels exist before the agent looks for them.
			if err := company.Declare(ctx, b.URL()); err != nil {
				return err
			}
			p.step("broker ready (NATS with JetStream at %s)", b.URL())
			close(brokerReady)
			return b.Run(ctx)
		}},
		{name: "agent", ready: agentReady, run: func(ctx context.Context) error {
			cfg := demoAgent(o, b)
			agent, err := agents.New(cfg, version, log.With("component", "agent"))
			if err != nil {
				return err
			}
			var watch sync.WaitGroup
			defer watch.Wait()
			watch.Go(func() {
				// The company waits, so that its first message is seen; but not for
				// long, because a company does not wait for who watches it.
				if tapped(ctx, agent, len(cfg.Brokers[0].Taps)) {
					p.step("agent ready (%d taps)", len(cfg.Brokers[0].Taps))
				} else if ctx.Err() == nil {
					p.step("agent started; its taps are not all in place yet")
				}
				close(agentReady)
			})
			return agent.Run(ctx)
		}},
		{name: "company", ready: companyReady, run: func(ctx context.Context) error {
			cfg := company.DefaultConfig()
			cfg.Broker, cfg.Endpoint, cfg.Rate, cfg.Seed = b.URL(), o.console, o.rate, o.seed
			p.step("company opens (%g orders per second)", o.rate)
			close(companyReady)
			return company.Run(ctx, cfg, log.With("component", "company"))
		}},
	}, nil
}

// tapWait bounds how long the company waits for the taps.
const tapWait = 3 * time.Second

// tapped waits until all taps run, and says whether they do.
func tapped(ctx context.Context, agent *agents.Agent, want int) bool {
	deadline := time.NewTimer(tapWait)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		running := 0
		for _, t := range agent.Report().Taps {
			if t.State == controlbus.TapRunning {
				running++
			}
		}
		if running >= want {
			return true
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// demoBroker is what the console calls the demo's broker.
const demoBroker = "nats-demo"

// demoAgent is the agent's configuration: what its file would say.
func demoAgent(o demoOptions, b *broker.Broker) agents.Config {
	cfg := agents.DefaultConfig()
	cfg.Agent = agents.AgentConfig{ID: "demo", Env: company.DefaultConfig().Environment, DataDir: filepath.Join(o.data, "agent")}
	cfg.Console.URL = o.console
	cfg.Redaction.Paths = []export.PathRule{{Name: "card.pan", Path: "$.card.pan"}}
	adapter := nats.DefaultConfig()
	adapter.URLs = []string{b.URL()}
	adapter.MonitorURL = b.MonitorURL()
	adapter.Subjects = []string{"notifications.email", "fraud.check"}
	adapter.ServiceSubjects = []string{"fraud.check"}
	entry := agents.BrokerConfig{Name: demoBroker, Type: "nats", ObserveInterval: 2 * time.Second,
		New: func(id agents.Identity, log *slog.Logger) (agents.Adapter, error) {
			return nats.New(demoBroker, id, adapter, log), nil
		}}
	for _, channel := range []string{"ORDERS", "PAYMENTS", "SHIPPING", "DEADLETTERS", "notifications.email"} {
		entry.Taps = append(entry.Taps, controlbus.TapSpec{ID: "demo-" + channel, Broker: demoBroker, Channel: channel})
	}
	cfg.Brokers = []agents.BrokerConfig{entry}
	// It is the demo's own broker and company: everything may be done to them.
	cfg.Commands.Allow = []link.AllowRule{{Broker: "*", Channel: "*"}}
	cfg.Commands.New = action.Commands
	return cfg
}

// progress tells on standard output how the start goes.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	begin time.Time
	last  time.Time
}

// step says what is done and how long it took.
func (p *progress) step(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	since := p.begin
	if !p.last.IsZero() {
		since = p.last
	}
	p.last = now
	fmt.Fprintf(p.out, "%-64s %5.1f s\n", fmt.Sprintf(format, args...), now.Sub(since).Seconds())
}

// stage is a stage that says, when its turn comes, that the one before is done.
func (p *progress) stage(what string) stage {
	return stage{name: what, run: func(ctx context.Context) error {
		p.step("%s", what)
		<-ctx.Done()
		return nil
	}}
}

func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, format+"\n", args...)
}
