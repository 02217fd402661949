package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

// Exit codes of the verbs; order.go has those of verbs that act, docs/guide.md
// lists them all.
const (
	exitError    = 1
	exitUsage    = 2
	exitNothing  = 3 // not found, or nothing matched where that was asked to fail
	exitDenied   = 4 // denied, or not signed in
	exitNoAnswer = 5 // the console is not there, or has no time
)

// exit is an error with the exit code scripts rely on.
type exit struct {
	code int
	err  error
}

func (e exit) Error() string { return e.err.Error() }
func (e exit) Unwrap() error { return e.err }

const (
	defaultConsole = "http://127.0.0.1:8470"
	// patience is how long an answer may take; the console itself gives up
	// after 15 seconds and says how far it came.
	patience = 60 * time.Second
	// maxAnswer bounds what is held of one answer.
	maxAnswer = 256 << 20
)

// client asks a console's API.
type client struct {
	t     *terminal
	base  *url.URL
	token string
	http  *http.Client
}

// consoleFlag is --url, which every verb has.
func consoleFlag(flags *verb) *string {
	return flags.String("url", "", "console's `address` (SIGNALBOX_URL; else the one of signalbox login, else "+defaultConsole+")")
}

// connect finds the console to ask: the flag, then SIGNALBOX_URL, then what
// login kept. A token goes only to the console it was kept for, unless
// SIGNALBOX_TOKEN names one.
func (t *terminal) connect(address string) (*client, error) {
	kept, err := t.loadLogin()
	if err != nil {
		return nil, err
	}
	for _, a := range []string{address, t.env("SIGNALBOX_URL"), kept.URL, defaultConsole} {
		if a != "" {
			address = a
			break
		}
	}
	base, err := consoleURL(address)
	if err != nil {
		return nil, err
	}
	c := &client{t: t, base: base, token: t.env("SIGNALBOX_TOKEN")}
	if own, err := consoleURL(kept.URL); c.token == "" && err == nil && own.String() == base.String() {
		c.token = kept.Token
	}
	if c.token != "" && base.Scheme == "http" && !thisMachine(base.Hostname()) {
		return nil, fmt.Errorf("%w: a token would go to %s in the clear: use https, or a tunnel to this machine", errUsage, base)
	}
	c.http = &http.Client{
		// Another address is another console: nothing is sent there unasked.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func consoleURL(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimRight(s, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%w: %q is no address of a console: want such as https://signalbox.example", errUsage, s)
	}
	return u, nil
}

func thisMachine(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *client) request(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Request, error) {
	at := c.base.String() + "/api/v1" + path
	if len(q) > 0 {
		at += "?" + q.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, at, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "signalbox/"+version)
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, nil
}

// do sends a request; an answer that is no success becomes an error.
func (c *client) do(r *http.Request) (*http.Response, error) {
	res, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if res.StatusCode < 300 {
		return res, nil
	}
	defer res.Body.Close()
	return nil, c.refused(res)
}

// unreachable says what to do when nobody answers.
func (c *client) unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	var why *url.Error
	if errors.As(err, &why) {
		err = why.Err // without the address, which follows
	}
	return exit{exitNoAnswer, fmt.Errorf("no console answers at %s (%w)\nStart one with `signalbox serve`, or name yours with --url, SIGNALBOX_URL or `signalbox login`", c.base, err)}
}

// refused turns a problem document into an error.
func (c *client) refused(res *http.Response) error {
	raw, _ := io.ReadAll(io.LimitReader(res.Body, 1<<20)) // what was read tells
	var p api.Problem
	if res.Header.Get("Content-Type") != "application/problem+json" || json.Unmarshal(raw, &p) != nil {
		if to := res.Header.Get("Location"); to != "" && res.StatusCode < 400 {
			return exit{exitNoAnswer, fmt.Errorf("%s sends on to %s: name that address, if it is yours", c.base, component.Visible(to))}
		}
		return exit{exitNoAnswer, fmt.Errorf("what answers at %s is no Signalbox console, or an older one (%s)", c.base, res.Status)}
	}
	err := errors.New(component.Visible(p.Detail) + pointAt(res.Request, p))
	switch {
	case p.Status == http.StatusUnauthorized && c.token == "":
		return exit{exitDenied, fmt.Errorf("not signed in to %s: run `signalbox login %s`, or set SIGNALBOX_TOKEN", c.base, c.base)}
	case p.Status == http.StatusUnauthorized:
		return exit{exitDenied, fmt.Errorf("%s does not take this token: %w\nIt may have expired or been revoked: make another one, then run `signalbox login %s`", c.base, err, c.base)}
	case p.Status == http.StatusForbidden:
		return exit{exitDenied, err}
	case p.Status == http.StatusNotFound:
		return exit{exitNothing, err}
	case p.Status == http.StatusConflict || p.Status == http.StatusUnprocessableEntity:
		return exit{exitNotDone, err}
	case p.Status == http.StatusBadRequest || p.Status == http.StatusRequestEntityTooLarge:
		return exit{exitUsage, err}
	case p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable || p.Status == http.StatusGatewayTimeout:
		return exit{exitNoAnswer, fmt.Errorf("%s: %w", c.base, err)}
	}
	return exit{exitError, fmt.Errorf("%w (reference %s, for the console's log)", err, component.Visible(p.Reference))}
}

// pointAt shows the filter that was sent, with the place a problem is about
// underlined.
func pointAt(r *http.Request, p api.Problem) string {
	if p.Position == nil || p.Length == nil || r == nil {
		return ""
	}
	form := r.URL.Query()
	return underline(form.Get("q")+form.Get("filter"), &filter.Error{Pos: *p.Position, Len: *p.Length}) // a request has one of them
}

// underline shows a filter with the place of its error.
func underline(text string, err error) string {
	var wrong *filter.Error
	if !errors.As(err, &wrong) || wrong.Pos < 0 || wrong.Len < 0 || wrong.Pos+wrong.Len > len(text) {
		return ""
	}
	width := func(s string) int { return utf8.RuneCountInString(component.Visible(s)) }
	return "\n  " + component.Visible(text) + "\n  " + strings.Repeat(" ", width(text[:wrong.Pos])) + strings.Repeat("^", max(1, width(text[wrong.Pos:wrong.Pos+wrong.Len])))
}

// get asks for JSON, decodes it into v and returns it as it came.
func (c *client) get(ctx context.Context, path string, q url.Values, v any) ([]byte, error) {
	return c.ask(ctx, http.MethodGet, path, q, nil, v)
}

func (c *client) ask(ctx context.Context, method, path string, q url.Values, body []byte, v any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var in io.Reader
	if body != nil {
		in = bytes.NewReader(body)
	}
	r, err := c.request(ctx, method, path, q, in)
	if err != nil {
		return nil, err
	}
	res, err := c.do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, c.unreachable(err)
	case len(raw) > maxAnswer:
		return nil, fmt.Errorf("the answer is larger than %d MiB: ask for less, or use export", maxAnswer>>20)
	case v == nil:
		return raw, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, exit{exitNoAnswer, fmt.Errorf("what answers at %s is no Signalbox console: %w", c.base, err)}
	}
	return raw, nil
}

// verb is a command's flags, with the text that explains it.
type verb struct {
	*flag.FlagSet
	t           *terminal
	usage, text string
	codes       string // further exit codes
}

// verb makes a command's flags. A mistake is told once, by main.
func (t *terminal) verb(name, usage, text string) *verb {
	v := &verb{FlagSet: flag.NewFlagSet("signalbox "+name, flag.ContinueOnError), t: t, usage: usage, text: strings.TrimSpace(text)}
	v.SetOutput(io.Discard)
	return v
}

// parse takes flags before and behind arguments, and returns those.
func (v *verb) parse(args []string) (rest []string, err error) {
	for {
		switch err := v.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			v.help()
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("%w: %w; see %s -h", errUsage, err, v.Name())
		}
		left := v.Args()
		if len(left) == 0 {
			return rest, nil
		}
		if n := len(args) - len(left); n > 0 && args[n-1] == "--" {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[0]), left[1:]
	}
}

// given says whether a flag stands on the command line.
func (v *verb) given(name string) bool {
	found := false
	v.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

func (v *verb) help() {
	v.SetOutput(v.t.out)
	fmt.Fprintf(v.t.out, "Usage: %s %s\n\n%s\n\n", v.Name(), v.usage, v.text)
	v.PrintDefaults()
	fmt.Fprintf(v.t.out, "\nExit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 4 denied or not signed in, 5 no console answers%s.\n", v.codes)
	v.SetOutput(io.Discard)
}

// outputFlag is -o, which every verb that shows something has.
type outputFlag struct {
	value string
	of    []string
}

func (t *terminal) output(flags *verb, of ...string) *outputFlag {
	o := &outputFlag{of[0], of}
	flags.Var(o, "o", "output `format`: "+strings.Join(of, ", "))
	return o
}

func (o *outputFlag) String() string { return o.value }

func (o *outputFlag) Set(s string) error {
	for _, f := range o.of {
		if s == f {
			o.value = s
			return nil
		}
	}
	return fmt.Errorf("want %s", strings.Join(o.of, ", "))
}

// rangeFlags are --since, --from and --to.
type rangeFlags struct{ since, from, to *string }

func addRange(flags *verb, since string) rangeFlags {
	return rangeFlags{
		since: flags.String("since", "", "look back `so long`: 15m, 1h, 7d (default "+since+")"),
		from:  flags.String("from", "", "start of the range: a `time` such as 2026-11-21T14:00:00Z or, in your zone, 2026-11-21T14:00"),
		to:    flags.String("to", "", "end of the range: a `time`; now without it"),
	}
}

// fill writes the range into a request.
func (f rangeFlags) fill(q url.Values) error {
	if *f.since != "" && *f.from != "" {
		return fmt.Errorf("%w: --since and --from exclude each other", errUsage)
	}
	if *f.since != "" {
		d, err := parseSpan(*f.since)
		if err != nil {
			return fmt.Errorf("%w: --since %q: want a length such as 15m, 1h or 7d", errUsage, *f.since)
		}
		q.Set("range", d.String())
	}
	for name, text := range map[string]string{"from": *f.from, "to": *f.to} {
		if text == "" {
			continue
		}
		at, err := parseTime(text)
		if err != nil {
			return fmt.Errorf("%w: --%s %q: want a time such as 2026-11-21T14:00:00Z or 2026-11-21T14:00", errUsage, name, text)
		}
		q.Set(name, at.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// parseSpan is time.ParseDuration with days.
func parseSpan(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !(n > 0 && n <= 1000) { // nor NaN
			return 0, errors.New("no number of days")
		}
		return time.Duration(n * float64(24*time.Hour)), nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d <= 0 {
		err = errors.New("not positive")
	}
	return d, err
}

// parseTime takes RFC 3339, and a date or time of the reader's zone.
func parseTime(s string) (at time.Time, err error) {
	if at, err = time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err = time.ParseInLocation(layout, s, time.Local); err == nil {
			return at, nil
		}
	}
	return at, err
}

// set sets a parameter unless it is empty.
func set(q url.Values, pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
}
