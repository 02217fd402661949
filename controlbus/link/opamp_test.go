package link_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	stock "github.com/open-telemetry/opamp-go/client"
	"github.com/open-telemetry/opamp-go/client/types"
	"github.com/open-telemetry/opamp-go/protobufs"
	"google.golang.org/protobuf/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// station is a console's OpAMP server on a real port. A bearer token is the
// credential of the agent of that name; without one the console takes anybody.
type station struct {
	*rig
	roster  *link.Roster
	opamp   atomic.Pointer[link.Server]
	http    *httptest.Server
	revoked atomic.Bool
	refuse  atomic.Bool // WebSockets, as some proxies do
	edit    func(*link.ServerConfig)
}

func newStation(t *testing.T, handlers map[controlbus.CommandKind]link.Handler, edit func(*link.ServerConfig)) *station {
	t.Helper()
	s := &station{rig: newRig(t, handlers), edit: edit}
	s.rig.cut() // no pipe
	s.roster = newRoster(t, &memory{agents: map[string]controlbus.AgentView{}})
	s.roster.Wake(s.disp.Wake)
	s.start()
	s.http = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.refuse.Load() && websocket.IsWebSocketUpgrade(r) {
			http.Error(w, "no upgrades here", http.StatusUpgradeRequired)
			return
		}
		id := access.Identity{Kind: access.KindAgent, Grants: access.Everywhere(access.Agent)}
		if name := access.Bearer(r.Header); name != "" {
			id.ID, id.Name = "token of "+name, name
			if env, ok := strings.CutPrefix(name, "only-"); ok {
				id.Grants = []access.Grant{{Role: access.Agent, Env: env, Channel: "*"}}
			}
		}
		s.opamp.Load().ServeHTTP(w, r.WithContext(access.With(r.Context(), id)))
	}))
	t.Cleanup(func() {
		s.opamp.Load().Close()
		s.http.Close()
	})
	return s
}

func (s *station) start() {
	cfg := link.ServerConfig{
		Dispatcher: s.disp, Roster: s.roster, Log: slog.New(slog.DiscardHandler), StillEvery: 20 * time.Millisecond,
		Still: func(context.Context, access.Identity) error {
			if s.revoked.Load() {
				return access.ErrUnauthenticated
			}
			return nil
		},
	}
	if s.edit != nil {
		s.edit(&cfg)
	}
	s.opamp.Store(link.NewServer(cfg))
}

func (s *station) dialer(id, token string) *link.Dialer {
	return &link.Dialer{
		URL: s.http.URL, Log: slog.New(slog.DiscardHandler),
		Header: func() http.Header {
			if token == "" {
				return http.Header{}
			}
			return http.Header{"Authorization": {"Bearer " + token}}
		},
		Agent: func() controlbus.Agent { return agent(id, "i1") },
	}
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("20s later still not: %s", what)
		}
	}
}

// The same commands go over a WebSocket and over polling, and what the agent
// reports and what is wanted of it go with them.
func TestCommandsOverOpAMP(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"WebSocket", "polling"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newStation(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: done}, nil)
			d := s.dialer("a1", "a1")
			open := d.Dial
			if kind == "polling" {
				open = d.Poll
			}
			l, err := open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			desired := make(chan controlbus.Desired, 10)
			served := make(chan error, 1)
			go func() { served <- s.exec.Serve(t.Context(), l, func(f link.Frame) { desired <- *f.Desired }) }()
			defer func() {
				_ = l.Close()
				<-served
			}()
			eventually(t, "connected", func() bool { return s.exec.Epoch() != 0 })
			for range 3 {
				began := time.Now()
				if c := s.settled(s.request(controlbus.CommandPurge, "orders", time.Hour), 20*time.Second); c.State != controlbus.CommandSucceeded {
					t.Errorf("purge: %s, %s", c.State, c.Detail)
				}
				took := time.Since(began).Round(time.Millisecond)
				t.Logf("a purge and its result: %v", took)
				if took > 2*link.PollEvery { // the next poll finds what waits
					t.Errorf("a purge and its result took %v, with a poll each %v", took, link.PollEvery)
				}
			}
			a := agent("a1", "i1")
			a.Version = "7"
			if err := l.Send(t.Context(), link.Frame{Epoch: s.exec.Epoch(), Actual: &a}); err != nil {
				t.Fatal(err)
			}
			if d := <-desired; len(d.Taps) != 0 {
				t.Errorf("desired: %+v", d)
			}
			if got := s.roster.Agents(); len(got) != 1 || got[0].Version != "7" || got[0].Presence != controlbus.Online {
				t.Errorf("roster: %+v", got)
			}
			// A tap asked for reaches the agent without a report.
			if err := s.roster.RequestTap(t.Context(), "a1", controlbus.TapSpec{Broker: "b", Channel: "c"}); err != nil {
				t.Fatal(err)
			}
			if d := <-desired; len(d.Taps) != 1 || d.Taps[0].Channel != "c" {
				t.Errorf("desired after a tap was asked for: %+v", d)
			}
		})
	}
}

// Where upgrades are not let through, the agent polls by itself; where a console
// stops and starts, it comes back and its commands go on.
func TestTheAgentComesBack(t *testing.T) {
	t.Parallel()
	s := newStation(t, map[controlbus.CommandKind]link.Handler{controlbus.CommandPurge: done}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		s.dialer("a1", "a1").Run(ctx, func(ctx context.Context, l link.Link) error { return s.exec.Serve(ctx, l, nil) })
	})
	eventually(t, "connected", func() bool { return s.exec.Epoch() != 0 })
	s.opamp.Load().Close() // the console ends
	if s.disp.Online("a1") {
		t.Error("the agent counts as connected to a console that has stopped")
	}
	s.start()
	s.refuse.Store(true) // and comes back behind another proxy
	id := s.request(controlbus.CommandPurge, "orders", time.Hour)
	for end := time.Now().Add(90 * time.Second); !s.command(id).State.Terminal(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("90s later the command is %s", s.command(id).State)
		}
	}
	if c := s.command(id); c.State != controlbus.CommandSucceeded {
		t.Errorf("%s, %s", c.State, c.Detail)
	}
}

// raw is a bare WebSocket.
func (s *station) raw(t *testing.T, header http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	return websocket.DefaultDialer.DialContext(t.Context(), "ws"+strings.TrimPrefix(s.http.URL, "http")+link.OpAMPPath, header)
}

func (s *station) mustRaw(t *testing.T, header http.Header) *websocket.Conn {
	t.Helper()
	c, _, err := s.raw(t, header)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	return c
}

func write(t *testing.T, c *websocket.Conn, m *protobufs.AgentToServer) {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteMessage(websocket.BinaryMessage, append([]byte{0}, b...)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c *websocket.Conn) *protobufs.ServerToAgent {
	t.Helper()
	_, b, err := c.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	var m protobufs.ServerToAgent
	if len(b) == 0 || b[0] != 0 {
		t.Fatalf("no header in %x", b)
	}
	if err := proto.Unmarshal(b[1:], &m); err != nil {
		t.Fatal(err)
	}
	return &m
}

func endsWith(t *testing.T, c *websocket.Conn, code int) {
	t.Helper()
	for {
		_, _, err := c.ReadMessage()
		if err == nil {
			continue
		}
		if !websocket.IsCloseError(err, code) {
			t.Errorf("the connection ended with %v, want close %d", err, code)
		}
		return
	}
}

func str(key, value string) *protobufs.KeyValue {
	return &protobufs.KeyValue{Key: key, Value: &protobufs.AnyValue{Value: &protobufs.AnyValue_StringValue{StringValue: value}}}
}

func saying(uid byte, kind, id string) *protobufs.AgentToServer {
	return &protobufs.AgentToServer{
		InstanceUid: bytes.Repeat([]byte{uid}, 16), CustomCapabilities: &protobufs.CustomCapabilities{Capabilities: []string{link.Capability}},
		AgentDescription: &protobufs.AgentDescription{IdentifyingAttributes: []*protobufs.KeyValue{str("service.name", kind), str("service.instance.id", id)}},
	}
}

func TestMalformedMessagesAreAnswered(t *testing.T) {
	t.Parallel()
	s := newStation(t, nil, nil)
	c := s.mustRaw(t, nil)
	for name, bad := range map[string][]byte{
		"no header": {1, 2, 3}, "no protobuf": {0, 0xff, 0xff}, "empty": {}, "no instance_uid": {0}, "a short instance_uid": {0, 0x0a, 2, 1, 2},
	} {
		if err := c.WriteMessage(websocket.BinaryMessage, bad); err != nil {
			t.Fatal(err)
		}
		if m := read(t, c); m.GetErrorResponse().GetType() != protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest || m.GetErrorResponse().GetErrorMessage() == "" {
			t.Errorf("%s: answered %v", name, m)
		}
	}
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if m := read(t, c); m.GetErrorResponse().GetType() != protobufs.ServerErrorResponseType_ServerErrorResponseType_BadRequest {
		t.Errorf("text: answered %v", m)
	}
	// The connection goes on.
	write(t, c, &protobufs.AgentToServer{InstanceUid: bytes.Repeat([]byte{1}, 16)})
	m := read(t, c)
	if m.GetErrorResponse() != nil || m.GetCapabilities() == 0 || m.GetFlags() != uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) || !slices.Contains(m.GetCustomCapabilities().GetCapabilities(), link.Capability) {
		t.Errorf("first message without a description: answered %v", m)
	}
	next := saying(1, "otelcol", "c1")
	next.SequenceNum = 5 // 1 to 4 were lost
	write(t, c, next)
	if m := read(t, c); m.GetFlags() != uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState) {
		t.Errorf("after a gap: answered %v", m)
	}
	frame := &protobufs.AgentToServer{InstanceUid: next.InstanceUid, SequenceNum: 6, CustomMessage: &protobufs.CustomMessage{Capability: link.Capability, Data: []byte("{")}}
	write(t, c, frame)
	if m := read(t, c); m.GetErrorResponse() == nil {
		t.Errorf("a malformed frame: answered %v", m)
	}
	frame.CustomMessage.Data = fmt.Appendf(nil, `{"epoch":1,"event":{"journal":%q}}`, strings.Repeat("x", link.MaxFrame))
	write(t, c, frame)
	if m := read(t, c); m.GetErrorResponse() == nil {
		t.Errorf("a large frame: answered %v", m)
	}
	for range 20 {
		if c.WriteMessage(websocket.BinaryMessage, []byte{9}) != nil {
			break
		}
	}
	endsWith(t, c, websocket.CloseProtocolError)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	s := newStation(t, nil, nil)
	c := s.mustRaw(t, nil)
	big := saying(1, "otelcol", "c1")
	big.AgentDescription.NonIdentifyingAttributes = []*protobufs.KeyValue{str("x", strings.Repeat("x", 8<<20))}
	b, err := proto.Marshal(big)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.WriteMessage(websocket.BinaryMessage, append([]byte{0}, b...)) // may be cut off in the middle
	endsWith(t, c, websocket.CloseMessageTooBig)

	if _, resp, err := s.raw(t, http.Header{"Origin": {"https://evil.example"}}); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a browser's origin: %v, %v", resp, err)
	}
	var bomb bytes.Buffer
	z, err := gzip.NewWriterLevel(&bomb, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(z, zeros{}, 32<<20); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		kind, encoding string
		body           []byte
		want           int
	}{
		"a gzip bomb":    {"application/x-protobuf", "gzip", bomb.Bytes(), http.StatusRequestEntityTooLarge},
		"a large body":   {"application/x-protobuf", "", b, http.StatusRequestEntityTooLarge},
		"no gzip":        {"application/x-protobuf", "gzip", []byte("x"), http.StatusBadRequest},
		"another format": {"application/json", "", []byte("{}"), http.StatusUnsupportedMediaType},
		"no protobuf":    {"application/x-protobuf", "", []byte{0xff}, http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.http.URL+link.OpAMPPath, bytes.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", c.kind)
		req.Header.Set("Content-Encoding", c.encoding)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: got %s, want %d", name, resp.Status, c.want)
		}
		var m protobufs.ServerToAgent
		if c.want == http.StatusOK && (proto.Unmarshal(answer, &m) != nil || m.GetErrorResponse() == nil) {
			t.Errorf("%s: answered %v, want BAD_REQUEST", name, &m)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// The credential decides who an agent is, not what it claims.
func TestIdentityIsTheCredentials(t *testing.T) {
	t.Parallel()
	s := newStation(t, nil, nil)
	as := func(name string) http.Header { return http.Header{"Authorization": {"Bearer " + name}} }

	c := s.mustRaw(t, as("a1"))
	write(t, c, saying(1, "signalbox-agent", "a2"))
	endsWith(t, c, websocket.ClosePolicyViolation)
	if s.disp.Online("a2") {
		t.Error("a1's credential made a2 online")
	}

	first := s.mustRaw(t, as("a1"))
	write(t, first, saying(1, "signalbox-agent", "a1"))
	read(t, first)
	eventually(t, "a1 online", func() bool { return s.disp.Online("a1") })
	thief := s.mustRaw(t, as("a2"))
	write(t, thief, saying(1, "otelcol", "x"))
	endsWith(t, thief, websocket.ClosePolicyViolation)
	if !s.disp.Online("a1") {
		t.Error("another credential with the same instance_uid ended a1's session")
	}
	again := s.mustRaw(t, as("a1"))
	write(t, again, saying(1, "signalbox-agent", "a1"))
	read(t, again)
	endsWith(t, first, websocket.ClosePolicyViolation)

	// A collector is called what its credential is called.
	col := s.mustRaw(t, as("col-eu"))
	write(t, col, saying(3, "otelcol", "whatever"))
	read(t, col)
	eventually(t, "the collector in the roster", func() bool {
		return slices.ContainsFunc(s.roster.Agents(), func(v controlbus.AgentView) bool { return v.ID == "col-eu" && v.Kind == "otelcol" })
	})
	// A credential for one environment is refused in another.
	env := s.mustRaw(t, as("only-stage"))
	m := saying(4, "otelcol", "c")
	m.AgentDescription.NonIdentifyingAttributes = []*protobufs.KeyValue{str("deployment.environment.name", "prod")}
	write(t, env, m)
	endsWith(t, env, websocket.ClosePolicyViolation)

	// An end of the credential ends what is open.
	s.revoked.Store(true)
	endsWith(t, again, websocket.ClosePolicyViolation)
	eventually(t, "a1 offline", func() bool { return !s.disp.Online("a1") })
}

// A collector with the stock client appears with its health, over either
// transport, and again after the console has restarted, when the client tells
// only what has changed unless it is asked.
func TestStockClients(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"WebSocket", "polling"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := newStation(t, nil, nil)
			var c stock.OpAMPClient = stock.NewWebSocket(quiet{})
			url := "ws" + strings.TrimPrefix(s.http.URL, "http") + link.OpAMPPath
			beat := 50 * time.Millisecond
			if kind == "polling" {
				c, url = stock.NewHTTP(quiet{}), s.http.URL+link.OpAMPPath
			}
			if err := c.SetAgentDescription(&protobufs.AgentDescription{
				IdentifyingAttributes:    []*protobufs.KeyValue{str("service.name", "otelcol-contrib"), str("service.instance.id", "c1"), str("service.version", "0.140")},
				NonIdentifyingAttributes: []*protobufs.KeyValue{str("host.name", "h1")},
			}); err != nil {
				t.Fatal(err)
			}
			health := &protobufs.ComponentHealth{Healthy: false, Status: "StatusRecoverableError", LastError: "no disk", StartTimeUnixNano: uint64(time.Now().UnixNano()),
				ComponentHealthMap: map[string]*protobufs.ComponentHealth{"pipeline:logs": {Healthy: false, Status: "StatusRecoverableError",
					ComponentHealthMap: map[string]*protobufs.ComponentHealth{"exporter:otlp": {Healthy: true, Status: "StatusOK"}}}}}
			if err := c.SetHealth(health); err != nil {
				t.Fatal(err)
			}
			capabilities := protobufs.AgentCapabilities_AgentCapabilities_ReportsStatus | protobufs.AgentCapabilities_AgentCapabilities_ReportsHealth | protobufs.AgentCapabilities_AgentCapabilities_ReportsHeartbeat
			if err := c.SetCapabilities(&capabilities); err != nil {
				t.Fatal(err)
			}
			if err := c.Start(t.Context(), types.StartSettings{OpAMPServerURL: url, InstanceUid: types.InstanceUid{1, 2, 3}, HeartbeatInterval: &beat,
				Callbacks: types.Callbacks{}, Header: http.Header{"Authorization": {"Bearer c1"}}}); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Stop(context.WithoutCancel(t.Context())) }()
			here := func() bool {
				for _, v := range s.roster.Agents() {
					if v.ID == "c1" && v.Kind == "otelcol-contrib" && v.Version == "0.140" && v.Host == "h1" && v.Presence == controlbus.Online && v.Health != nil &&
						!v.Health.Healthy && v.Health.Error == "no disk" && len(v.Health.Components) == 2 && v.Health.Components[1].Path == "pipeline:logs/exporter:otlp" {
						return true
					}
				}
				return false
			}
			eventually(t, "the collector with its health", here)
			if s.disp.Online("c1") {
				t.Error("a collector counts as one that takes commands")
			}
			s.opamp.Load().Close()
			s.roster = newRoster(t, &memory{agents: map[string]controlbus.AgentView{}})
			s.start()
			eventually(t, "the collector after a restart of the console", here)
		})
	}
}

type quiet struct{}

func (quiet) Debugf(context.Context, string, ...any) {}
func (quiet) Errorf(context.Context, string, ...any) {}

func TestAdmission(t *testing.T) {
	t.Parallel()
	s := newStation(t, nil, func(c *link.ServerConfig) { c.Rate, c.Burst = 1, 3 })
	var in, later int
	for i := range 10 {
		l, err := s.dialer(fmt.Sprint("a", i), "").Dial(t.Context())
		busy := (*link.BusyError)(nil)
		switch {
		case err == nil:
			in++
			defer l.Close()
		case errors.As(err, &busy) && busy.After >= time.Second && busy.After <= 10*time.Second && errors.Is(err, controlbus.ErrOverloaded):
			later++
		default:
			t.Fatal(err)
		}
	}
	if in < 3 || in > 5 || later != 10-in {
		t.Errorf("of 10 at once %d got in, %d were told to come later", in, later)
	}
	// Those that are in are not asked again.
	if _, err := s.dialer("b", "").Poll(t.Context()); !errors.Is(err, controlbus.ErrOverloaded) {
		t.Errorf("a poll beyond the rate: %v", err)
	}
}

// A thousand agents lose the console at once and are all back within two
// minutes, never more than 150 in a tenth of a second.
func TestHerd(t *testing.T) {
	if os.Getenv("SIGNALBOX_SOAK") == "" {
		t.Skip("set SIGNALBOX_SOAK=1 for a thousand agents")
	}
	const herd = 1000
	s := newStation(t, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var mu sync.Mutex
	var upgrades []time.Time
	var up atomic.Int32
	for i := range herd {
		d := s.dialer(fmt.Sprint("a", i), fmt.Sprint("a", i))
		wg.Go(func() {
			d.Run(ctx, func(ctx context.Context, l link.Link) error {
				mu.Lock()
				upgrades = append(upgrades, time.Now())
				mu.Unlock()
				up.Add(1)
				defer up.Add(-1)
				for {
					if _, err := l.Recv(ctx); err != nil {
						return err
					}
				}
			})
		})
	}
	wait := func(what string) time.Duration {
		t.Helper()
		began := time.Now()
		for up.Load() < herd || s.opamp.Load().Connections() < herd {
			if time.Since(began) > 2*time.Minute {
				t.Fatalf("%s: 2m later %d of %d are back", what, up.Load(), herd)
			}
			time.Sleep(20 * time.Millisecond)
		}
		return time.Since(began)
	}
	t.Logf("all connected after %v", wait("at first").Round(time.Millisecond))
	for _, how := range []string{"console restarts", "connections cut"} {
		mu.Lock()
		upgrades = nil
		mu.Unlock()
		if how == "console restarts" {
			s.opamp.Load().Close()
			s.start()
		} else {
			s.http.CloseClientConnections()
			s.opamp.Load().Close()
			s.start()
		}
		eventually(t, "everybody noticed", func() bool { return up.Load() < herd/2 })
		took := wait(how)
		mu.Lock()
		slices.SortFunc(upgrades, time.Time.Compare)
		most := 0
		for i, j := 0, 0; i < len(upgrades); i++ {
			for upgrades[i].Sub(upgrades[j]) > 100*time.Millisecond {
				j++
			}
			most = max(most, i-j+1)
		}
		mu.Unlock()
		t.Logf("%s: all back after %v, at most %d upgrades in 100ms", how, took.Round(time.Millisecond), most)
		if most > 150 {
			t.Errorf("%s: %d upgrades in 100ms", how, most)
		}
	}
}
