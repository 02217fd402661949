package link

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// FetchPath is where an agent gets the stored messages that a command sends; its
// {id} is the command's. Parameters are after, a cursor, and limit.
const FetchPath = "/v1/agents/commands/{id}/messages"

// Limits of one page.
const (
	MaxFetch      = 1000    // messages
	MaxFetchBytes = 8 << 20 // of bodies; one message at least comes whole
	fetchWithin   = time.Minute
	maxFetchLine  = 64 << 20
)

// Fetched is a stored message as an agent gets it, to send it again. One that is
// not whole is given with its mark: whoever sends leaves it out, and says why.
type Fetched struct {
	UID             string      `json:"uid"`
	Env             string      `json:"env"`
	Broker          string      `json:"broker"`
	Channel         string      `json:"channel"`
	Time            int64       `json:"time_ns"`
	MessageID       string      `json:"message_id,omitempty"`
	CorrelationID   string      `json:"correlation_id,omitempty"`
	ReplyTo         string      `json:"reply_to,omitempty"`
	Key             string      `json:"key,omitempty"`
	ContentType     string      `json:"content_type,omitempty"`
	ContentEncoding string      `json:"content_encoding,omitempty"`
	Headers         [][2]string `json:"headers,omitempty"`
	Body            []byte      `json:"body,omitempty"` // base64
	BodySize        int64       `json:"body_size"`      // as it was
	BodyStored      bool        `json:"body_stored"`
	BodyPolicy      string      `json:"body_policy,omitempty"`
	Truncated       bool        `json:"truncated,omitempty"`
	Redacted        []string    `json:"redacted,omitempty"` // names of the rules
}

// Whole says why a message cannot be sent again as it was; empty: it can.
func (f *Fetched) Whole() string {
	switch {
	case f.Truncated:
		return fmt.Sprintf("its body was cut when it was stored: %d of %d bytes", len(f.Body), f.BodySize)
	case len(f.Redacted) > 0:
		return "redaction changed it before it was stored: " + strings.Join(f.Redacted, ", ")
	case f.BodyPolicy != "" && f.BodyPolicy != controlbus.BodyFull.String():
		return "it was stored without its body: policy " + f.BodyPolicy
	case !f.BodyStored && f.BodySize > 0:
		return "its body is not stored any more"
	}
	return ""
}

// FetchTail is the last line of a page: where the next one begins, or that there
// is none.
type FetchTail struct {
	Next string `json:"next,omitempty"`
	End  bool   `json:"end,omitempty"`
}

// FetchPage is one page of the messages that a command sends, oldest first.
type FetchPage struct {
	Messages []Fetched
	FetchTail
}

// Fetch gets a page behind a cursor; an empty one begins. A page may be empty and
// not the last. It may be called concurrently. Errors are
// controlbus.ErrUnavailable where it may work later, ErrNotFound and ErrConflict
// where the command is not there or has ended, and ErrDenied.
func (c *Client) Fetch(ctx context.Context, id controlbus.CommandID, after string, limit int) (FetchPage, error) {
	page, err := c.fetch(ctx, id, after, limit)
	if err != nil {
		return FetchPage{}, fmt.Errorf("link: messages of command %s: %w", id, err)
	}
	return page, nil
}

func (c *Client) fetch(ctx context.Context, id controlbus.CommandID, after string, limit int) (FetchPage, error) {
	if !id.Valid() {
		return FetchPage{}, fmt.Errorf("%w: no command", controlbus.ErrInvalid)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	u := c.base.JoinPath(strings.Replace(FetchPath, "{id}", string(id), 1))
	q := url.Values{}
	if after != "" {
		q.Set("after", after)
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return FetchPage{}, err
	}
	patient := *c.http // a page may be longer than a report
	patient.Timeout = fetchWithin
	resp, err := patient.Do(req)
	if err != nil {
		return FetchPage{}, fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return FetchPage{}, fmt.Errorf("%w: console answered %s: %s", fetchError(resp.StatusCode), resp.Status, bytes.TrimSpace(text))
	}
	return readPage(resp.Body)
}

func fetchError(status int) error {
	switch status {
	case http.StatusNotFound:
		return controlbus.ErrNotFound
	case http.StatusConflict:
		return controlbus.ErrConflict
	case http.StatusForbidden, http.StatusUnauthorized:
		return controlbus.ErrDenied
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		return controlbus.ErrInvalid
	}
	return controlbus.ErrUnavailable
}

// readPage takes a page only whole: its last line says so.
func readPage(r io.Reader) (FetchPage, error) {
	var page FetchPage
	lines := bufio.NewScanner(io.LimitReader(r, 2*maxFetchLine))
	lines.Buffer(make([]byte, 64<<10), maxFetchLine)
	for lines.Scan() {
		if page.Next != "" || page.End {
			return FetchPage{}, fmt.Errorf("%w: something follows the page's end", controlbus.ErrInvalid)
		}
		var line struct {
			Fetched
			FetchTail
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return FetchPage{}, fmt.Errorf("%w: the page did not arrive whole: %w", controlbus.ErrUnavailable, err)
		}
		if line.UID == "" {
			page.FetchTail = line.FetchTail
			continue
		}
		if len(page.Messages) >= MaxFetch {
			return FetchPage{}, fmt.Errorf("%w: a page of more than %d messages", controlbus.ErrTooLarge, MaxFetch)
		}
		page.Messages = append(page.Messages, line.Fetched)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return FetchPage{}, fmt.Errorf("%w: a message of more than %d bytes", controlbus.ErrTooLarge, maxFetchLine)
	case err != nil:
		return FetchPage{}, fmt.Errorf("%w: %w", controlbus.ErrUnavailable, err)
	case page.Next == "" && !page.End:
		return FetchPage{}, fmt.Errorf("%w: the page did not arrive whole", controlbus.ErrUnavailable)
	}
	return page, nil
}
