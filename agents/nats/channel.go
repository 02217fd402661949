package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// place is what a channel's name stands for.
type place struct {
	nc   *nats.Conn
	js   jetstream.JetStream
	name string
	info *jetstream.StreamInfo // of a stream; nil for a subject
	// captured is the stream that stores what is published to the subject; empty
	// where none does, or where that cannot be asked.
	captured string
}

func (p *place) config() jetstream.StreamConfig { return p.info.Config }

// place looks a channel up. A subject is known when the configuration names it or
// a stream stores it: core NATS has no registry, and what is published to a
// subject with a typing error in it is gone without a word.
func (a *Adapter) place(ctx context.Context, channel string) (*place, error) {
	nc, js, err := a.control(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	p := &place{nc: nc, js: js, name: channel}
	if streamName(channel) {
		s, err := js.Stream(ctx, channel)
		switch {
		case err == nil:
			p.info = s.CachedInfo()
			return p, nil
		case errors.Is(err, jetstream.ErrStreamNotFound), noJetStream(err):
		default:
			return nil, a.refusal(nc, err, "."+channel)
		}
	}
	if why := checkSubject(channel); why != "" {
		return nil, fmt.Errorf("%w: %.200q is no channel: %s", controlbus.ErrNotFound, channel, why)
	}
	// Not every agent may ask: then it costs a moment, not the whole timeout.
	ask, stop := context.WithTimeout(ctx, min(a.cfg.Timeout, 2*time.Second))
	defer stop()
	p.captured, err = js.StreamNameBySubject(ask, channel)
	known := slices.ContainsFunc(a.cfg.Subjects, func(s string) bool { return s == channel || literal(channel) && covers(s, channel) })
	switch {
	case err == nil, known:
		return p, nil
	case errors.Is(err, jetstream.ErrStreamNotFound), noJetStream(err):
		return nil, fmt.Errorf("%w: no stream is called %q or stores it as a subject; to publish to the subject, name it under subjects in the agent's configuration",
			controlbus.ErrNotFound, channel)
	default:
		return nil, a.refusal(nc, err, "STREAM.NAMES")
	}
}

// refusal explains a call that failed. A server does not answer calls that the
// user has no right to: it says so beside, and the call times out.
func (a *Adapter) refusal(nc *nats.Conn, err error, about string) error {
	if last := nc.LastError(); errors.Is(err, context.DeadlineExceeded) && errors.Is(last, nats.ErrPermissionViolation) &&
		strings.Contains(last.Error(), about) {
		return fmt.Errorf("%w: %w", controlbus.ErrDenied, last)
	}
	return sentinel(err)
}

// streamName says whether a stream could be called so.
func streamName(s string) bool {
	return s != "" && !strings.ContainsAny(s, ".*> \t\r\n\f/\\")
}

// literal says whether a text is a subject that one can publish to.
func literal(s string) bool {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return false
	}
	for tok := range strings.SplitSeq(s, ".") {
		if tok == "" || tok == "*" || tok == ">" {
			return false
		}
	}
	return true
}

// covers says whether a subject with wildcards takes in a literal one.
func covers(pattern, subject string) bool {
	for {
		p, restP, moreP := strings.Cut(pattern, ".")
		s, restS, moreS := strings.Cut(subject, ".")
		if p == ">" {
			return true
		}
		if p != "*" && p != s || moreP != moreS {
			return false
		}
		if !moreP {
			return true
		}
		pattern, subject = restP, restS
	}
}

// reserved says whether a subject is the server's own: it is never published to,
// whatever a stream stores and a message names.
func reserved(subject string) bool {
	first, _, _ := strings.Cut(subject, ".")
	return first == "$JS" || first == "$SYS" || first == "$SRV" || first == "_INBOX"
}

// api is what the subjects of JetStream's API begin with.
func (a *Adapter) api() string {
	if a.cfg.Domain != "" {
		return "$JS." + a.cfg.Domain + ".API"
	}
	return "$JS.API"
}

// onStream answers for verbs that only streams have.
func (p *place) onStream(why string) error {
	if p.info != nil {
		return nil
	}
	if p.captured != "" {
		return fmt.Errorf("%w: %s; the stream %s stores it, name that", controlbus.ErrUnsupported, why, p.captured)
	}
	return fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why)
}

// nothingWaits is why most verbs do not go with a subject.
const nothingWaits = "nothing waits on a subject of core NATS: who does not listen when a message passes never gets it"

// ours says whether a tap or a look made the consumer: it stands for nobody who
// reads.
func ours(consumer string) bool { return strings.HasPrefix(consumer, consumerPrefix) }

// readers are the stream's consumers that are not taps.
func (p *place) readers(ctx context.Context) ([]*jetstream.ConsumerInfo, error) {
	if p.info.State.Consumers == 0 {
		return nil, nil
	}
	s, err := p.js.Stream(ctx, p.info.Config.Name)
	if err != nil {
		return nil, sentinel(err)
	}
	var out []*jetstream.ConsumerInfo
	list := s.ListConsumers(ctx)
	for c := range list.Info() {
		if !ours(c.Name) {
			out = append(out, c)
		}
	}
	if err := list.Err(); err != nil {
		return nil, fmt.Errorf("list consumers: %w", sentinel(err))
	}
	slices.SortFunc(out, func(a, b *jetstream.ConsumerInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
