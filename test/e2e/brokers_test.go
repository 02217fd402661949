package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/broker"
	"github.com/signalbox-dev/signalbox/test/browser"
	"github.com/signalbox-dev/signalbox/test/program"
)

// shop is a company that knows nothing of Signalbox: orders travel over
// RabbitMQ, are billed by request and reply over NATS, and what was billed is
// written to a stream.
type shop struct {
	t  *testing.T
	ch *amqp.Channel
	nc *nats.Conn
	js jetstream.JetStream
}

const (
	orders   = 25
	rejected = 4 // the order that its consumer rejects
)

func openShop(t *testing.T, rabbit, natsURL string) *shop {
	t.Helper()
	s := &shop{t: t}
	var err error
	if s.ch, err = broker.DialAMQP(t, rabbit).Channel(); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.ch.ExchangeDeclare("shop", "topic", true, false, false, false, nil))
	must(s.ch.ExchangeDeclare("shop.dead", "fanout", true, false, false, false, nil))
	for queue, key := range map[string]string{"orders.new": "order.new", "orders.dead": ""} {
		args, exchange := amqp.Table{}, "shop.dead"
		if key != "" {
			args, exchange = amqp.Table{"x-dead-letter-exchange": "shop.dead"}, "shop"
		}
		_, err := s.ch.QueueDeclare(queue, true, false, false, false, args)
		must(err)
		must(s.ch.QueueBind(queue, key, exchange, false, nil))
	}
	s.nc = broker.DialNATS(t, natsURL)
	if s.js, err = jetstream.New(s.nc); err != nil {
		t.Fatal(err)
	}
	_, err = s.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "BILLED", Subjects: []string{"billed.>"}})
	must(err)
	_, err = s.nc.Subscribe("billing.charge", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"charged":true}`)) // the requester notices
	})
	must(err)
	deliveries, err := s.ch.Consume("orders.new", "packer", false, false, false, false, nil)
	must(err)
	go func() {
		for d := range deliveries {
			if d.CorrelationId == correlation(rejected) {
				_ = d.Reject(false) // the test looks for it among the dead letters
				continue
			}
			_ = d.Ack(false)
		}
	}()
	return s
}

func correlation(i int) string { return fmt.Sprintf("order-%04d", i) }

// order is one order's way through the company.
func (s *shop) order(i int) {
	s.t.Helper()
	trace := fmt.Sprintf("00-4bf92f3577b34da6a3ce929d0e0e%04d-00f067aa0ba9%04d-01", i, i)
	body := fmt.Sprintf(`{"order":%q,"total":12345678901234567890,"card":{"pan":"4111111111111111"},"items":["anvil"]}`, correlation(i))
	err := s.ch.PublishWithContext(s.t.Context(), "shop", "order.new", false, false, amqp.Publishing{
		MessageId: fmt.Sprintf("shop-%d", i), CorrelationId: correlation(i), ContentType: "application/json", Body: []byte(body),
		Headers: amqp.Table{"traceparent": trace, "x-tenant": "acme", "authorization": "Bearer very-secret"},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	header := nats.Header{"traceparent": {trace}, "correlation-id": {correlation(i)}}
	req := &nats.Msg{Subject: "billing.charge", Header: header, Data: []byte(fmt.Sprintf(`{"order":%q}`, correlation(i)))}
	if _, err := s.nc.RequestMsg(req, 5*time.Second); err != nil {
		s.t.Fatal(err)
	}
	done := &nats.Msg{Subject: "billed.eu", Header: header, Data: []byte(fmt.Sprintf(`{"order":%q,"state":"billed"}`, correlation(i)))}
	if _, err := s.js.PublishMsg(s.t.Context(), done); err != nil {
		s.t.Fatal(err)
	}
}

func await(t *testing.T, p *program.Process, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if m := re.FindStringSubmatch(p.Output()); m != nil {
			return m
		}
		select {
		case <-p.Done():
			t.Fatalf("ended before %q:\n%s", pattern, p.Output())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q after 60s:\n%s", pattern, p.Output())
		}
	}
}

// Programs that know nothing of Signalbox talk over a real RabbitMQ and a real
// NATS. An agent started from its configuration file taps both, and somebody at
// a browser searches, follows an order over both brokers, and watches live. The
// agent, killed, leaves nothing on RabbitMQ.
func TestTwoBrokersInABrowser(t *testing.T) {
	ctx := browser.Chrome(t)
	enginetest.Require(t)
	rabbit, natsServer := broker.RabbitMQ(t), broker.NATS(t)
	_, vhostURL := rabbit.VHost(t)
	shop := openShop(t, vhostURL, natsServer.URL)

	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	console := program.Start(t, program.Console, nil, "serve", "--config", write("console.yaml", fmt.Sprintf(
		"listen: 127.0.0.1:0\nlisten_grpc: \"\"\naccess: {mode: open}\ndata_dir: %s\n", filepath.Join(dir, "console"))))
	address := await(t, console, `url=(http://\S+)`)[1]

	plain, err := url.Parse(vhostURL)
	if err != nil {
		t.Fatal(err)
	}
	user := plain.User.Username()
	password, _ := plain.User.Password()
	plain.User = nil
	management, err := url.Parse(rabbit.ManagementURL)
	if err != nil {
		t.Fatal(err)
	}
	management.User = nil
	agent := program.Start(t, program.Agent, nil, "--config", write("agent.yaml", fmt.Sprintf(`
agent: {id: site-1, env: production, data_dir: %s}
console: {url: %s, report_interval: 1s}
brokers:
  - name: rabbit-eu1
    type: rabbitmq
    observe_interval: 1s
    options: {url: "%s", management_url: "%s", user: %s, password_file: %s}
    taps: [{channel: orders.*}]
  - name: nats-eu1
    type: nats
    observe_interval: 1s
    options: {urls: ["%s"], subjects: [billing.>]}
    taps: [{channel: BILLED}, {channel: billing.charge}]
redaction:
  paths: [{path: $.card.pan, name: card number}]
`, filepath.Join(dir, "agent"), address, plain, management, user, write("password", password), natsServer.URL)))

	tab, complaints := browser.TabFor(t, ctx, 2*time.Minute)
	do := func(what string, actions ...browser.Action) {
		t.Helper()
		for _, a := range actions {
			if err := chromedp.Do(tab, a); err != nil {
				t.Fatalf("%s: %v\n%s\nagent:\n%s", what, err, strings.Join(complaints(), "\n"), agent.Output())
			}
		}
	}
	picture := func(name string) {
		t.Helper()
		if to := os.Getenv("SIGNALBOX_E2E_PICTURES"); to != "" {
			shot, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
			if err == nil {
				err = os.WriteFile(filepath.Join(to, name+".png"), shot, 0o644)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
	text := func(s string) string { return fmt.Sprintf("document.body.innerText.includes(%q)", s) }
	do("window", browser.Size(1280, 1000, false))

	// All four taps stand before the first order.
	do("taps", arrives(address+"/agents", text("orders.new")+"&&"+text("orders.dead")+"&&"+text("billing.charge")+"&&"+text("BILLED")))
	awaitTaps(t, rabbit, 2)
	for i := range orders {
		shop.order(i)
	}
	do("channels of both brokers", arrives(address+"/channels", text("orders.new")+"&&"+text("billing.charge")+"&&"+text("rabbit-eu1")+"&&"+text("nats-eu1")))
	picture("channels")

	rows := `document.querySelectorAll('main tbody a[href^="/messages/"]').length`
	for q, most := range map[string]string{
		"correlation:" + correlation(7):          rows + " >= 3",
		"header.x-tenant:acme":                   text("orders.new"),
		"id:shop-9":                              text("orders.new"),
		"trace:4bf92f3577b34da6a3ce929d0e0e0011": text("billing.charge") + "&&" + text("BILLED") + "&&" + text("orders.new"),
		"anvil":                                  text("orders.new"),
		"channel:orders.dead":                    text("orders.dead"),
	} {
		do("search "+q, arrives(address+"/messages?q="+url.QueryEscape(q), most))
	}
	do("an order found by its message id", arrives(address+"/messages?q="+url.QueryEscape("id:shop-7"), rows+" > 0"),
		browser.JS(`location.href = document.querySelector('main tbody a[href^="/messages/"]').href, 0`),
		browser.Until(`location.pathname.length > 20 && document.readyState === "complete"`))
	do("its conversation spans both brokers", browser.Until(text("Seen on orders.new")+"&&"+text("Seen on billing.charge")+"&&"+text("Seen on BILLED")),
		browser.Until(text("12345678901234567890")+"&&"+text("masked at the agent")))
	picture("message")
	var secret bool
	do("no secret", browser.Value(text("4111111111111111")+"||"+text("very-secret"), &secret))
	if secret {
		t.Error("the page shows what the agent has to mask")
	}

	do("live tap", chromedp.Navigate(address+"/live"), browser.Until(`document.readyState === "complete"`))
	live := time.After(20 * time.Second)
	for i := orders; ; i++ {
		shop.order(i)
		var seen bool
		do("live", browser.Value("["+strings.Join([]string{text("orders.new"), text("billing.charge"), text("BILLED")}, ",")+`].every(Boolean) && document.querySelectorAll("main a[href^='/messages/']").length > 10`, &seen))
		if seen {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
			continue
		case <-live:
			t.Fatal("the live tap does not show all three channels")
		}
	}
	picture("live")
	if said := complaints(); len(said) > 0 {
		t.Errorf("the browser complains:\n%s", strings.Join(said, "\n"))
	}

	agent.KillAlone()
	awaitTaps(t, rabbit, 0)
}

// arrives reloads a page until a condition holds: data is on its way through
// agent, queue and store.
func arrives(page, condition string) browser.Action {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for {
			if err := chromedp.Do(ctx, chromedp.Navigate(page)); err != nil {
				return err
			}
			found, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+condition+")"))
			if err != nil {
				return fmt.Errorf("%s: %w", condition, err)
			}
			if found {
				return nil
			}
			select {
			case <-time.After(300 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("%s: %s never came true: %w", page, condition, ctx.Err())
			}
		}
	})
}

// awaitTaps waits until RabbitMQ has that many queues besides the company's.
func awaitTaps(t *testing.T, rabbit *broker.Server, want int) {
	t.Helper()
	var names []string
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var queues []struct {
			Name string `json:"name"`
		}
		rabbit.API(t, "GET", "/api/queues?disable_stats=true&enable_queue_totals=false", nil, &queues)
		names = names[:0]
		for _, q := range queues {
			if !strings.HasPrefix(q.Name, "orders.") {
				names = append(names, q.Name)
			}
		}
		if len(names) == want {
			return
		}
	}
	t.Fatalf("queues of ours on RabbitMQ: %q, want %d", names, want)
}
