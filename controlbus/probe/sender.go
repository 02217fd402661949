package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/command"
)

// Commander is the control bus; command.Service is one.
type Commander interface {
	Preview(ctx context.Context, r command.Request) (command.Draft, error)
	Order(ctx context.Context, draft, reason, typed string) (controlbus.Command, error)
	Command(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error)
	Changed() <-chan struct{}
}

// BusSender sends test messages as commands.
type BusSender struct {
	Bus Commander
	// Policy is what an environment asks for before a message is sent.
	Policy func(env string, class controlbus.EffectClass) controlbus.ApprovalPolicy
}

// sendWithin is how long an agent has to take a test message up, and then to
// send it. A test of now is of no use later.
const sendWithin = 15 * time.Second

// Consent is what the environment asks for.
func (b BusSender) Consent(env string) controlbus.ApprovalPolicy {
	return b.Policy(env, controlbus.CommandTest.Class())
}

// Send orders a test message and waits for the agent's answer.
func (b BusSender) Send(ctx context.Context, in controlbus.ChannelName, args controlbus.TestArgs, reason, typed string) (Sent, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return Sent{}, fmt.Errorf("%w: test message: %w", controlbus.ErrInvalid, err)
	}
	d, err := b.Bus.Preview(ctx, command.Request{
		Kind: controlbus.CommandTest, Env: in.Env, Broker: in.Broker, Channel: in.Name, Args: raw, AcceptWithin: sendWithin, RunWithin: sendWithin,
	})
	if err != nil {
		return Sent{}, err
	}
	if d.Policy == controlbus.ApproveSecond {
		return Sent{}, fmt.Errorf("%w: in %s a second person consents to each test message; send it from the control bus and follow it by its mark", controlbus.ErrConflict, in.Env)
	}
	c, err := b.Bus.Order(ctx, d.ID, reason, typed)
	if err != nil {
		return Sent{}, err
	}
	sent := Sent{Command: c.ID}
	wait, cancel := context.WithTimeout(ctx, 2*sendWithin+5*time.Second)
	defer cancel()
	for {
		changed := b.Bus.Changed()
		if c, err = b.Bus.Command(ctx, sent.Command); err != nil {
			return sent, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		if c.State.Terminal() {
			break
		}
		select {
		case <-changed:
		case <-wait.Done():
			return sent, fmt.Errorf("%w: command %s is %s", ErrUnknown, c.ID, c.State.Title())
		}
	}
	switch c.State {
	case controlbus.CommandSucceeded:
	case controlbus.CommandIndeterminate, controlbus.CommandPartial:
		return sent, fmt.Errorf("%w: %s", ErrUnknown, c.Detail)
	default:
		return sent, fmt.Errorf("%s: %s", c.State.Title(), c.Detail)
	}
	var told struct {
		SentAt      int64 `json:"sent_at_ns"`
		ConfirmedAt int64 `json:"confirmed_at_ns"`
	}
	if c.Result == nil || json.Unmarshal(c.Result.Evidence, &told) != nil || told.SentAt == 0 {
		return sent, fmt.Errorf("%w: the agent does not say when", ErrUnknown)
	}
	sent.At, sent.Confirmed = time.Unix(0, told.SentAt), time.Unix(0, max(told.ConfirmedAt, told.SentAt))
	return sent, nil
}
