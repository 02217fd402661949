package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/backoff"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/ui/api"
	"github.com/signalbox-dev/signalbox/ui/component"
)

var tapCommand = command{name: "tap", summary: "watch messages as they pass", run: func(ctx context.Context, args []string) error { return newTerminal().tap(ctx, args) }}

// liveFrame is what the socket sends; docs/live.md describes it.
type liveFrame struct {
	Rows    []json.RawMessage `json:"rows"`
	Matched int64             `json:"matched"`
	Sampled int64             `json:"sampled"`
	Dropped int64             `json:"dropped"`
	Resume  string            `json:"resume"`
	Resumed *bool             `json:"resumed"`
	Missed  *int64            `json:"missed"`
}

// liveEvent is one message of a frame.
type liveEvent struct {
	UID       string    `json:"uid"`
	Time      time.Time `json:"time"`
	Env       string    `json:"env"`
	Broker    string    `json:"broker"`
	Channel   string    `json:"channel"`
	Operation string    `json:"operation"`
	Outcome   string    `json:"outcome"`
	Key       string    `json:"routing_key"`
	Body      string    `json:"body"`
	Binary    string    `json:"body_base64"`
	BodySize  int64     `json:"body_size"`
	Policy    string    `json:"body_policy"`
}

const (
	liveSilence = 60 * time.Second // frames come every 5 s even when nothing passes
	closeAgain  = 4001             // this client will come back
	closeNoMore = 4401             // the console ended it for good
)

type tapRun struct {
	t       *terminal
	c       *client
	q       url.Values
	json    bool
	left    int // messages still wanted; negative: all
	shown   int64
	skipped int64
	token   string
	table   *table
}

func (t *terminal) tap(ctx context.Context, args []string) error {
	flags := t.verb("tap", "'CHANNEL-PATTERN' ['FILTER'] [flags]", `
Shows messages as taps see them pass, until interrupted, for --for, or until --count of them were shown. Nothing is read from the store or from a broker.

  signalbox tap 'orders.*' 'attempts > 3 OR failed:true'
  signalbox tap '*' 'body.total > 1000 NOT header.x-tenant = "acme"'
  signalbox tap 'payments.*' -o json | jq .headers

What is not shown is counted: a line says how many were left out because more passed than is shown, or because this end was slow.
A connection that breaks is opened again and goes on where it was.`)
	at := consoleFlag(flags)
	env := flags.String("env", "", "`environment`; all of them without it")
	broker := flags.String("broker", "", "only of that `broker`")
	count := flags.Int("count", 0, "end after `n` messages")
	lasts := flags.Duration("for", 0, "end after so long")
	failEmpty := flags.Bool("fail-empty", false, "end with 3 when no message passed")
	out := t.output(flags, "table", "json", "ndjson")
	rest, err := flags.parse(args)
	if err != nil {
		return err
	}
	if len(rest) == 0 || rest[0] == "" {
		return fmt.Errorf("%w: want a channel or a pattern, such as 'orders.*', or '*' for all", errUsage)
	}
	q := url.Values{"form": {"event"}, "channel": {rest[0]}}
	text := strings.Join(rest[1:], " ")
	parsed, err := filter.Parse(text, time.Now())
	if err != nil {
		return fmt.Errorf("%w: %w%s", errUsage, err, underline(text, err))
	}
	if *broker != "" {
		if text != "" {
			text = "(" + text + ") "
		}
		text += "broker:" + filter.Quote(*broker)
	}
	set(q, "env", *env, "filter", text)
	c, err := t.connect(*at)
	if err != nil {
		return err
	}
	if parsed.NeedsBody() {
		if err := c.readsBodies(ctx); err != nil {
			return err
		}
	}
	if *lasts > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *lasts)
		defer cancel()
	}
	run := &tapRun{t: t, c: c, q: q, json: out.value != "table", left: -1}
	if *count > 0 {
		run.left = *count
	}
	err = run.run(ctx)
	if err != nil && ctx.Err() == nil {
		return err
	}
	t.note("%s shown, %s not shown.", component.Plural(run.shown, "message"), component.Count(run.skipped))
	if run.shown == 0 && *failEmpty {
		return exit{exitNothing, errors.New("no message passed")}
	}
	return nil
}

// readsBodies refuses a filter on payloads for who may not read any: it would
// match nothing, and that would look as if nothing passed.
func (c *client) readsBodies(ctx context.Context) error {
	var who api.Whoami
	if _, err := c.get(ctx, "/whoami", nil, &who); err != nil {
		return err
	}
	// A console before that field does not say.
	if who.Actions == nil || slices.Contains(who.Actions, string(access.ReadBody)) {
		return nil
	}
	return exit{exitDenied, fmt.Errorf("this filter looks into payloads, and %s may not read them (%s): words without a field and body.* do that; ask by channel, header or outcome, or for the role reader", component.Visible(who.Name), access.ReadBody)}
}

// run keeps a connection open until enough was shown, ctx ends, or the console
// says no.
func (r *tapRun) run(ctx context.Context) error {
	retry := backoff.Backoff{Base: 500 * time.Millisecond, Cap: 10 * time.Second, Floor: 250 * time.Millisecond}
	opened := false
	for {
		before := r.token
		err := r.once(ctx)
		var no exit
		switch {
		case err == nil, ctx.Err() != nil:
			return nil //nolint:nilerr // whoever interrupts a tap has seen enough
		case errors.As(err, &no) && (no.code != exitNoAnswer || !opened && before == ""):
			return err // a refusal, or nobody there from the beginning
		}
		if r.token != before {
			opened = true
			retry = backoff.Backoff{Base: 500 * time.Millisecond, Cap: 10 * time.Second, Floor: 250 * time.Millisecond}
		}
		r.t.note("The connection is lost (%s); trying again.", component.Visible(firstLine(err)))
		if !backoff.Sleep(ctx, retry.Next()+rand.N(250*time.Millisecond)) {
			return nil
		}
	}
}

func firstLine(err error) string {
	s, _, _ := strings.Cut(err.Error(), "\n")
	return s
}

// once is one connection. It returns nil when enough was shown.
func (r *tapRun) once(ctx context.Context) error {
	if r.token != "" {
		r.q.Set("resume", r.token)
	}
	req, err := r.c.request(ctx, http.MethodGet, "/live", r.q, nil)
	if err != nil {
		return err
	}
	at := *req.URL
	at.Scheme = strings.Replace(at.Scheme, "http", "ws", 1)
	req.Header.Set("Origin", r.c.base.Scheme+"://"+r.c.base.Host)
	dialer := websocket.Dialer{Proxy: http.ProxyFromEnvironment, HandshakeTimeout: 15 * time.Second}
	conn, res, err := dialer.DialContext(ctx, at.String(), req.Header)
	if err != nil {
		if res != nil && errors.Is(err, websocket.ErrBadHandshake) {
			defer res.Body.Close()
			return r.refusal(ctx, res)
		}
		return r.c.unreachable(err)
	}
	defer conn.Close()
	conn.SetReadLimit(64 << 20)
	stop := context.AfterFunc(ctx, func() {
		_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
		_ = conn.SetReadDeadline(time.Now())
	})
	defer stop()
	for {
		if err := conn.SetReadDeadline(time.Now().Add(liveSilence)); err != nil {
			return err
		}
		_, raw, err := conn.ReadMessage()
		var closed *websocket.CloseError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &closed) && closed.Code == closeNoMore:
			return exit{exitDenied, fmt.Errorf("the console ended the tap: %s", component.Visible(closed.Text))}
		case err != nil:
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(closeAgain, ""), time.Now().Add(time.Second))
			return err
		}
		var f liveFrame
		if err := json.Unmarshal(raw, &f); err != nil {
			return exit{exitNoAnswer, fmt.Errorf("what %s sends is no live tap: %w", r.c.base, err)}
		}
		enough, err := r.show(f)
		if err != nil {
			return err
		}
		if enough {
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
			return nil
		}
	}
}

// refusal reads why an upgrade was refused. The library keeps the beginning of
// the answer only, so the same is asked for once more without the upgrade.
func (r *tapRun) refusal(ctx context.Context, res *http.Response) error {
	if res.Header.Get("Content-Type") == "application/problem+json" {
		if raw, err := io.ReadAll(res.Body); err == nil && json.Valid(raw) {
			res.Body = io.NopCloser(strings.NewReader(string(raw)))
			return r.c.refused(res)
		}
	}
	_, err := r.c.get(ctx, "/live", r.q, nil)
	if err == nil {
		err = exit{exitNoAnswer, fmt.Errorf("%s has no live taps (%s)", r.c.base, res.Status)}
	}
	return err
}

// show writes a frame and says whether that was enough.
func (r *tapRun) show(f liveFrame) (enough bool, err error) {
	if f.Resume != "" {
		r.token = f.Resume
	}
	if f.Resumed != nil {
		switch {
		case f.Missed == nil:
			r.t.note("Connected again; nobody can say how many messages passed meanwhile.")
		case *f.Missed > 0:
			r.t.note("Connected again; %s passed meanwhile and %s lost.", component.Plural(*f.Missed, "message"), map[bool]string{true: "is", false: "are"}[*f.Missed == 1])
		default:
			r.t.note("Connected again without a hole.")
		}
	}
	if !r.json && r.table == nil && len(f.Rows) > 0 {
		r.table = r.t.table("TIME", "BROKER", "CHANNEL", "STATE", "#SIZE", "TEXT")
	}
	for _, raw := range f.Rows {
		if r.left == 0 {
			break
		}
		if r.left > 0 {
			r.left--
		}
		r.shown++
		if r.json {
			r.t.json(raw)
			continue
		}
		var e liveEvent
		if err := json.Unmarshal(raw, &e); err != nil {
			return false, exit{exitNoAnswer, fmt.Errorf("what %s sends is no live tap: %w", r.c.base, err)}
		}
		r.table.add(local(e.Time), e.Broker, e.Channel, e.state(), component.Size(e.BodySize), cutText(component.Visible(e.text()), 200))
	}
	if r.table != nil {
		r.table.flush()
	}
	if left := f.Sampled + f.Dropped; left > 0 {
		r.skipped += left
		r.t.note("%s not shown: %s sampled because more passes than is shown, %s dropped because this end was slow.", component.Count(left), component.Count(f.Sampled), component.Count(f.Dropped))
	}
	return r.left == 0, nil
}

func (e *liveEvent) state() painted {
	return outcome(&api.Message{Operation: e.Operation, Outcome: e.Outcome})
}

func (e *liveEvent) text() string {
	switch {
	case e.Binary != "":
		return "(not text)"
	case e.Body == "" && e.Policy != "" && e.Policy != "full":
		return "body not kept: " + e.Policy
	}
	return e.Body
}
