package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // bombs are compressed
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/signalbox-dev/signalbox/collector/otlp"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
	"github.com/signalbox-dev/signalbox/test/program"
)

// memoryMost is what the console's process may take at its worst.
const memoryMost = 512 << 20

// peak is the most memory a process has had, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatalf("no VmHWM in %s", text)
	}
	kb, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// post sends an OTLP request and returns the status.
func post(ctx context.Context, url, kind, encoding string, body io.Reader) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", kind)
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body) // only the status counts
	return res.StatusCode, nil
}

const (
	protobuf = "application/x-protobuf"
	jsonType = "application/json"
)

// message is a request with one tapped message.
func message(name string, body []byte, headers ...controlbus.Header) []byte {
	e := telemetry.NewEncoder(telemetry.Origin{AgentID: "hostile", Env: agentEnv})
	e.Append(&controlbus.MessageEvent{
		UID: uidOf(name), Time: time.Now().UnixNano(), System: "nats", Broker: "b", Destination: "hostile." + name,
		Op: controlbus.OpTap, Body: body, BodySize: int64(len(body)), Headers: headers,
	})
	return e.Request(nil)
}

func uidOf(name string) controlbus.ID { return controlbus.HashID("hostile", name) }

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstandard(t *testing.T, b []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

// nested wraps empty submessages: small on the wire, large in memory.
func nested(n int, path ...byte) []byte {
	b := bytes.Repeat([]byte{path[len(path)-1]<<3 | 2, 0}, n)
	for i := len(path) - 2; i >= 0; i-- {
		size := uint64(len(b))
		head := []byte{path[i]<<3 | 2}
		for ; size >= 0x80; size >>= 7 {
			head = append(head, byte(size)|0x80)
		}
		b = append(append(head, byte(size)), b...)
	}
	return b
}

type attack struct {
	name, path, kind, encoding string
	body                       []byte
	size                       int64 // of zeros, where body is nil
	want                       []int
}

func attacks(t *testing.T) []attack {
	t.Helper()
	const bomb = 512 << 20
	zeros := make([]byte, bomb)
	gz, zs := gzipped(t, zeros), zstandard(t, zeros)
	sound := message("sound", []byte(`{"a":1}`))
	refused, large := []int{400}, []int{413}
	return []attack{
		{name: "gzip bomb", path: "logs", kind: protobuf, encoding: "gzip", body: gz, want: large},
		{name: "zstd bomb", path: "logs", kind: protobuf, encoding: "zstd", body: zs, want: large},
		{name: "zstd bomb as JSON", path: "traces", kind: jsonType, encoding: "zstd", body: zs, want: large},
		{name: "gzip of gzip", path: "logs", kind: protobuf, encoding: "gzip", body: gzipped(t, gz), want: refused},
		{name: "not gzip", path: "logs", kind: protobuf, encoding: "gzip", body: sound, want: refused},
		{name: "cut gzip", path: "logs", kind: protobuf, encoding: "gzip", body: gzipped(t, sound)[:20], want: refused},
		{name: "unknown encoding", path: "logs", kind: protobuf, encoding: "br", body: sound, want: []int{415}},
		{name: "unknown type", path: "logs", kind: "text/html", body: sound, want: []int{415}},
		{name: "100 MB body", path: "logs", kind: protobuf, size: 100 << 20, want: large},
		{name: "100 MB JSON", path: "metrics", kind: jsonType, size: 100 << 20, want: large},
		{name: "truncated protobuf", path: "logs", kind: protobuf, body: sound[:len(sound)-3], want: refused},
		{name: "absurd length", path: "logs", kind: protobuf, body: []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1}, want: refused},
		{name: "absurd length of a span", path: "traces", kind: protobuf, body: []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x07, 1}, want: refused},
		{name: "wrong wire type", path: "metrics", kind: protobuf, body: []byte{0x08, 1}, want: refused},
		{name: "text for protobuf", path: "logs", kind: protobuf, body: []byte("GET / HTTP/1.1\r\n\r\n"), want: refused},
		{name: "deep JSON", path: "logs", kind: jsonType, body: bytes.Repeat([]byte(`{"resourceLogs":[`), 100_000), want: refused},
		{name: "deep brackets", path: "traces", kind: jsonType, body: bytes.Repeat([]byte("["), 100_000), want: refused},
		{name: "wrong JSON", path: "logs", kind: jsonType, body: []byte(`{"resourceLogs":7}`), want: refused},
		{name: "cut JSON", path: "metrics", kind: jsonType, body: []byte(`{"resourceMetrics":[{"scopeMetrics":`), want: refused},
		{name: "millions of objects", path: "traces", kind: jsonType, body: append([]byte(`{"resourceSpans":[{}`), append(bytes.Repeat([]byte(",{}"), 5_000_000), "]}"...)...), want: large},
		{name: "millions of log records", path: "logs", kind: protobuf, body: nested(8_000_000, 1, 2, 2), want: large},
		{name: "millions of spans", path: "traces", kind: protobuf, body: nested(8_000_000, 1, 2, 2), want: large},
		{name: "millions of events", path: "traces", kind: protobuf, body: nested(8_000_000, 1, 2, 2, 11), want: large},
		{name: "millions of points", path: "metrics", kind: protobuf, body: nested(8_000_000, 1, 2, 2, 5, 1), want: large},
	}
}

func (a attack) run(ctx context.Context, site *site) (int, error) {
	var body io.Reader = bytes.NewReader(a.body)
	if a.body == nil {
		body = io.LimitReader(zero{}, a.size)
	}
	return post(ctx, site.url()+"/v1/"+a.path, a.kind, a.encoding, body)
}

// zero is a source of zeros without an end.
type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFaultHostile sends a running console what nobody should, first one by one
// and then as a crowd beside a healthy sender.
func TestFaultHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a console")
	}
	site := newSite(t, func(cfg map[string]any) { cfg["ingest"] = map[string]any{"max_delay": "100ms"} })
	console := program.Start(t, program.Console, nil, site.args()...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	site.ready(ctx, t, console)

	all := attacks(t)
	for _, a := range all {
		begin := time.Now()
		before := peak(t, console.PID())
		code, err := a.run(ctx, site)
		// A sender that is refused while it still sends may see its connection
		// end before it sees the answer.
		if err != nil && (a.body != nil || errors.Is(err, context.DeadlineExceeded)) {
			t.Errorf("%s: %v", a.name, err)
		} else if err == nil && !oneOf(code, a.want) {
			t.Errorf("%s: got %d, want one of %v", a.name, code, a.want)
		}
		t.Logf("%-26s %d in %v, peak %d → %d MiB", a.name, code, time.Since(begin).Round(time.Millisecond), before>>20, peak(t, console.PID())>>20)
	}
	t.Run("messages", func(t *testing.T) { hostileMessages(ctx, t, site) })
	t.Run("connections", func(t *testing.T) { hostileConnections(ctx, t, site) })
	t.Run("crowd", func(t *testing.T) { hostileCrowd(ctx, t, site, all) })

	select {
	case <-console.Done():
		t.Fatalf("the console ended:\n%s", console.Output())
	default:
	}
	got := peak(t, console.PID())
	t.Logf("peak memory of the console: %d MiB", got>>20)
	if got > memoryMost {
		t.Errorf("peak memory: got %d MiB, want at most %d", got>>20, memoryMost>>20)
	}
	if out := console.Output(); strings.Contains(out, "panic") {
		t.Errorf("something panicked:\n%s", out)
	}
}

func oneOf(code int, want []int) bool {
	for _, w := range want {
		if code == w {
			return true
		}
	}
	return false
}

// hostileMessages are stored, cut where they are too large; their pages open.
func hostileMessages(ctx context.Context, t *testing.T, site *site) {
	many := make([]controlbus.Header, 10_000)
	for i := range many {
		many[i] = controlbus.Header{Key: fmt.Sprintf("x-%d", i), Value: strings.Repeat("v", 50)}
	}
	big := make([]byte, 12<<20)
	for i := range big {
		big[i] = 'a' + byte(i%26)
	}
	for _, c := range []struct {
		name    string
		body    []byte
		headers []controlbus.Header
		shows   string
	}{
		{name: "utf8", body: []byte("\xff\xfe\x00\xc3\x28 \xed\xa0\x80"), shows: "hex"},
		{name: "rtl", body: []byte("abc\u202e\u2066txt.exe\x00\x1b[31m")},
		{name: "headers", body: []byte("x"), headers: many},
		{name: "header", body: []byte("x"), headers: []controlbus.Header{{Key: "big", Value: strings.Repeat("h", 1<<20)}}},
		{name: "headerbytes", body: []byte("x"), headers: []controlbus.Header{{Key: "\xff<script>alert(1)</script>\r\nSet-Cookie: a", Value: "\xc3\x28\x00"}}},
		{name: "deep", body: bytes.Repeat([]byte("["), 100_000)},
		{name: "deepobject", body: bytes.Repeat([]byte(`{"a":`), 100_000)},
		{name: "closed", body: append(bytes.Repeat([]byte("["), 100_000), bytes.Repeat([]byte("]"), 100_000)...)},
		{name: "commas", body: append([]byte("[0"), append(bytes.Repeat([]byte(",0"), 400_000), ']')...)},
		{name: "large", body: big},
		{name: "gzipbody", body: gzipped(t, make([]byte, 32<<20))},
		{name: "script", body: []byte(`<script>alert(1)</script>{"a":"</pre><img src=x onerror=alert(1)>"}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, err := post(ctx, site.url()+"/v1/logs", protobuf, "", bytes.NewReader(message(c.name, c.body, c.headers...)))
			if err != nil || code != http.StatusOK {
				t.Fatalf("send: got %d, %v", code, err)
			}
			var size int64
			await(t, 20*time.Second, func(ctx context.Context) error {
				text, err := site.query(ctx, "SELECT body_size FROM signalbox.messages WHERE destination = 'hostile."+c.name+"'")
				if err != nil {
					return err
				}
				size, err = strconv.ParseInt(text, 10, 64)
				return err
			})
			if size != int64(len(c.body)) {
				t.Errorf("size: got %d, want the true one, %d", size, len(c.body))
			}
			for _, mode := range []string{"", "?body=raw", "?body=hex"} {
				begin := time.Now()
				code, text, err := fetch(ctx, site.url()+"/messages/"+uidOf(c.name).String()+mode)
				if err != nil || code != http.StatusOK {
					t.Fatalf("page %s: got %d, %v", mode, code, err)
				}
				if took := time.Since(begin); took > 3*time.Second {
					t.Errorf("page %s: took %v", mode, took)
				}
				if len(text) > 8<<20 {
					t.Errorf("page %s: %d bytes, want a page a browser opens", mode, len(text))
				}
				if strings.Contains(text, "<script>alert") || strings.Contains(text, "<img src=x") {
					t.Errorf("page %s: a message's bytes became markup", mode)
				}
			}
			if code, _, err := fetch(ctx, site.url()+"/messages?"+"q=channel:hostile."+c.name); err != nil || code != http.StatusOK {
				t.Errorf("list: got %d, %v", code, err)
			}
		})
	}
}

// hostileConnections speak HTTP in ways that make a front end and a server
// disagree about where a request ends.
func hostileConnections(ctx context.Context, t *testing.T, site *site) {
	for _, c := range []struct{ name, text, want string }{
		{"two lengths", "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", " 400 "},
		{"a length with a sign", "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde", " 400 "},
		{"an encoding nobody knows", "POST /v1/logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", " 501 "},
		{"a chunk of absurd length", "POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", " 400 "},
		{"a header with a line break", "POST /v1/logs HTTP/1.1\r\nHost: x\r\n folded\r\n: x\r\n\r\n", " 400 "},
		{"a name with a blank", "POST /v1/logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", " 400 "},
		{"no host", "GET / HTTP/1.1\r\n\r\n", " 400 "},
		{"a header of 1 MiB", "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("h", 1<<20) + "\r\n\r\n", " 431 "},
		{"10,000 headers", "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: abcdefgh\r\n", 10_000) + "\r\n", " 431 "},
	} {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", site.http)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(conn, c.text) }() // the answer may come before it is all sent
		buf := make([]byte, 64)
		n, err := io.ReadAtLeast(conn, buf, 16)
		if err != nil || !strings.Contains(string(buf[:n]), c.want) {
			t.Errorf("%s: got %q, %v, want%s", c.name, buf[:n], err, c.want)
		}
		_ = conn.Close() // nothing more is expected of it
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// hostileCrowd sends everything at once, over both transports, while a healthy
// sender goes on.
func hostileCrowd(ctx context.Context, t *testing.T, site *site, all []attack) {
	rounds, callers := 2, 64
	if os.Getenv("SIGNALBOX_SOAK") == "1" {
		rounds, callers = 20, 256
	}
	conn, err := grpc.NewClient(site.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	export := func(conn *grpc.ClientConn, b []byte, opts ...grpc.CallOption) error {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		var answer []byte
		return conn.Invoke(ctx, "/opentelemetry.proto.collector.logs.v1.LogsService/Export", &b, &answer, append(opts, grpc.ForceCodecV2(rawCodec{}))...)
	}
	var crowd, healthy sync.WaitGroup
	over, stop := context.WithCancel(ctx)
	defer stop()
	sent, told := 0, 0
	slowest := time.Duration(0)
	healthy.Go(func() {
		for i := 0; over.Err() == nil; i++ {
			body := message(fmt.Sprint("healthy-", i), []byte("fine"))
			begin := time.Now()
			for {
				code, err := post(ctx, site.url()+"/v1/logs", protobuf, "", bytes.NewReader(body))
				if err == nil && code == http.StatusOK {
					break
				}
				if told++; err != nil || code != http.StatusTooManyRequests || time.Since(begin) > 20*time.Second {
					t.Errorf("healthy sender: got %d, %v", code, err)
					return
				}
				_ = sleep(ctx, 50*time.Millisecond)
			}
			sent++
			slowest = max(slowest, time.Since(begin))
			_ = sleep(over, 20*time.Millisecond)
		}
	})
	var wrong atomic.Int64
	for _, a := range all {
		crowd.Go(func() {
			for range rounds {
				code, err := a.run(ctx, site)
				if err == nil && !oneOf(code, append(a.want, http.StatusTooManyRequests)) {
					wrong.Add(1)
					t.Errorf("%s in the crowd: got %d, want one of %v or 429", a.name, code, a.want)
				}
			}
		})
	}
	bomb, unfolds, cut := make([]byte, 256<<20), nested(2_000_000, 1, 2, 2), []byte{0x0a, 0xff, 0xff, 0x03, 1}
	for i := range callers {
		crowd.Go(func() {
			for range rounds {
				body, opts := cut, []grpc.CallOption(nil)
				switch i % 8 {
				case 0:
					body, opts = bomb, []grpc.CallOption{grpc.UseCompressor("gzip"), grpc.MaxCallSendMsgSize(1 << 30)}
					if i > 8 {
						body = bomb[:3<<20] // within the limit, many at once
					}
				case 1, 2, 3:
					body, opts = unfolds, []grpc.CallOption{grpc.UseCompressor("gzip")}
				}
				begin := time.Now()
				err := export(conn, body, opts...)
				switch took, code := time.Since(begin), status.Code(err); {
				case code == codes.InvalidArgument, code == codes.ResourceExhausted:
				case code == codes.DeadlineExceeded && took >= otlp.DefaultConfig().Timeout:
					// The crowd kept the machine busy beyond what the server gives a call.
				default:
					wrong.Add(1)
					t.Errorf("gRPC in the crowd: got %v after %v", err, took)
				}
			}
		})
	}
	crowd.Wait()
	stop()
	healthy.Wait()
	t.Logf("healthy sender: %d requests taken, told to wait %d times, slowest %v", sent, told, slowest.Round(time.Millisecond))
	if sent < 10 {
		t.Errorf("healthy sender: only %d requests got through", sent)
	}
	// gRPC is still there, for what is sound.
	good := plogotlp.NewExportRequest()
	if err := good.UnmarshalProto(message("grpc", []byte("fine"))); err != nil {
		t.Fatal(err)
	}
	if _, err := plogotlp.NewGRPCClient(conn).Export(ctx, good); err != nil {
		t.Errorf("gRPC after the crowd: %v", err)
	}
	await(t, 30*time.Second, func(ctx context.Context) error {
		text, err := site.query(ctx, "SELECT uniqExact(uid) FROM signalbox.messages WHERE destination LIKE 'hostile.healthy-%' OR destination = 'hostile.grpc'")
		if err == nil && text != strconv.Itoa(sent+1) {
			err = fmt.Errorf("stored %s of %d acknowledged messages", text, sent+1)
		}
		return err
	})
}
