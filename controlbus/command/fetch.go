package command

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage"
)

// fetchTimeout bounds the reading of one page.
const fetchTimeout = 30 * time.Second

// maxFetches are answered at a time; each holds a page in memory.
const maxFetches = 8

// FetchHandler gives an agent, at link.FetchPath, the stored messages that a
// command of its own sends, while it does. They are those that were chosen when
// the preview was taken, by the rights of who requested it.
func (s *Service) FetchHandler() http.Handler {
	places := make(chan struct{}, maxFetches)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "messages are fetched with GET", http.StatusMethodNotAllowed)
			return
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many agents fetch messages now", http.StatusServiceUnavailable)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), fetchTimeout)
		defer cancel()
		page, err := s.fetch(ctx, controlbus.CommandID(r.PathValue("id")), r.URL.Query().Get("after"), r.URL.Query().Get("limit"))
		if err != nil {
			status := fetchStatus(err)
			if status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "5")
				s.log.WarnContext(ctx, "messages of a command cannot be read", "error", err)
			}
			http.Error(w, err.Error(), status)
			return
		}
		writePage(w, page)
	})
}

func fetchStatus(err error) int {
	switch {
	case errors.Is(err, controlbus.ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, controlbus.ErrDenied):
		return http.StatusForbidden
	case errors.Is(err, controlbus.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, controlbus.ErrConflict):
		return http.StatusConflict
	}
	return http.StatusServiceUnavailable
}

func (s *Service) fetch(ctx context.Context, id controlbus.CommandID, after, limitText string) (storage.SelectionPage, error) {
	limit := link.MaxFetch
	if limitText != "" {
		n, err := strconv.Atoi(limitText)
		if err != nil || n < 1 || n > link.MaxFetch {
			return storage.SelectionPage{}, fmt.Errorf("%w: limit %.20q: want 1 to %d", controlbus.ErrInvalid, limitText, link.MaxFetch)
		}
		limit = n
	}
	if !id.Valid() {
		return storage.SelectionPage{}, fmt.Errorf("%w: no command", controlbus.ErrNotFound)
	}
	c, err := s.ofAgent(ctx, id)
	if err != nil {
		return storage.SelectionPage{}, err
	}
	args, err := controlbus.DecodeArgs[controlbus.ReplayArgs](c.Args)
	if err != nil || c.Kind != controlbus.CommandReplay || args.Selection == nil || args.Selection.StoredBefore.IsZero() {
		return storage.SelectionPage{}, fmt.Errorf("%w: command %s sends nothing from the message store", controlbus.ErrInvalid, short(id))
	}
	sel, err := choose(*args.Selection)
	if err != nil {
		return storage.SelectionPage{}, err
	}
	return s.cfg.Store.Selected(controlbus.WithScope(ctx, sel.scope), sel.Selection, after, limit, link.MaxFetchBytes)
}

// ofAgent is the command if it is one of the agent that asks. Where agents need
// no credential, any may ask.
func (s *Service) ofAgent(ctx context.Context, id controlbus.CommandID) (controlbus.Command, error) {
	who, ok := access.From(ctx)
	if !ok || who.Kind != access.KindAgent {
		return controlbus.Command{}, fmt.Errorf("%w: only agents fetch what they send", controlbus.ErrDenied)
	}
	c, err := s.SentTo(ctx, who.Name, id)
	if err != nil {
		return c, err
	}
	if ch := c.Target.Channel; !who.Can(access.AgentLink, ch.Env, ch.Name) {
		return controlbus.Command{}, fmt.Errorf("%w: this credential is not for %s in %q", controlbus.ErrDenied, ch, ch.Env)
	}
	return c, nil
}

func writePage(w http.ResponseWriter, page storage.SelectionPage) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for i := range page.Messages {
		if enc.Encode(fetched(&page.Messages[i])) != nil {
			return // the agent went away; without the last line it knows
		}
	}
	_ = enc.Encode(link.FetchTail{Next: page.Next, End: page.Next == ""})
	_ = out.Flush()
}

func fetched(m *storage.MessageDetail) link.Fetched {
	f := link.Fetched{
		UID: m.UID.String(), Env: m.Env, Broker: m.Broker, Channel: m.Destination, Time: m.Time, MessageID: m.MessageID, CorrelationID: m.CorrelationID,
		ReplyTo: m.ReplyTo, Key: m.RoutingKey, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding,
		Body: m.Body, BodySize: m.BodySize, BodyStored: m.BodyStored, BodyPolicy: m.BodyPolicy.String(), Truncated: m.Truncated, Redacted: m.Redacted,
	}
	for _, h := range m.Headers {
		f.Headers = append(f.Headers, [2]string{h.Key, h.Value})
	}
	return f
}
