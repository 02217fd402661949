package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

const (
	// maxWait bounds a question that waits: rights are looked at when it comes in,
	// and have to count within a minute.
	maxWait = 55 * time.Second
	// waitAgain is how often one that waits looks at most: a busy bus changes more
	// often than anybody reads.
	waitAgain = 200 * time.Millisecond
)

// command answers with a command; with wait, once it is another than the reader
// knows, has ended, or the time is over.
func (a *API) command(w http.ResponseWriter, r *http.Request) error {
	bus, err := a.bus()
	if err != nil {
		return err
	}
	id, err := commandID(r)
	if err != nil {
		return err
	}
	p := a.params(r)
	wait, known := p.wait(), p.text("version")
	if p.err != nil {
		return p.err
	}
	c, err := a.changed(r.Context(), bus, id, known, wait)
	if err != nil {
		return fmt.Errorf("command %s: %w", id, err)
	}
	return write(w, http.StatusOK, commandOf(&c, true))
}

// changed reads a command until it is not the known version any more. Without
// one it is compared with what it was at first.
func (a *API) changed(ctx context.Context, bus Commands, id controlbus.CommandID, known string, wait time.Duration) (controlbus.Command, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		next := bus.Changed() // before the look, so that nothing happens between
		read, cancel := context.WithTimeout(ctx, a.deps.Timeout)
		c, err := bus.Command(read, id)
		cancel()
		switch {
		case err != nil || c.State.Terminal() || wait <= 0 || known != "" && known != version(&c):
			return c, err
		case known == "":
			known = version(&c)
		}
		select {
		case <-next:
		case <-over.C:
			return c, nil
		case <-a.closed:
			return c, nil
		case <-ctx.Done():
			return c, ctx.Err()
		}
		pause := time.NewTimer(waitAgain)
		select {
		case <-pause.C:
		case <-a.closed:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// Close answers what waits with what is known, and everything that comes at
// once.
func (a *API) Close() { a.close.Do(func() { close(a.closed) }) }

// wait is how long an answer may be put off.
func (p *params) wait() time.Duration {
	s := p.form.Get("wait")
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		p.wrong("wait", "a length such as 30s")
	}
	return min(d, maxWait)
}
