package nats

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/controlbus"
)

var parkID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// parkNames are the stream of an id, its subject, and the one it gets when it is
// about to be removed.
func parkNames(id string) (stream, subject, closed string) {
	return "sb_park_" + id, "sb.park." + id, "sb.park.closed." + id
}

// Park makes a stream on disk that keeps what is put into it until it is taken
// out: no limits, no other subject than its own.
func (a *Adapter) Park(ctx context.Context, id string) (string, error) {
	if !parkID.MatchString(id) {
		return "", fmt.Errorf("nats: park %.100q: %w: want 1 to 64 letters, digits, - and _", id, controlbus.ErrInvalid)
	}
	nc, js, err := a.control(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	name, subject, closed := parkNames(id)
	c := jetstream.StreamConfig{
		Name: name, Description: "Signalbox: messages put aside by agent " + a.id.Agent, Subjects: []string{subject},
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardNew,
		MaxMsgs: -1, MaxBytes: -1, MaxConsumers: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1, Replicas: 1, Duplicates: 2 * time.Minute,
	}
	if nc.ConnectedClusterName() != "" {
		c.Replicas = 3 // these are customers' messages
	}
	s, err := js.Stream(ctx, name)
	switch {
	case err == nil:
		have := s.CachedInfo().Config
		if slices.Equal(have.Subjects, []string{closed}) { // a crash in the middle of Unpark
			have.Subjects = []string{subject}
			_, err = js.UpdateStream(ctx, have)
		} else if !slices.Equal(have.Subjects, c.Subjects) || have.Retention != c.Retention || have.MaxAge != 0 || have.Storage != c.Storage {
			err = fmt.Errorf("%w: the stream is there and not Signalbox's", controlbus.ErrConflict)
		}
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = js.CreateStream(ctx, c)
		var api *jetstream.APIError
		if c.Replicas > 1 && errors.As(err, &api) {
			c.Replicas = 1 // a cluster of fewer servers, or an account without the right to three
			_, err = js.CreateStream(ctx, c)
		}
	}
	if err != nil {
		return "", fmt.Errorf("nats: park %s: %w", name, a.refusal(nc, err, name))
	}
	return name, nil
}

// Unpark removes the stream of an id unless messages are in it. It first takes
// its subject away, so that none can come between the look and the removal.
func (a *Adapter) Unpark(ctx context.Context, id string) error {
	if !parkID.MatchString(id) {
		return fmt.Errorf("nats: unpark %.100q: %w: want 1 to 64 letters, digits, - and _", id, controlbus.ErrInvalid)
	}
	nc, js, err := a.control(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	name, subject, closed := parkNames(id)
	if err := a.unpark(ctx, js, name, subject, closed); err != nil {
		return fmt.Errorf("nats: unpark %s: %w", name, a.refusal(nc, err, name))
	}
	return nil
}

func (a *Adapter) unpark(ctx context.Context, js jetstream.JetStream, name, subject, closed string) error {
	s, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	full := func(n uint64) error {
		return fmt.Errorf("%w: %d messages are in it; redrive or discard them first", controlbus.ErrConflict, n)
	}
	info := s.CachedInfo()
	if info.State.Msgs > 0 {
		return full(info.State.Msgs)
	}
	c := info.Config
	if !slices.Equal(c.Subjects, []string{subject}) && !slices.Equal(c.Subjects, []string{closed}) {
		return fmt.Errorf("%w: the stream is not Signalbox's", controlbus.ErrConflict)
	}
	c.Subjects = []string{closed}
	if s, err = js.UpdateStream(ctx, c); err != nil {
		return err
	}
	if info, err = s.Info(ctx); err != nil {
		return err
	}
	if info.State.Msgs > 0 {
		c.Subjects = []string{subject}
		if _, err := js.UpdateStream(ctx, c); err != nil {
			return err
		}
		return full(info.State.Msgs)
	}
	if err := js.DeleteStream(ctx, name); !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	return nil
}
