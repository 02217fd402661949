package link

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/open-telemetry/opamp-go/protobufs"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// ServerConfig of an OpAMP server.
type ServerConfig struct {
	Dispatcher *Dispatcher
	Roster     *Roster
	Log        *slog.Logger
	// Still says whether a credential holds; it is asked while a connection lasts.
	// nil: connections outlive their credential.
	Still      func(ctx context.Context, id access.Identity) error
	StillEvery time.Duration // 0: 30 s
	// Rate is how many connections are let in each second, Burst how many at
	// once. Whoever is over it is told to come back in 1 to 10 seconds.
	Rate  float64
	Burst int
}

// Defaults of admission: 1,000 agents that lost the same console are all back
// within half a minute, and never more than 30 of them in a tenth of a second.
const (
	DefaultRate  = 100
	DefaultBurst = 20
)

// Server is the console's end of OpAMP. It takes our agents, which speak the
// command protocol over it, and any other OpAMP client, whose description and
// health it shows. It is safe for concurrent use.
type Server struct {
	cfg     ServerConfig
	admit   *rate.Limiter
	upgrade websocket.Upgrader
	ctx     context.Context
	end     context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	closed bool
	peers  map[string]*peer // by instance_uid
	polled map[string]*peer // those of them that poll, by instance_uid and credential
}

// NewServer returns a server; Close ends its connections.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Rate == 0 {
		cfg.Rate = DefaultRate
	}
	if cfg.Burst == 0 {
		cfg.Burst = DefaultBurst
	}
	if cfg.StillEvery == 0 {
		cfg.StillEvery = 30 * time.Second
	}
	s := &Server{cfg: cfg, admit: rate.NewLimiter(rate.Limit(cfg.Rate), cfg.Burst), peers: map[string]*peer{}, polled: map[string]*peer{}}
	s.ctx, s.end = context.WithCancel(context.Background())
	// Agents are no browsers: who sends an Origin is one.
	s.upgrade = websocket.Upgrader{HandshakeTimeout: writeWithin, CheckOrigin: func(r *http.Request) bool { return r.Header.Get("Origin") == "" }}
	return s
}

// Close ends all connections and waits until nothing of them runs.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	peers := slices.Collect(maps.Values(s.peers))
	s.mu.Unlock()
	var goodbye sync.WaitGroup
	for _, p := range peers {
		goodbye.Go(func() { p.shut(websocket.CloseGoingAway, "the console stops") })
	}
	goodbye.Wait()
	s.end()
	s.wg.Wait()
}

// Connections is how many programs are connected or polling.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.peers)
}

// ServeHTTP answers at OpAMPPath. The request's context has the identity of the
// credential shown.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.later(w)
		return
	}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	switch {
	case r.Method == http.MethodGet && websocket.IsWebSocketUpgrade(r):
		s.serveSocket(w, r)
	case r.Method == http.MethodPost:
		s.servePoll(w, r)
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "OpAMP wants a WebSocket, or POST for polling", http.StatusMethodNotAllowed)
	}
}

// later refuses for now. The spread keeps those refused together from coming
// back together.
func (s *Server) later(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(10)))
	http.Error(w, "too many agents connect at once; come back later", http.StatusServiceUnavailable)
}

// peer is one connected program. Its handle is called by one goroutine at a time.
type peer struct {
	s    *Server
	id   access.Identity
	gone *gate
	// cut ends the transport; nil for one that polls.
	cut func(code int, why string)

	uid       string
	seq       uint64
	described bool
	agent     controlbus.Agent
	in, out   chan Frame
	serving   bool

	// Of one that polls.
	turn sync.Mutex
	life *time.Timer
}

func (s *Server) newPeer(r *http.Request) *peer {
	id, _ := access.From(r.Context())
	return &peer{s: s, id: id, gone: newGate(), in: make(chan Frame, 16), out: make(chan Frame, 64)}
}

// credential names what the peer has shown; two peers with the same one are the
// same program, or two that share a secret.
func (p *peer) credential() string { return string(p.id.Kind) + "/" + p.id.ID }

// bound is the agent that the credential belongs to; empty where the console
// takes agents without one.
func (p *peer) bound() string {
	if p.id.Kind == access.KindAgent && p.id.ID != "" {
		return p.id.Name
	}
	return ""
}

func (p *peer) shut(code int, why string) {
	if p.cut != nil {
		p.cut(code, why)
	}
	p.gone.shut()
}

// Send, Recv and Close make the peer a Link.
func (p *peer) Send(ctx context.Context, f Frame) error {
	select {
	case p.out <- f:
		return nil
	case <-p.gone.c:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *peer) Recv(ctx context.Context) (Frame, error) {
	select {
	case f := <-p.in:
		return f, nil
	case <-p.gone.c:
		return Frame{}, ErrClosed
	case <-ctx.Done():
		return Frame{}, ctx.Err()
	}
}

func (p *peer) Close() error {
	p.shut(websocket.CloseNormalClosure, "")
	return nil
}

// leave takes the peer out of the server's books.
func (p *peer) leave() {
	p.gone.shut()
	if p.life != nil {
		p.life.Stop()
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if p.uid != "" && p.s.peers[p.uid] == p {
		delete(p.s.peers, p.uid)
	}
	if key := p.uid + p.credential(); p.s.polled[key] == p {
		delete(p.s.polled, key)
	}
}

// errRefused ends a connection: what the peer claims is not its own.
var errRefused = errors.New("refused")

// handle takes one message and returns the answer; nil for none. An error that
// is controlbus.ErrInvalid is answered with BAD_REQUEST, errRefused ends the
// connection.
func (p *peer) handle(ctx context.Context, m *protobufs.AgentToServer) (*protobufs.ServerToAgent, error) {
	first := p.uid == ""
	if len(m.GetInstanceUid()) != 16 {
		return nil, fmt.Errorf("%w: instance_uid: want 16 bytes, have %d", controlbus.ErrInvalid, len(m.GetInstanceUid()))
	}
	uid := hex.EncodeToString(m.GetInstanceUid())
	if !first && uid != p.uid {
		return nil, fmt.Errorf("%w: instance_uid changed within a connection", controlbus.ErrInvalid)
	}
	if first {
		if err := p.claim(uid); err != nil {
			return nil, err
		}
	}
	answer := &protobufs.ServerToAgent{InstanceUid: m.GetInstanceUid()}
	if first {
		answer.Capabilities = uint64(protobufs.ServerCapabilities_ServerCapabilities_AcceptsStatus)
		answer.CustomCapabilities = &protobufs.CustomCapabilities{Capabilities: []string{Capability}}
	}
	full := !first && m.GetSequenceNum() != p.seq+1
	p.seq = m.GetSequenceNum()
	if d := m.GetAgentDescription(); d != nil {
		if err := p.describe(d); err != nil {
			return nil, err
		}
	}
	full = full || !p.described
	if full {
		answer.Flags = uint64(protobufs.ServerToAgentFlags_ServerToAgentFlags_ReportFullState)
	}
	if h := m.GetHealth(); h != nil {
		readHealth(&p.agent, h)
	}
	if p.described && p.agent.Kind != agentService {
		// What it is, it says here. Our own agents say more, in a frame.
		if _, err := p.s.cfg.Roster.Report(ctx, p.agent); err != nil {
			return nil, err
		}
	}
	if slices.Contains(m.GetCustomCapabilities().GetCapabilities(), Capability) && p.described && !p.serving {
		p.serving = true
		agent := p.agent.ID
		p.s.wg.Go(func() {
			err := p.s.cfg.Dispatcher.Serve(p.s.ctx, agent, p, p.s.cfg.Roster)
			p.s.cfg.Log.DebugContext(ctx, "session ended", "agent", agent, "error", err)
			p.shut(websocket.CloseNormalClosure, "the session ended")
		})
	}
	if c := m.GetCustomMessage(); c != nil && c.GetCapability() == Capability {
		f, err := decode(c.GetData())
		if err != nil {
			return nil, err
		}
		if !p.serving {
			return nil, fmt.Errorf("%w: commands need the description and the capability first", controlbus.ErrInvalid)
		}
		select {
		case p.in <- f:
		case <-p.gone.c:
		case <-ctx.Done():
		}
	}
	if m.GetAgentDisconnect() != nil {
		p.shut(websocket.CloseNormalClosure, "")
	}
	if !first && !full {
		return nil, nil
	}
	return answer, nil
}

// claim takes the instance_uid for the peer. A live one of the same credential
// ends; one of another credential stays.
func (p *peer) claim(uid string) error {
	p.s.mu.Lock()
	old := p.s.peers[uid]
	if old != nil && old.credential() != p.credential() {
		p.s.mu.Unlock()
		return fmt.Errorf("%w: instance_uid %s is connected with another credential", errRefused, uid)
	}
	p.uid = uid
	p.s.peers[uid] = p
	p.s.mu.Unlock()
	if old != nil {
		old.shut(websocket.ClosePolicyViolation, "another connection has this instance_uid")
	}
	return nil
}

// describe takes the description. The agent that a credential belongs to is not
// the peer's to choose.
func (p *peer) describe(d *protobufs.AgentDescription) error {
	a := p.agent
	about(&a, d)
	if a.Kind == "" {
		a.Kind = "unnamed"
	}
	bound := p.bound()
	switch {
	case bound != "" && a.Kind == agentService && a.ID != bound:
		return fmt.Errorf("%w: the credential is that of agent %q, not of %q", errRefused, bound, a.ID)
	case bound != "":
		a.ID = bound
	case a.Kind == agentService && a.ID == "":
		return fmt.Errorf("%w: service.instance.id: want the agent's id", controlbus.ErrInvalid)
	case a.ID == "":
		a.ID = p.uid
	}
	if p.described && a.ID != p.agent.ID {
		return fmt.Errorf("%w: service.instance.id changed within a connection", controlbus.ErrInvalid)
	}
	if !p.id.Can(access.AgentLink, a.Env, "") {
		return fmt.Errorf("%w: the credential is not for the environment %q (deployment.environment.name)", errRefused, a.Env)
	}
	a.Incarnation = p.uid
	p.agent, p.described = a, true
	return nil
}

// maxBad is how many malformed messages a connection may send.
const maxBad = 10

func (s *Server) serveSocket(w http.ResponseWriter, r *http.Request) {
	if !s.admit.Allow() {
		s.later(w)
		return
	}
	conn, err := s.upgrade.Upgrade(w, r, nil)
	if err != nil {
		return // answered
	}
	sock := newSocket(conn, MaxIn, MaxOut)
	p := s.newPeer(r)
	p.cut = sock.close
	sock.heard = func() {
		if p.described {
			s.cfg.Roster.Heard(p.agent.ID)
		}
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer p.leave()
	var wg sync.WaitGroup
	wg.Go(sock.write)
	wg.Go(func() { s.frames(p, sock) })
	if s.cfg.Still != nil {
		wg.Go(func() { s.watch(ctx, p) })
	}
	defer wg.Wait()
	defer cancel()
	defer p.gone.shut()
	defer sock.gone.shut()
	if s.ctx.Err() != nil {
		return
	}
	for bad := 0; ; {
		var m protobufs.AgentToServer
		err := sock.read(&m)
		var answer *protobufs.ServerToAgent
		if err == nil {
			answer, err = p.handle(ctx, &m)
		} else if !errors.Is(err, controlbus.ErrInvalid) {
			return
		}
		switch {
		case errors.Is(err, errRefused):
			s.cfg.Log.WarnContext(ctx, "OpAMP connection refused", "address", r.RemoteAddr, "error", err)
			p.shut(websocket.ClosePolicyViolation, err.Error())
			return
		case errors.Is(err, controlbus.ErrInvalid):
			answer = badRequest(err.Error())
			if bad++; bad > maxBad {
				p.shut(websocket.CloseProtocolError, "too many malformed messages")
				return
			}
		case err != nil:
			s.cfg.Log.ErrorContext(ctx, "OpAMP message not kept", "agent", p.agent.ID, "error", err)
			p.shut(websocket.CloseTryAgainLater, "the console cannot keep it right now")
			return
		}
		if answer != nil && sock.send(answer) != nil {
			return
		}
	}
}

// frames writes what the dispatcher sends.
func (s *Server) frames(p *peer, sock *socket) {
	defer sock.gone.shut()
	for {
		select {
		case f := <-p.out:
			c, err := customMessage(f)
			if err != nil {
				s.cfg.Log.Error("frame not sent", "frame", f.name(), "error", err)
				continue // it is repeated, and fails again, until somebody looks
			}
			if sock.send(&protobufs.ServerToAgent{CustomMessage: c}) != nil {
				return
			}
		case <-p.gone.c:
			return
		case <-sock.gone.c:
			return
		}
	}
}

// watch ends a connection whose credential has ended.
func (s *Server) watch(ctx context.Context, p *peer) {
	tick := time.NewTicker(s.cfg.StillEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.cfg.Still(ctx, p.id); errors.Is(err, access.ErrUnauthenticated) {
				p.shut(websocket.ClosePolicyViolation, "the credential has ended")
				return
			}
		case <-p.gone.c:
			return
		case <-ctx.Done():
			return
		}
	}
}

// servePoll answers one poll. A session lives between polls.
func (s *Server) servePoll(w http.ResponseWriter, r *http.Request) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-protobuf" {
		http.Error(w, "want Content-Type application/x-protobuf", http.StatusUnsupportedMediaType)
		return
	}
	var body io.Reader = http.MaxBytesReader(w, r.Body, MaxIn)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, "the body is not gzip", http.StatusBadRequest)
			return
		}
		body = z
	}
	b, err := io.ReadAll(io.LimitReader(body, MaxIn+1))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) || len(b) > MaxIn {
		http.Error(w, "the message is too large", http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		http.Error(w, "the message did not arrive whole", http.StatusBadRequest)
		return
	}
	var m protobufs.AgentToServer
	if err := proto.Unmarshal(b, &m); err != nil || len(m.GetInstanceUid()) != 16 {
		s.reply(w, badRequest("not an OpAMP message with an instance_uid of 16 bytes"))
		return
	}
	p := s.poller(r, hex.EncodeToString(m.GetInstanceUid()))
	if p == nil {
		s.later(w)
		return
	}
	p.turn.Lock()
	defer p.turn.Unlock()
	p.life.Reset(pollLife)
	answer, err := p.handle(r.Context(), &m)
	switch {
	case errors.Is(err, errRefused):
		p.leave()
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	case errors.Is(err, controlbus.ErrInvalid):
		s.reply(w, badRequest(err.Error()))
		return
	case err != nil:
		s.cfg.Log.ErrorContext(r.Context(), "OpAMP message not kept", "agent", p.agent.ID, "error", err)
		s.later(w)
		return
	}
	if answer == nil {
		answer = &protobufs.ServerToAgent{InstanceUid: m.GetInstanceUid()}
	}
	if p.described {
		s.cfg.Roster.Heard(p.agent.ID)
	}
	if f, ok := p.next(r.Context(), m.GetCustomMessage() != nil); ok {
		if answer.CustomMessage, err = customMessage(f); err != nil {
			s.cfg.Log.ErrorContext(r.Context(), "frame not sent", "agent", p.agent.ID, "error", err)
		}
	}
	s.reply(w, answer)
}

// next is a frame for who polls: one that waits already, or, where they said
// something, one that comes at once: what that brings about usually does, and
// saves a poll.
func (p *peer) next(ctx context.Context, soon bool) (Frame, bool) {
	select {
	case f := <-p.out:
		return f, true
	default:
	}
	if !soon {
		return Frame{}, false
	}
	timer := time.NewTimer(200 * time.Millisecond)
	defer timer.Stop()
	select {
	case f := <-p.out:
		return f, true
	case <-timer.C:
	case <-ctx.Done():
	}
	return Frame{}, false
}

func (s *Server) reply(w http.ResponseWriter, m *protobufs.ServerToAgent) {
	b, err := proto.Marshal(m)
	if err != nil {
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(b)
}

// poller finds the session of who polls, or lets a new one in; nil when there
// are too many at once.
func (s *Server) poller(r *http.Request, uid string) *peer {
	fresh := s.newPeer(r)
	key := uid + fresh.credential()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.polled[key]; p != nil {
		select {
		case <-p.gone.c: // taken over, or ended by the dispatcher
			delete(s.polled, key)
		default:
			return p
		}
	}
	if s.closed || !s.admit.Allow() {
		return nil
	}
	s.polled[key] = fresh
	fresh.life = time.AfterFunc(pollLife, fresh.leave)
	return fresh
}
