package detour

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

// item is one message on its way through a stage.
type item struct {
	src    *agents.Message // as it was taken; nobody changes it
	msg    *agents.Message // as it goes on
	id     string          // value of controlbus.HeaderDetour
	copies []outgoing
	// step and refused say where and why it cannot go the ordinary way.
	step    string
	refused error
	// parked says that it must not be bypassed: it goes in circles, or its
	// destination has no place for it.
	parked bool
	to     string // the channel it goes on to
	// unknown is why nobody knows what became of it: it is taken again.
	unknown error
}

type outgoing struct {
	channel string
	msg     *agents.Message
}

// refusal is a step's final word on one message. Every other error of a step is
// about the detour: the message is taken again.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

func refusef(format string, a ...any) error { return &refusal{fmt.Sprintf(format, a...)} }

// flow is what a step may use of the stage that runs it.
type flow interface {
	// flush sends what is ready: a step calls it before it waits.
	flush(ctx context.Context) error
	// failed counts an attempt that is made again, or was the last.
	failed(step string, err error)
	// alive says that waiting is as it should be.
	alive()
}

// step does one thing to a message. It is used by one goroutine.
type step interface {
	do(ctx context.Context, it *item, f flow) error
}

// compile makes a detour's steps, save hold and channel, which say how stages
// are put together. Errors are controlbus.ErrInvalid or ErrDenied, for people.
func compile(s controlbus.DetourStep, allow *allowList) (step, error) {
	switch {
	case s.Validate != nil:
		schema, err := compileSchema(s.Validate.Schema)
		if err != nil {
			return nil, err
		}
		return &validateStep{schema}, nil
	case s.Headers != nil:
		for _, k := range append(keys(s.Headers.Set), s.Headers.Remove...) {
			if k == "" || len(k) > 200 || strings.ContainsFunc(k, unicode.IsControl) {
				return nil, fmt.Errorf("%w: headers: %.40q is no name of a header", controlbus.ErrInvalid, k)
			}
			if k == controlbus.HeaderHops || k == controlbus.HeaderDetour {
				return nil, fmt.Errorf("%w: headers: %s is the detour's own: without it loops and copies are not known", controlbus.ErrInvalid, k)
			}
		}
		return &headersStep{set: s.Headers.Set, names: keys(s.Headers.Set), remove: s.Headers.Remove}, nil
	case s.Rate != nil:
		// A burst of a twentieth of a second keeps timers few without being felt.
		return &rateStep{rate.NewLimiter(rate.Limit(s.Rate.PerSecond), max(1, int(s.Rate.PerSecond/20)))}, nil
	case s.Copy != nil:
		return &copyStep{s.Copy.Channel}, nil
	case s.HTTP != nil:
		return newHTTPStep(*s.HTTP, allow)
	}
	return nil, fmt.Errorf("%w: a step of no known kind", controlbus.ErrInvalid)
}

func keys(m map[string]string) []string {
	all := make([]string, 0, len(m))
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// change returns the message for changing: src keeps what was taken.
func (it *item) change() *agents.Message {
	if it.msg == it.src {
		c := *it.src
		c.Headers, c.Raw = slices.Clone(it.src.Headers), nil
		it.msg = &c
	}
	return it.msg
}

type headersStep struct {
	set    map[string]string
	names  []string // of set, in a fixed order
	remove []string
}

func (s *headersStep) do(_ context.Context, it *item, _ flow) error {
	m := it.change()
	m.Headers = slices.DeleteFunc(m.Headers, func(h agents.Field) bool { return slices.Contains(s.remove, h.Key) })
	for _, k := range s.names {
		m.SetHeader(k, s.set[k])
	}
	return nil
}

type rateStep struct{ limit *rate.Limiter }

func (s *rateStep) do(ctx context.Context, _ *item, f flow) error {
	if s.limit.Allow() {
		return nil
	}
	if err := f.flush(ctx); err != nil {
		return err
	}
	for left := s.limit.Reserve().Delay(); left > 0; left -= 5 * time.Second {
		f.alive()
		if !backoff.Sleep(ctx, min(left, 5*time.Second)) {
			return ctx.Err()
		}
	}
	return nil
}

type copyStep struct{ channel string }

func (s *copyStep) do(_ context.Context, it *item, _ flow) error {
	// The message may be changed by a later step: the copy is as it is now.
	c := *it.msg
	c.Headers, c.Raw = slices.Clone(it.msg.Headers), nil
	it.copies = append(it.copies, outgoing{s.channel, &c})
	return nil
}

// clip makes text from anywhere fit for a header or a status: one line of valid
// UTF-8 without control characters.
func clip(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return -1
		case unicode.IsControl(r):
			return ' '
		}
		return r
	}, s)
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
