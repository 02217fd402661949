package action

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/link"
)

// TestEvidence is controlbus.CommandResult.Evidence of a test. Times are the
// agent's clock, in Unix nanoseconds.
type TestEvidence struct {
	SentAt      int64  `json:"sent_at_ns"`
	ConfirmedAt int64  `json:"confirmed_at_ns,omitempty"`
	Agent       string `json:"agent"`
	MessageID   string `json:"message_id"`
	// SeparatedTo is where the broker led the message instead of to the channel's
	// consumers, SeparatedAt when it was seen there.
	SeparatedTo string `json:"separated_to,omitempty"`
	SeparatedAt int64  `json:"separated_at_ns,omitempty"`
}

// separatedWithin is how long a separated message may take to its sink.
const separatedWithin = 10 * time.Second

// test sends one EIP Test Message: marked, not persistent, of the lowest priority
// and with an identity of its own.
func (a *Actions) test(ctx context.Context, run *link.Run) (r controlbus.CommandResult) {
	args, err := controlbus.DecodeArgs[controlbus.TestArgs](run.Dispatch.Args)
	if err == nil {
		err = checkTest(args)
	}
	if err != nil {
		return reject(err)
	}
	w, err := a.begin(run)
	if err != nil {
		return reject(err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*callTimeout, link.ErrOverdue)
	defer cancel()
	if e := run.Dispatch.Expect; e != nil && e.Topology != "" {
		view, err := w.look(ctx)
		if err != nil {
			return reject(err)
		}
		if e.Topology != view.Topology {
			return reject(fmt.Errorf("%w: the broker's topology has changed since the preview; nothing was done", controlbus.ErrConflict))
		}
	}
	ev := TestEvidence{Agent: a.env.Self.ID, MessageID: "sb-test-" + args.Run}
	defer func() {
		if b, err := json.Marshal(ev); err == nil && r.Outcome != controlbus.CommandRejected {
			r.Evidence = b
		}
	}()
	if args.Separate {
		s, err := verb[agents.Separator](w.adapter, "keep test messages from a channel's consumers")
		if err != nil {
			return reject(err)
		}
		sink, undo, err := s.Separate(ctx, w.target.Name)
		if err != nil {
			return reject(fmt.Errorf("test messages cannot be kept from the channel's consumers: %w", err))
		}
		ev.SeparatedTo = sink
		defer func() {
			undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
			defer cancel()
			if err := undo(undoing); err != nil {
				r.Detail += "; the separation is still there: " + err.Error()
				if r.Outcome == controlbus.CommandSucceeded {
					r.Outcome = controlbus.CommandPartial
				}
			}
		}()
	}
	out, err := a.outlet(ctx, w.target)
	if err != nil {
		return reject(err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		_ = out.Close(closing)
	}()
	if ctx.Err() != nil {
		return reject(context.Cause(ctx))
	}
	ev.SentAt = time.Now().UnixNano()
	errs := out.Send(ctx, []*agents.Message{testMessage(args)})
	err = fmt.Errorf("%w: no answer", agents.ErrNotConnected)
	if len(errs) == 1 {
		err = errs[0]
	}
	counts := controlbus.Counts{Matched: 1}
	switch {
	case err == nil:
		ev.ConfirmedAt, counts.Done = time.Now().UnixNano(), 1
	case errors.Is(err, agents.ErrNotConnected), ctx.Err() != nil:
		return controlbus.CommandResult{Outcome: controlbus.CommandIndeterminate, Counts: counts, Detail: "the broker was sent the message and has not answered: " + err.Error()}
	default:
		counts.Failed = 1
		return controlbus.CommandResult{Outcome: controlbus.CommandFailed, Counts: counts, Detail: err.Error()}
	}
	r = controlbus.CommandResult{Outcome: controlbus.CommandSucceeded, Counts: counts, Detail: "sent, and confirmed by the broker"}
	if ev.SeparatedTo != "" {
		if err := w.receive(ctx, ev.SeparatedTo, ev.MessageID); err != nil {
			r.Outcome, r.Detail = controlbus.CommandPartial, "sent; but it was not seen where test messages are led: "+err.Error()
		} else {
			ev.SeparatedAt = time.Now().UnixNano()
			r.Detail = "sent, and led aside to " + ev.SeparatedTo + ", where it arrived"
		}
	}
	return r
}

func checkTest(args controlbus.TestArgs) error {
	if args.Run == "" || len(args.Run) > 100 {
		return fmt.Errorf("%w: want the run that marks the message, at most 100 bytes", controlbus.ErrInvalid)
	}
	for k := range args.Headers {
		if orders(k) || tellsDeath(k) || strings.HasPrefix(strings.ToLower(k), "sb-") {
			return fmt.Errorf("%w: header %.60q means something to the broker or to Signalbox; leave it out", controlbus.ErrInvalid, k)
		}
	}
	return nil
}

// testMessage carries the run as correlation id, too: an application that answers
// without copying headers is still recognised by it.
func testMessage(args controlbus.TestArgs) *agents.Message {
	m := &agents.Message{
		MessageID: "sb-test-" + args.Run, CorrelationID: args.Run, ContentType: args.ContentType, Key: args.Key, Body: []byte(args.Body), Time: time.Now(),
	}
	for _, k := range sortedKeys(args.Headers) {
		m.SetHeader(k, args.Headers[k])
	}
	m.SetHeader(controlbus.HeaderTest, args.Run)
	return m
}

// receive takes the message out of the sink that it was led to.
func (w *work) receive(ctx context.Context, sink, id string) (err error) {
	t, err := verb[agents.Taker](w.adapter, "take messages out of a channel")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, separatedWithin)
	defer cancel()
	for {
		in, err := t.Intake(ctx, sink, agents.IntakeOptions{})
		if err != nil {
			return err
		}
		found, err := drain(ctx, in, id)
		closing, stop := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		err = errors.Join(err, in.Close(closing))
		stop()
		if found || err != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not within %v", separatedWithin)
		}
	}
}

func drain(ctx context.Context, in agents.Intake, id string) (found bool, err error) {
	for {
		msgs, err := in.Next(ctx, 100)
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return found, err
		}
		for _, m := range msgs {
			found = found || m.MessageID == id
		}
		if err := in.Accept(ctx, msgs); err != nil {
			return found, err
		}
	}
}
