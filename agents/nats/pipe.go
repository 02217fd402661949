package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// pipeWindow is how many requests wait for their answers at once.
const pipeWindow = 256

// quiet is how long a pipe waits before it looks whether something is wrong.
const quiet = 250 * time.Millisecond

// pipe sends requests without waiting for each answer: publishing with
// acknowledgement, reading by sequence, deleting and acknowledging all are
// requests. The library pipelines only the first of these. One goroutine uses a
// pipe.
type pipe struct {
	nc       *nats.Conn
	denied   *denials
	patience time.Duration
	inbox    string
	sub      *nats.Subscription
	serial   uint64
	open     map[string]asked // by the subject of the answer
}

type asked struct {
	tag     int
	subject string
	at      time.Time
}

func newPipe(nc *nats.Conn, denied *denials, patience time.Duration) (*pipe, error) {
	p := &pipe{nc: nc, denied: denied, patience: patience, inbox: nc.NewInbox(), open: map[string]asked{}}
	var err error
	if p.sub, err = nc.SubscribeSync(p.inbox + ".*"); err != nil {
		return nil, sentinel(err)
	}
	// What can come is bounded by what was asked.
	return p, sentinel(p.sub.SetPendingLimits(-1, -1))
}

func (p *pipe) close() { _ = p.sub.Unsubscribe() }

// ask sends a request; its answer comes with the tag.
func (p *pipe) ask(tag int, m *nats.Msg) error {
	p.serial++
	m.Reply = p.inbox + "." + strconv.FormatUint(p.serial, 10)
	if err := p.nc.PublishMsg(m); err != nil {
		return err
	}
	p.open[m.Reply] = asked{tag, m.Subject, time.Now()}
	return nil
}

// answer waits for one of the requests. An error with a tag is that request's
// alone; one with tag -1 says that ctx or the link has ended, and the requests
// stay open.
func (p *pipe) answer(ctx context.Context) (int, *nats.Msg, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, quiet)
		m, err := p.sub.NextMsgWithContext(wait)
		cancel()
		if err == nil {
			a, ok := p.open[m.Subject]
			if !ok {
				continue // of a request that was given up
			}
			delete(p.open, m.Subject)
			if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
				return a.tag, nil, nats.ErrNoResponders
			}
			return a.tag, m, nil
		}
		switch {
		case p.nc.IsClosed():
			return -1, nil, lost(p.nc.LastError())
		case ctx.Err() != nil:
			return -1, nil, ctx.Err()
		case !errors.Is(err, context.DeadlineExceeded):
			return -1, nil, sentinel(err)
		}
		for reply, a := range p.open {
			if text := p.denied.of(a.subject); text != "" {
				delete(p.open, reply)
				return a.tag, nil, fmt.Errorf("%w: %s", controlbus.ErrDenied, text)
			}
			if time.Since(a.at) > p.patience {
				delete(p.open, reply)
				return a.tag, nil, fmt.Errorf("%w: no answer within %s", controlbus.ErrUnavailable, p.patience)
			}
		}
	}
}

// each makes n requests, at most pipeWindow at once, and tells what became of
// each. Requests are sent in their order; done is called once for each.
func (p *pipe) each(ctx context.Context, n int, request func(i int) (*nats.Msg, error), done func(i int, m *nats.Msg, err error)) {
	for next := 0; next < n || len(p.open) > 0; {
		for ; next < n && len(p.open) < pipeWindow; next++ {
			m, err := request(next)
			if err == nil {
				err = p.ask(next, m)
			}
			if err != nil {
				done(next, nil, err)
			}
		}
		if len(p.open) == 0 {
			continue
		}
		tag, m, err := p.answer(ctx)
		if tag >= 0 {
			done(tag, m, err)
			continue
		}
		for _, a := range p.open {
			done(a.tag, nil, err)
		}
		clear(p.open)
		for ; next < n; next++ {
			done(next, nil, err)
		}
	}
}

// apiAnswer is what all answers of JetStream's API share.
type apiAnswer struct {
	Error *jetstream.APIError `json:"error"`
}

// call makes one request of JetStream's API on the control connection.
func (a *Adapter) call(ctx context.Context, nc *nats.Conn, subject string, request, answer any) error {
	a.mu.Lock()
	denied := a.denied
	a.mu.Unlock()
	p, err := newPipe(nc, denied, a.cfg.Timeout)
	if err != nil {
		return err
	}
	defer p.close()
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	p.each(ctx, 1, func(int) (*nats.Msg, error) { return &nats.Msg{Subject: subject, Data: body}, nil },
		func(_ int, m *nats.Msg, failure error) {
			if err = apiError(failure); err == nil {
				err = decode(m, answer)
			}
		})
	return err
}

// decode reads an answer of the API, or the error in it.
func decode(m *nats.Msg, answer any) error {
	var head apiAnswer
	if err := json.Unmarshal(m.Data, &head); err != nil {
		return fmt.Errorf("answer of the server: %w", err)
	}
	if head.Error != nil {
		return apiError(head.Error)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(m.Data, answer)
}

// Error codes of the server, where the library does not name them.
const (
	codeNoMessage       = 10037
	codeNoSequence      = 10043
	codeTooLarge        = 10054
	codeDeleteFailed    = 10057
	codeOtherStream     = 10060
	codeStreamNotFound  = 10059
	codeReplicas        = 10074
	codeHeaderTooLarge  = 10097
	codeWorkQueueTwo    = 10099
	codeWorkQueueShared = 10100
	codeSealed          = 10109
)

// apiError gives the server's errors our sentinels.
func apiError(err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		if errors.Is(err, nats.ErrNoResponders) {
			return fmt.Errorf("%w: nobody answers for JetStream", controlbus.ErrUnavailable)
		}
		return sentinel(err)
	}
	reason := func(kind error) error {
		return fmt.Errorf("%w: %s (%d)", kind, api.Description, api.ErrorCode)
	}
	switch api.ErrorCode {
	case codeNoMessage, codeNoSequence, codeStreamNotFound, jetstream.JSErrCodeConsumerNotFound:
		return reason(controlbus.ErrNotFound)
	case codeTooLarge, codeHeaderTooLarge:
		return fmt.Errorf("%w: %w: %s (%d)", controlbus.ErrInvalid, controlbus.ErrTooLarge, api.Description, api.ErrorCode)
	case codeOtherStream:
		return reason(agents.ErrUnroutable)
	case codeSealed:
		return reason(controlbus.ErrUnsupported)
	}
	if api.Code == 400 {
		return reason(controlbus.ErrInvalid)
	}
	return reason(controlbus.ErrUnavailable)
}
