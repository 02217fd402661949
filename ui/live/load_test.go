package live_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"

	hub "github.com/signalbox-dev/signalbox/collector/live"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/live"
)

// The console's side of the measurements runs in a process of its own, so that
// its memory and processor time are its own, and each side has all descriptors
// that one process may have.
const childEnv = "SIGNALBOX_LIVE_CHILD"

func TestMain(m *testing.M) {
	raiseFiles()
	if os.Getenv(childEnv) != "" {
		serveChild()
		return
	}
	goleak.VerifyTestMain(m)
}

func raiseFiles() {
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) == nil {
		lim.Cur = lim.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim)
	}
}

// stats is what the child tells of itself.
type stats struct {
	RSS, Heap, Stack, LogBytes int64
	Readers                    int
	CPU                        float64 // seconds since its start
	Published                  int64
}

// traffic is what the child publishes: Rate messages a second in batches every
// 10 ms, spread evenly over Tenants. Loud of them come Times as often.
type traffic struct {
	Rate, Tenants int
	LoudRate      int // messages a second of tenant "loud" besides
}

func serveChild() {
	set := metrics.NewSet()
	cfg := hub.DefaultConfig()
	cfg.MaxTaps = 20_000
	h := hub.NewHub(cfg, live.AppendRow, set)
	sockets := live.New(live.Config{
		Log:          slog.New(slog.DiscardHandler),
		Limit:        everything,
		WriteTimeout: 10 * time.Minute, // who does not read stays, to be measured
		Source: live.SourceFunc(func(q controlbus.LiveQuery, who controlbus.LiveReader) (live.Subscription, error) {
			return h.Subscribe(q, who)
		}),
	})
	var published atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc(live.Path, func(w http.ResponseWriter, r *http.Request) {
		if err := sockets.Serve(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/stats", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("gc") {
			debug.FreeOSMemory()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		s := stats{
			RSS: rss(), Heap: int64(m.HeapAlloc), Stack: int64(m.StackInuse), Readers: sockets.Readers(), Published: published.Load(),
			CPU: time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds(),
		}
		for line := range strings.Lines(metricsText(set)) {
			if v, ok := strings.CutPrefix(line, "signalbox_live_log_bytes "); ok {
				s.LogBytes, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
			}
		}
		_ = json.NewEncoder(w).Encode(s)
	})
	mux.HandleFunc("/publish", func(_ http.ResponseWriter, r *http.Request) {
		var t traffic
		if json.NewDecoder(r.Body).Decode(&t) == nil {
			go t.run(h, &published)
		}
	})
	srv := httptest.NewServer(mux)
	fmt.Println(srv.URL)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
}

func metricsText(set *metrics.Set) string {
	var b bytes.Buffer
	set.WritePrometheus(&b)
	return b.String()
}

func rss() int64 {
	b, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// message is a believable event of one tenant. Its body begins with the moment
// it is published.
func message(tenant string, n int) *controlbus.MessageEvent {
	return &controlbus.MessageEvent{
		Env: "production", System: "rabbitmq", Broker: "rabbit-eu1", Destination: "orders." + tenant, RoutingKey: "orders." + tenant + ".placed",
		Op: controlbus.OpTap, Outcome: controlbus.OutcomeFailed, MessageID: fmt.Sprintf("018f6a3e-51c7-7b02-9e0d-2c1f55%06d", n), Position: int64(n),
		Headers: []controlbus.Header{{Key: "x-tenant", Value: tenant}, {Key: "traceparent", Value: "00-5b8aa5a2d2c872e8321cf37308d69df2-051581bf3cb55c13-01"}},
		Body:    append(make([]byte, 19), fmt.Sprintf(` {"orderId":"ORD-%07d","tenant":"%s","total":129.90,"items":[{"sku":"TEA-0412","qty":2,"price":"24.95"}],"attempt":3}`, n, tenant)...),
	}
}

func (t traffic) run(h *hub.Hub, published *atomic.Int64) {
	const every = 10 * time.Millisecond
	var quiet, loud []*controlbus.MessageEvent
	for i := range 10_000 {
		ev := message(fmt.Sprintf("t%03d", i%max(t.Tenants, 1)), i)
		ev.BodySize = int64(len(ev.Body))
		quiet = append(quiet, ev)
	}
	for i := range 1000 {
		loud = append(loud, message("loud", i))
	}
	start := time.Now()
	sentQuiet, sentLoud := 0, 0
	tick := time.NewTicker(every)
	defer tick.Stop()
	for now := range tick.C {
		var batch []*controlbus.MessageEvent
		take := func(sent *int, rate int, from []*controlbus.MessageEvent) {
			due := int(now.Sub(start).Seconds() * float64(rate))
			for ; *sent < due; *sent++ {
				batch = append(batch, from[*sent%len(from)])
			}
		}
		take(&sentQuiet, t.Rate, quiet)
		take(&sentLoud, t.LoudRate, loud)
		at := time.Now().UnixNano()
		for _, ev := range batch {
			ev.Time = at
			strconv.AppendInt(ev.Body[:0], at, 10)
		}
		h.Publish(batch)
		published.Add(int64(len(batch)))
	}
}

// child is a console in a process of its own.
type child struct{ base string }

func startChild(tb testing.TB) child {
	tb.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childEnv+"=1", "GOMEMLIMIT=400MiB") // as serve sets it
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		tb.Fatal(err)
	}
	return child{strings.TrimSpace(line)}
}

func (c child) stats(tb testing.TB, query string) stats {
	tb.Helper()
	resp, err := http.Get(c.base + "/stats" + query)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	var s stats
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		tb.Fatal(err)
	}
	return s
}

func (c child) publish(tb testing.TB, t traffic) {
	tb.Helper()
	b, _ := json.Marshal(t)
	resp, err := http.Post(c.base+"/publish", "application/json", bytes.NewReader(b))
	if err != nil {
		tb.Fatal(err)
	}
	_ = resp.Body.Close()
}

// open opens a socket without a library: the client's side has to be small, too.
func (c child) open(q url.Values, receiveBuffer int) (net.Conn, *bufio.Reader, error) {
	addr := strings.TrimPrefix(c.base, "http://")
	d := net.Dialer{Timeout: 20 * time.Second}
	if receiveBuffer > 0 {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
			})
		}
	}
	conn, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET %s?%s HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		live.Path, q.Encode(), addr, c.base); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	r := bufio.NewReaderSize(conn, 512)
	line, err := r.ReadString('\n')
	if err != nil || !strings.Contains(line, " 101 ") {
		return nil, nil, errors.Join(fmt.Errorf("got %q", line), err, conn.Close())
	}
	for line != "\r\n" && err == nil {
		line, err = r.ReadString('\n')
	}
	_ = conn.SetDeadline(time.Time{})
	return conn, r, err
}

// readFrame reads one frame of a server into buf; pings are answered.
func readFrame(conn net.Conn, r *bufio.Reader, buf []byte) ([]byte, error) {
	for {
		var head [10]byte
		if _, err := io.ReadFull(r, head[:2]); err != nil {
			return nil, err
		}
		n := int(head[1] & 127)
		switch n {
		case 126:
			if _, err := io.ReadFull(r, head[2:4]); err != nil {
				return nil, err
			}
			n = int(binary.BigEndian.Uint16(head[2:]))
		case 127:
			if _, err := io.ReadFull(r, head[2:10]); err != nil {
				return nil, err
			}
			n = int(binary.BigEndian.Uint64(head[2:]))
		}
		buf = slices.Grow(buf[:0], n)[:n]
		if _, err := io.ReadFull(r, buf); err != nil {
			return nil, err
		}
		switch head[0] & 15 {
		case 1:
			return buf, nil
		case 8:
			return nil, fmt.Errorf("closed: %q", buf)
		case 9:
			if _, err := conn.Write([]byte{0x8a, 0x80, 0, 0, 0, 0}); err != nil {
				return nil, err
			}
		}
	}
}

// delays is a histogram of milliseconds.
type delays struct {
	bins [20_000]atomic.Int64
	n    atomic.Int64
}

func (d *delays) add(delay time.Duration) {
	d.bins[min(max(delay.Milliseconds(), 0), int64(len(d.bins)-1))].Add(1)
	d.n.Add(1)
}

var textMark = []byte(`"text":"`)

// note takes the delays of all rows in a frame.
func (d *delays) note(frame []byte, now time.Time) (rows int) {
	for {
		i := bytes.Index(frame, textMark)
		if i < 0 || len(frame) < i+len(textMark)+19 {
			return rows
		}
		frame = frame[i+len(textMark):]
		at, err := strconv.ParseInt(string(frame[:19]), 10, 64)
		if err != nil {
			continue
		}
		d.add(now.Sub(time.Unix(0, at)))
		rows++
	}
}

func (d *delays) quantile(q float64) float64 {
	want := int64(math.Ceil(float64(d.n.Load()) * q))
	var sum int64
	for ms := range d.bins {
		if sum += d.bins[ms].Load(); sum >= want && sum > 0 {
			return float64(ms)
		}
	}
	return math.NaN()
}

// BenchmarkFanOut publishes 50,000 messages a second to 100 live taps with a
// filter each, over WebSockets on loopback, for ten seconds (run it with
// -benchtime 1x). Each message fits at most one tap, four in five fit one, so
// 40,000 rows a second arrive: below the rate at which taps begin to sample.
func BenchmarkFanOut(b *testing.B) {
	const taps, rate = 100, 50_000
	for b.Loop() {
		c := startChild(b)
		var d delays
		var rows, matched, sampled, dropped, frames atomic.Int64
		var measuring atomic.Bool
		var readers sync.WaitGroup
		var conns []net.Conn
		for i := range taps {
			conn, r, err := c.open(fanOutQuery(i), 0)
			if err != nil {
				b.Fatal(err)
			}
			conns = append(conns, conn)
			readers.Go(func() {
				var buf []byte
				for {
					var err error
					if buf, err = readFrame(conn, r, buf); err != nil {
						return
					}
					now := time.Now()
					if !measuring.Load() {
						continue
					}
					frames.Add(1)
					rows.Add(int64(d.note(buf, now)))
					var tail struct{ Matched, Sampled, Dropped int64 }
					if i := bytes.LastIndex(buf, []byte(`],"matched"`)); i >= 0 && json.Unmarshal(append([]byte("{"), buf[i+2:]...), &tail) == nil {
						matched.Add(tail.Matched)
						sampled.Add(tail.Sampled)
						dropped.Add(tail.Dropped)
					}
				}
			})
		}
		c.publish(b, traffic{Rate: rate, Tenants: taps * 5 / 4})
		time.Sleep(2 * time.Second) // the first second's burst is over
		before := c.stats(b, "")
		measuring.Store(true)
		start := time.Now()
		var late delays // of a timer: what the machine itself adds
		for time.Since(start) < 10*time.Second {
			due := time.Now().Add(5 * time.Millisecond)
			time.Sleep(5 * time.Millisecond)
			late.add(time.Since(due))
		}
		measuring.Store(false)
		took := time.Since(start).Seconds()
		after := c.stats(b, "")
		for _, conn := range conns {
			_ = conn.Close()
		}
		readers.Wait()
		b.ReportMetric(float64(after.Published-before.Published)/took, "published/s")
		b.ReportMetric(float64(rows.Load())/took, "rows/s")
		b.ReportMetric(float64(frames.Load())/took, "frames/s")
		b.ReportMetric(d.quantile(.5), "p50-ms")
		b.ReportMetric(d.quantile(.99), "p99-ms")
		b.ReportMetric((after.CPU-before.CPU)/took, "cores")
		b.ReportMetric(100*float64(sampled.Load())/float64(max(matched.Load(), 1)), "%sampled")
		b.Logf("%.0f published/s, %.0f rows/s in %.0f frames/s, p50 %.0f ms, p99 %.0f ms, %.2f cores; a timer of 5 ms was %.0f ms late at p99", float64(after.Published-before.Published)/took,
			float64(rows.Load())/took, float64(frames.Load())/took, d.quantile(.5), d.quantile(.99), (after.CPU-before.CPU)/took, late.quantile(.99))
		b.ReportMetric(late.quantile(.99), "late-p99-ms")
		if late.quantile(.99) > 30 {
			b.Log("this machine is too busy with other work to tell")
			return
		}
		if p99 := d.quantile(.99); p99 > 250 {
			b.Errorf("p99 of publish to frame is %.0f ms, want at most 250", p99)
		}
		if got := float64(after.Published-before.Published) / took; got < .98*rate {
			b.Errorf("%.0f messages/s were published, want %d", got, rate)
		}
		if dropped.Load() > 0 {
			b.Errorf("%d messages were dropped", dropped.Load())
		}
		if want := .78 * rate * took; float64(rows.Load()) < want {
			b.Errorf("%d rows arrived, want %.0f", rows.Load(), want)
		}
	}
}

func fanOutQuery(i int) url.Values {
	return url.Values{"channel": {"orders.*"}, "filter": {fmt.Sprintf("header.x-tenant = 't%03d' AND size > 100 AND op:tap AND failed:true AND broker:rabbit-*", i)}}
}

// TestSoakSockets holds 10,000 live taps open, of which 1,000 never read while
// far too much is sent to them, and asks what a socket costs and whether the
// others notice.
func TestSoakSockets(t *testing.T) {
	if os.Getenv("SIGNALBOX_SOAK") != "1" {
		t.Skip("set SIGNALBOX_SOAK=1: it takes a minute and two cores")
	}
	const sockets, deaf, listeners = 10_000, 1_000, 500
	c := startChild(t)
	warm, _, err := c.open(url.Values{"channel": {"orders.t000"}}, 0) // what is made once
	if err != nil {
		t.Fatal(err)
	}
	_ = warm.Close()
	empty := c.stats(t, "?gc")

	var filling, d delays // while the deaf ones' buffers fill, and after
	var steady atomic.Bool
	var lost, cut atomic.Int64
	var ended atomic.Bool
	var readers sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	opened := time.Now()
	slots := make(chan struct{}, 64)
	var opening sync.WaitGroup
	for i := range sockets {
		slots <- struct{}{}
		opening.Go(func() {
			defer func() { <-slots }()
			q, buffer := url.Values{"channel": {fmt.Sprintf("orders.t%03d", i%100)}}, 8<<10
			if i < deaf {
				q, buffer = url.Values{"channel": {"orders.loud", fmt.Sprint(i % 10)}}, 1 // as little as the kernel gives
			}
			conn, r, err := c.open(q, buffer)
			if err != nil {
				t.Errorf("socket %d: %v", i, err)
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			if i < deaf {
				return
			}
			readers.Go(func() {
				var buf []byte
				for {
					var err error
					if buf, err = readFrame(conn, r, buf); err != nil {
						if !ended.Load() {
							cut.Add(1)
						}
						return
					}
					if i < deaf+listeners {
						if steady.Load() {
							d.note(buf, time.Now())
						} else {
							filling.note(buf, time.Now())
						}
						if !bytes.Contains(buf, []byte(`"dropped":0`)) {
							lost.Add(1)
						}
					}
				}
			})
		})
	}
	opening.Wait()
	t.Logf("%d sockets open after %v", len(conns), time.Since(opened).Round(time.Millisecond))
	idle := c.stats(t, "?gc")
	c.publish(t, traffic{Rate: 100, Tenants: 100, LoudRate: 450})
	time.Sleep(20 * time.Second) // the buffers of those who do not read are full after two
	steady.Store(true)
	cpu, at := c.stats(t, "").CPU, time.Now()
	var late delays
	for time.Since(at) < 20*time.Second {
		due := time.Now().Add(5 * time.Millisecond)
		time.Sleep(5 * time.Millisecond)
		late.add(time.Since(due))
	}
	cpu = (c.stats(t, "").CPU - cpu) / time.Since(at).Seconds()
	rows, p50, p99 := d.n.Load(), d.quantile(.5), d.quantile(.99)
	busy := c.stats(t, "?gc")
	each := func(s stats) float64 { return float64(s.RSS-empty.RSS) / sockets / 1024 }
	inUse := func(s stats) float64 { return float64(s.Heap+s.Stack-empty.Heap-empty.Stack) / sockets / 1024 }
	t.Logf("empty: RSS %d MiB; all open and idle: %.1f KiB RSS, %.1f KiB heap and stack each; with traffic: %.1f KiB RSS, %.1f KiB heap and stack each, of which %.1f KiB the shared log; %.2f cores",
		empty.RSS>>20, each(idle), inUse(idle), each(busy), inUse(busy), float64(busy.LogBytes)/sockets/1024, cpu)
	t.Logf("healthy readers: %d rows seen by %d of them, p50 %.0f ms, p99 %.0f ms (%.0f ms while the others' buffers filled); a timer of 5 ms was %.0f ms late at p99", rows, listeners, p50, p99, filling.quantile(.99), late.quantile(.99))
	if busy.Readers != sockets {
		t.Errorf("%d sockets are left, want %d", busy.Readers, sockets)
	}
	if got := each(busy) - float64(busy.LogBytes)/sockets/1024; got > 32 {
		t.Errorf("a socket costs %.1f KiB besides its bounded queue, want at most 32", got)
	}
	if lost.Load() > 0 || cut.Load() > 0 || p99 > 250 && late.quantile(.99) <= 30 || rows == 0 {
		t.Errorf("healthy readers: %d frames tell of loss, %d were cut, p99 %.0f ms, %d rows; want none, none, at most 250 ms, some", lost.Load(), cut.Load(), p99, rows)
	}
	ended.Store(true)
	for _, conn := range conns {
		_ = conn.Close()
	}
	readers.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		left := c.stats(t, "").Readers
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sockets outlive their readers", left)
		}
	}
}
