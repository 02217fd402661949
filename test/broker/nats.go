package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// NATS is the packaged nats-server with JetStream that this test binary's tests
// share. Tests keep apart through names that carry their own.
func NATS(t testing.TB) *Server {
	t.Helper()
	return sharedServer(t, "nats-server", func() (*Server, error) {
		if u := os.Getenv("SIGNALBOX_TEST_NATS_URL"); u != "" {
			s := &Server{URL: u, name: "nats-server", foreign: true}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := probeNATS(ctx, s); err != nil {
				return nil, fmt.Errorf("SIGNALBOX_TEST_NATS_URL: %w", err)
			}
			return s, nil
		}
		return startNATS("")
	})
}

// NATSWith starts a nats-server of t's own, with text added to its
// configuration, and stops it when t ends.
func NATSWith(t testing.TB, conf string) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("nats-server: real brokers are left out with -short")
	}
	s, err := startNATS(conf)
	if err == nil {
		t.Cleanup(s.shutdown) // after its log was shown
	}
	return use(t, "nats-server", s, err)
}

func startNATS(conf string) (_ *Server, err error) {
	prog, err := program("nats-server", "/usr/sbin", "/usr/local/bin")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "signalbox-nats-")
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL:           fmt.Sprintf("nats://127.0.0.1:%d", ports[0]),
		ManagementURL: fmt.Sprintf("http://127.0.0.1:%d", ports[1]),
		name:          "nats-server", dir: dir, probe: probeNATS,
	}
	register(s)
	defer func() {
		if err != nil {
			s.shutdown()
		}
	}()
	file := filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\nhttp: \"127.0.0.1:%d\"\njetstream { store_dir: %q, max_mem: 256MB, max_file: 1GB }\n%s\n",
		ports[0], ports[1], filepath.Join(dir, "jetstream"), conf)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	stopReaper, err := reaper(dir)
	if err != nil {
		return nil, err
	}
	s.helpers = append(s.helpers, stopReaper)
	s.launch = func(*Server) *exec.Cmd { return exec.Command(prog, "-c", file) }
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// probeNATS does a round trip; a server that asks for credentials is ready too.
func probeNATS(ctx context.Context, s *Server) error {
	deadline, _ := ctx.Deadline()
	nc, err := nats.Connect(s.URL, nats.Timeout(time.Until(deadline)), nats.NoReconnect())
	if errors.Is(err, nats.ErrAuthorization) {
		return nil
	}
	if err != nil {
		return err
	}
	defer nc.Close()
	s.Version = nc.ConnectedServerVersion()
	return nc.FlushWithContext(ctx)
}

// Embedded is a nats-server of the linked version in this process.
type Embedded struct {
	*natsserver.Server
	URL string
}

// NATSEmbedded starts nats-server in process with JetStream on a free loopback
// port, until t ends. edit, when not nil, changes the options first.
func NATSEmbedded(t testing.TB, edit func(*natsserver.Options)) *Embedded {
	t.Helper()
	opts := &natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT,
		JetStream: true, StoreDir: t.TempDir(),
		NoLog: true, NoSigs: true,
		JetStreamMaxMemory: 256 << 20, JetStreamMaxStore: 1 << 30,
	}
	if edit != nil {
		edit(opts)
	}
	srv, err := natsserver.NewServer(opts)
	if err != nil {
		t.Fatalf("embedded nats-server: %v", err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("embedded nats-server: not ready after 20s")
	}
	return &Embedded{Server: srv, URL: srv.ClientURL()}
}

// DialNATS connects to rawURL until t ends.
func DialNATS(t testing.TB, rawURL string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(rawURL, append([]nats.Option{nats.Timeout(10 * time.Second)}, opts...)...)
	if err != nil {
		t.Fatalf("connect to %s: %v", rawURL, err)
	}
	t.Cleanup(nc.Close)
	return nc
}
