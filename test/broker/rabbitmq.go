package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The packaged /usr/sbin wrapper switches the user; the program itself does not.
const rabbitmqBin = "/usr/lib/rabbitmq/bin"

const rabbitmqPlugins = `[rabbitmq_management,rabbitmq_event_exchange,rabbitmq_stream,rabbitmq_consistent_hash_exchange].`

// RabbitMQ is the RabbitMQ that this test binary's tests share, with the
// management plugin. Tests keep apart through VHost.
func RabbitMQ(t testing.TB) *Server {
	t.Helper()
	return sharedServer(t, "rabbitmq", func() (*Server, error) {
		if u := os.Getenv("SIGNALBOX_TEST_RABBITMQ_URL"); u != "" {
			s := &Server{URL: u, ManagementURL: os.Getenv("SIGNALBOX_TEST_RABBITMQ_MANAGEMENT_URL"), name: "rabbitmq", foreign: true}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := probeRabbitMQ(ctx, s); err != nil {
				return nil, fmt.Errorf("SIGNALBOX_TEST_RABBITMQ_URL: %w", err)
			}
			return s, nil
		}
		return startRabbitMQ("")
	})
}

// RabbitMQWith starts a RabbitMQ of t's own, with lines added to its
// configuration file, and stops it when t ends. It takes seconds: prefer
// RabbitMQ.
func RabbitMQWith(t testing.TB, conf string) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("rabbitmq: real brokers are left out with -short")
	}
	s, err := startRabbitMQ(conf)
	if err == nil {
		t.Cleanup(s.shutdown) // after its log was shown
	}
	return use(t, "rabbitmq", s, err)
}

func startRabbitMQ(conf string) (_ *Server, err error) {
	prog, err := program("rabbitmq-server", rabbitmqBin)
	if err != nil {
		return nil, err
	}
	epmd, err := program("epmd", "/usr/bin", "/usr/lib/erlang/bin")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	amqpPort, mgmtPort, distPort, epmdPort := ports[0], ports[1], ports[2], ports[3]
	dir, err := os.MkdirTemp("", "signalbox-rabbitmq-")
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL:           fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d/", amqpPort),
		ManagementURL: fmt.Sprintf("http://guest:guest@127.0.0.1:%d", mgmtPort),
		name:          "rabbitmq", dir: dir, probe: probeRabbitMQ,
	}
	register(s)
	defer func() {
		if err != nil {
			s.shutdown()
		}
	}()
	files := map[string]string{
		"rabbitmq.conf": fmt.Sprintf(`listeners.tcp.1 = 127.0.0.1:%d
management.tcp.ip = 127.0.0.1
management.tcp.port = %d
collect_statistics_interval = 1000
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.absolute = 1GB
log.console = true
log.console.level = warning
log.file = false
%s
`, amqpPort, mgmtPort, conf),
		// The stream listener has no use here, and its port would clash.
		"advanced.config":     `[{rabbitmq_stream, [{tcp_listeners, []}, {ssl_listeners, []}]}].`,
		"plugins":             rabbitmqPlugins,
		"home/.erlang.cookie": "signalboxtest",
	}
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(p, []byte(text), 0o400); err != nil {
			return nil, err
		}
	}
	stopReaper, err := reaper(dir)
	if err != nil {
		return nil, err
	}
	s.helpers = append(s.helpers, stopReaper)

	// An epmd of our own, in the foreground: the one that Erlang would start by
	// itself becomes a daemon and outlives the test.
	epmdCmd := exec.Command(epmd, "-address", "127.0.0.1", "-port", fmt.Sprint(epmdPort))
	epmdProc, err := startProcess(epmdCmd)
	if err != nil {
		return nil, err
	}
	s.helpers = append(s.helpers, func() error { epmdProc.stop(time.Second); return nil })
	if err := writePID(dir, "epmd", epmdCmd.Process.Pid); err != nil {
		return nil, err
	}
	if err := awaitPort(epmdPort); err != nil {
		return nil, fmt.Errorf("epmd: %w", err)
	}

	env := []string{
		"PATH=" + os.Getenv("PATH"), "LANG=C.UTF-8", "TMPDIR=" + dir,
		"HOME=" + filepath.Join(dir, "home"),
		fmt.Sprintf("ERL_EPMD_PORT=%d", epmdPort), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=t@localhost",
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", distPort),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "mnesia"),
		"RABBITMQ_LOG_BASE=" + filepath.Join(dir, "log"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq"),
		"RABBITMQ_ADVANCED_CONFIG_FILE=" + filepath.Join(dir, "advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "plugins"),
		"RABBITMQ_PID_FILE=" + filepath.Join(dir, "pid"),
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		// Few schedulers and no busy waiting: tests share the machine.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
	}
	s.env = env
	s.launch = func(*Server) *exec.Cmd {
		cmd := exec.Command(prog)
		cmd.Dir, cmd.Env = dir, env
		return cmd
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, nil
}

func awaitPort(port int) error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// probeRabbitMQ opens a connection and a channel, and asks the management API
// for what it knows last of all: its own overview.
func probeRabbitMQ(ctx context.Context, s *Server) error {
	deadline, _ := ctx.Deadline()
	conn, err := amqp.DialConfig(s.URL, amqp.Config{
		Heartbeat: 10 * time.Second,
		Dial: func(network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{Deadline: deadline}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return c, c.SetDeadline(deadline)
		},
	})
	if err != nil {
		return err
	}
	defer conn.CloseDeadline(deadline)
	s.Version, _ = conn.Properties["version"].(string)
	if s.ManagementURL == "" {
		return nil
	}
	var overview struct {
		Version string `json:"rabbitmq_version"`
	}
	return s.call(ctx, http.MethodGet, "/api/overview", nil, &overview)
}

// call speaks to the management API.
func (s *Server) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(s.ManagementURL, "/")+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	// Idle connections would be leaked goroutines to goleak.
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// API calls RabbitMQ's management API, such as API(t, "PUT", "/api/users/x",
// map[string]string{...}, nil), and fails t when it answers with an error.
func (s *Server) API(t testing.TB, method, path string, in, out any) {
	t.Helper()
	if s.ManagementURL == "" {
		Missing(t, s.name+" management API", "set SIGNALBOX_TEST_RABBITMQ_MANAGEMENT_URL")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.call(ctx, method, path, in, out); err != nil {
		t.Fatal(err)
	}
}

var (
	vhosts   atomic.Int64
	unsuited = regexp.MustCompile(`[^A-Za-z0-9]+`)
)

// VHost makes a virtual host for t alone, removed when t ends, and returns its
// name and the URL that connects to it.
func (s *Server) VHost(t testing.TB) (name, rawURL string) {
	t.Helper()
	name = fmt.Sprintf("%s-%d-%d", unsuited.ReplaceAllString(t.Name(), "-"), os.Getpid(), vhosts.Add(1))
	s.API(t, http.MethodPut, "/api/vhosts/"+name, struct{}{}, nil)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.Grant(t, name, u.User.Username(), ".*", ".*", ".*")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var dead net.Error
		// A test may leave the broker stopped, and its vhost with it.
		if err := s.call(ctx, http.MethodDelete, "/api/vhosts/"+name, nil, nil); err != nil && !errors.As(err, &dead) {
			t.Logf("remove vhost: %v", err)
		}
	})
	return name, s.URLFor(t, name, "", "")
}

// Alarm makes the broker believe that it is short of memory, at which it blocks
// connections that publish, until t ends or it is called off. Tests that use it
// must not run in parallel: it is the whole broker's.
func (s *Server) Alarm(t testing.TB, on bool) {
	t.Helper()
	if s.foreign {
		t.Skip("rabbitmq: the memory of a broker that is not ours is not touched")
	}
	ctl, err := program("rabbitmqctl", rabbitmqBin)
	if err != nil {
		t.Fatal(err)
	}
	limit := "1000000000"
	if on {
		limit = "1000"
		t.Cleanup(func() { s.Alarm(t, false) })
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, ctl, "set_vm_memory_high_watermark", "absolute", limit)
	cmd.Dir, cmd.Env = s.dir, s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("rabbitmqctl: %v\n%s", err, out)
	}
}

// URLFor is the AMQP address for a virtual host and, when given, another user.
func (s *Server) URLFor(t testing.TB, vhost, user, password string) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		u.User = url.UserPassword(user, password)
	}
	u.Path, u.RawPath = "/"+vhost, "/"+url.PathEscape(vhost)
	return u.String()
}

// User makes a user with management tags, removed when t ends.
func (s *Server) User(t testing.TB, name, password, tags string) {
	t.Helper()
	s.API(t, http.MethodPut, "/api/users/"+name, map[string]string{"password": password, "tags": tags}, nil)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = s.call(ctx, http.MethodDelete, "/api/users/"+name, nil, nil)
	})
}

// Grant sets a user's rights in a virtual host.
func (s *Server) Grant(t testing.TB, vhost, user, configure, write, read string) {
	t.Helper()
	s.API(t, http.MethodPut, "/api/permissions/"+url.PathEscape(vhost)+"/"+user,
		map[string]string{"configure": configure, "write": write, "read": read}, nil)
}

// DialAMQP connects to rawURL until t ends.
func DialAMQP(t testing.TB, rawURL string) *amqp.Connection {
	t.Helper()
	conn, err := amqp.DialConfig(rawURL, amqp.Config{Heartbeat: 10 * time.Second})
	if err != nil {
		t.Fatalf("dial %s: %v", rawURL, err)
	}
	t.Cleanup(func() { _ = conn.CloseDeadline(time.Now().Add(5 * time.Second)) })
	return conn
}
