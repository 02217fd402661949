package fault

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/test/program"
)

// wire is a proxy in front of a console whose connections can be cut all at once.
type wire struct {
	net.Listener
	to string

	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, to: to, conns: map[net.Conn]bool{}}
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() { w.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
		w.wg.Wait()
	})
	return w
}

func (w *wire) carry(c net.Conn) {
	defer c.Close()
	far, err := net.DialTimeout("tcp", w.to, 10*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	w.mu.Lock()
	w.conns[c] = true
	w.mu.Unlock()
	var wg sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{c: far, far: c} {
		wg.Go(func() {
			_, _ = io.Copy(to, from) // until one of them is closed
			_, _ = c.Close(), far.Close()
		})
	}
	wg.Wait()
	w.mu.Lock()
	delete(w.conns, c)
	w.mu.Unlock()
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}

// herd is many agents that stay connected.
type herd struct {
	n  int
	up atomic.Int32

	mu       sync.Mutex
	upgrades []time.Time
}

func (h *herd) run(ctx context.Context, t *testing.T, address string) *sync.WaitGroup {
	t.Helper()
	var wg sync.WaitGroup
	for i := range h.n {
		started := time.Now()
		d := &link.Dialer{URL: address, Log: slog.New(slog.DiscardHandler), Agent: func() controlbus.Agent {
			return controlbus.Agent{
				ID: fmt.Sprintf("herd-%04d", i), Incarnation: "one", Version: "test", Host: "vm", Env: agentEnv, StartedAt: started, SentAt: time.Now(),
				Brokers: []controlbus.BrokerStatus{{Name: fmt.Sprintf("rabbit-%04d", i), System: "rabbitmq", Product: "RabbitMQ", Connected: true, Since: started}},
			}
		}}
		wg.Go(func() {
			d.Run(ctx, func(ctx context.Context, l link.Link) error {
				h.mu.Lock()
				h.upgrades = append(h.upgrades, time.Now())
				h.mu.Unlock()
				h.up.Add(1)
				defer h.up.Add(-1)
				for {
					if _, err := l.Recv(ctx); err != nil {
						return err
					}
				}
			})
		})
	}
	return &wg
}

// back waits until all are connected and returns how long that took and how many
// came within any tenth of a second.
func (h *herd) back(t *testing.T, what string) {
	t.Helper()
	took := await(t, 2*time.Minute, func(context.Context) error {
		if up := int(h.up.Load()); up < h.n {
			return fmt.Errorf("%s: %d of %d are back", what, up, h.n)
		}
		return nil
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.SortFunc(h.upgrades, time.Time.Compare)
	most := 0
	for i, j := 0, 0; i < len(h.upgrades); i++ {
		for h.upgrades[i].Sub(h.upgrades[j]) > 100*time.Millisecond {
			j++
		}
		most = max(most, i-j+1)
	}
	t.Logf("%s: all %d back after %v, at most %d upgrades in 100ms", what, h.n, took.Round(time.Millisecond), most)
	if most > 150 {
		t.Errorf("%s: %d upgrades in 100ms, want at most 150", what, most)
	}
}

func (h *herd) forget() {
	h.mu.Lock()
	h.upgrades = nil
	h.mu.Unlock()
}

// readers look at pages until ctx ends; each waits a moment between two.
type readers struct {
	mu   sync.Mutex
	took map[string][]time.Duration
	bad  []string
}

func (r *readers) read(ctx context.Context, base string) {
	own := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
	defer own.CloseIdleConnections()
	for i := 0; ctx.Err() == nil; i++ {
		path := []string{"/", "/control", "/agents"}[i%3]
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
		if err != nil {
			return
		}
		began := time.Now()
		res, err := own.Do(req)
		if ctx.Err() != nil {
			if err == nil {
				_ = res.Body.Close()
			}
			return
		}
		status := 0
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			status = res.StatusCode
		}
		r.mu.Lock()
		if ctx.Err() == nil {
			r.took[path] = append(r.took[path], time.Since(began))
			if err != nil || status != http.StatusOK {
				r.bad = append(r.bad, fmt.Sprintf("%s: %d %v", path, status, err))
			}
		}
		r.mu.Unlock()
		_ = sleep(ctx, 20*time.Millisecond)
	}
}

// while reads pages with several readers while f runs, and judges.
func while(t *testing.T, base, what string, limit time.Duration, f func()) {
	t.Helper()
	r := &readers{took: map[string][]time.Duration{}}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { r.read(ctx, base) })
	}
	f()
	stop()
	wg.Wait()
	var all []time.Duration
	for path, took := range r.took {
		slices.Sort(took)
		t.Logf("%s: %-9s read %4d times: p50 %v, p99 %v, at most %v", what, path, len(took), percentile(took, .5).Round(time.Millisecond), percentile(took, .99).Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
		all = append(all, took...)
	}
	slices.Sort(all)
	if len(all) < 50 {
		t.Errorf("%s: only %d pages were read", what, len(all))
		return
	}
	p99 := percentile(all, .99)
	t.Logf("%s: %d pages: p99 %v", what, len(all), p99.Round(time.Millisecond))
	if p99 > limit {
		t.Errorf("%s: pages: p99 %v, want at most %v", what, p99, limit)
	}
	if len(r.bad) > 0 {
		t.Errorf("%s: %d pages were not answered, the first: %s", what, len(r.bad), r.bad[0])
	}
}

// TestFaultHerd cuts all connections of many agents at once, and then kills the
// console: they come back spread over time, and its pages answer meanwhile.
func TestFaultHerd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a console")
	}
	n, limit := 100, 2*time.Second
	if soak() {
		n, limit = 1000, time.Second
	}
	site := newSite(t, func(cfg map[string]any) { cfg["listen_grpc"] = "" })
	console := &victim{t: t, name: program.Console, args: site.args()}
	console.start()
	site.ready(t.Context(), t, console.proc)
	w := newWire(t, site.http)

	ctx, cancel := context.WithCancel(t.Context())
	h := &herd{n: n}
	done := h.run(ctx, t, "http://"+w.Addr().String())
	defer done.Wait()
	defer cancel()
	h.back(t, "at first")
	while(t, site.url(), "quiet", limit, func() { _ = sleep(t.Context(), 5*time.Second) })

	h.forget()
	while(t, site.url(), "cut", limit, func() {
		w.cut()
		await(t, 30*time.Second, func(context.Context) error {
			if up := int(h.up.Load()); up > n/2 {
				return fmt.Errorf("%d of %d have not noticed", up, n)
			}
			return nil
		})
		h.back(t, "cut")
	})

	h.forget()
	console.kill()
	console.start()
	site.ready(t.Context(), t, console.proc)
	while(t, site.url(), "console killed", limit, func() { h.back(t, "console killed") })
}
