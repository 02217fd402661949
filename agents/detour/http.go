package detour

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
)

const (
	defaultHTTPTimeout = 5 * time.Second
	maxReply           = 1 << 20 // of an endpoint
	maxHTTPHeaders     = 16 << 10
)

type httpStep struct {
	cfg    controlbus.HTTPStep
	url    *url.URL
	client *http.Client
}

func newHTTPStep(cfg controlbus.HTTPStep, allow *allowList) (*httpStep, error) {
	u, err := allow.check(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultHTTPTimeout
	}
	return &httpStep{cfg, u, allow.client(u)}, nil
}

func (s *httpStep) close() { s.client.CloseIdleConnections() }

func (s *httpStep) do(ctx context.Context, it *item, f flow) error {
	if err := f.flush(ctx); err != nil {
		return err
	}
	wait := backoff.Backoff{Base: 250 * time.Millisecond, Cap: 5 * time.Second, Floor: 50 * time.Millisecond}
	for {
		err := s.post(ctx, it)
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		f.failed("http", err)
		if final := (*refusal)(nil); errors.As(err, &final) {
			return err
		}
		if wait.Failures() >= s.cfg.Retries {
			return refusef("no answer to go on with after %d attempts: %v", wait.Failures()+1, err)
		}
		if !backoff.Sleep(ctx, wait.Next()) {
			return ctx.Err()
		}
	}
}

// post makes one attempt.
func (s *httpStep) post(ctx context.Context, it *item) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url.String(), bytes.NewReader(it.msg.Body))
	if err != nil {
		return refusef("%v", err)
	}
	describe(req.Header, it)
	resp, err := s.client.Do(req)
	if err != nil {
		// The URL is in the detour, and net/http's text has it in full.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		if errors.Is(err, controlbus.ErrDenied) {
			return refusef("%v", err)
		}
		return err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch code := resp.StatusCode; {
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
		return fmt.Errorf("the endpoint answered %d", code)
	case code >= 400 && code < 500:
		return refusef("the endpoint answered %d: %s", code, clip(string(reply), 200))
	case code < 200 || code > 299:
		return fmt.Errorf("the endpoint answered %d", code)
	case !s.cfg.Replace:
		return nil
	case err != nil:
		return fmt.Errorf("the endpoint's answer: %w", err)
	case len(reply) > maxReply:
		return refusef("the endpoint's answer is larger than %d MiB", maxReply>>20)
	}
	m := it.change()
	m.Body = reply
	m.ContentType, m.ContentEncoding = clip(resp.Header.Get("Content-Type"), 200), clip(resp.Header.Get("Content-Encoding"), 100)
	return nil
}

// describe tells the endpoint of the message. All of it is data from producers:
// it is escaped, and bounded.
func describe(h http.Header, it *item) {
	m := it.msg
	h.Set("User-Agent", "signalbox-agent")
	h.Set("Content-Type", "application/octet-stream")
	if _, _, err := mime.ParseMediaType(m.ContentType); err == nil {
		h.Set("Content-Type", escape(m.ContentType))
	}
	left := maxHTTPHeaders
	set := func(name, value string) {
		value = escape(value)
		if left -= len(name) + len(value) + 4; value != "" && left >= 0 {
			h.Add("X-Signalbox-"+name, value)
		}
	}
	set("Detour", it.id)
	set("Message-Id", m.MessageID)
	set("Correlation-Id", m.CorrelationID)
	set("Reply-To", m.ReplyTo)
	set("Type", m.Type)
	set("Key", m.Key)
	set("Content-Encoding", m.ContentEncoding)
	for _, f := range m.Headers {
		if token(f.Key) {
			set("Header-"+f.Key, agents.Text(f.Value))
		}
	}
}

// escape makes a text fit for an HTTP header: what is no printable ASCII, and
// the percent sign, is percent-encoded.
func escape(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == '%' }) {
		return strings.TrimSpace(s)
	}
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}

// token says whether a text can be a header's name as it is.
func token(s string) bool {
	return s != "" && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}
