package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
)

// maxUIDs of one selection.
const maxUIDs = 500

// chosen is a selection with the scope by which it is read.
type chosen struct {
	storage.Selection
	scope controlbus.Scope
}

// readSelection checks which stored messages a replay sends, and freezes the
// choice as far as time and rights go: whoever may not read a body may not have
// it sent somewhere either.
func (s *Service) readSelection(a *asked, p *controlbus.ReplayArgs) error {
	if a.UndoOf != "" {
		if p.Selection != nil {
			return fmt.Errorf("%w: an undo sends what the command removed; it takes no selection", controlbus.ErrInvalid)
		}
		return nil
	}
	if p.Selection == nil {
		return fmt.Errorf("%w: want a selection of stored messages", controlbus.ErrInvalid)
	}
	sel := *p.Selection
	now := s.now()
	if sel.Env == "" {
		sel.Env = a.Env
	}
	if sel.To.IsZero() || sel.To.After(now) {
		sel.To = now.UTC()
	}
	switch {
	case len(sel.UIDs) > maxUIDs:
		return fmt.Errorf("%w: %d single messages: at most %d; use a filter", controlbus.ErrInvalid, len(sel.UIDs), maxUIDs)
	case len(sel.UIDs) > 0 && sel.Filter != "":
		return fmt.Errorf("%w: want single messages or a filter, not both", controlbus.ErrInvalid)
	case len(sel.UIDs) == 0 && sel.From.IsZero():
		return fmt.Errorf("%w: want the time from which messages are sent again", controlbus.ErrInvalid)
	case !sel.From.Before(sel.To):
		return fmt.Errorf("%w: the selection ends before it begins", controlbus.ErrInvalid)
	}
	f, err := filter.Parse(sel.Filter, now)
	if err != nil {
		return err
	}
	sel.Filter = f.Fixed().String()
	scope := a.who.Scope(access.ReadBody).And(a.who.Scope(access.ViewMetadata))
	if !scope.AllowsEnv(sel.Env) {
		return fmt.Errorf("%w: sending stored messages again needs the right to read them, which you have nowhere in %s. %s", controlbus.ErrDenied, sel.Env, a.who.Why(access.ReadBody))
	}
	sel.All, sel.Scope = scope.All(), scope.Sets()
	p.Selection = &sel
	a.selection, err = choose(sel)
	return err
}

// choose reads a frozen selection.
func choose(sel controlbus.Selection) (*chosen, error) {
	f, err := filter.Parse(sel.Filter, sel.To)
	if err != nil {
		return nil, err
	}
	c := &chosen{
		Selection: storage.Selection{Env: sel.Env, Filter: f, Range: storage.TimeRange{From: sel.From, To: sel.To}, StoredBefore: sel.StoredBefore},
		scope:     controlbus.NewScope(sel.Scope...),
	}
	if sel.All {
		c.scope = controlbus.Everything()
	}
	for _, text := range sel.UIDs {
		uid, err := controlbus.ParseID(text)
		if err != nil {
			return nil, err
		}
		c.UIDs = append(c.UIDs, uid)
	}
	return c, nil
}

// freeze fixes until when a message must have been stored, by the store's own
// clock, and counts what is selected.
func (s *Service) freeze(ctx context.Context, a *asked, p *controlbus.Preview) error {
	ctx, over := context.WithTimeout(controlbus.WithScope(ctx, a.selection.scope), countWithin)
	defer over()
	args := a.args.(controlbus.ReplayArgs)
	at, err := s.cfg.Store.Clock(ctx)
	switch {
	case errors.Is(err, context.DeadlineExceeded): // of ours: nobody was asked yet but the store
		return fmt.Errorf("command: %w: the message store does not answer", controlbus.ErrUnavailable)
	case err != nil:
		return fmt.Errorf("command: the message store does not answer: %w", err)
	}
	args.Selection.StoredBefore = at.UTC()
	a.selection.StoredBefore, a.args = at.UTC(), args
	if a.raw, err = encodeArgs(args); err != nil {
		return err
	}
	n, err := s.cfg.Store.CountSelected(ctx, a.selection.Selection)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		n = storage.SelectionCount{AtLeast: true}
	case err != nil:
		return fmt.Errorf("command: count what is selected: %w", err)
	}
	if n.Messages == 0 && !n.AtLeast {
		return fmt.Errorf("command: %w: no stored message falls under the selection, or none that you may read; widen the time or the filter", controlbus.ErrInvalid)
	}
	p.Count, p.AtLeast = int64(n.Messages), n.AtLeast
	p.Oldest, p.Newest = n.Oldest, n.Newest
	say := func(n uint64, text string) {
		if n > 0 {
			p.Impact = append(p.Impact, fmt.Sprintf(text, number(int64(n))))
		}
	}
	if n.AtMost {
		p.Impact = append(p.Impact, "Conditions on JSON bodies are judged as the messages are read: fewer may be sent than were counted.")
	}
	say(n.Truncated, "%s of them were cut when they were stored; they cannot be sent again and are skipped.")
	say(n.Redacted, "%s of them were changed by redaction before they were stored; they are skipped.")
	say(n.Bodyless, "%s of them were stored without a body; they are skipped.")
	if n.Told > 0 && n.Told < n.Messages {
		say(n.Told, "%s of them were told of by services and the others seen by taps: one message may be among both. op:tap leaves the former out.")
	}
	return s.storedSamples(ctx, a, p)
}

// storedSamples are messages of a selection.
func (s *Service) storedSamples(ctx context.Context, a *asked, p *controlbus.Preview) error {
	read := func(sel storage.Selection, most int) ([]controlbus.PreviewSample, error) {
		page, err := s.cfg.Store.Selected(ctx, sel, "", most, sampleBytes)
		if err != nil {
			return nil, err
		}
		var out []controlbus.PreviewSample
		for i := range page.Messages {
			m := &page.Messages[i]
			sm := sample(&m.Message)
			if m.BodyStored && a.who.Can(access.ReadBody, m.Env, m.Destination) {
				sm.Excerpt = excerpt(string(m.Body))
			}
			out = append(out, sm)
		}
		return out, nil
	}
	first, err := read(a.selection.Selection, controlbus.MaxSamples)
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, controlbus.ErrUnavailable):
		p.Impact = append(p.Impact, "The message store did not show samples in time.")
		return nil
	case err != nil:
		return fmt.Errorf("command: read samples: %w", err)
	}
	p.Samples = first
	if p.Count > int64(len(first)) {
		p.Samples = spread(first, p.Oldest, p.Newest, func(r storage.TimeRange) ([]controlbus.PreviewSample, error) {
			sel := a.selection.Selection
			sel.Range = r
			return read(sel, 1)
		})
	}
	return nil
}

// sampleBytes bounds the bodies read for samples.
const sampleBytes = 4 << 20

func sample(m *storage.Message) controlbus.PreviewSample {
	s := controlbus.PreviewSample{
		UID: m.UID.String(), MessageID: m.MessageID, ContentType: m.ContentType, Size: m.BodySize, ErrorType: m.ErrorType,
	}
	if m.Time > 0 {
		s.At = time.Unix(0, m.Time).UTC()
	}
	if s.ErrorType == "" {
		s.ErrorType = m.DeadLetterReason
	}
	return s
}
