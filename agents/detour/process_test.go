package detour

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
	"github.com/signalbox-dev/signalbox/agents/nats"
	"github.com/signalbox-dev/signalbox/agents/rabbitmq"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/test/broker"
)

const childEnv = "SIGNALBOX_DETOUR_CHILD"

// job is what the agent's process is told through its environment.
type job struct {
	System, URL, Management string
	Dir                     string
	Order                   link.Dispatch
}

// connected returns an adapter, and what keeps it connected.
func connected(system, url, management string) (agents.Adapter, func(string), error) {
	var a agents.Adapter
	id := agents.Identity{Agent: "agent-1", Incarnation: fmt.Sprint("i", time.Now().UnixNano())}
	log := slog.New(slog.DiscardHandler)
	switch system {
	case "rabbitmq":
		c := rabbitmq.DefaultConfig()
		c.URL, c.ManagementURL = url, management
		a = rabbitmq.New("mem", id, c, log)
	default:
		c := nats.DefaultConfig()
		c.URLs = []string{url}
		a = nats.New("mem", id, c, log)
	}
	var mu sync.Mutex
	connect := func() error {
		mu.Lock()
		defer mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, err := a.Connect(ctx)
		return err
	}
	return a, func(string) { go func() { _ = connect() }() }, connect()
}

// child is an agent's detours in a process of their own: they go on, or begin
// with what is ordered, until the process is killed.
func child() {
	var j job
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &j); err != nil {
		fmt.Println("job:", err)
		return
	}
	a, lost, err := connected(j.System, j.URL, j.Management)
	if err != nil {
		fmt.Println("connect:", err)
		return
	}
	m, err := New(Config{Dir: j.Dir, Agent: "agent-1", Allow: allowed, Lost: lost, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Broker: func(string) (agents.Adapter, bool) { return a, true }})
	if err != nil {
		fmt.Println("manager:", err)
		return
	}
	go func() { _ = m.Run(context.Background()) }()
	r := m.makeDetour(context.Background(), j.Order, true)
	fmt.Println(r.Outcome, r.Detail)
	select {}
}

// startAgent runs an agent's process until it says that the detour is on.
func startAgent(t *testing.T, j job) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(j)
	must(t, err)
	cmd := exec.Command(os.Args[0])
	cmd.Env, cmd.Stderr = append(os.Environ(), childEnv+"="+string(text)), os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, _ := bufio.NewReader(out).ReadString('\n')
	if !strings.HasPrefix(line, string(controlbus.CommandSucceeded)) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the agent said %q", line)
	}
	return cmd
}

// seen is what came out at the other end.
type seen struct {
	mu     sync.Mutex
	times  map[string]int
	marks  map[string]map[string]bool
	back   int // messages older than one that came before, for the first time
	newest int
}

func newSeen() *seen { return &seen{times: map[string]int{}, marks: map[string]map[string]bool{}} }

func (s *seen) add(id, mark string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times[id]++; s.times[id] == 1 {
		var n int
		_, _ = fmt.Sscanf(id, "m%d", &n)
		if n < s.newest {
			s.back++
		}
		s.newest = max(s.newest, n)
	}
	if s.marks[id] == nil {
		s.marks[id] = map[string]bool{}
	}
	s.marks[id][mark] = true
}

func (s *seen) distinct() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

// judge fails for what was lost or cannot be told apart, and tells the figures.
func (s *seen) judge(t *testing.T, kills, sent int, ordered bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	twice, strange := 0, 0
	for id, n := range s.times {
		twice += n - 1
		if len(s.marks[id]) != 1 || s.marks[id][""] {
			strange++
		}
	}
	t.Logf("%d kills, %d messages sent, %d distinct received, %d lost, %d duplicates with the same mark, %d with another or none, %d out of order", kills, sent, len(s.times), sent-len(s.times), twice, strange, s.back)
	if len(s.times) != sent || strange != 0 {
		t.Errorf("%d of %d messages arrived, %d with several marks or none", len(s.times), sent, strange)
	}
	if s.back != 0 && ordered {
		t.Errorf("%d messages arrived for the first time after a later one", s.back)
	}
}

// killed kills agents under load: publish sends messages until it is told to
// stop, and says how many the broker has confirmed.
// Order is kept where the broker puts back at once what a dead agent held; a
// JetStream consumer delivers it again after its wait.
func killed(t *testing.T, j job, got *seen, publish func(stop <-chan struct{}) int) {
	kills := 10
	if os.Getenv("SIGNALBOX_SOAK") == "1" {
		kills = 50
	}
	stop, sent := make(chan struct{}), make(chan int, 1)
	cmd := startAgent(t, j)
	go func() { sent <- publish(stop) }()
	for range kills {
		time.Sleep(50*time.Millisecond + rand.N(250*time.Millisecond))
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		cmd = startAgent(t, j)
	}
	close(stop)
	n := <-sent
	deadline := time.Now().Add(60 * time.Second)
	for got.distinct() < n && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(500 * time.Millisecond) // what comes twice
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	got.judge(t, kills, n, j.System == "rabbitmq")
}

// rabbit is a virtual host with the queues in, behind exchange x, and out.
type rabbit struct {
	url, management string
	pub             *amqp.Channel
	returned        chan amqp.Return
}

func newRabbit(t *testing.T) *rabbit {
	t.Helper()
	s := broker.RabbitMQ(t)
	_, url := s.VHost(t)
	ch, err := broker.DialAMQP(t, url).Channel()
	must(t, err)
	must(t, ch.Confirm(false))
	must(t, ch.ExchangeDeclare("x", "topic", true, false, false, false, nil))
	for _, q := range []string{"in", "out"} {
		_, err := ch.QueueDeclare(q, true, false, false, false, nil)
		must(t, err)
	}
	must(t, ch.QueueBind("in", "orders.*", "x", false, nil))
	return &rabbit{url, s.ManagementURL, ch, ch.NotifyReturn(make(chan amqp.Return, 100))}
}

// read notes what comes out of a queue.
func (r *rabbit) read(t *testing.T, queue string, got *seen) {
	t.Helper()
	ch, err := broker.DialAMQP(t, r.url).Channel()
	must(t, err)
	deliveries, err := ch.Consume(queue, "", true, false, false, false, nil)
	must(t, err)
	go func() {
		for d := range deliveries {
			mark, _ := d.Headers[controlbus.HeaderDetour].(string)
			got.add(d.MessageId, mark)
		}
	}()
}

// publish sends messages until it is told to stop and says how many the broker
// has confirmed.
func (r *rabbit) publish(t *testing.T, body func(n int) []byte) func(stop <-chan struct{}) int {
	return func(stop <-chan struct{}) int {
		for n := 0; ; {
			select {
			case <-stop:
				return n
			default:
			}
			var confirms []*amqp.DeferredConfirmation
			for range 20 {
				c, err := r.pub.PublishWithDeferredConfirm("x", "orders.new", true, false, amqp.Publishing{MessageId: fmt.Sprintf("m%d", n), DeliveryMode: amqp.Persistent, Body: body(n)})
				if err != nil {
					t.Errorf("publish: %v", err)
					return n
				}
				confirms = append(confirms, c)
				n++
			}
			for _, c := range confirms {
				if !c.Wait() {
					t.Error("the broker did not confirm")
				}
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
}

func numbered(n int) []byte { return fmt.Appendf(nil, `{"n":%d}`, n) }

// TestKilledOnRabbitMQ kills the agent's process under load, again and again:
// with a gate, and between a queue and another one.
func TestKilledOnRabbitMQ(t *testing.T) {
	for name, to := range map[string]string{"gate": "", "junction": "out"} {
		t.Run(name, func(t *testing.T) {
			r, got := newRabbit(t), newSeen()
			d := simple("killed")
			if d.To = to; to == "" {
				to = "in"
			}
			r.read(t, to, got)
			killed(t, job{System: "rabbitmq", URL: r.url, Management: r.management, Dir: t.TempDir(), Order: orderOf(controlbus.CommandDetour, "in", d)}, got, r.publish(t, numbered))
			select {
			case m := <-r.returned:
				t.Errorf("the broker had no place for %s", m.MessageId)
			default:
			}
		})
	}
}

// TestSwitchedUnderLoad leads orders through a JSON Schema and back, again and
// again, while they are published: nothing is lost or doubled, and what is not
// as the schema says is put aside.
func TestSwitchedUnderLoad(t *testing.T) {
	r, got, aside := newRabbit(t), newSeen(), newSeen()
	r.read(t, "in", got)
	r.read(t, "out", aside)
	a, lost, err := connected("rabbitmq", r.url, r.management)
	must(t, err)
	defer a.Close(context.Background())
	l := beginWith(t, Config{Dir: t.TempDir(), Agent: "agent-1", Lost: lost, Broker: func(string) (agents.Adapter, bool) { return a, true }})
	defer l.end()
	times := 10
	if os.Getenv("SIGNALBOX_SOAK") == "1" {
		times = 50
	}
	stop, sent := make(chan struct{}), make(chan int, 1)
	publish := r.publish(t, func(n int) []byte {
		if n%10 == 0 {
			return []byte(`{"n":"none"}`)
		}
		return numbered(n)
	})
	go func() { sent <- publish(stop) }()
	// Taps come and go meanwhile.
	tapping, untap := context.WithCancel(t.Context())
	tapped := make(chan int)
	go func() {
		n := 0
		for ; tapping.Err() == nil; n++ {
			ctx, cancel := context.WithTimeout(tapping, 100*time.Millisecond+rand.N(300*time.Millisecond))
			plan, err := a.(agents.Tapper).PlanTap(ctx, "in")
			if err == nil {
				err = a.(agents.Tapper).Tap(ctx, plan, agents.Position{}, agenttest.NewSink(), func() {})
			}
			if err != nil && ctx.Err() == nil {
				t.Errorf("tap: %v", err)
			}
			cancel()
		}
		tapped <- n
	}()
	began := time.Now()
	through := int64(0)
	for i := range times {
		d := simple(fmt.Sprint("d", i), controlbus.DetourStep{Validate: &controlbus.ValidateStep{Schema: json.RawMessage(`{"properties":{"n":{"type":"integer"}}}`)}})
		d.Park = "out"
		l.succeed(orderOf(controlbus.CommandDetour, "in", d))
		time.Sleep(100*time.Millisecond + rand.N(200*time.Millisecond))
		u := l.succeed(orderOf(controlbus.CommandUndetour, "in", controlbus.UndetourArgs{ID: d.ID}))
		through += u.Counts.Done + u.Counts.Failed
		time.Sleep(rand.N(50 * time.Millisecond))
	}
	took := time.Since(began)
	close(stop)
	n := <-sent
	untap()
	taps := <-tapped
	for deadline := time.Now().Add(30 * time.Second); got.distinct()+aside.distinct() < n && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(500 * time.Millisecond)
	twice := 0
	for _, s := range []*seen{got, aside} {
		s.mu.Lock()
		for id, times := range s.times {
			twice += times - 1
			var i int
			_, _ = fmt.Sscanf(id, "m%d", &i)
			if s == aside && i%10 != 0 {
				t.Errorf("%s was put aside", id)
			}
			if s == got && i%10 == 0 && !s.marks[id][""] {
				t.Errorf("%s went through the schema", id)
			}
		}
		s.mu.Unlock()
	}
	t.Logf("on and off %d times in %v, with %d taps: %d messages sent, %d received, %d put aside, %d lost, %d doubled, %d returned; %d while draining",
		times, took.Round(time.Millisecond), taps, n, got.distinct(), aside.distinct(), n-got.distinct()-aside.distinct(), twice, len(r.returned), through)
	if got.distinct()+aside.distinct() != n || twice != 0 || len(r.returned) != 0 {
		t.Error("messages were lost, doubled or returned")
	}
	if aside.distinct() == 0 {
		t.Error("no message was put aside")
	}
}

// TestKilledJunctionOnNATS does so between two streams.
func TestKilledJunctionOnNATS(t *testing.T) {
	s := broker.NATS(t)
	nc := broker.DialNATS(t, s.URL)
	js, err := jetstream.New(nc)
	must(t, err)
	for name, retention := range map[string]jetstream.RetentionPolicy{"DIN": jetstream.WorkQueuePolicy, "DOUT": jetstream.LimitsPolicy, "DPARK": jetstream.LimitsPolicy} {
		_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name}, Retention: retention})
		must(t, err)
		t.Cleanup(func() { _ = js.DeleteStream(context.Background(), name) })
	}
	out, err := js.OrderedConsumer(t.Context(), "DOUT", jetstream.OrderedConsumerConfig{})
	must(t, err)
	got := newSeen()
	reading, err := out.Consume(func(m jetstream.Msg) { got.add(string(m.Data()), m.Headers().Get(controlbus.HeaderDetour)) })
	must(t, err)
	defer reading.Stop()
	d := simple("killed")
	d.To, d.Park = "DOUT", "DPARK"
	killed(t, job{System: "nats", URL: s.URL, Dir: t.TempDir(), Order: orderOf(controlbus.CommandDetour, "DIN", d)}, got, func(stop <-chan struct{}) int {
		for n := 0; ; {
			select {
			case <-stop:
				return n
			default:
			}
			for range 10 {
				if _, err := js.Publish(context.Background(), "DIN", fmt.Appendf(nil, "m%d", n)); err != nil {
					t.Errorf("publish: %v", err)
					return n
				}
				n++
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
}

// TestBrokerKilled kills RabbitMQ while a backlog is worked off.
func TestBrokerKilled(t *testing.T) {
	if testing.Short() {
		broker.Missing(t, "time for a real broker", "left out with -short")
	}
	s := broker.RabbitMQWith(t, "")
	ch, err := broker.DialAMQP(t, s.URL).Channel()
	must(t, err)
	must(t, ch.Confirm(false))
	must(t, ch.ExchangeDeclare("x", "fanout", true, false, false, false, nil))
	_, err = ch.QueueDeclare("in", true, false, false, false, nil)
	must(t, err)
	must(t, ch.QueueBind("in", "", "x", false, nil))
	a, lost, err := connected("rabbitmq", s.URL, s.ManagementURL)
	must(t, err)
	defer a.Close(context.Background())
	l := beginWith(t, Config{Dir: t.TempDir(), Agent: "agent-1", Lost: lost, Broker: func(string) (agents.Adapter, bool) { return a, true }})
	defer l.end()
	l.succeed(orderOf(controlbus.CommandDetour, "in", simple("d", hold)))
	const sent = 20_000
	for n := 0; n < sent; {
		var confirms []*amqp.DeferredConfirmation
		for range 250 {
			c, err := ch.PublishWithDeferredConfirm("x", "", true, false, amqp.Publishing{MessageId: fmt.Sprintf("m%d", n), DeliveryMode: amqp.Persistent, Body: numbered(n)})
			must(t, err)
			confirms = append(confirms, c)
			n++
		}
		for _, c := range confirms {
			c.Wait()
		}
	}
	began := time.Now()
	l.succeed(orderOf(controlbus.CommandDetour, "in", simple("d")))
	passed := func(n int64) bool { return l.status("d").Passed >= n }
	await(t, 60*time.Second, func() bool { return passed(sent / 2) })
	half := time.Since(began)
	s.Kill(t)
	time.Sleep(2 * time.Second)
	s.Start(t)
	await(t, 60*time.Second, func() bool { return passed(sent) && l.status("d").State == controlbus.DetourOn })
	l.succeed(orderOf(controlbus.CommandUndetour, "in", nil))
	got := newSeen()
	r := &rabbit{url: s.URL}
	r.read(t, "in", got)
	await(t, 60*time.Second, func() bool { return got.distinct() >= sent })
	time.Sleep(500 * time.Millisecond)
	got.judge(t, 1, sent, true)
	t.Logf("%d messages through the steps in %v before the broker was killed: %.0f per second", sent/2, half.Round(time.Millisecond), sent/2/half.Seconds())
}

func await(t *testing.T, within time.Duration, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !what(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v", within)
		}
	}
}
