package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// Intake takes messages out of a stream. Without Follow it reads them by their
// sequences, which no consumer notices, and removes what is accepted; with Follow
// it is a durable consumer.
func (a *Adapter) Intake(ctx context.Context, channel string, o agents.IntakeOptions) (agents.Intake, error) {
	in, err := a.intake(ctx, channel, o)
	if err != nil {
		return nil, fmt.Errorf("nats: take from %q: %w", channel, err)
	}
	return in, nil
}

func (a *Adapter) intake(ctx context.Context, channel string, o agents.IntakeOptions) (agents.Intake, error) {
	p, err := a.place(ctx, channel)
	if err != nil {
		return nil, err
	}
	why := nothingWaits
	if o.Follow {
		why = "who listens to a subject of core NATS cannot give a message back, so a crash would lose what is on its way"
	}
	if err := p.onStream(why); err != nil {
		return nil, err
	}
	after, upTo, err := bounds(o)
	if err != nil {
		return nil, err
	}
	if o.Follow {
		return a.follow(ctx, p, o, after, upTo)
	}
	return a.browse(ctx, p, o, after, upTo)
}

// bounds reads the positions; no bound is the largest sequence.
func bounds(o agents.IntakeOptions) (after, upTo uint64, err error) {
	upTo = 1<<63 - 1
	if o.After != "" {
		if after, err = strconv.ParseUint(o.After, 10, 63); err != nil {
			return 0, 0, fmt.Errorf("%w: position %.40q: want a sequence", controlbus.ErrInvalid, o.After)
		}
	}
	if o.UpTo != "" {
		if upTo, err = strconv.ParseUint(o.UpTo, 10, 63); err != nil {
			return 0, 0, fmt.Errorf("%w: position %.40q: want a sequence", controlbus.ErrInvalid, o.UpTo)
		}
	}
	return after, upTo, nil
}

const (
	// browseBytes is about how much a browser holds of what it has read ahead.
	browseBytes = 16 << 20
	// gap is how many missing sequences in a row are asked for one by one.
	gap = 64
)

// browser reads a stream by sequence, through the stream's leader: direct gets
// may be answered by a replica that is behind, and a message that seems not to
// be there would be left out of a backup.
type browser struct {
	session *session
	gets    *pipe
	edits   *pipe
	api     string
	stream  string
	copy    bool
	most    int             // given out and not settled; 0: no bound, for it costs the server nothing
	held    map[string]bool // positions given out, where most bounds them
	window  int             // read ahead

	head, next, last uint64                     // to give out, to ask for, bound
	read             map[uint64]*agents.Message // answers; nil: no such message
	missing          int                        // in a row, up to head
	leaping          bool                       // the one open request asks for the next there is
	failed           error
}

func (a *Adapter) browse(ctx context.Context, p *place, o agents.IntakeOptions, after, upTo uint64) (*browser, error) {
	if why := undeletable(p.config()); why != "" && !o.Copy {
		return nil, fmt.Errorf("%w: %s", controlbus.ErrUnsupported, why)
	}
	state := p.info.State
	b := &browser{
		api: a.api(), stream: p.config().Name, copy: o.Copy, most: o.Window, held: map[string]bool{}, read: map[uint64]*agents.Message{},
		head: max(after+1, state.FirstSeq, 1), last: min(upTo, state.LastSeq),
	}
	b.next = b.head
	b.window = pipeWindow
	if o.Window > 0 {
		b.window = min(b.window, o.Window)
	}
	if state.Msgs > 0 {
		b.window = max(min(b.window, int(browseBytes/max(state.Bytes/state.Msgs, 1))), 1)
	}
	var err error
	if b.session, err = a.session(ctx, "take "+p.name); err != nil {
		return nil, err
	}
	if b.gets, err = newPipe(b.session.nc, b.session.denied, a.cfg.Timeout); err == nil {
		b.edits, err = newPipe(b.session.nc, b.session.denied, a.cfg.Timeout)
	}
	if err != nil {
		b.session.close()
		return nil, err
	}
	return b, nil
}

type getRequest struct {
	Seq  uint64 `json:"seq"`
	Next string `json:"next_by_subj,omitempty"`
}

func (b *browser) ask(seq uint64, next string) error {
	body, err := json.Marshal(getRequest{seq, next})
	if err != nil {
		return err
	}
	return b.gets.ask(int(seq), &nats.Msg{Subject: b.api + ".STREAM.MSG.GET." + b.stream, Data: body})
}

// fill keeps requests under way, one for each sequence. After many that are not
// there it asks the server for the next that is.
func (b *browser) fill() error {
	if b.leaping {
		return nil
	}
	if b.missing >= gap {
		if len(b.gets.open) == 0 && b.head == b.next && b.head <= b.last {
			b.leaping = true
			return b.ask(b.head, ">")
		}
		return nil
	}
	for b.next <= b.last && b.next-b.head < uint64(b.window) {
		if err := b.ask(b.next, ""); err != nil {
			return err
		}
		b.next++
	}
	return nil
}

// Next gives out what has been read, in order.
func (b *browser) Next(ctx context.Context, most int) ([]*agents.Message, error) {
	if b.most > 0 {
		free := b.most - len(b.held)
		if free <= 0 {
			return nil, fmt.Errorf("nats: read %q: %w: %d messages are held, settle some first", b.stream, controlbus.ErrConflict, len(b.held))
		}
		most = min(most, free)
	}
	most = max(most, 1)
	var out []*agents.Message
	for b.failed == nil {
		if err := b.fill(); err != nil {
			b.failed = sentinel(err)
			break
		}
		for len(out) < most && b.head < b.next {
			m, ok := b.read[b.head]
			if !ok {
				break
			}
			delete(b.read, b.head)
			b.head++
			b.missing++
			if m != nil {
				out = append(out, m)
				b.missing = 0
				if b.most > 0 {
					b.held[m.Position] = true
				}
			}
		}
		if len(out) > 0 {
			return out, nil
		}
		if b.head > b.last {
			return nil, io.EOF
		}
		if len(b.gets.open) == 0 {
			continue
		}
		tag, answer, err := b.gets.answer(ctx)
		if tag < 0 && ctx.Err() != nil && b.session.broken() == nil {
			return nil, ctx.Err() // what is open is answered to the next call
		}
		b.take(uint64(max(tag, 0)), answer, err)
	}
	return nil, fmt.Errorf("nats: read %q: %w", b.stream, b.failed)
}

// take files an answer away.
func (b *browser) take(seq uint64, answer *nats.Msg, err error) {
	var got struct {
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err = apiError(err); err == nil {
		err = decode(answer, &got)
	}
	leaping := b.leaping
	b.leaping = false
	switch {
	case errors.Is(err, controlbus.ErrNotFound) && !streamGone(err):
		if leaping {
			b.head, b.next = b.last+1, b.last+1
			return
		}
		b.read[seq] = nil
		return
	case err != nil:
		b.failed = err
		return
	case got.Message == nil:
		b.failed = fmt.Errorf("%w: the server answers without a message", controlbus.ErrUnavailable)
		return
	}
	m := got.Message
	if leaping {
		b.head, b.next, b.missing = m.Seq, m.Seq, 0
		if m.Seq > b.last {
			return
		}
		b.next = m.Seq + 1
	}
	var h nats.Header
	if len(m.Header) > 0 {
		if h, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			b.failed = fmt.Errorf("headers of message %d: %w", m.Seq, err)
			return
		}
	}
	b.read[m.Seq] = incoming(m.Seq, m.Time, m.Subject, h, m.Data)
}

func streamGone(err error) bool {
	return strings.Contains(err.Error(), strconv.Itoa(codeStreamNotFound))
}

// Accept deletes the messages. One that is gone already is as good.
func (b *browser) Accept(ctx context.Context, msgs []*agents.Message) error {
	if err := b.session.broken(); err != nil {
		return err
	}
	b.settled(msgs)
	if b.copy || len(msgs) == 0 {
		return nil
	}
	subject := b.api + ".STREAM.MSG.DELETE." + b.stream
	var failed error
	b.edits.each(ctx, len(msgs), func(i int) (*nats.Msg, error) {
		seq, err := strconv.ParseUint(msgs[i].Position, 10, 63)
		if err != nil {
			return nil, fmt.Errorf("%w: position %.40q", controlbus.ErrInvalid, msgs[i].Position)
		}
		return &nats.Msg{Subject: subject, Data: fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, seq)}, nil
	}, func(i int, m *nats.Msg, err error) {
		if err == nil {
			if err = decode(m, nil); gone(err) {
				err = nil
			}
		} else {
			err = apiError(err)
		}
		if err != nil && failed == nil {
			failed = fmt.Errorf("nats: delete message %s of %q: %w", msgs[i].Position, b.stream, err)
		}
	})
	return failed
}

// gone says whether a deletion failed because there is nothing to delete.
func gone(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return errors.Is(err, controlbus.ErrNotFound) && !streamGone(err) ||
		strings.Contains(text, strconv.Itoa(codeDeleteFailed)) && (strings.Contains(text, "no message found") || strings.Contains(text, "EOF"))
}

func (b *browser) settled(msgs []*agents.Message) {
	for _, m := range msgs {
		delete(b.held, m.Position)
	}
}

// Return leaves the messages where they are.
func (b *browser) Return(_ context.Context, msgs []*agents.Message) error {
	b.settled(msgs)
	return nil
}

func (b *browser) Close(context.Context) error {
	b.session.close()
	return nil
}
