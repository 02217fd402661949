package link

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Client is the agent's end. It holds no connection state: Report may be called
// at any time, by one goroutine.
type Client struct {
	base *url.URL
	url  string
	http *http.Client
}

// ClientConfig says where the console is.
type ClientConfig struct {
	URL  string       // of the console, such as http://127.0.0.1:8470
	HTTP *http.Client // nil: a client of its own with a 10 s deadline
}

// NewClient checks the address. Errors are controlbus.ErrInvalid.
func NewClient(cfg ClientConfig) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("link: console address: %w: %w", controlbus.ErrInvalid, err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("link: console address %q: %w: want http://host:port or https://host:port", cfg.URL, controlbus.ErrInvalid)
	}
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{Timeout: 10 * time.Second}
	}
	return &Client{base: u, url: u.JoinPath(Path).String(), http: cfg.HTTP}, nil
}

// Report tells the console what the agent is and does, and returns what the
// console wants of it. Errors wrap controlbus.ErrUnavailable when the console
// cannot be reached or is not ready, controlbus.ErrInvalid when it refuses the
// report for good.
func (c *Client) Report(ctx context.Context, a controlbus.Agent) (controlbus.Desired, error) {
	body, err := json.Marshal(a)
	if err != nil {
		return controlbus.Desired{}, fmt.Errorf("link: encode report: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return controlbus.Desired{}, fmt.Errorf("link: report: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return controlbus.Desired{}, fmt.Errorf("link: report: %w: %w", controlbus.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, MaxDesired+1))
	switch {
	case err != nil:
		return controlbus.Desired{}, fmt.Errorf("link: read answer: %w: %w", controlbus.ErrUnavailable, err)
	case resp.StatusCode >= 500, resp.StatusCode == http.StatusTooManyRequests:
		return controlbus.Desired{}, fmt.Errorf("link: report: %w: console answered %s: %.200s", controlbus.ErrUnavailable, resp.Status, answer)
	case resp.StatusCode != http.StatusOK:
		return controlbus.Desired{}, fmt.Errorf("link: report: %w: console answered %s: %.200s", controlbus.ErrInvalid, resp.Status, answer)
	case len(answer) > MaxDesired:
		return controlbus.Desired{}, fmt.Errorf("link: report: %w: answer is over %d bytes", controlbus.ErrTooLarge, MaxDesired)
	}
	var d controlbus.Desired
	if err := json.Unmarshal(answer, &d); err != nil {
		return controlbus.Desired{}, fmt.Errorf("link: read answer: %w: %w", controlbus.ErrInvalid, err)
	}
	return d, nil
}
