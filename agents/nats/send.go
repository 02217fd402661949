package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Outlet opens a way into a stream or to a subject.
func (a *Adapter) Outlet(ctx context.Context, channel string) (agents.Outlet, error) {
	p, err := a.place(ctx, channel)
	if err != nil {
		return nil, fmt.Errorf("nats: send to %q: %w", channel, err)
	}
	o := &outlet{a: a, channel: channel, routes: map[string]string{}}
	if p.info != nil {
		if why := unwritable(p.config()); why != "" {
			return nil, fmt.Errorf("nats: send to %q: %w: %s", channel, controlbus.ErrUnsupported, why)
		}
		o.stream, o.subjects = p.config().Name, p.config().Subjects
	}
	if o.session, err = a.session(ctx, "send "+channel); err != nil {
		return nil, err
	}
	if o.js, err = a.jetstream(o.session.nc); err == nil {
		o.pipe, err = newPipe(o.session.nc, o.session.denied, a.cfg.Timeout)
	}
	if err != nil {
		o.session.close()
		return nil, fmt.Errorf("nats: send to %q: %w", channel, err)
	}
	return o, nil
}

// unwritable says why nobody can publish to a stream with acknowledgement.
func unwritable(c jetstream.StreamConfig) string {
	switch {
	case c.Mirror != nil:
		return "the stream mirrors " + c.Mirror.Name + "; send there"
	case c.Sealed:
		return "the stream is sealed"
	case len(c.Subjects) == 0:
		return "the stream has no subjects of its own, it copies from others; send there"
	case c.NoAck:
		return "the stream does not acknowledge what it stores (no_ack), so nobody would know what has arrived"
	case c.AllowMsgCounter:
		return "the stream holds counters, not messages"
	}
	return ""
}

// outlet is the way into one channel.
type outlet struct {
	a        *Adapter
	session  *session
	pipe     *pipe
	js       jetstream.JetStream
	channel  string
	stream   string // empty for a subject
	subjects []string
	// routes are the streams that store a subject, "" for none.
	routes map[string]string
}

// maxRoutes bounds what an outlet to a subject with wildcards remembers.
const maxRoutes = 1000

// errUnconfirmed marks a message that nobody acknowledges.
var errUnconfirmed = errors.New("nobody acknowledges it")

// Send publishes the messages. What a stream stores has its acknowledgement, a
// duplicate included: then the message is there already. For what no stream
// stores, the server's answer to a ping that follows says that it has read it.
func (o *outlet) Send(ctx context.Context, msgs []*agents.Message) []error {
	errs := make([]error, len(msgs))
	core := map[int]string{}
	o.pipe.each(ctx, len(msgs), func(i int) (*nats.Msg, error) {
		subject, err := o.subject(msgs[i])
		if err != nil {
			return nil, err
		}
		stream, err := o.route(ctx, subject)
		if err != nil {
			return nil, err
		}
		m := &nats.Msg{Subject: subject, Header: outgoing(msgs[i]), Data: msgs[i].Body}
		if stream != "" {
			// It may have gone to another stream since.
			m.Header[jetstream.ExpectedStreamHeader] = []string{stream}
			if int64(m.Size()) > o.session.nc.MaxPayload() {
				delete(m.Header, jetstream.ExpectedStreamHeader) // it may fit without
			}
			return m, nil
		}
		if to := msgs[i].ReplyTo; literal(to) && !reserved(to) || strings.HasPrefix(to, nats.InboxPrefix) && literal(to) {
			m.Reply = to
		}
		core[i] = subject
		if err := o.session.nc.PublishMsg(m); err != nil {
			delete(core, i)
			return nil, err
		}
		return nil, errUnconfirmed
	}, func(i int, m *nats.Msg, err error) { errs[i] = o.verdict(m, err) })
	if len(core) > 0 {
		o.confirm(ctx, core, errs)
	}
	return errs
}

// verdict is what an acknowledgement, or its absence, says of a message.
func (o *outlet) verdict(m *nats.Msg, err error) error {
	wrap := func(err error) error { return fmt.Errorf("nats: send to %q: %w", o.channel, err) }
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return wrap(fmt.Errorf("%w: %w: the server takes messages of at most %d bytes", controlbus.ErrInvalid, controlbus.ErrTooLarge, o.session.nc.MaxPayload()))
	case errors.Is(err, nats.ErrNoResponders):
		return wrap(fmt.Errorf("%w: no stream takes the subject any more", agents.ErrUnroutable))
	case errors.Is(err, controlbus.ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// It went out and was not answered.
		return wrap(fmt.Errorf("%w: %w", agents.ErrNotConnected, err))
	case err != nil:
		return wrap(sentinel(err))
	}
	var ack struct {
		Stream string `json:"stream"`
		Seq    uint64 `json:"seq"`
		apiAnswer
	}
	switch err := json.Unmarshal(m.Data, &ack); {
	case err != nil || ack.Error == nil && ack.Stream == "":
		return wrap(fmt.Errorf("%w: what answered for the stream is no acknowledgement", controlbus.ErrUnavailable))
	case ack.Error != nil:
		return wrap(apiError(ack.Error))
	}
	return nil
}

// confirm waits until the server has read what no stream stores.
func (o *outlet) confirm(ctx context.Context, core map[int]string, errs []error) {
	err := o.a.ping(ctx, o.session.nc)
	if err != nil {
		err = fmt.Errorf("nats: send to %q: %w: %w", o.channel, agents.ErrNotConnected, err)
	}
	last := o.session.nc.LastError()
	if errors.Is(last, nats.ErrPermissionViolation) {
		// The library tells of refusals in their order, in a goroutine of its own.
		for range 1000 {
			if o.session.denied.has(last.Error()) {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	for i, subject := range core {
		errs[i] = err
		if text := o.session.denied.of(subject); err == nil && text != "" {
			errs[i] = fmt.Errorf("nats: send to %q: %w: %s", o.channel, controlbus.ErrDenied, text)
		}
	}
}

// headerOriginalSubject is where a program that buries a message notes its subject;
// agents.LiftHeaders knows it, too.
const headerOriginalSubject = "x-original-subject"

// Address says whether one of the channel's subjects is the message's.
func (o *outlet) Address(m *agents.Message) error {
	if _, err := o.subject(m); err != nil {
		return fmt.Errorf("nats: send to %q: %w", o.channel, err)
	}
	return nil
}

// subject is where a message goes.
func (o *outlet) subject(m *agents.Message) (string, error) {
	if o.stream == "" {
		if literal(o.channel) {
			return o.channel, nil
		}
		if literal(m.Key) && !reserved(m.Key) && covers(o.channel, m.Key) {
			return m.Key, nil
		}
		return "", fmt.Errorf("%w: the message's subject %.200q is none of %s", controlbus.ErrInvalid, m.Key, o.channel)
	}
	takes := func(subject string) bool {
		return literal(subject) && !reserved(subject) && slices.ContainsFunc(o.subjects, func(s string) bool { return covers(s, subject) })
	}
	if takes(m.Key) {
		return m.Key, nil
	}
	// A dead letter's subject is that of the dead; many note which it had before.
	for _, f := range m.Headers {
		if s, ok := f.Value.(string); ok && strings.EqualFold(f.Key, headerOriginalSubject) && takes(s) {
			return s, nil
		}
	}
	only := ""
	for _, s := range o.subjects {
		if !literal(s) || reserved(s) {
			continue
		}
		if only != "" {
			only = ""
			break
		}
		only = s
	}
	if only == "" {
		return "", fmt.Errorf("%w: the message's subject %.200q is none that the stream takes: %s", controlbus.ErrInvalid, m.Key, strings.Join(o.subjects, ", "))
	}
	return only, nil
}

// route says which stream acknowledges a subject, "" for none.
func (o *outlet) route(ctx context.Context, subject string) (string, error) {
	if o.stream != "" {
		return o.stream, nil
	}
	if stream, ok := o.routes[subject]; ok {
		return stream, nil
	}
	ctx, cancel := context.WithTimeout(ctx, min(o.a.cfg.Timeout, 2*time.Second))
	defer cancel()
	stream, err := o.js.StreamNameBySubject(ctx, subject)
	if err == nil {
		var s jetstream.Stream
		if s, err = o.js.Stream(ctx, stream); err == nil && s.CachedInfo().Config.NoAck {
			stream = ""
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, jetstream.ErrStreamNotFound), noJetStream(err):
		stream = ""
	case errors.Is(o.session.nc.LastError(), nats.ErrPermissionViolation):
		stream = "" // who may not ask about streams publishes without their word
	default:
		return "", err
	}
	if len(o.routes) == maxRoutes {
		clear(o.routes)
	}
	o.routes[subject] = stream
	return stream, nil
}

func (o *outlet) Close(context.Context) error {
	o.session.close()
	return nil
}
