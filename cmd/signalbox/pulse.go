package main

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/signalbox-dev/signalbox/ui/page"
)

// pulse feels whether the engine answers. One that hangs keeps its connections
// open, so a page would wait for its whole deadline before it says so.
type pulse struct {
	client *http.Client // reaches the engine; nil for none to feel
	gone   atomic.Bool
}

const (
	pulseEvery    = 250 * time.Millisecond
	pulsePatience = time.Second
	// hurried is what a page may wait for a store that does not answer.
	hurried = 500 * time.Millisecond
)

// run feels the pulse until ctx ends.
func (p *pulse) run(ctx context.Context) {
	if p.client == nil {
		return
	}
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.gone.Store(p.feel(ctx) != nil)
	}
}

func (p *pulse) feel(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pulsePatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/ping", nil)
	if err != nil {
		return err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close() // all of it was read
	return err
}

// hurry gives pages little time while the engine does not answer: what they
// show then is that it does not, and that should be there at once.
func (p *pulse) hurry(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.gone.Load() && !websocket.IsWebSocketUpgrade(r) {
			r = r.WithContext(page.WithPatience(r.Context(), hurried))
		}
		next.ServeHTTP(w, r)
	})
}
