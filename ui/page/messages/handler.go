// Package messages is the search of the message store and the page of one
// message with its payload, headers and history.
package messages

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/decode"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Reader is the message store. Its methods block until ctx ends at most, may be
// called concurrently, and return ErrNotFound, ErrInvalid and ErrUnavailable.
type Reader interface {
	Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error)
	Message(ctx context.Context, uid controlbus.ID, near time.Time) (storage.MessageDetail, error)
	Conversation(ctx context.Context, q storage.ConversationQuery) (storage.Conversation, error)
}

// Pages are the message pages.
type Pages struct {
	site  *page.Site
	store Reader
	live  bool // a live tap can be linked to
}

// New returns the pages; live says that the console has live taps.
func New(site *page.Site, store Reader, live bool) *Pages {
	return &Pages{site: site, store: store, live: live}
}

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{
		{Pattern: "GET /messages", Handler: p.list},
		{Pattern: "GET /messages/{uid}", Handler: p.one},
		{Pattern: "GET /messages/{uid}/body", Handler: p.body},
	}
}

const pageSize = 100

func (p *Pages) list(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	q := storage.MessageQuery{Range: v.Range, Env: v.Env, Limit: pageSize, Cursor: v.Form.Get("cursor"), Snippets: true}
	oldest := v.Form.Get("order") == "oldest"
	if oldest {
		q.Order = storage.OldestFirst
	}
	m := listView{Live: p.live, Oldest: oldest, More: q.Cursor != ""}
	m.Reads, err = Parse(v.Query, &q)
	if err != nil {
		m.Wrong = reason(err)
		m.build(v, q, storage.MessagePage{}, nil)
	} else {
		found, err := v.Answered(p.store.Messages(ctx, q))
		if err != nil && (errors.Is(err, controlbus.ErrInvalid) || errors.Is(err, controlbus.ErrTooLarge)) {
			return err
		}
		m.build(v, q, found, err)
	}
	o := page.Options{Title: "Messages", Area: "messages", Filter: &component.FilterView{
		Action: "/messages", Label: "Filter messages", Value: v.Query, Kept: v.Kept("order"), Coded: true,
		Hint: "channel:orders.* header.x-tenant:acme timeout", Wrong: m.Wrong != "", Suggestions: Suggestions(),
	}}
	if q.Cursor == "" && !oldest && m.Wrong == "" {
		o.Refresh = 10 * time.Second
	}
	return v.Render(w, o, List(m))
}

func (p *Pages) read(ctx context.Context, r *http.Request, v *page.View) (storage.MessageDetail, error) {
	uid, err := controlbus.ParseID(r.PathValue("uid"))
	if err != nil {
		return storage.MessageDetail{}, err
	}
	near := v.Now
	if at := v.Form.Get("at"); at != "" {
		if near, err = time.Parse(time.RFC3339Nano, at); err != nil {
			return storage.MessageDetail{}, fmt.Errorf("%w: at %q: want a time such as 2026-11-21T14:00:00.5Z", controlbus.ErrInvalid, at)
		}
	}
	d, err := p.store.Message(ctx, uid, near)
	if err != nil {
		return d, fmt.Errorf("read message %s: %w", uid, err)
	}
	return d, nil
}

func (p *Pages) one(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	as, known := decode.Parse(v.Form.Get("as"))
	if !known && as != "" {
		return fmt.Errorf("%w: as %q: want json, xml, msgpack, cbor, text or hex", controlbus.ErrInvalid, string(as))
	}
	ctx, cancel := v.Context()
	defer cancel()
	d, err := p.read(ctx, r, v)
	if err != nil {
		return err
	}
	// A conversation may be long over or still going on: a day to both sides.
	at := time.Unix(0, d.Time)
	cq := storage.ConversationQuery{
		Range:       storage.TimeRange{From: at.Add(-24 * time.Hour), To: at.Add(24 * time.Hour)},
		Correlation: d.Correlation, TraceID: d.TraceID, MessageID: d.MessageID,
	}
	var conv storage.Conversation
	var convErr error
	if !cq.Correlation.IsZero() || cq.TraceID != [16]byte{} || cq.MessageID != "" {
		conv, convErr = p.store.Conversation(ctx, cq)
	}
	m := messageView(v, d, conv, convErr, as)
	return v.Render(w, page.Options{Title: m.Channel, Area: "messages"}, Message(m))
}

// body hands out the payload as it was carried: as a download, never as
// something a browser would render.
func (p *Pages) body(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	d, err := p.read(ctx, r, v)
	if err != nil {
		return err
	}
	if !d.BodyStored {
		return fmt.Errorf("body of message %s: %w", d.UID, controlbus.ErrNotFound)
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", `attachment; filename="message-`+d.UID.String()+`.bin"`)
	h.Set("Content-Length", strconv.Itoa(len(d.Body)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(d.Body) // a reader that went away is not our error
	return nil
}
