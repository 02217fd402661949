package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// Dialer connects an agent to the console over OpAMP.
type Dialer struct {
	// URL of the console, such as https://console:8470.
	URL string
	// Header goes with every request: the credential.
	Header func() http.Header
	// Agent says what the agent is now; only its description and health travel
	// here.
	Agent func() controlbus.Agent
	// HTTP makes the polls; nil: a client of its own.
	HTTP *http.Client
	// Transport has the proxy, the dialer and the TLS settings of WebSockets; nil:
	// the proxy of the environment and the system's certificates.
	Transport *http.Transport
	Log       *slog.Logger

	once sync.Once
	uid  []byte
}

// BusyError says that the console lets nobody in right now.
type BusyError struct{ After time.Duration }

func (e *BusyError) Error() string {
	return fmt.Sprintf("the console asks to come back in %v", e.After)
}

// Unwrap makes it controlbus.ErrOverloaded.
func (e *BusyError) Unwrap() error { return controlbus.ErrOverloaded }

func (d *Dialer) header() http.Header {
	if d.Header == nil {
		return http.Header{}
	}
	return d.Header()
}

func (d *Dialer) instance() []byte {
	d.once.Do(func() {
		id, err := uuid.NewV7()
		if err != nil {
			id = uuid.New()
		}
		d.uid = id[:]
	})
	return d.uid
}

func (d *Dialer) address(socket bool) (string, error) {
	u, err := url.Parse(d.URL)
	if err != nil {
		return "", fmt.Errorf("link: console address: %w: %w", controlbus.ErrInvalid, err)
	}
	if socket {
		u.Scheme = map[string]string{"http": "ws", "https": "wss"}[u.Scheme]
	}
	return u.JoinPath(OpAMPPath).String(), nil
}

// Dial opens a WebSocket. Errors are a *BusyError when the console lets nobody
// in, controlbus.ErrDenied when it does not take the credential,
// controlbus.ErrUnsupported when something on the way does not speak WebSocket,
// controlbus.ErrUnavailable otherwise.
func (d *Dialer) Dial(ctx context.Context) (Link, error) {
	address, err := d.address(true)
	if err != nil {
		return nil, err
	}
	dialer := websocket.Dialer{Proxy: http.ProxyFromEnvironment, HandshakeTimeout: writeWithin}
	if d.Transport != nil {
		t := d.Transport.Clone() // which waits until nobody prepares the original
		dialer.Proxy, dialer.NetDialContext = t.Proxy, t.DialContext
		if dialer.TLSClientConfig = t.TLSClientConfig; t.TLSClientConfig != nil {
			t.TLSClientConfig.NextProtos = nil // a WebSocket is HTTP/1.1
		}
	}
	conn, resp, err := dialer.DialContext(ctx, address, d.header())
	if resp != nil && resp.Body != nil {
		defer resp.Body.Close()
	}
	if err != nil {
		if resp == nil {
			return nil, fmt.Errorf("link: connect: %w: %w", controlbus.ErrUnavailable, err)
		}
		return nil, refusal("connect", resp)
	}
	l := &clientSocket{d: d, sock: newSocket(conn, MaxOut+1<<10, MaxIn), in: make(chan Frame, 16)}
	l.wg.Go(l.sock.write)
	l.wg.Go(l.read)
	if err := l.tell(nil); err != nil {
		return nil, errors.Join(fmt.Errorf("link: connect: %w: %w", controlbus.ErrUnavailable, err), l.Close())
	}
	return l, nil
}

// Run keeps the agent connected until ctx ends: serve is called with each link,
// which is closed when it returns. Whoever lost the same console as a thousand
// others comes back spread over ten seconds, then with growing pauses. Where
// something on the way does not let WebSockets through, it polls.
func (d *Dialer) Run(ctx context.Context, serve func(context.Context, Link) error) {
	wait := backoff.Backoff{Base: 10 * time.Second, Cap: time.Minute}
	for refused := 0; ; {
		l, err := d.Dial(ctx)
		if errors.Is(err, controlbus.ErrUnsupported) {
			if refused++; refused > 1 {
				l, err = d.Poll(ctx)
			}
		}
		var pause time.Duration
		busy := (*BusyError)(nil)
		switch {
		case err == nil:
			if wait.Failures() > 0 {
				d.Log.InfoContext(ctx, "console reached", "failures", wait.Failures())
			}
			wait.Reset()
			err = serve(ctx, l)
			_ = l.Close()
			pause = wait.Next()
			wait.Reset()
			if ctx.Err() == nil {
				d.Log.WarnContext(ctx, "connection to the console ended", "error", err, "again_in", pause.Round(time.Millisecond))
			}
		case errors.As(err, &busy):
			pause = busy.After + rand.N(time.Second)
		default:
			if wait.Failures() == 0 && ctx.Err() == nil {
				d.Log.WarnContext(ctx, "console cannot be reached", "error", err)
			}
			pause = wait.Next()
		}
		if !backoff.Sleep(ctx, pause) {
			return
		}
	}
}

// refusal makes an error of an HTTP status.
func refusal(what string, resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	switch resp.StatusCode {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || after < 1 || after > 3600 {
			after = 10
		}
		return fmt.Errorf("link: %s: %w", what, &BusyError{time.Duration(after) * time.Second})
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("link: %s: %w: console answered %s: %s", what, controlbus.ErrDenied, resp.Status, bytes.TrimSpace(text))
	case http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusInternalServerError:
		return fmt.Errorf("link: %s: %w: console answered %s: %s", what, controlbus.ErrUnavailable, resp.Status, bytes.TrimSpace(text))
	}
	return fmt.Errorf("link: %s: %w: console answered %s: %s", what, controlbus.ErrUnsupported, resp.Status, bytes.TrimSpace(text))
}

// clientSocket is the agent's Link over a WebSocket.
type clientSocket struct {
	d    *Dialer
	sock *socket
	in   chan Frame
	wg   sync.WaitGroup

	mu  sync.Mutex
	seq uint64
}

// message makes the next message; with full it says what the agent is.
func (d *Dialer) message(seq *uint64, full bool) *protobufs.AgentToServer {
	m := &protobufs.AgentToServer{
		InstanceUid: d.instance(), SequenceNum: *seq,
		Capabilities: uint64(protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus | protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth),
	}
	*seq++
	if full {
		a := d.Agent()
		m.AgentDescription, m.Health = describe(a), healthOf(a)
		m.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{Capability}}
	}
	return m
}

// tell queues a message with a frame in it, or with what the agent is. The lock
// is held meanwhile, so that messages are queued in the order of their numbers.
func (l *clientSocket) tell(f *Frame) error {
	var c *protobufs.CustomMessage
	if f != nil {
		var err error
		if c, err = customMessage(*f); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.d.message(&l.seq, f == nil)
	m.CustomMessage = c
	if f != nil && f.Actual != nil { // health is as fresh as the report
		m.Health = healthOf(*f.Actual)
	}
	return l.sock.send(m)
}

// Send implements Link.
func (l *clientSocket) Send(_ context.Context, f Frame) error { return l.tell(&f) }

// Recv implements Link.
func (l *clientSocket) Recv(ctx context.Context) (Frame, error) {
	select {
	case f := <-l.in:
		return f, nil
	case <-l.sock.gone.c:
		return Frame{}, ErrClosed
	case <-ctx.Done():
		return Frame{}, ctx.Err()
	}
}

// Close implements Link. It returns when nothing of the connection runs.
func (l *clientSocket) Close() error {
	l.sock.close(websocket.CloseNormalClosure, "")
	l.wg.Wait()
	return nil
}

func (l *clientSocket) read() {
	defer l.sock.gone.shut()
	for {
		var m protobufs.ServerToAgent
		err := l.sock.read(&m)
		if errors.Is(err, controlbus.ErrInvalid) {
			l.d.Log.Warn("console sends what cannot be read", "error", err)
			return
		}
		if err != nil {
			if !clean(err) {
				l.d.Log.Debug("connection to the console broke", "error", err)
			}
			return
		}
		f, ok := l.d.received(&m)
		if m.GetFlags()&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) != 0 {
			if l.tell(nil) != nil {
				return
			}
		}
		if !ok {
			continue
		}
		select {
		case l.in <- f:
		case <-l.sock.gone.c:
			return
		}
	}
}

// received takes a frame out of a message.
func (d *Dialer) received(m *protobufs.ServerToAgent) (Frame, bool) {
	if e := m.GetErrorResponse(); e != nil {
		d.Log.Warn("console does not take what the agent sent", "error", short(e.GetErrorMessage()))
	}
	c := m.GetCustomMessage()
	if c == nil || c.GetCapability() != Capability {
		return Frame{}, false
	}
	f, err := decode(c.GetData())
	if err != nil {
		d.Log.Warn("console sends a frame that cannot be read", "error", err)
		return Frame{}, false
	}
	return f, true
}

// Poll opens the degraded link: one request each PollEvery, at once when there
// is something to say. Its first request is made before it returns; errors are
// as of Dial.
func (d *Dialer) Poll(ctx context.Context) (Link, error) {
	address, err := d.address(false)
	if err != nil {
		return nil, err
	}
	client := d.HTTP
	if client == nil {
		client = &http.Client{Timeout: 30 * time.Second}
	}
	l := &poll{d: d, url: address, http: client, in: make(chan Frame, 16), out: make(chan Frame, 64), gone: newGate()}
	if err := l.ask(ctx, nil); err != nil {
		return nil, err
	}
	l.wg.Go(l.run)
	return l, nil
}

// poll is the agent's Link over plain HTTP.
type poll struct {
	d       *Dialer
	url     string
	http    *http.Client
	in, out chan Frame
	gone    *gate
	wg      sync.WaitGroup
	seq     uint64
	full    bool // the console wants the whole state, as it does at first
	asked   bool
	more    bool
}

func (l *poll) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	l.wg.Go(func() { <-l.gone.c; cancel() })
	defer l.gone.shut()
	tick := time.NewTicker(PollEvery)
	defer tick.Stop()
	for {
		var say *Frame
		if l.more { // there may be more to hear
			select {
			case f := <-l.out:
				say = &f
			case <-l.gone.c:
				return
			default:
			}
		} else {
			select {
			case f := <-l.out:
				say = &f
			case <-tick.C:
			case <-l.gone.c:
				return
			}
		}
		if err := l.ask(ctx, say); err != nil {
			if ctx.Err() == nil {
				l.d.Log.Debug("poll failed", "error", err)
			}
			return
		}
	}
}

// ask makes one request.
func (l *poll) ask(ctx context.Context, f *Frame) error {
	m := l.d.message(&l.seq, l.full || !l.asked)
	l.asked, l.full, l.more = true, false, false
	if f != nil {
		var err error
		if m.CustomMessage, err = customMessage(*f); err != nil {
			return err
		}
	}
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("link: poll: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("link: poll: %w", err)
	}
	req.Header = l.d.header().Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	resp, err := l.http.Do(req)
	if err != nil {
		return fmt.Errorf("link: poll: %w: %w", controlbus.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal("poll", resp)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxOut+1<<10))
	if err != nil {
		return fmt.Errorf("link: poll: %w: %w", controlbus.ErrUnavailable, err)
	}
	var a protobufs.ServerToAgent
	if err := proto.Unmarshal(body, &a); err != nil {
		return fmt.Errorf("link: poll: %w: the answer is not OpAMP's", controlbus.ErrUnsupported)
	}
	l.full = a.GetFlags()&uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) != 0
	if got, ok := l.d.received(&a); ok {
		l.more = true
		select {
		case l.in <- got:
		case <-l.gone.c:
			return ErrClosed
		}
	}
	return nil
}

// Send implements Link.
func (l *poll) Send(ctx context.Context, f Frame) error {
	select {
	case l.out <- f:
		return nil
	case <-l.gone.c:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Recv implements Link.
func (l *poll) Recv(ctx context.Context) (Frame, error) {
	select {
	case f := <-l.in:
		return f, nil
	case <-l.gone.c:
		return Frame{}, ErrClosed
	case <-ctx.Done():
		return Frame{}, ctx.Err()
	}
}

// Close implements Link.
func (l *poll) Close() error {
	l.gone.shut()
	l.wg.Wait()
	return nil
}
