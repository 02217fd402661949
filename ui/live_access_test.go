package ui_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/gorilla/websocket"

	hub "github.com/signalbox-dev/signalbox/collector/live"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui"
	"github.com/signalbox-dev/signalbox/ui/live"
)

// liveConsole is a console with people, a real hub and a real listener.
type liveConsole struct {
	*people
	hub  *hub.Hub
	base string
}

func newLiveConsole(t *testing.T, privacy access.Privacy) *liveConsole {
	t.Helper()
	c := &liveConsole{people: newPeople(t, privacy), hub: hub.NewHub(hub.DefaultConfig(), live.AppendRow, metrics.NewSet())}
	s, r := filled(time.Now())
	u, err := ui.New(ui.Config{Guard: c.guard, Version: "test", Store: s, Roster: r, Live: live.SourceFunc(func(q controlbus.LiveQuery, who controlbus.LiveReader) (live.Subscription, error) {
		return c.hub.Subscribe(q, who)
	})})
	if err != nil {
		t.Fatal(err)
	}
	c.ui = u
	srv := httptest.NewServer(u)
	t.Cleanup(func() { u.Close(); srv.CloseClientConnections(); srv.Close() })
	c.base = srv.URL
	return c
}

// dial opens a live tap as somebody.
func (c *liveConsole) dial(as, query string) (*websocket.Conn, *http.Response, error) {
	h := http.Header{}
	switch {
	case strings.HasPrefix(as, "sbx"):
		h.Set("Authorization", "Bearer "+as) // a program: no Origin
	default:
		h.Set("Origin", c.base)
		h.Set("Cookie", "signalbox-session="+c.cookies[as])
	}
	conn, resp, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(c.base, "http")+live.Path+query, h)
	if conn != nil {
		c.t.Cleanup(func() { _ = conn.Close() })
		_, _, _ = conn.ReadMessage() // the greeting
	}
	return conn, resp, err
}

// texts are channel and text of the rows that come next.
func texts(t *testing.T, conn *websocket.Conn) []string {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	var frame struct {
		Rows []struct{ Channel, Text string }
	}
	_, b, err := conn.ReadMessage()
	if err := errors.Join(err, json.Unmarshal(b, &frame)); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	var out []string
	for _, r := range frame.Rows {
		out = append(out, r.Channel+" "+r.Text)
	}
	return out
}

func TestLiveTapsShowWhatTheirReaderMaySee(t *testing.T) {
	t.Parallel()
	c := newLiveConsole(t, access.DefaultPrivacy())
	c.add("reader", access.Grant{Role: access.Reader, Env: "production", Channel: "payments.*"})
	c.add("viewer", access.Grant{Role: access.Viewer, Env: "production", Channel: "*"})
	c.add("other", access.Grant{Role: access.Reader, Env: "staging", Channel: "*"})
	events := []*controlbus.MessageEvent{
		{Env: "production", Destination: "payments.capture", Body: []byte("card 4111"), BodySize: 9},
		{Env: "production", Destination: "orders.placed", Body: []byte("tea"), BodySize: 3},
	}
	for _, tc := range []struct {
		as, query string
		want      []string
	}{
		{"root", "", []string{"payments.capture card 4111", "orders.placed tea"}},
		{"reader", "", []string{"payments.capture card 4111"}},
		{"reader", "?channel=orders.*&channel=payments.*", []string{"payments.capture card 4111"}},
		{"viewer", "", []string{"payments.capture payload not shown here", "orders.placed payload not shown here"}},
		{"viewer", "?filter=NOT+4111", []string{"payments.capture payload not shown here", "orders.placed payload not shown here"}},
	} {
		conn, _, err := c.dial(tc.as, tc.query)
		if err != nil {
			t.Fatalf("%s %s: %v", tc.as, tc.query, err)
		}
		c.hub.Publish(events)
		if got := texts(t, conn); !slices.Equal(got, tc.want) {
			t.Errorf("%s %s: got %q, want %q", tc.as, tc.query, got, tc.want)
		}
		_ = conn.Close()
	}
	conn, _, err := c.dial("other", "")
	if err != nil {
		t.Fatal(err)
	}
	c.hub.Publish(events)
	c.hub.Publish([]*controlbus.MessageEvent{{Env: "staging", Destination: "x"}})
	if got := texts(t, conn); !slices.Equal(got, []string{"x "}) {
		t.Errorf("a reader of staging sees %q", got)
	}
	for as, want := range map[string]int{"other": http.StatusForbidden, "": http.StatusUnauthorized} {
		if _, resp, err := c.dial(as, "?env=production"); err == nil || resp.StatusCode != want {
			t.Errorf("%q opens a tap in production: %v, want %d", as, err, want)
		}
	}
	if _, resp, err := c.dial("root", "?filter="+url.QueryEscape("channle:x")); err == nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a broken filter: got %v, want 400", err)
	}
}

func TestLiveTapsEndWithTheirRights(t *testing.T) {
	t.Parallel()
	c := newLiveConsole(t, access.DefaultPrivacy())
	mia := c.add("mia", access.Grant{Role: access.Reader, Env: "*", Channel: "*"})
	c.add("ben", access.Grant{Role: access.Reader, Env: "*", Channel: "*"})
	conn, _, err := c.dial("mia", "")
	if err != nil {
		t.Fatal(err)
	}
	bens, _, err := c.dial("ben", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	id, err := c.svc.FromSession(c.ctx(), c.cookies["mia"], true)
	if err != nil {
		t.Fatal(err)
	}
	_, token, err := c.svc.CreateToken(c.ctx(), id, access.NewToken{Name: "tap", Grants: []access.Grant{{Role: access.Reader, Env: "*", Channel: "*"}}})
	if err != nil {
		t.Fatal(err)
	}
	program, _, err := c.dial(token.Reveal(), "?form=event")
	if err != nil {
		t.Fatal(err)
	}
	_ = program.SetReadDeadline(time.Now().Add(5 * time.Second))
	// Another role ends her sessions; her token is worth less than before.
	if err := c.svc.SetGrants(c.ctx(), c.root, mia.ID, []access.Grant{{Role: access.Viewer, Env: "*", Channel: "*"}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, live.CloseRevoked) {
		t.Errorf("when the session has ended: got %v, want close 4401", err)
	}
	if _, _, err := program.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseTryAgainLater) {
		t.Errorf("a token with other rights: got %v, want close 1013", err)
	}
	if program, _, err = c.dial(token.Reveal(), ""); err != nil {
		t.Fatal(err)
	}
	c.hub.Publish([]*controlbus.MessageEvent{{Env: "production", Destination: "x", Body: []byte("secret"), BodySize: 6}})
	if got := texts(t, program); !slices.Equal(got, []string{"x payload not shown here"}) {
		t.Errorf("a token with other rights sees %q", got)
	}
	if err := c.svc.SetDisabled(c.ctx(), c.root, mia.ID, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := program.ReadMessage(); !websocket.IsCloseError(err, live.CloseRevoked) {
		t.Errorf("when disabled: got %v, want close 4401", err)
	}
	texts(t, bens)
	c.hub.Publish([]*controlbus.MessageEvent{{Env: "production", Destination: "x"}})
	if got := texts(t, bens); len(got) != 1 {
		t.Errorf("somebody else sees %q", got)
	}
}

func TestWhoMayNotReadPayloadsIsTold(t *testing.T) {
	t.Parallel()
	p := newPeople(t, access.DefaultPrivacy())
	p.add("viewer", access.Grant{Role: access.Viewer, Env: "*", Channel: "*"})
	p.add("reader", access.Grant{Role: access.Reader, Env: "production", Channel: "x"})
	for _, c := range []struct {
		as, query string
		want      bool
	}{{"viewer", "?q=timeout", true}, {"viewer", "?q=attempts+%3E+3", false}, {"reader", "?q=timeout", false}} {
		if got := strings.Contains(p.ask(c.as, http.MethodGet, "/live"+c.query).Body.String(), "You may not look into payloads"); got != c.want {
			t.Errorf("%s %s: told %v, want %v", c.as, c.query, got, c.want)
		}
	}
}

func TestAConsoleMayForbidLiveTaps(t *testing.T) {
	t.Parallel()
	privacy := access.DefaultPrivacy()
	privacy.LiveTap = false
	c := newLiveConsole(t, privacy)
	if _, resp, err := c.dial("root", ""); err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("got %v, want 403", err)
	}
}
