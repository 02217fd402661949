package action

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/archive"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/job"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage/spool"
)

// fetcher gets a page of the stored messages of a command.
type fetcher func(ctx context.Context, id controlbus.CommandID, after string, limit int) (link.FetchPage, error)

// consoleFetcher asks the console.
func consoleFetcher(c *link.Client) fetcher {
	if c == nil {
		return func(context.Context, controlbus.CommandID, string, int) (link.FetchPage, error) {
			return link.FetchPage{}, fmt.Errorf("%w: this agent has no console to get messages from", controlbus.ErrUnsupported)
		}
	}
	return c.Fetch
}

// fetchPage is how many messages are asked for at a time.
const fetchPage = link.MaxFetch

// storePages reads the message store, page by page.
type storePages struct {
	fetch fetcher
	id    controlbus.CommandID

	page  link.FetchPage
	after string // cursor of the page
	index int    // next of it
	n     int64
	has   bool
}

func (s *storePages) seek(ctx context.Context, at cursor) error {
	s.after, s.index, s.n, s.has = at.After, 0, at.N, false
	if err := s.load(ctx); err != nil {
		return err
	}
	if at.Index > len(s.page.Messages) {
		return fmt.Errorf("%w: the selection has changed: a page has %d messages, and %d of it were sent", controlbus.ErrConflict, len(s.page.Messages), at.Index)
	}
	s.index = at.Index
	return nil
}

func (s *storePages) load(ctx context.Context) error {
	page, err := s.fetch(ctx, s.id, s.after, fetchPage)
	if err != nil {
		return err
	}
	s.page, s.has = page, true
	return nil
}

func (s *storePages) read(ctx context.Context, most int) ([]*item, error) {
	for {
		if !s.has {
			if err := s.load(ctx); err != nil {
				return nil, err
			}
			s.index = 0
		}
		if s.index < len(s.page.Messages) {
			break
		}
		if s.page.End || s.page.Next == "" || s.page.Next == s.after {
			return nil, io.EOF
		}
		s.after, s.has = s.page.Next, false
	}
	n := min(most, len(s.page.Messages)-s.index)
	out := make([]*item, 0, n)
	for range n {
		f := &s.page.Messages[s.index]
		s.index++
		s.n++
		it := &item{msg: stored(f), id: f.UID, known: true, n: s.n, uid: f.UID, at: cursor{After: s.after, Index: s.index, N: s.n}}
		if why := f.Whole(); why != "" {
			it.skip = fmt.Errorf("%w: %s", job.ErrSkip, why)
		}
		out = append(out, it)
	}
	return out, nil
}

func (s *storePages) close() error {
	s.page, s.has = link.FetchPage{}, false
	return nil
}

// properties are what an AMQP tap lists before a message's headers, in its order:
// they are no headers, and most are fields of their own.
var properties = []string{
	"content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type",
	"user_id", "app_id", "exchange", "routing_key",
}

// stored makes a message of what a tap saw. Kinds of headers are gone: the store
// has texts.
func stored(f *link.Fetched) *agents.Message {
	m := &agents.Message{
		MessageID: f.MessageID, CorrelationID: f.CorrelationID, ReplyTo: f.ReplyTo, Key: f.Key, ContentType: f.ContentType, ContentEncoding: f.ContentEncoding,
		Body: f.Body, Persistent: true,
	}
	headers := f.Headers
	lead, next := 0, 0
	for lead < len(headers) {
		i := slices.Index(properties[next:], headers[lead][0])
		if i < 0 {
			break
		}
		next += i + 1
		lead++
	}
	if lead > 0 && headers[lead-1][0] == "routing_key" {
		for _, h := range headers[:lead] {
			switch h[0] {
			case "type":
				m.Type = h[1]
			case "app_id":
				m.AppID = h[1]
			case "priority":
				if p, err := strconv.Atoi(h[1]); err == nil && p >= 0 && p <= 255 {
					m.Priority = p
				}
			case "delivery_mode":
				m.Persistent = h[1] == "2"
			case "timestamp":
				if t, err := time.Parse(time.RFC3339, h[1]); err == nil {
					m.Time = t
				}
			}
		}
		headers = headers[lead:]
	}
	for _, h := range headers {
		m.Headers = append(m.Headers, agents.Field{Key: h[0], Value: h[1]})
	}
	return m
}

// archived reads the agent's own copy of what a command removed.
type archived struct {
	store *archive.Store
	id    controlbus.CommandID

	r *archive.Reader
	n int64
}

func (s *archived) seek(_ context.Context, at cursor) (err error) {
	s.n = at.N
	s.r, err = s.store.Open(s.id, archive.Cursor{Position: spool.Position(at.Pos), Number: at.N})
	return err
}

func (s *archived) read(_ context.Context, most int) ([]*item, error) {
	var out []*item
	bytes := 0
	for len(out) < most && bytes < batchBytes {
		m, err := s.r.Next()
		if errors.Is(err, io.EOF) && len(out) > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		s.n++
		bytes += len(m.Body)
		out = append(out, &item{msg: m, known: true, n: s.n, at: cursor{Pos: int64(s.r.Position()), N: s.n}})
	}
	return out, nil
}

func (s *archived) close() error { return s.r.Close() }
