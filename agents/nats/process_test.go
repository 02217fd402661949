package nats_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
)

// tapJob is what a tap process is told through its environment.
type tapJob struct {
	Config  nats.Config
	ID      agents.Identity
	Channel string
	From    agents.Position
}

// printSink prints each body with its position, unbuffered, so that what was
// printed before a kill was handed on.
type printSink struct{}

func (printSink) Put(_ context.Context, ev *controlbus.MessageEvent, pos agents.Position) error {
	_, err := fmt.Printf("%s %d %s\n", pos.Stream, pos.Seq, ev.Body)
	return err
}
func (printSink) Begin(context.Context, agents.Position) error { return nil }
func (printSink) LostByBroker(n int64)                         { fmt.Println("lost", n) }
func (printSink) Blind(time.Duration)                          {}

// tapProcess is this test binary as an agent: it taps until it is killed.
func tapProcess() {
	var job tapJob
	if err := json.Unmarshal([]byte(os.Getenv("SIGNALBOX_TAP_PROCESS")), &job); err != nil {
		fmt.Println("job:", err)
		return
	}
	ctx := context.Background()
	a := nats.New("nats-test", job.ID, job.Config, slog.New(slog.DiscardHandler))
	if _, err := a.Connect(ctx); err != nil {
		fmt.Println("connect:", err)
		return
	}
	plan, err := a.PlanTap(ctx, job.Channel)
	if err != nil {
		fmt.Println("plan:", err)
		return
	}
	fmt.Println(a.Tap(ctx, plan, job.From, printSink{}, func() { fmt.Println("ready") }))
}

type process struct {
	*os.Process
	out *bufio.Scanner
}

func startProcess(t *testing.T, cfg nats.Config, channel string, from agents.Position) *process {
	t.Helper()
	job, err := json.Marshal(tapJob{cfg, identity(), channel, from})
	must(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SIGNALBOX_TAP_PROCESS="+string(job))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p := &process{cmd.Process, bufio.NewScanner(out)}
	if !p.out.Scan() || p.out.Text() != "ready" {
		t.Fatalf("tap process said %q", p.out.Text())
	}
	return p
}

// TestResumeAfterKillIsExact kills the tap's process again and again while the
// stream is written to, and resumes after the last position it told: nothing is
// missing and nothing comes twice.
func TestResumeAfterKillIsExact(t *testing.T) {
	t.Parallel()
	servers(t, func(t *testing.T, b *bench) {
		const n, kills = 3000, 4
		name := b.stream(t, jetstream.LimitsPolicy, nil).CachedInfo().Config.Name
		cfg := config(b.url)
		cfg.Tap.InactiveThreshold = 2 * time.Second
		p := startProcess(t, cfg, name, agents.Position{})
		go func() {
			for i := range n {
				if _, err := b.js.Publish(context.Background(), name+".a", fmt.Appendf(nil, "%d", i)); err != nil {
					t.Errorf("publish %d: %v", i, err)
					return
				}
			}
		}()
		var pos agents.Position
		for next := 0; next < n; {
			if !p.out.Scan() {
				t.Fatalf("tap process ended after %d messages: %v", next, p.out.Err())
			}
			f := strings.Fields(p.out.Text())
			if len(f) != 3 || f[2] != strconv.Itoa(next) {
				t.Fatalf("message %d came as %q", next, p.out.Text())
			}
			seq, err := strconv.ParseUint(f[1], 10, 64)
			must(t, err)
			pos = agents.Position{Stream: f[0], Seq: seq}
			next++
			if next%(n/(kills+1)) == 0 && next < n {
				must(t, p.Kill())
				p = startProcess(t, cfg, name, pos)
			}
		}
		must(t, p.Kill())
		eventually(t, "the killed taps' consumers to go", 20*time.Second, func() bool {
			return !strings.Contains(strings.Join(b.consumers(t), " "), name+"/")
		})
	})
}

// TestLeftoversOfKilledTap: until the server removes it, a dead incarnation's
// consumer is listed.
func TestLeftoversOfKilledTap(t *testing.T) {
	t.Parallel()
	b := newBench(t, broker.NATSEmbedded(t, nil).URL, "")
	name := b.stream(t, jetstream.LimitsPolicy, nil).CachedInfo().Config.Name
	p := startProcess(t, config(b.url), name, agents.Position{})
	must(t, p.Kill())
	a := connected(t, identity(), config(b.url))
	left, err := a.Leftovers(t.Context())
	if err != nil || len(left) != 1 || !strings.Contains(left[0], name) {
		t.Errorf("leftovers: got %q, %v, want the consumer of %s", left, err, name)
	}
}

// TestSoakStoppedCoreTapProcess measures the one case the agent cannot prevent: its
// whole process is stopped, so its watch-dog is too, and the server itself cuts
// the connection after write_deadline (10 s).
func TestSoakStoppedCoreTapProcess(t *testing.T) {
	if os.Getenv("SIGNALBOX_SOAK") != "1" {
		t.Skip("takes half a minute: SIGNALBOX_SOAK=1")
	}
	servers(t, func(t *testing.T, b *bench) {
		const n = 300_000
		body := make([]byte, 1024)
		round := func(subject string) time.Duration {
			start := time.Now()
			for range n {
				must(t, b.nc.Publish(subject, body))
			}
			must(t, b.nc.FlushTimeout(60*time.Second))
			return time.Since(start)
		}
		without := round("stop.free")
		p := startProcess(t, config(b.url), "stop.tapped", agents.Position{})
		must(t, p.Signal(syscall.SIGSTOP))
		with := round("stop.tapped")
		after := round("stop.tapped")
		t.Logf("%d x 1 KiB: %s without, %s with a stopped tap process, %s once the server has cut it",
			n, without.Round(time.Millisecond), with.Round(time.Millisecond), after.Round(time.Millisecond))
		if with > without+15*time.Second {
			t.Errorf("a stopped tap slows publishers by %s, more than write_deadline explains", with-without)
		}
		if after > without*4+time.Second {
			t.Errorf("publishers are still slow (%s) after the server must have cut the tap", after)
		}
	})
}
