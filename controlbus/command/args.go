package command

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
)

// asked is a request whose arguments have been read and completed.
type asked struct {
	Request
	who    access.Identity
	target controlbus.ChannelName

	args      any             // of the kind, complete
	filter    *filter.Filter  // of the messages; nil: all
	selection *chosen         // of a replay from the store
	job       bool            // messages go somewhere, by JobOptions
	touches   []string        // further channels of the same broker that get messages
	raw       json.RawMessage // args as they will be kept
}

// read checks a request's arguments, resolves times and fills in what only the
// console knows. Errors are controlbus.ErrInvalid and ErrDenied.
func (s *Service) read(who access.Identity, r Request) (*asked, error) {
	_, known := r.Kind.Info()
	switch {
	case !known:
		return nil, fmt.Errorf("command: %w: kind %.40q: want one of %s", controlbus.ErrInvalid, string(r.Kind), kindNames())
	case r.Env == "" || r.Broker == "" || r.Channel == "":
		return nil, fmt.Errorf("command: %w: want an environment, a broker and a channel", controlbus.ErrInvalid)
	case len(r.Env) > 200 || len(r.Broker) > 200 || len(r.Channel) > 1000:
		return nil, fmt.Errorf("command: %w: the names of environment, broker and channel are too long", controlbus.ErrInvalid)
	case len(r.Args) > controlbus.MaxCommandArgs:
		return nil, fmt.Errorf("command: %w: arguments of %d bytes: at most %d", controlbus.ErrInvalid, len(r.Args), controlbus.MaxCommandArgs)
	case r.UndoOf != "" && !r.UndoOf.Valid():
		return nil, fmt.Errorf("command: %w: %.40q is no command", controlbus.ErrInvalid, string(r.UndoOf))
	}
	a := &asked{Request: r, who: who, target: controlbus.ChannelName{Env: r.Env, Broker: r.Broker, Name: r.Channel}}
	if err := s.readArgs(a); err != nil {
		return nil, fmt.Errorf("command: %s: %w", r.Kind, err)
	}
	var err error
	if a.args != nil {
		if a.raw, err = json.Marshal(a.args); err != nil {
			return nil, fmt.Errorf("command: %w: %w", controlbus.ErrInvalid, err)
		}
	}
	if len(a.raw) > controlbus.MaxCommandArgs {
		return nil, fmt.Errorf("command: %w: arguments of %d bytes: at most %d", controlbus.ErrInvalid, len(a.raw), controlbus.MaxCommandArgs)
	}
	return a, nil
}

func kindNames() string {
	var names []string
	for _, k := range controlbus.CommandKinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func (s *Service) readArgs(a *asked) error {
	switch a.Kind {
	case controlbus.CommandPurge:
		return decode(a, func(p *controlbus.PurgeArgs) error { return s.readFilter(a, &p.Filter) })
	case controlbus.CommandRedrive:
		a.job = true
		return decode(a, func(p *controlbus.RedriveArgs) error { return both(p.Job.Check(), s.readFilter(a, &p.Filter)) })
	case controlbus.CommandDiscard:
		return decode(a, func(p *controlbus.DiscardArgs) error { return both(p.Job.Check(), s.readFilter(a, &p.Filter)) })
	case controlbus.CommandReplay:
		a.job = true
		return decode(a, func(p *controlbus.ReplayArgs) error { return both(p.Job.Check(), s.readSelection(a, p)) })
	case controlbus.CommandTest:
		return decode(a, func(p *controlbus.TestArgs) error {
			if p.Run == "" {
				p.Run = strings.ToLower(rand.Text()[:16])
			}
			if len(p.Run) > 100 {
				return fmt.Errorf("%w: run of %d bytes: at most 100", controlbus.ErrInvalid, len(p.Run))
			}
			return nil
		})
	case controlbus.CommandDetour:
		return decode(a, func(d *controlbus.Detour) error { return s.readDetour(a, d) })
	case controlbus.CommandUndetour:
		return decode(a, func(p *controlbus.UndetourArgs) error {
			if p.ID == "" {
				return fmt.Errorf("%w: want the detour's id", controlbus.ErrInvalid)
			}
			return nil
		})
	case controlbus.CommandPause:
		return decode(a, func(p *controlbus.PauseArgs) error {
			if p.For < time.Second || p.For > controlbus.MaxPause {
				return fmt.Errorf("%w: it lasts %v: want 1s to %v", controlbus.ErrInvalid, p.For, controlbus.MaxPause)
			}
			return nil
		})
	case controlbus.CommandTap:
		return decode(a, func(p *controlbus.TapArgs) error { return checkTap(*p) })
	default: // resume, untap, peek: the agent's to read
		a.raw = a.Args
		if len(a.raw) > 0 && !json.Valid(a.raw) {
			return fmt.Errorf("%w: arguments are not JSON", controlbus.ErrInvalid)
		}
		return nil
	}
}

// decode reads a kind's arguments and lets f check and complete them.
func decode[T any](a *asked, f func(*T) error) error {
	v, err := controlbus.DecodeArgs[T](a.Args)
	if err != nil {
		return err
	}
	if err := f(&v); err != nil {
		return err
	}
	a.args = v
	return nil
}

func both(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// readFilter checks a filter and writes it so that it means the same whenever
// it is read: with its times resolved.
func (s *Service) readFilter(a *asked, text *string) error {
	f, err := filter.Parse(*text, s.now())
	if err != nil {
		return err
	}
	if f.Empty() {
		*text = ""
		return nil
	}
	if f.NeedsBody() {
		// Its count would tell what is in bodies.
		if err := may(a.who, access.ReadBody, a.target); err != nil {
			return fmt.Errorf("the filter looks into bodies: %w", err)
		}
	}
	f = f.Fixed()
	*text, a.filter = f.String(), f
	return nil
}

// readDetour completes a detour and notes which channels its messages may reach.
func (s *Service) readDetour(a *asked, d *controlbus.Detour) error {
	if d.ID == "" {
		d.ID = strings.ToLower(rand.Text()[:12])
	}
	d.Owner = controlbus.Actor{Kind: string(a.who.Kind), ID: a.who.Person(), Name: a.who.Name}
	if err := d.Check(); err != nil {
		return err
	}
	if err := s.readFilter(a, &d.Filter); err != nil {
		return err
	}
	touch := func(names ...string) {
		for _, n := range names {
			if n != "" && n != a.Channel {
				a.touches = append(a.touches, n)
			}
		}
	}
	touch(d.To, d.Park)
	for _, st := range d.Steps {
		if st.Copy != nil {
			touch(st.Copy.Channel)
		}
		if st.Channel != nil {
			touch(st.Channel.Send, st.Channel.Receive)
		}
	}
	return nil
}
