package ui_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/ui"
	"github.com/signalbox-dev/signalbox/ui/xsstest"
)

// attackedCommands is a control bus in which every text that people, agents or
// producers choose is a payload, each payload in each field of some command.
func attackedCommands(at time.Time, payloads []string) *fakeCommands {
	f := &fakeCommands{events: map[controlbus.CommandID][]ledger.Event{}, outcomes: map[controlbus.CommandID][]command.Outcome{}, drafts: map[string]command.Draft{}, policy: controlbus.ApproveByName, now: func() time.Time { return at }}
	all := strings.Join(payloads, "\n")
	states := []controlbus.CommandState{controlbus.CommandSucceeded, controlbus.CommandRunning, controlbus.CommandAwaitingApproval, controlbus.CommandUnconfirmed, controlbus.CommandIndeterminate, controlbus.CommandRejected, controlbus.CommandRefused}
	kinds := []controlbus.CommandKind{controlbus.CommandPurge, controlbus.CommandRedrive, controlbus.CommandReplay, controlbus.CommandTest, controlbus.CommandDetour}
	for i, p := range payloads {
		valid := strings.ToValidUTF8(p, "\ufffd")
		by := controlbus.Actor{Kind: "user", ID: p, Name: p}
		ch := controlbus.ChannelName{Env: "production", System: p, Broker: p, Name: p}
		args := map[controlbus.CommandKind]any{
			controlbus.CommandPurge: controlbus.PurgeArgs{Filter: valid}, controlbus.CommandRedrive: controlbus.RedriveArgs{Filter: valid}, controlbus.CommandReplay: controlbus.ReplayArgs{Selection: &controlbus.Selection{Env: valid, Filter: valid}},
			controlbus.CommandTest: controlbus.TestArgs{Run: valid, ContentType: valid, Body: valid, Key: valid, Headers: map[string]string{valid: valid}},
			controlbus.CommandDetour: controlbus.Detour{ID: valid, To: valid, Filter: valid, Park: valid, For: time.Hour, Steps: []controlbus.DetourStep{
				{Headers: &controlbus.HeadersStep{Set: map[string]string{valid: valid}, Remove: []string{valid}}}, {Copy: &controlbus.CopyStep{Channel: valid}}, {HTTP: &controlbus.HTTPStep{URL: valid}}, {Channel: &controlbus.ChannelStep{Send: valid, Receive: valid}}, {Validate: &controlbus.ValidateStep{Schema: json.RawMessage(fmt.Sprintf("%q", "schema"))}}}},
		}
		kind := kinds[i%len(kinds)]
		raw, _ := json.Marshal(args[kind])
		preview := &controlbus.Preview{TakenAt: at, Env: "production", Effect: p + " pwned", Count: 3, Oldest: at, Newest: at, Destination: &ch, Reversible: controlbus.ReversibleYes, Undo: p, Technique: p, Impact: []string{p}, Needs: []string{p},
			Expect: controlbus.Expect{MaxCount: 3, UpTo: p, Topology: p}, Fingerprint: p, Samples: []controlbus.PreviewSample{{UID: p, MessageID: p, At: at, Position: p, ContentType: p, ErrorType: p, Excerpt: p}}}
		evidence, _ := json.Marshal(map[string]any{valid: valid, "list": []string{valid}})
		c := controlbus.Command{
			CommandSpec: controlbus.CommandSpec{Kind: kind, Target: controlbus.Target{Agent: p, Channel: ch}, Destination: &ch, Args: raw, Reason: p, Preview: preview, AcceptWithin: time.Minute, RunWithin: time.Minute},
			ID:          cid(1000 - i), Class: kind.Class(), RequestedBy: by, RequestedAt: at.Add(-time.Duration(i) * time.Second), State: states[i%len(states)], StateAt: at, Detail: p, ApprovedBy: &by, CancelAsked: &by, CancelReason: p,
			Progress: controlbus.CommandProgress{Counts: controlbus.Counts{Matched: 3, Done: 1}, Total: 3, Note: p, Job: &controlbus.JobState{Rate: 1}},
		}
		if c.State.Result() {
			c.Result = &controlbus.CommandResult{Outcome: c.State, Detail: p, Evidence: evidence}
			c.LateResult = c.Result
		}
		f.commands = append(f.commands, c)
		f.events[c.ID] = []ledger.Event{{At: at, Type: ledger.EventRequested, Actor: by, Spec: &c.CommandSpec}, {At: at, Type: ledger.EventType(p), Actor: by, Detail: p}, {At: at, Type: ledger.EventRefused, Actor: by, Detail: p}}
		f.outcomes[c.ID] = []command.Outcome{{Command: c.ID, Kind: controlbus.CommandKind(p), Number: 1, At: at, Outcome: p, UID: p, MessageID: p, Source: p, Destination: p, Detail: p}}
		f.abilities = append(f.abilities, controlbus.Ability{Kind: controlbus.CommandKind(p), Reason: p, Note: p})
		if i%4 == 0 { // enough of them
			f.detours = append(f.detours, command.DetourView{Agent: p, Env: "production", Heard: at, DetourStatus: controlbus.DetourStatus{
				Detour: controlbus.Detour{ID: p, To: p, Owner: by, Reason: p, For: time.Hour, Filter: p, Park: p, Steps: []controlbus.DetourStep{{Copy: &controlbus.CopyStep{Channel: p}}}}, Broker: p, Channel: p, Command: controlbus.CommandID(p), State: controlbus.DetourState(p),
				Technique: p, Until: at.Add(time.Hour), Notes: []string{p}, Error: p}})
		}
		if i%20 == 0 {
			id := fmt.Sprintf("draft-%d", i)
			f.drafts[id] = command.Draft{ID: id, Expires: at.Add(time.Minute), Policy: controlbus.ApproveByName, Spec: c.CommandSpec}
		}
	}
	f.abilities = append(f.abilities, controlbus.Ability{Kind: controlbus.CommandPurge, Reason: all}, controlbus.Ability{Kind: controlbus.CommandRedrive, Note: all})
	return f
}

// attackedControl are the addresses of the control bus under attack, by route.
func attackedControl(f *fakeCommands, payloads []string) map[string][]string {
	var one, drafts []string
	for i := 0; i < len(f.commands); i += 12 {
		one = append(one, "/control/"+string(f.commands[i].ID))
	}
	for id := range f.drafts {
		drafts = append(drafts, "/control/drafts/"+id)
	}
	slices.Sort(drafts)
	form := func(kind string, p string) string {
		q := url.Values{"kind": {kind}}
		for _, name := range []string{"env", "broker", "system", "channel", "filter", "rate", "ramp", "since", "uid", "body", "headers", "id", "park", "to", "s0_schema", "s1_set", "s2_url"} {
			q.Set(name, p)
		}
		q["step"] = []string{"validate", "headers", "http"}
		return "/control/new?" + q.Encode()
	}
	return map[string][]string{
		"GET /control":             {"/control", "/control?env=", "/control?" + url.Values{"q": {payloads[0]}, "broker": {payloads[1]}, "by": {payloads[2]}}.Encode()},
		"GET /control/{id}":        one,
		"GET /control/drafts/{id}": drafts[:3],
		"GET /control/new":         {form("purge", payloads[0]), form("redrive", payloads[3]), form("replay", payloads[5]), form("test", payloads[7]), form("detour", payloads[9])},
		"GET /detours":             {"/detours", "/detours?q=" + url.QueryEscape(payloads[0])},
		"GET /detours/new":         {"/detours/new?" + url.Values{"channel": {payloads[0]}, "env": {payloads[1]}}.Encode()},
	}
}

// TestPayloadsInFormsStayText sends every payload in every field of a form: what
// comes back holds it as text only.
func TestPayloadsInFormsStayText(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	f := attackedCommands(now, xsstest.Payloads())
	u, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: s, Roster: r, Commands: f, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	_, plain := get(t, u, "/control")
	scripts := len(all(plain, tag("script")))
	for i, p := range xsstest.Payloads() {
		form := url.Values{}
		for _, name := range []string{"env", "broker", "channel", "filter", "rate", "ramp", "settle", "stop_ratio", "since", "until", "uid", "for", "id", "park", "to", "accept_within", "reason", "typed", "s0_schema", "s1_set", "s1_remove", "s2_url", "headers", "body", "on_failure"} {
			form.Set(name, p)
		}
		form["step"] = []string{"validate", "headers", "http", p}
		form.Set("kind", []string{"purge", "redrive", "replay", "test", "detour", "pause"}[i%6])
		f.mu.Lock()
		f.err = fmt.Errorf("command: agent %s says %s: %w", p, p, controlbus.ErrConflict)
		f.mu.Unlock()
		for _, at := range []string{"/control/preview", "/control/drafts/draft-0/order", "/control/" + string(cid(1000-i)) + "/refuse", "/control/" + string(cid(1000-i)) + "/control", "/control/" + url.PathEscape(p) + "/cancel"} {
			req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			if req.URL, err = url.Parse(at); err != nil {
				continue
			}
			w := httptest.NewRecorder()
			u.ServeHTTP(w, req)
			if w.Code >= 500 || w.Code/100 == 2 {
				t.Errorf("%.60s with %.40q: %d", at, p, w.Code)
			}
			doc, err := html.Parse(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			if w.Code/100 == 3 {
				if to := w.Header().Get("Location"); !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.HasPrefix(to, `/\`) {
					t.Errorf("%.60s leads to %q", at, to)
				}
				continue
			}
			if n := len(all(doc, tag("script"))); n != scripts {
				t.Errorf("%.60s with %.40q: %d scripts, want %d", at, p, n, scripts)
			}
			for _, n := range all(doc, func(n *html.Node) bool { return n.Type == html.ElementNode }) {
				if slices.Contains([]string{"img", "iframe", "object", "embed", "base", "style", "math", "video", "audio"}, n.Data) {
					t.Errorf("%.60s with %.40q: <%s>", at, p, n.Data)
				}
				for _, a := range n.Attr {
					if strings.HasPrefix(a.Key, "on") || (a.Key == "href" || a.Key == "src" || a.Key == "action" || a.Key == "formaction") && a.Val != "" && (!strings.HasPrefix(a.Val, "/") || strings.HasPrefix(a.Val, "//") || strings.HasPrefix(a.Val, `/\`)) && !strings.HasPrefix(a.Val, "#") {
						t.Errorf("%.60s with %.40q: <%s %s=%q>", at, p, n.Data, a.Key, a.Val)
					}
				}
			}
		}
	}
	if len(f.asked) > 0 {
		t.Errorf("%d previews were taken", len(f.asked))
	}
}
