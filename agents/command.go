package agents

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/agents/journal"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// CommandConfig says what the console may order. The console cannot change it.
type CommandConfig struct {
	// Allow lists what may be done, by kind, broker and channel. Without a rule
	// the agent takes no orders, whatever the console says.
	Allow []link.AllowRule `yaml:"allow"`
	// Archive is where the messages that commands remove are kept.
	Archive ArchiveConfig `yaml:"archive"`
	// HTTPAllow are the addresses to which, and below which, a detour's steps may
	// post messages. Without one there are no such steps.
	HTTPAllow []string `yaml:"http_allow"`
	// New makes what carries them out, out of the agent's parts. The command sets
	// it; without one only Handlers are known.
	New func(CommandEnv) (Commands, error) `yaml:"-"`
	// Handlers carry out kinds beside those of New, for programs that embed an
	// agent.
	Handlers map[controlbus.CommandKind]link.Handler `yaml:"-"`
}

func (c CommandConfig) validate() error {
	var errs []error
	for i, r := range c.Allow {
		if r.Broker == "" || r.Channel == "" {
			errs = append(errs, fmt.Errorf("allow[%d]: want a broker and a channel, names or patterns with *", i))
		}
		for j, k := range r.Kinds {
			if _, known := k.Info(); !known {
				errs = append(errs, fmt.Errorf("allow[%d].kinds[%d]: want one of %v, have %q", i, j, controlbus.CommandKinds(), k))
			}
		}
	}
	if err := c.Archive.Validate(); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			errs = append(errs, errors.New("archive."+line))
		}
	}
	errs = append(errs, checkURLs(c.HTTPAllow))
	return errors.Join(errs...)
}

// handlers are those of the commands and of the program that embeds the agent.
func handlers(cfg CommandConfig, c Commands) map[controlbus.CommandKind]link.Handler {
	all := map[controlbus.CommandKind]link.Handler{}
	if c != nil {
		maps.Copy(all, c.Handlers())
	}
	maps.Copy(all, cfg.Handlers)
	return all
}

// openCommands takes up what the journal says the agent was doing.
func openCommands(cfg Config, c Commands, handlers map[controlbus.CommandKind]link.Handler, log *slog.Logger) (*journal.Journal, *link.Executor, error) {
	j, err := journal.Open(journal.Config{Dir: filepath.Join(cfg.Agent.DataDir, "journal")})
	if err != nil {
		return nil, nil, fmt.Errorf("agents: %w", err)
	}
	for _, d := range j.Damaged() {
		log.Error("a part of the command journal was damaged; what it said of commands is not known any more", "from", d.From, "to", d.To, "reason", d.Reason, "kept", d.Kept)
	}
	ec := link.ExecutorConfig{Agent: cfg.Agent.ID, Journal: j, Handlers: handlers, Allow: cfg.Commands.Allow, Log: log}
	if c != nil {
		ec.Plan = c.Plan
	}
	exec, err := link.NewExecutor(context.Background(), ec)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("agents: %w", err), j.Close())
	}
	return j, exec, nil
}

// dialer connects to the console as the agent, with its credential.
func (a *Agent) dialer() *link.Dialer {
	return &link.Dialer{
		URL: a.cfg.Console.URL, Agent: a.Report, Log: a.log.With("component", "link"),
		HTTP: a.credential.client(30 * time.Second), Transport: a.credential.transport(),
		Header: func() http.Header {
			h := http.Header{}
			if secret := a.credential.have.Load(); secret != nil {
				h.Set("Authorization", "Bearer "+secret.Reveal())
			}
			return h
		},
	}
}

// connect keeps the agent connected to the console. While it is, reports and
// what is wanted travel there, and so do commands.
func (a *Agent) connect(ctx context.Context) error {
	a.dialer().Run(ctx, a.serve)
	return nil
}

// serve is one connection.
func (a *Agent) serve(ctx context.Context, l link.Link) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer a.linked.Store(false)
	wg.Go(func() {
		for {
			pause := 50 * time.Millisecond // until the session is open
			if epoch := a.commands.Epoch(); epoch != 0 {
				a.linked.Store(true)
				r := a.Report()
				if err := l.Send(ctx, link.Frame{Epoch: epoch, Actual: &r}); err != nil {
					cancel()
					return
				}
				i := a.cfg.Console.ReportInterval
				pause = i - i/20 + mathrand.N(i/10+1)
			}
			if !a.pause(ctx, pause, true) {
				return
			}
		}
	})
	return a.commands.Serve(ctx, l, func(f link.Frame) { a.apply(*f.Desired) })
}
