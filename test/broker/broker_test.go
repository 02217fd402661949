package broker_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/test/broker"
)

func TestMain(m *testing.M) {
	if os.Getenv("BROKER_TEST_CHILD") != "" {
		child()
		return
	}
	broker.Main(m)
}

func TestRabbitMQRestartKeepsDurableQueue(t *testing.T) {
	s := broker.RabbitMQ(t)
	t.Logf("RabbitMQ %s", s.Version)
	vhost, url := s.VHost(t)
	ch := channel(t, broker.DialAMQP(t, url))
	if _, err := ch.QueueDeclare("keep", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	s.Restart(t)
	ch = channel(t, broker.DialAMQP(t, url))
	if _, err := ch.QueueDeclarePassive("keep", true, false, false, false, nil); err != nil {
		t.Errorf("durable queue after a restart of %s: %v", vhost, err)
	}
}

func TestNATSSpeaksAndRestarts(t *testing.T) {
	s := broker.NATSWith(t, "")
	t.Logf("nats-server %s", s.Version)
	if err := broker.DialNATS(t, s.URL).Flush(); err != nil {
		t.Fatal(err)
	}
	s.Kill(t)
	s.Start(t)
	if err := broker.DialNATS(t, s.URL).Flush(); err != nil {
		t.Errorf("after kill and start: %v", err)
	}
}

// What PostgreSQL has told is kept outlives the death of all its processes, and
// tests have schemas of their own.
func TestPostgreSQLKeepsAndRestarts(t *testing.T) {
	s := broker.PostgreSQLAlone(t)
	t.Logf("PostgreSQL %s", s.Version)
	one, two := s.Schema(t), s.Schema(t)
	run := func(dsn, statement string) error {
		c, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(t.Context())
		_, err = c.Exec(t.Context(), statement)
		return err
	}
	if err := run(one, "CREATE TABLE kept (n int)"); err != nil {
		t.Fatal(err)
	}
	s.PowerCut(t)
	s.Start(t)
	if err := run(one, "SELECT n FROM kept"); err != nil {
		t.Errorf("after a power cut: %v", err)
	}
	if err := run(two, "SELECT n FROM kept"); err == nil {
		t.Error("one test sees the table of another")
	}
}

func TestNATSEmbeddedHasJetStream(t *testing.T) {
	s := broker.NATSEmbedded(t, nil)
	nc := broker.DialNATS(t, s.URL)
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AccountInfo(); err != nil {
		t.Errorf("account info: %v", err)
	}
}

// TestNothingOutlivesAKilledTest runs this binary again, lets it start a
// nats-server and kills it: the reaper must end the server and remove its data.
func TestNothingOutlivesAKilledTest(t *testing.T) {
	broker.NATS(t) // skips where there is no nats-server
	tmp := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BROKER_TEST_CHILD=1", "TMPDIR="+tmp, "SIGNALBOX_TEST_NATS_URL=")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 256)
	n, _ := out.Read(buf)
	url := strings.TrimSpace(string(buf[:n]))
	if !strings.HasPrefix(url, "nats://") {
		t.Fatalf("child said %q", url)
	}
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		left, err := os.ReadDir(tmp)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("left behind: %v", left)
		}
	}
	if nc, err := nats.Connect(url); err == nil {
		nc.Close()
		t.Errorf("the server at %s outlived the killed test", url)
	}
}

// child is what the test above kills.
func child() {
	s, err := broker.StartNATSForChild()
	if err != nil {
		os.Stdout.WriteString(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString(s.URL + "\n")
	select {}
}

func channel(t *testing.T, conn *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
