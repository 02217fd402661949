package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/test/broker"
)

// refused asks for a preview that is refused with a status, and a sentence that
// has all of the words.
func (b *bus) refused(token string, status int, o order, words ...string) {
	b.t.Helper()
	b.refusal(token, status, "/previews", o, words...)
}

func (b *bus) refusal(token string, status int, path string, in any, words ...string) {
	b.t.Helper()
	code, text := b.call(token, http.MethodPost, path, in)
	var p struct{ Title, Detail, Hint string }
	if err := json.Unmarshal(text, &p); err != nil || code != status {
		b.t.Errorf("POST %s %v: got %d, want %d: %s", path, in, code, status, text)
		return
	}
	for _, w := range words {
		if !strings.Contains(p.Detail, w) {
			b.t.Errorf("POST %s %v: the refusal does not say %q: %s", path, in, w, p.Detail)
		}
	}
	b.t.Logf("%d %s: %s", code, p.Title, p.Detail)
}

// What must not be done is refused in a clear sentence, nothing is done on the
// broker, and the audit trail has it.
func TestCommandsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and a broker")
	}
	b := newBus(t, broker.RabbitMQ(t), []any{
		map[string]any{"broker": "*", "channel": "orders*"},
		map[string]any{"broker": "*", "channel": "kept", "kinds": []string{"redrive", "test"}},
	}, func(q *queues) {
		q.declare("orders", "orders.two", "orders.three", "kept")
		for _, name := range []string{"orders", "orders.two", "orders.three", "kept"} {
			q.publish(name, name, 20)
		}
	})
	same := func(what string) {
		t.Helper()
		for _, name := range []string{"orders", "orders.two", "orders.three", "kept"} {
			want := 20
			if name == "orders" {
				want = 21
			}
			b.rabbit.depth(name, want)
		}
		if t.Failed() {
			t.Fatalf("after %s", what)
		}
	}

	// A preview that does not hold any more: there is more than it showed.
	stale := b.preview(about("purge", "orders"))
	if stale.Preview.Count == nil || *stale.Preview.Count != 20 {
		t.Fatalf("preview: %+v", stale)
	}
	b.rabbit.publish("orders", "late", 1)
	b.rabbit.depth("orders", 21)
	id := b.place(stale)
	c := b.ended(id, 30*time.Second)
	if c.State != "rejected" || c.Result == nil || c.Result.Done != 0 || !strings.Contains(c.Detail, "21 messages are there, the preview expected at most 20") {
		t.Errorf("purge of more than was previewed: %s", c.raw)
	}
	t.Logf("%s: %s", c.State, c.Detail)
	if got := b.audited(func(e audit) bool { return strings.Contains(e.Target, id) }); len(got) == 0 || got[0].Code != "command.rejected" || !got[0].Refused {
		t.Errorf("audit of the rejected purge: %+v", got)
	}
	same("a stale preview")

	// A preview that nobody has.
	b.refusal(b.admin, http.StatusNotFound, "/commands", map[string]any{"preview": "NOSUCHPREVIEW", "reason": "x", "typed": "orders"}, "take it again")
	// The name is not typed, or another one; no reason is given.
	p := b.preview(about("purge", "orders"))
	b.refusal(b.admin, http.StatusBadRequest, "/commands", map[string]any{"preview": p.ID, "reason": "x", "typed": "order"}, `name typed: "orders"`)
	b.refusal(b.admin, http.StatusBadRequest, "/commands", map[string]any{"preview": p.ID, "typed": "orders"}, "reason")
	operator, viewer := b.token("operator"), b.token("viewer")
	same("a bad order")

	// A right that is missing.
	b.refused(operator, http.StatusForbidden, about("purge", "orders"), "command.destroy", "orders")
	b.refused(operator, http.StatusForbidden, about("discard", "orders"), "command.destroy")
	b.refused(viewer, http.StatusForbidden, about("redrive", "orders"))
	b.refused("sbx_nobody", http.StatusUnauthorized, about("redrive", "orders"))
	// Nobody orders what was shown to somebody else.
	b.refusal(operator, http.StatusNotFound, "/commands", map[string]any{"preview": p.ID, "reason": "x", "typed": "orders"}, "take it again")
	denied := b.audited(func(e audit) bool { return e.Refused && e.Code != "command.rejected" })
	for _, e := range denied {
		if e.Code != "command.request" || !strings.Contains(e.Detail, "command.destroy") || !strings.Contains(e.Channel, "orders") {
			t.Errorf("audit of a missing right: %+v", e)
		}
	}
	if len(denied) != 2 {
		t.Errorf("the audit trail has %d refusals, want 2: %+v", len(denied), denied)
	}
	same("a missing right")

	// A channel, a broker, an environment that is not there.
	b.refused(b.admin, http.StatusUnprocessableEntity, about("purge", "orders.gone"), "orders.gone")
	b.refused(b.admin, http.StatusNotFound, about("purge", "orders", order{"broker": "rabbit-gone"}), "rabbit-gone", "no agent has it")
	b.refused(b.admin, http.StatusNotFound, about("purge", "orders", order{"env": "elsewhere"}), "elsewhere")
	b.refused(b.admin, http.StatusUnprocessableEntity, about("redrive", "orders", order{"destination": map[string]any{"broker": busBroker, "channel": "orders.gone"}}), "orders.gone")
	same("an unknown channel")

	// A kind that the agent's own rules do not allow there. The rules change
	// between preview and order, and still nothing is done.
	b.refused(b.admin, http.StatusUnprocessableEntity, about("purge", "kept"), "own configuration does not allow purge", "kept")
	b.refused(b.admin, http.StatusUnprocessableEntity, about("redrive", "orders", order{"destination": map[string]any{"broker": busBroker, "channel": "kept"}}), "own configuration does not allow redrive")
	p = b.preview(about("purge", "orders.two"))
	b.agent.kill()
	strict := b.newAgent(busAgent, busBroker, []any{map[string]any{"broker": "*", "channel": "*", "kinds": []string{"redrive"}}}, 0)
	b.agent = strict
	strict.start()
	b.connected()
	c = b.ended(b.place(p), 30*time.Second)
	if c.State != "rejected" || !strings.Contains(c.Detail, "own configuration does not allow purge") {
		t.Errorf("a purge that the agent's rules came to forbid: %s", c.raw)
	}
	t.Logf("%s: %s", c.State, c.Detail)
	if got := b.audited(func(e audit) bool {
		return e.Code == "command.rejected" && strings.Contains(e.Detail, "own configuration")
	}); len(got) != 1 {
		t.Errorf("audit of a kind that is not allowed: %+v", got)
	}
	same("a kind that is not allowed")

	// An agent that has lost its console, or is gone: the preview says so, and what
	// was ordered in time ends by itself.
	p = b.preview(about("redrive", "orders.three", order{"accept_within": "3s", "destination": map[string]any{"broker": busBroker, "channel": "orders.two"}}))
	strict.kill()
	await(t, 60*time.Second, func(ctx context.Context) error {
		code, text, err := b.ask(ctx, b.admin, http.MethodPost, "/previews", about("redrive", "orders.three"))
		if err != nil || code != http.StatusServiceUnavailable || !strings.Contains(string(text), "not connected") {
			return fmt.Errorf("preview through an agent that is gone: %d %s %w", code, text, err)
		}
		return nil
	})
	b.refused(b.admin, http.StatusServiceUnavailable, about("redrive", "orders.three"), busAgent, "not connected")
	id = b.place(p)
	if c = b.command(id); c.State != "queued" {
		t.Errorf("ordered from an agent that is gone: %s", c.raw)
	}
	c = b.ended(id, 90*time.Second)
	if c.State != "expired" || c.Detail == "" {
		t.Errorf("ordered from an agent that is gone: %s", c.raw)
	}
	t.Logf("%s: %s", c.State, c.Detail)
	strict.start()
	b.connected()
	if err := sleep(t.Context(), 2*time.Second); err != nil {
		t.Fatal(err)
	}
	if again := b.command(id); again.State != "expired" || again.Result != nil {
		t.Errorf("an expired command after the agent came back: %s", again.raw)
	}
	if got := b.audited(func(e audit) bool { return strings.Contains(e.Target, id) }); len(got) == 0 || got[0].Code != "command.expired" {
		t.Errorf("audit of the expired command: %+v", got)
	}
	same("an agent that is gone")
	b.verified()
}
