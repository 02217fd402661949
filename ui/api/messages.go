package api

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page"
)

const (
	defaultMessages = 100
	maxMessages     = 1000
	maxHistory      = 5000
	// around is how far from a message its history is looked for, as on its page.
	around = 24 * time.Hour
)

// Messages is a page of a search.
type Messages struct {
	Messages []Message `json:"messages"`
	Next     string    `json:"next,omitempty"`
	Reads    string    `json:"reads,omitempty"`
	Scan     Scan      `json:"scan"`
}

// search reads what list and export have in common.
func (p *params) search() (q storage.MessageQuery, reads string) {
	q = storage.MessageQuery{Range: p.within("1h"), Env: p.text("env"), Cursor: p.text("cursor")}
	if p.choice("order", "newest", "oldest") == "oldest" {
		q.Order = storage.OldestFirst
	}
	// A page that follows reads the filter as the first one did.
	now := p.at("now", p.now)
	if p.err == nil {
		q.Filter, p.err = filter.Parse(p.form.Get("q"), now)
		reads = q.Filter.Explain()
	}
	return q, reads
}

func (a *API) messages(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	q, reads := p.search()
	q.Limit = p.number("limit", defaultMessages, 1, maxMessages)
	q.Snippets = p.flag("snippets")
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	found, err := a.deps.Store.Messages(ctx, q)
	if found, err = page.Answered(r, found, err); err != nil {
		return fmt.Errorf("search: %w", err)
	}
	out := Messages{Messages: make([]Message, 0, len(found.Messages)), Next: found.Next, Reads: reads, Scan: scan(found.Scan)}
	for i := range found.Messages {
		out.Messages = append(out.Messages, message(&found.Messages[i], q.Snippets))
	}
	if found.Next != "" {
		w.Header().Set("Link", "<"+next(r, p.at("now", p.now), q.Range, found.Next)+`>; rel="next"`)
	}
	return write(w, http.StatusOK, out)
}

// next is the address of the next page. It names the range by its ends, and the
// present of the filter: "the last hour" would have moved on.
func next(r *http.Request, now time.Time, within storage.TimeRange, cursor string) string {
	q := url.Values{}
	for k, v := range r.URL.Query() {
		q[k] = v
	}
	q.Del("range")
	q.Set("from", within.From.UTC().Format(time.RFC3339Nano))
	q.Set("to", within.To.UTC().Format(time.RFC3339Nano))
	q.Set("cursor", cursor)
	if strings.Contains(q.Get("q"), "now") {
		q.Set("now", now.UTC().Format(time.RFC3339Nano))
	}
	return r.URL.Path + "?" + q.Encode()
}

// MessageDetail is one message with its body.
type MessageDetail struct {
	Message
	Body *Body `json:"body,omitempty"`
}

// one reads the message an address names.
func (a *API) one(r *http.Request, p *params) (storage.MessageDetail, error) {
	near := p.at("at", p.now)
	if p.err != nil {
		return storage.MessageDetail{}, p.err
	}
	uid, err := controlbus.ParseID(r.PathValue("uid"))
	if err != nil {
		return storage.MessageDetail{}, err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	d, err := a.deps.Store.Message(ctx, uid, near)
	if err != nil {
		return d, fmt.Errorf("read message %s: %w", uid, err)
	}
	return d, nil
}

func (a *API) message(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	as := p.choice("body", "auto", "base64", "none")
	d, err := a.one(r, p)
	if err != nil {
		return err
	}
	out := MessageDetail{Message: message(&d.Message, false)}
	if as != "none" {
		out.Body = body(&d, as == "base64")
	}
	return write(w, http.StatusOK, out)
}

// body hands out the payload as it was carried: never as something a browser
// would render. What the producer says it is stands in a header of ours.
func (a *API) body(w http.ResponseWriter, r *http.Request) error {
	d, err := a.one(r, a.params(r))
	if err != nil {
		return err
	}
	if !d.BodyStored {
		return fmt.Errorf("body of message %s: %w", d.UID, controlbus.ErrNotFound)
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", `attachment; filename="message-`+d.UID.String()+`.bin"`)
	h.Set("Content-Length", strconv.Itoa(len(d.Body)))
	h.Set("Cache-Control", "no-store")
	if kind, opts, err := mime.ParseMediaType(d.ContentType); err == nil {
		h.Set("Signalbox-Content-Type", mime.FormatMediaType(kind, opts))
	}
	h.Set("Signalbox-Body-Size", strconv.FormatInt(d.BodySize, 10))
	h.Set("Signalbox-Body-Truncated", strconv.FormatBool(d.Truncated))
	_, _ = w.Write(d.Body) // a reader that went away is not our error
	return nil
}

func (a *API) messageHistory(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	limit := p.number("limit", 500, 1, maxHistory)
	d, err := a.one(r, p)
	if err != nil {
		return err
	}
	q := storage.ConversationQuery{
		Range:       storage.TimeRange{From: time.Unix(0, d.Time).Add(-around).UTC(), To: time.Unix(0, d.Time).Add(around).UTC()},
		Correlation: d.Correlation, TraceID: d.TraceID, MessageID: d.MessageID, Limit: limit,
	}
	if q.Correlation.IsZero() && q.TraceID == [16]byte{} && q.MessageID == "" {
		// Nothing ties it to anything: its history is itself.
		self := storage.Conversation{
			Events: []storage.ConversationEvent{{Message: &d.Message, At: time.Unix(0, d.Time), Why: "message"}},
			Scan:   storage.Scan{Range: q.Range, Reached: q.Range.To, Stopped: storage.StopEnd},
		}
		return write(w, http.StatusOK, history(self))
	}
	return a.conversation(w, r, q)
}

func (a *API) history(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	q := storage.ConversationQuery{
		Range: p.within("24h"), Limit: p.number("limit", 500, 1, maxHistory),
		Correlation: controlbus.CorrelationKey(p.text("correlation_id")), MessageID: p.text("message_id"),
	}
	if s := p.text("trace_id"); s != "" {
		id, err := controlbus.ParseID(strings.ToLower(s))
		if err != nil {
			p.wrong("trace_id", "32 hexadecimal digits")
		}
		q.TraceID = id
	}
	if p.err == nil && q.Correlation.IsZero() && q.TraceID == [16]byte{} && q.MessageID == "" {
		p.err = fmt.Errorf("%w: want correlation_id, trace_id or message_id", controlbus.ErrInvalid)
	}
	if p.err != nil {
		return p.err
	}
	return a.conversation(w, r, q)
}

func (a *API) conversation(w http.ResponseWriter, r *http.Request, q storage.ConversationQuery) error {
	ctx, cancel := a.bound(r)
	defer cancel()
	c, err := a.deps.Store.Conversation(ctx, q)
	if err != nil {
		return fmt.Errorf("read history: %w", err)
	}
	return write(w, http.StatusOK, history(c))
}
