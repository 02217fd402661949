package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Pause stops a consumer of the stream, or all of them; the server goes on by
// itself at until. When one of several cannot be paused, none stays so.
func (a *Adapter) Pause(ctx context.Context, channel, consumer string, until time.Time) ([]string, error) {
	if wait := time.Until(until); wait <= 0 || wait > controlbus.MaxPause+time.Minute {
		return nil, fmt.Errorf("nats: pause %q: %w: it would end in %s: want more than 0 and at most %s", channel, controlbus.ErrInvalid, wait.Round(time.Second), controlbus.MaxPause)
	}
	names, err := a.setPause(ctx, channel, consumer, until)
	if err != nil {
		return nil, fmt.Errorf("nats: pause %q: %w", channel, err)
	}
	return names, nil
}

// Resume lets the consumers go on at once.
func (a *Adapter) Resume(ctx context.Context, channel, consumer string) ([]string, error) {
	names, err := a.setPause(ctx, channel, consumer, time.Time{})
	if err != nil {
		return names, fmt.Errorf("nats: resume %q: %w", channel, err)
	}
	return names, nil
}

// setPause pauses, or with the zero time resumes. It returns whom it changed.
func (a *Adapter) setPause(ctx context.Context, channel, consumer string, until time.Time) ([]string, error) {
	p, err := a.place(ctx, channel)
	if err != nil {
		return nil, err
	}
	if err := p.onStream("a subject of core NATS has no consumers that the server could pause"); err != nil {
		return nil, err
	}
	// Before anything is asked: an older server does not answer.
	if why := noPause(p.nc.ConnectedServerVersion()); why != "" {
		return nil, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why)
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	readers, err := p.readers(ctx)
	if err != nil {
		return nil, err
	}
	var chosen []*jetstream.ConsumerInfo
	for _, r := range readers {
		if consumer == "" || r.Name == consumer {
			chosen = append(chosen, r)
		}
	}
	if len(chosen) == 0 {
		what := "the stream has no consumers"
		if consumer != "" {
			what = fmt.Sprintf("the stream has no consumer %.100q", consumer)
		}
		return nil, fmt.Errorf("%w: %s", controlbus.ErrNotFound, what)
	}
	stream, pausing := p.config().Name, !until.IsZero()
	var names []string
	for i, r := range chosen {
		err := a.pauseOne(ctx, p, stream, r.Name, until)
		if errors.Is(err, controlbus.ErrNotFound) && consumer == "" {
			continue // it went away by itself
		}
		if err != nil {
			err = fmt.Errorf("consumer %s: %w", r.Name, err)
			if pausing {
				err = errors.Join(err, a.restorePause(ctx, p, stream, chosen[:i]))
			}
			return names, err
		}
		names = append(names, r.Name)
	}
	return names, nil
}

func (a *Adapter) pauseOne(ctx context.Context, p *place, stream, consumer string, until time.Time) error {
	if until.IsZero() {
		_, err := p.js.ResumeConsumer(ctx, stream, consumer)
		return a.refusal(p.nc, err, consumer)
	}
	got, err := p.js.PauseConsumer(ctx, stream, consumer, until)
	if err != nil {
		return a.refusal(p.nc, err, consumer)
	}
	if !got.Paused {
		return fmt.Errorf("%w: the server did not pause it; do the clocks of server and agent agree?", controlbus.ErrUnavailable)
	}
	return nil
}

// restorePause gives consumers the end of pause back that they had before.
func (a *Adapter) restorePause(ctx context.Context, p *place, stream string, consumers []*jetstream.ConsumerInfo) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Timeout)
	defer cancel()
	var errs []error
	for _, c := range consumers {
		var before time.Time
		if c.Config.PauseUntil != nil && time.Now().Before(*c.Config.PauseUntil) {
			before = *c.Config.PauseUntil
		}
		if err := a.pauseOne(ctx, p, stream, c.Name, before); err != nil && !errors.Is(err, controlbus.ErrNotFound) {
			errs = append(errs, fmt.Errorf("consumer %s stays paused: %w", c.Name, err))
		}
	}
	return errors.Join(errs...)
}
