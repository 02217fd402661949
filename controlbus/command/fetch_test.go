package command_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/link"
	"github.com/signalbox-dev/signalbox/storage"
)

// server answers agents as the console does; who is whose credential is shown.
func server(t *testing.T, r *rig, who *atomic.Pointer[access.Identity]) *link.Client {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("GET "+link.FetchPath, r.service.FetchHandler())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mux.ServeHTTP(w, req.WithContext(access.With(req.Context(), *who.Load())))
	}))
	t.Cleanup(srv.Close)
	c, err := link.NewClient(link.ClientConfig{URL: srv.URL, HTTP: srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func agentNamed(name string) *access.Identity {
	return &access.Identity{ID: "agent-" + name, Name: name, Kind: access.KindAgent, Grants: access.Everywhere(access.Agent)}
}

func TestFetch(t *testing.T) {
	t.Parallel()
	begun, finish := make(chan struct{}), make(chan struct{})
	r := newRig(t, options{
		plan: func(context.Context, controlbus.Ask) (controlbus.Plan, error) {
			return controlbus.Plan{Expect: controlbus.Expect{MaxCount: -1}}, nil
		},
		handlers: map[controlbus.CommandKind]link.Handler{controlbus.CommandReplay: func(ctx context.Context, run *link.Run) controlbus.CommandResult {
			close(begun)
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return succeed(ctx, run)
		}},
	})
	tapped(r, "orders", 2)
	cut := storage.MessageDetail{}
	cut.Time = time.Now().UnixNano()
	cut.UID, cut.Env, cut.Destination, cut.Truncated, cut.BodySize, cut.Body, cut.BodyStored = controlbus.HashID("cut"), "prod", "orders", true, 5000, []byte("part"), true
	cut.Headers = []controlbus.Header{{Key: "x", Value: "1"}, {Key: "x", Value: "\x00\xff<b>"}}
	r.store.messages = append(r.store.messages, cut)
	r.store.count.Messages = 3
	d, err := r.service.Preview(ann(t), command.Request{
		Kind: controlbus.CommandReplay, Env: "prod", Broker: "rabbit", Channel: "orders", Args: json.RawMessage(`{"selection":{"from":"2026-01-01T00:00:00Z"}}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	var who atomic.Pointer[access.Identity]
	client := server(t, r, &who)
	get := func(id controlbus.CommandID, as *access.Identity) (link.FetchPage, error) {
		who.Store(as)
		return client.Fetch(t.Context(), id, "", 0)
	}
	c, err := r.service.Order(ann(t), d.ID, "again", "")
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	page, err := get(c.ID, agentNamed("a1"))
	if err != nil || !page.End || len(page.Messages) != 3 {
		t.Fatalf("%+v, %v", page, err)
	}
	if m := page.Messages[0]; m.Channel != "orders" || m.MessageID != "m0" || string(m.Body) != `{"secret":"canary"}` || m.Whole() != "" {
		t.Errorf("message: %+v, %q", m, m.Whole())
	}
	if m := page.Messages[2]; m.Whole() != "its body was cut when it was stored: 4 of 5000 bytes" || len(m.Headers) != 2 || m.Headers[1][0] != "x" {
		t.Errorf("a cut one: %+v, %q", m, m.Whole())
	}
	for name, f := range map[string]struct {
		id   controlbus.CommandID
		who  *access.Identity
		want error
	}{
		"another agent":       {c.ID, agentNamed("a2"), controlbus.ErrNotFound},
		"a person":            {c.ID, &access.Identity{ID: "u", Name: "ann", Kind: access.KindUser, Grants: access.Everywhere(access.Admin)}, controlbus.ErrDenied},
		"other environment":   {c.ID, &access.Identity{ID: "x", Name: "a1", Kind: access.KindAgent, Grants: []access.Grant{{Role: access.Agent, Env: "dev", Channel: "*"}}}, controlbus.ErrDenied},
		"no such command":     {"0123456789abcdef0123456789abcdef", agentNamed("a1"), controlbus.ErrNotFound},
		"not even a command":  {"../../x", agentNamed("a1"), controlbus.ErrInvalid},
		"an agent without id": {c.ID, agentNamed(""), nil},
	} {
		if _, err := get(f.id, f.who); !errors.Is(err, f.want) {
			t.Errorf("%s: got %v, want %v", name, err, f.want)
		}
	}
	r.store.mu.Lock()
	r.store.err = fmt.Errorf("clickhouse: %w", controlbus.ErrUnavailable)
	r.store.mu.Unlock()
	if _, err := get(c.ID, agentNamed("a1")); !errors.Is(err, controlbus.ErrUnavailable) {
		t.Errorf("the store is away: %v", err)
	}
	close(finish)
	r.settled(ann(t), c.ID)
	if _, err := get(c.ID, agentNamed("a1")); !errors.Is(err, controlbus.ErrConflict) {
		t.Errorf("after its end: %v", err)
	}
}

// A page that was cut off on its way is not taken for a whole one.
func TestFetchTakesWholePages(t *testing.T) {
	t.Parallel()
	body := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
	defer srv.Close()
	client, err := link.NewClient(link.ClientConfig{URL: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	line := `{"uid":"00000000000000000000000000000001"}` + "\n"
	for text, want := range map[string]error{
		line + `{"end":true}`:        nil,
		line + `{"next":"x"}` + "\n": nil,
		line:                         controlbus.ErrUnavailable,
		"":                           controlbus.ErrUnavailable,
		line + `{"uid":"0000`:        controlbus.ErrUnavailable,
		line + "{}":                  controlbus.ErrUnavailable,
		`{"end":true}` + "\n" + line: controlbus.ErrInvalid,
		strings.Repeat(line, 1001) + `{"end":true}`:      controlbus.ErrTooLarge,
		`{"uid":"1","headers":[["a"]]}` + "\n{\"end\":1": controlbus.ErrUnavailable,
	} {
		body = text
		if _, err := client.Fetch(t.Context(), controlbus.NewCommandID(time.Now()), "", 10); !errors.Is(err, want) {
			t.Errorf("%.60q: got %v, want %v", text, err, want)
		}
	}
}
