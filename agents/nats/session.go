package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/signalbox-dev/signalbox/agents"
)

// session is a connection of its own for one outlet or intake, so that a large
// job neither delays statistics nor outlives the adapter.
type session struct {
	nc     *nats.Conn
	denied *denials
	ctx    context.Context // ends with the session or its link
	close  func()
}

func (a *Adapter) session(ctx context.Context, purpose string) (*session, error) {
	a.mu.Lock()
	life := a.life
	if life == nil || life.Err() != nil {
		a.mu.Unlock()
		return nil, fmt.Errorf("nats: %w", agents.ErrNotConnected)
	}
	a.taps.Add(1) // under the lock, so that Close cannot have begun to wait
	a.mu.Unlock()
	nc, err := a.dial(ctx, purpose)
	if err != nil {
		a.taps.Done()
		return nil, err
	}
	s := &session{nc: nc, denied: &denials{}}
	nc.SetErrorHandler(s.denied.take)
	var end context.CancelFunc
	s.ctx, end = context.WithCancel(life)
	nc.SetClosedHandler(func(*nats.Conn) { end() })
	finish := sync.OnceFunc(func() {
		end()
		nc.Close()
		a.taps.Done()
	})
	stop := context.AfterFunc(life, finish)
	s.close = func() {
		stop()
		finish()
	}
	return s, nil
}

// broken explains why nothing goes through the session any more; nil while it
// stands.
func (s *session) broken() error {
	if !s.nc.IsClosed() {
		return nil
	}
	return lost(s.nc.LastError())
}

func lost(err error) error {
	if err == nil {
		return fmt.Errorf("nats: %w", agents.ErrNotConnected)
	}
	return fmt.Errorf("nats: %w: %w", agents.ErrNotConnected, err)
}

// denials are what the server said one may not do. It says so beside the calls,
// which themselves are left without an answer.
type denials struct {
	mu    sync.Mutex
	texts []string
}

const maxDenials = 64

func (d *denials) take(_ *nats.Conn, _ *nats.Subscription, err error) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.texts) == maxDenials {
		d.texts = d.texts[1:]
	}
	d.texts = append(d.texts, err.Error())
}

// of returns what the server said about a subject.
func (d *denials) of(subject string) string {
	if d == nil {
		return ""
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, text := range d.texts {
		if strings.Contains(strings.ToLower(text), `"`+strings.ToLower(subject)+`"`) {
			return text
		}
	}
	return ""
}

// has says whether a text was told.
func (d *denials) has(text string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.texts, text)
}
