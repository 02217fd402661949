package rabbitmq_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/rabbitmq"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// withRights is an adapter whose user has just these rights.
func withRights(t *testing.T, b *bench, configure, write, read string) *rabbitmq.Adapter {
	t.Helper()
	id := identity()
	user := "cmd-" + id.Incarnation + "-" + b.vhost
	b.User(t, user, "secret", "monitoring")
	b.Grant(t, b.vhost, user, configure, write, read)
	cfg := config(b.Server, b.URLFor(t, b.vhost, user, "secret"))
	u, err := url.Parse(cfg.ManagementURL)
	must(t, err)
	u.User = nil
	cfg.ManagementURL = u.String()
	return connected(t, id, cfg)
}

// rights turns what a plan says it needs into permissions.
func rights(t *testing.T, a *rabbitmq.Adapter, kind controlbus.CommandKind, queue string) (configure, write, read string) {
	t.Helper()
	plan, err := a.PlanCommand(t.Context(), kind, queue)
	must(t, err)
	configure, write, read = "^$", "^$", "^$"
	for _, need := range plan.Needs {
		if right, ok := strings.CutPrefix(need, "configure "); ok {
			configure = right
		} else if right, ok := strings.CutPrefix(need, "write "); ok {
			write = right
		} else if right, ok := strings.CutPrefix(need, "read "); ok {
			read = right
		}
	}
	return configure, write, read
}

// TestRightsOfPlansSuffice: a user with the rights that a plan names can do it,
// one without is told so.
func TestRightsOfPlansSuffice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.queue(t, "orders+1", "x", "topic", "#")
	all := connected(t, identity(), config(b.Server, b.url))
	ctx := t.Context()
	send := func(a *rabbitmq.Adapter) error {
		o, err := a.Outlet(ctx, "orders+1")
		if err != nil {
			return err
		}
		defer o.Close(context.Background())
		return o.Send(ctx, []*agents.Message{{Body: []byte("x")}})[0]
	}
	take := func(a *rabbitmq.Adapter) error {
		in, err := a.Intake(ctx, "orders+1", agents.IntakeOptions{})
		if err != nil {
			return err
		}
		defer in.Close(context.Background())
		_, err = in.Next(ctx, 1)
		return err
	}
	for _, c := range []struct {
		kind controlbus.CommandKind
		do   func(a *rabbitmq.Adapter) error
	}{
		{controlbus.CommandReplay, send},
		{controlbus.CommandTest, send},
		{controlbus.CommandDiscard, take},
		{controlbus.CommandRedrive, func(a *rabbitmq.Adapter) error { return errors.Join(take(a), send(a)) }},
		{controlbus.CommandPeek, func(a *rabbitmq.Adapter) error { _, _, err := a.Peek(ctx, "orders+1", 1, true); return err }},
		{controlbus.CommandPurge, func(a *rabbitmq.Adapter) error { _, err := a.Purge(ctx, "orders+1", ""); return err }},
		{controlbus.CommandDetour, func(a *rabbitmq.Adapter) error {
			backlog, err := a.InstallGate(ctx, "r", "orders+1")
			if err != nil {
				return err
			}
			err = errors.Join(a.SetGate(ctx, "r", "orders+1", true), a.SetGate(ctx, "r", "orders+1", false), send(a))
			if in, inErr := a.Intake(ctx, backlog, agents.IntakeOptions{}); inErr == nil {
				err = errors.Join(err, in.Close(ctx))
			} else {
				err = errors.Join(err, inErr)
			}
			return errors.Join(err, a.RemoveGate(ctx, "r", "orders+1"))
		}},
	} {
		b.publish(t, "x", "any", amqp.Publishing{Body: []byte("x")}, amqp.Publishing{Body: []byte("y")})
		configure, write, read := rights(t, all, c.kind, "orders+1")
		if err := c.do(withRights(t, b, configure, write, read)); err != nil {
			t.Errorf("%s with configure %s, write %s, read %s: %v", c.kind, configure, write, read, err)
		}
		if err := c.do(withRights(t, b, "^$", "^$", "^$")); !errors.Is(err, controlbus.ErrDenied) {
			t.Errorf("%s without rights: got %v, want ErrDenied", c.kind, err)
		}
	}
}

// TestBlockedPublisher: a broker short of memory blocks what publishes. Sending
// waits as long as it may and says why; taking and acknowledging go on.
func TestBlockedPublisher(t *testing.T) {
	b := newBench(t)
	a := connected(t, identity(), config(b.Server, b.url))
	_, err := b.ch.QueueDeclare("q", true, false, false, false, nil)
	must(t, err)
	b.publish(t, "", "q", make([]amqp.Publishing, 5)...)
	o, err := a.Outlet(t.Context(), "q")
	must(t, err)
	defer o.Close(context.Background())
	b.Alarm(t, true)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	start := time.Now()
	err = o.Send(ctx, []*agents.Message{{Body: []byte("x")}})[0]
	if !errors.Is(err, agents.ErrNotConnected) || !strings.Contains(err.Error(), "blocked publishers") {
		t.Errorf("sending while blocked: got %v, want ErrNotConnected and the reason", err)
	}
	if d := time.Since(start); d < time.Second || d > 10*time.Second {
		t.Errorf("sending while blocked took %s, want the two seconds it had", d)
	}
	in, err := a.Intake(t.Context(), "q", agents.IntakeOptions{})
	must(t, err)
	msgs, err := in.Next(t.Context(), 5)
	must(t, err)
	must(t, in.Accept(t.Context(), msgs))
	must(t, in.Close(t.Context()))

	again, err := a.Outlet(t.Context(), "q")
	must(t, err)
	defer again.Close(context.Background())
	answers := make(chan error, 1)
	go func() { answers <- again.Send(t.Context(), []*agents.Message{{Body: []byte("waited")}})[0] }()
	b.Alarm(t, false)
	select {
	case err := <-answers:
		must(t, err)
	case <-time.After(20 * time.Second):
		t.Error("sending does not go on after the alarm")
	}
}
