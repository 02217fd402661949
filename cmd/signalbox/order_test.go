package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/ui/api"
)

const cmdID = "0193a5c0ffee00000000000000000001"

// fakeConsole is a console's API with one broker; what is asked of it stays.
type fakeConsole struct {
	t   *testing.T
	url string

	mu       sync.Mutex
	calls    []string // method, path and body of what changes something
	policy   string
	reason   bool
	states   []string       // that the command comes to, one for each look that waits
	commands int            // looks at the command
	refuse   map[string]int // path to status
	lose     int            // answers to orders that are lost
}

func newFakeConsole(t *testing.T) *fakeConsole {
	t.Helper()
	f := &fakeConsole{t: t, policy: "none", states: []string{"running", "succeeded"}, refuse: map[string]int{}}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

func (f *fakeConsole) screen() *screen {
	return newScreen(f.t, map[string]string{"SIGNALBOX_URL": f.url})
}

func (f *fakeConsole) draft(q api.PreviewRequest) api.Draft {
	n := int64(1250)
	var args any
	_ = json.Unmarshal(q.Args, &args)
	return api.Draft{
		ID: "D1", Kind: q.Kind, Class: "destructive", Agent: "a1", Env: q.Env, Broker: q.Broker, Channel: q.Channel, Destination: q.Destination, Args: args, Policy: f.policy, ReasonRequired: f.reason,
		Preview: api.Preview{
			Env: q.Env, Effect: "1,250 messages go\x1b[2J away", Count: &n, Oldest: api.Timestamp{Time: time.Unix(1, 0)}, Newest: api.Timestamp{Time: time.Unix(2, 0)}, Reversible: "partly", Undo: "from the agent's copy",
			Impact: []string{"order is lost"}, Fingerprint: "F1", Samples: []api.Sample{{MessageID: "m-\x07" + q.Channel, Size: 412, Excerpt: "\u202eevil"}}, Destination: q.Destination,
		},
	}
}

func (f *fakeConsole) command(state string) api.Command {
	n := int64(100)
	c := api.Command{
		ID: cmdID, Kind: "purge", State: state, Agent: "a1", Env: "production", Broker: "rabbit-eu1", Channel: "orders.dead", RequestedBy: api.Actor{Name: "mia"}, Version: fmt.Sprint("v", f.commands), Detail: "why " + state,
		Ended: slices.Contains([]string{"succeeded", "partial", "failed", "rejected", "refused", "expired", "cancelled", "indeterminate"}, state), UndoneWith: "replay",
	}
	p := f.draft(api.PreviewRequest{Env: "production", Broker: "rabbit-eu1", Channel: "orders.dead"}).Preview
	c.Preview = &p
	if state == "running" {
		left := 2.0
		c.Progress = &api.JobProgress{Counts: api.Counts{Matched: 100, Done: 60, Failed: 2}, Total: &n, RemainingSeconds: &left, Job: &api.JobState{Rate: 19}}
	}
	if c.Ended {
		c.Result = &api.Result{Outcome: state, Counts: api.Counts{Matched: 100, Done: 98, Failed: 2}}
	}
	return c
}

func (f *fakeConsole) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/api/v1")
	body, _ := io.ReadAll(r.Body)
	if r.Method != http.MethodGet {
		f.calls = append(f.calls, strings.TrimSpace(r.Method+" "+path+" "+string(body)))
	}
	if status := f.refuse[path]; status != 0 {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprint(w, problemOf(status, "x", "the broker's reason"))
		return
	}
	answer := func(status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
	switch {
	case path == "/agents":
		all := []api.Agent{
			{ID: "a1", Env: "production", Brokers: []api.Broker{{Name: "rabbit-eu1", System: "rabbitmq"}, {Name: "rabbit-eu1/x", System: "rabbitmq"}}},
			{ID: "a2", Env: "staging", Brokers: []api.Broker{{Name: "twice", System: "nats"}}}, {ID: "a3", Env: "production", Brokers: []api.Broker{{Name: "twice", System: "nats"}}},
		}
		env := r.URL.Query().Get("env")
		answer(200, api.Agents{Agents: slices.DeleteFunc(all, func(a api.Agent) bool { return env != "" && a.Env != env })})
	case path == "/channels":
		answer(200, api.Channels{Channels: []api.Channel{{Env: "production", Broker: "rabbit-eu1", Name: "orders.dead"}, {Env: "production", Broker: "twice", Name: "both"}, {Env: "staging", Broker: "twice", Name: "both"}}})
	case strings.HasPrefix(path, "/messages/"):
		answer(200, api.MessageDetail{Message: api.Message{Env: "production", Broker: "rabbit-eu1", Channel: "orders." + path[len(path)-1:]}})
	case path == "/previews":
		var q api.PreviewRequest
		if err := json.Unmarshal(body, &q); err != nil {
			f.t.Errorf("preview: %v", err)
		}
		answer(201, f.draft(q))
	case strings.HasSuffix(path, "/undo"):
		answer(201, f.draft(api.PreviewRequest{Kind: "replay", Env: "production", Broker: "rabbit-eu1", Channel: "orders.dead"}))
	case path == "/commands" && r.Method == http.MethodPost && f.lose > 0:
		f.lose--
		panic(http.ErrAbortHandler)
	case path == "/commands" && r.Method == http.MethodPost:
		answer(201, f.command(map[bool]string{true: "awaiting_approval", false: "queued"}[f.policy == "second_person"]))
	case path == "/commands":
		answer(200, api.CommandList{Commands: []api.Command{f.command("running"), f.command("partial")}})
	case strings.HasSuffix(path, "/events"):
		answer(200, api.CommandEvents{Events: []api.CommandEvent{{N: 1, Type: "requested", Actor: api.Actor{Name: "mia"}, Detail: "evil\x1b"}}})
	case strings.HasSuffix(path, "/outcomes"):
		answer(200, api.CommandOutcomes{Outcomes: []api.CommandOutcome{{Number: 1, Outcome: "failed", MessageID: "m-1", Detail: "no route"}}})
	case path == "/commands/"+cmdID:
		state := f.states[min(f.commands, len(f.states)-1)]
		f.commands++
		answer(200, f.command(state))
	case strings.HasPrefix(path, "/commands/"+cmdID+"/"):
		answer(200, f.command("running"))
	case path == "/detours":
		answer(200, api.Detours{Detours: []api.Detour{{ID: "check", Agent: "a1", Env: "production", Broker: "rabbit-eu1", Channel: "orders.placed", State: "on", Steps: []api.DetourStep{{}}}}})
	case path == "/taps" && r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case path == "/taps":
		tap := api.Tap{ID: "t1", Agent: "a1", Env: "production", Broker: "rabbit-eu1", Channel: "orders.placed", Origin: "console", State: "asked"}
		if r.Method == http.MethodPost {
			answer(202, tap)
			return
		}
		tap.State = "running"
		own := tap
		own.ID, own.Origin = "t0", "config"
		answer(200, api.Taps{Taps: []api.Tap{own, tap}})
	default:
		f.t.Errorf("asked for %s %s", r.Method, r.URL)
		answer(404, nil)
	}
}

func (f *fakeConsole) told() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// What each verb asks of the console, before anything is ordered.
func TestVerbsAskForWhatTheySay(t *testing.T) {
	t.Parallel()
	f := newFakeConsole(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	schema := file("schema.json", `{"type":"object"}`)
	steps := file("steps.yaml", "- validate: {schema: {type: object}}\n- http: {url: 'http://127.0.0.1:9/', timeout: 3s, retries: 2}\n- hold: {}\n")
	wrong := file("wrong.yaml", "- hold: {}\n- rate: {per_minute: 2}\n")
	body := file("body", "from a file")
	at := `"env":"production","broker":"rabbit-eu1","channel":`
	type run func(*screen, context.Context, []string) error
	verb := map[string]run{}
	for _, name := range []string{"purge", "redrive", "discard", "replay", "test", "detour", "undetour", "pause", "resume"} {
		verb[name] = map[string]run{
			"purge":   func(s *screen, c context.Context, a []string) error { return s.purge(c, a) },
			"redrive": func(s *screen, c context.Context, a []string) error { return s.redrive(c, a) },
			"discard": func(s *screen, c context.Context, a []string) error { return s.discard(c, a) },
			"replay":  func(s *screen, c context.Context, a []string) error { return s.replay(c, a) },
			"test":    func(s *screen, c context.Context, a []string) error { return s.test(c, a) },
			"detour":  func(s *screen, c context.Context, a []string) error { return s.detour(c, a) }, "undetour": func(s *screen, c context.Context, a []string) error { return s.undetour(c, a) },
			"pause": func(s *screen, c context.Context, a []string) error { return s.pause(c, a) }, "resume": func(s *screen, c context.Context, a []string) error { return s.resume(c, a) },
		}[name]
	}
	for _, tc := range []struct {
		verb string
		args []string
		code int
		want string // of the preview that is asked for, or of the error
	}{
		{"purge", []string{"rabbit-eu1/orders.dead", "--filter", "failed:true", "--no-backup"}, 0, `{"kind":"purge",` + at + `"orders.dead","args":{"filter":"failed:true","no_backup":true}}`},
		{"purge", []string{"orders.dead"}, 0, `{"kind":"purge",` + at + `"orders.dead","args":{}}`},                                     // seen on one broker
		{"purge", []string{"rabbit-eu1/x/y"}, 0, `{"kind":"purge","env":"production","broker":"rabbit-eu1/x","channel":"y","args":{}}`}, // the longest name of a broker
		{"purge", []string{"rabbit-eu1/x/y", "--broker", "rabbit-eu1"}, 0, `{"kind":"purge",` + at + `"rabbit-eu1/x/y","args":{}}`},     // said to be on that one
		{"purge", []string{"twice/q", "--env", "staging"}, 0, `{"kind":"purge","env":"staging","broker":"twice","channel":"q","args":{}}`},
		{"purge", []string{"twice/q"}, exitUsage, "twice/q in staging, or twice/q in production"},
		{"purge", []string{"both"}, exitUsage, "may be twice/both in production, or twice/both in staging"},
		{"purge", []string{"nowhere"}, exitNothing, "name it as BROKER/CHANNEL"},
		{"purge", nil, exitUsage, "want one channel"},
		{"purge", []string{"orders.dead", "--filter", "chanel:x"}, exitUsage, "did you mean channel"},
		{"redrive", []string{"orders.dead", "--to", "rabbit-eu1/orders.placed", "--rate", "50", "--ramp", "1,10,100", "--stop-ratio", "0.1", "--max", "7", "--force", "--run-within", "2h"}, 0,
			`{"kind":"redrive",` + at + `"orders.dead","destination":{"env":"production","system":"rabbitmq","broker":"rabbit-eu1","channel":"orders.placed"},"args":{"job":{"rate":50,"ramp":[1,10,100],"stop_ratio":0.1,"max":7},"force":true},"run_within":"2h0m0s"}`},
		{"redrive", []string{"orders.dead", "--ramp", "1,x"}, exitUsage, "--ramp"},
		{"redrive", []string{"orders.dead", "--rate", "-1"}, exitUsage, "messages per second"},
		{"discard", []string{"orders.dead", "--settle", "3s"}, 0, `{"kind":"discard",` + at + `"orders.dead","args":{"job":{"settle":"3s"}}}`},
		{"replay", []string{"--filter", "failed:true", "--from", "2026-11-21T13:00:00Z", "--until", "2026-11-21T14:00:00Z", "--to", "rabbit-eu1/orders.placed", "--rate", "5"}, 0,
			`{"kind":"replay",` + at + `"orders.placed","args":{"selection":{"env":"production","filter":"failed:true","from":"2026-11-21T13:00:00.000000000Z","to":"2026-11-21T14:00:00.000000000Z"},"job":{"rate":5}}}`},
		{"replay", []string{"--uid", "aa,ba"}, 0, `{"kind":"replay",` + at + `"orders.a","args":{"selection":{"env":"production","uids":["aa","ba"]}}}`},
		{"replay", []string{"--uid", "aa", "--uid", "bb"}, exitUsage, "more than one channel (rabbit-eu1/orders.a, rabbit-eu1/orders.b)"},
		{"replay", []string{"--filter", "failed:true"}, exitUsage, "want --to"},
		{"replay", []string{"--to", "rabbit-eu1/x"}, exitUsage, "want --filter or --uid"},
		{"replay", []string{"--uid", "aa", "--since", "1h"}, exitUsage, "exclude each other"},
		{"test", []string{"rabbit-eu1/q", "--body", "hi", "--header", "a=b", "--content-type", "text/plain", "--run", "r1"}, 0, `{"kind":"test",` + at + `"q","args":{"run":"r1","content_type":"text/plain","body":"hi","headers":{"a":"b"}}}`},
		{"test", []string{"rabbit-eu1/q", "--body-file", body, "--run", "r1"}, 0, `{"kind":"test",` + at + `"q","args":{"run":"r1","body":"from a file"}}`},
		{"test", []string{"rabbit-eu1/q", "-", "--run", "r1"}, 0, `{"kind":"test",` + at + `"q","args":{"run":"r1","body":"from standard input"}}`},
		{"test", []string{"rabbit-eu1/q"}, exitUsage, "want one of --body"},
		{"test", []string{"rabbit-eu1/q", "--body", "x", "--header", "nonsense"}, exitUsage, "NAME=VALUE"},
		{"test", []string{"rabbit-eu1/q", "--body", "\xff"}, exitUsage, "not UTF-8"},
		{"detour", []string{"rabbit-eu1/q", "--id", "check", "--for", "1h", "--schema", schema, "--set", "x=1", "--remove", "a,b", "--rate", "20", "--reason", "r"}, 0,
			`{"kind":"detour",` + at + `"q","args":{"id":"check","reason":"r","for":"1h0m0s","steps":[{"validate":{"schema":{"type":"object"}}},{"headers":{"set":{"x":"1"},"remove":["a","b"]}},{"rate":{"per_second":20}}]}}`},
		{"detour", []string{"rabbit-eu1/q", "--id", "check", "--for", "1h", "--steps", steps}, 0,
			`{"kind":"detour",` + at + `"q","args":{"id":"check","for":"1h0m0s","steps":[{"validate":{"schema":{"type":"object"}}},{"http":{"url":"http://127.0.0.1:9/","timeout":"3s","retries":2}},{"hold":{}}]}}`},
		{"detour", []string{"rabbit-eu1/q", "--id", "check", "--for", "1h", "--steps", wrong}, exitUsage, "per_minute"},
		{"detour", []string{"rabbit-eu1/q", "--id", "check", "--for", "1h", "--steps", steps, "--hold"}, exitUsage, "exclude each other"},
		{"detour", []string{"rabbit-eu1/q", "--id", "check", "--hold"}, exitUsage, "want --id and --for"},
		{"detour", []string{"rabbit-eu1/q", "--id", "check", "--for", "1h"}, exitUsage, "want a step"},
		{"detour", []string{"rabbit-eu1/q", "--id", "no good", "--for", "1h", "--hold"}, exitUsage, "1 to 48 letters"},
		{"undetour", []string{"check"}, 0, `{"kind":"undetour",` + at + `"orders.placed","agent":"a1","args":{"id":"check"}}`},
		{"undetour", []string{"none"}, exitNothing, `no detour "none"`},
		{"pause", []string{"rabbit-eu1/q", "--for", "10m", "--consumer", "billing"}, 0, `{"kind":"pause",` + at + `"q","args":{"for":"10m0s","consumer":"billing"}}`},
		{"pause", []string{"rabbit-eu1/q"}, exitUsage, "a pause has an end"},
		{"resume", []string{"rabbit-eu1/q"}, 0, `{"kind":"resume",` + at + `"q","args":{}}`},
	} {
		s := f.screen()
		s.in = strings.NewReader("from standard input")
		before := len(f.told())
		err := verb[tc.verb](s, t.Context(), append(slices.Clone(tc.args), "--dry-run"))
		calls := f.told()[before:]
		switch {
		case exitCode(err) != tc.code:
			t.Errorf("%s %q: got %d, %v; want %d", tc.verb, tc.args, exitCode(err), err, tc.code)
		case tc.code != 0 && (!strings.Contains(err.Error(), tc.want) || len(calls) > 0):
			t.Errorf("%s %q: got %q and %q, want %q and nothing asked", tc.verb, tc.args, err, calls, tc.want)
		case tc.code == 0 && (len(calls) != 1 || calls[0] != "POST /previews "+tc.want):
			t.Errorf("%s %q: asked for\n%q, want\n%q", tc.verb, tc.args, calls, "POST /previews "+tc.want)
		}
		if strings.ContainsAny(s.out.String()+s.err.String(), "\x1b\x07\u202e") {
			t.Errorf("%s: %q steers a terminal", tc.verb, &s.out)
		}
	}
}

// Who says yes, by what means, and what happens without that.
func TestNothingIsOrderedWithoutAYes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		policy string
		reason bool
		asks   bool
		in     string
		args   []string
		code   int
		order  string // empty: none
		says   string
	}{
		"dry run":                       {args: []string{"--dry-run"}, says: "1,250 messages go␛[2J away"},
		"dry run of yes":                {args: []string{"--dry-run", "--yes"}},
		"nobody to ask":                 {code: exitNoYes, says: "--yes says yes"},
		"no":                            {asks: true, in: "n\n", code: exitNoYes, says: "nothing was done"},
		"nothing typed":                 {asks: true, in: "\n", code: exitNoYes},
		"the terminal is gone":          {asks: true, in: "", code: exitNoYes},
		"yes":                           {asks: true, in: "y\n", order: `{"preview":"D1","reason":""}`},
		"flag":                          {args: []string{"--yes", "--reason", "why"}, order: `{"preview":"D1","reason":"why"}`},
		"the name is typed":             {policy: "type_name", asks: true, in: "orders.dead\n", order: `{"preview":"D1","reason":"","typed":"orders.dead"}`},
		"another name is typed":         {policy: "type_name", asks: true, in: "y\n", code: exitNoYes, says: "not the channel's name"},
		"yes without the name":          {policy: "type_name", args: []string{"--yes"}, code: exitNoYes, says: "--type-name"},
		"yes with the name":             {policy: "type_name", args: []string{"--yes", "--type-name", "orders.dead"}, order: `{"preview":"D1","reason":"","typed":"orders.dead"}`},
		"yes with another name":         {policy: "type_name", args: []string{"--yes", "--type-name", "orders"}, code: exitNoYes, says: "not the channel's name"},
		"the name, and nobody to ask":   {policy: "type_name", args: []string{"--type-name", "orders.dead"}, code: exitNoYes},
		"a reason is asked for":         {reason: true, policy: "type_name", asks: true, in: "it is poison\norders.dead\n", order: `{"preview":"D1","reason":"it is poison","typed":"orders.dead"}`},
		"yes without a reason":          {reason: true, args: []string{"--yes"}, code: exitUsage, says: "--reason"},
		"a second person, and no wait":  {policy: "second_person", args: []string{"--yes"}, order: `{"preview":"D1","reason":""}`, code: exitApproval, says: "signalbox commands approve " + cmdID},
		"a second person, with a wait":  {policy: "second_person", args: []string{"--yes", "--wait"}, order: `{"preview":"D1","reason":""}`},
		"a second person, not followed": {policy: "second_person", args: []string{"--yes", "--wait=false"}, order: `{"preview":"D1","reason":""}`, code: exitApproval},
	} {
		f := newFakeConsole(t)
		if f.reason = tc.reason; tc.policy != "" {
			f.policy = tc.policy
		}
		s := f.screen()
		s.asks, s.in = tc.asks, strings.NewReader(tc.in)
		err := s.purge(t.Context(), append([]string{"rabbit-eu1/orders.dead"}, tc.args...))
		if exitCode(err) != tc.code || !strings.Contains(fmt.Sprint(s.out.String(), err), tc.says) {
			t.Errorf("%s: got %d, %v, want %d and %q", name, exitCode(err), err, tc.code, tc.says)
		}
		calls := f.told()
		switch {
		case tc.order == "" && len(calls) != 1:
			t.Errorf("%s: %q was sent, want a preview alone", name, calls)
		case tc.order != "" && (len(calls) != 2 || calls[1] != "POST /commands "+tc.order):
			t.Errorf("%s: %q was sent, want the order %s", name, calls, tc.order)
		}
		if !strings.Contains(s.out.String(), "purge rabbit-eu1/orders.dead in production") || !strings.Contains(s.out.String(), "order is lost") {
			t.Errorf("%s: the preview was not shown: %q", name, &s.out)
		}
	}
}

func TestACommandEndsTheVerbWithItsCode(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]int{
		"succeeded": 0, "partial": exitPartial, "failed": exitNotDone, "rejected": exitNotDone, "refused": exitNotDone, "expired": exitNotDone, "cancelled": exitNotDone, "indeterminate": exitUnclear,
	} {
		f := newFakeConsole(t)
		f.states = []string{"dispatched", "running", "running", state}
		s := f.screen()
		err := s.purge(t.Context(), []string{"rabbit-eu1/orders.dead", "--yes"})
		if exitCode(err) != want || want != 0 && !strings.Contains(err.Error(), "why "+state) {
			t.Errorf("%s: got %d, %v; want %d", state, exitCode(err), err, want)
		}
		if !strings.Contains(s.out.String(), "98 of 100 done, 2 failed") || strings.Count(s.err.String(), "60/100 (62 %)  2 failed  19 messages/s  about 2 s left") != 1 || strings.Contains(s.err.String(), "\r") {
			t.Errorf("%s: told %q and %q", state, &s.out, &s.err)
		}
		// JSON is the command, once, and nothing else.
		f.commands = 0
		s = f.screen()
		err = s.purge(t.Context(), []string{"rabbit-eu1/orders.dead", "--yes", "-o", "json"})
		var c api.Command
		if jsonErr := json.Unmarshal(s.out.Bytes(), &c); exitCode(err) != want || jsonErr != nil || c.State != state {
			t.Errorf("%s as JSON: %d, %v, %q", state, exitCode(err), jsonErr, &s.out)
		}
	}
	f := newFakeConsole(t)
	s := f.screen()
	s.live, s.width = true, 40
	if err := s.purge(t.Context(), []string{"rabbit-eu1/orders.dead", "--yes"}); err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(s.err.String(), "\r\x1b[K") {
		if strings.HasPrefix(line, "running") && len([]rune(line)) > 39 {
			t.Errorf("a line of %d characters on a terminal of 40: %q", len([]rune(line)), line)
		}
	}
	if !strings.Contains(s.err.String(), "\r\x1b[Krunning") {
		t.Errorf("no progress on a terminal: %q", &s.err)
	}
}

// An interrupt, or the end of patience, stops the waiting and nothing else.
func TestACommandGoesOnWithoutWhoWaits(t *testing.T) {
	t.Parallel()
	f := newFakeConsole(t)
	f.states = []string{"running"}
	says := "command " + cmdID + " goes on: `signalbox commands watch " + cmdID + "` follows it, `signalbox commands cancel " + cmdID + "` stops it"
	err := f.screen().purge(t.Context(), []string{"rabbit-eu1/orders.dead", "--yes", "--timeout", "50ms"})
	if exitCode(err) != exitGoesOn || err.Error() != says {
		t.Errorf("out of patience: %d, %v", exitCode(err), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	err = f.screen().commands(ctx, []string{"watch", cmdID})
	if exitCode(err) != exitGoesOn || err.Error() != says {
		t.Errorf("interrupted: %d, %v", exitCode(err), err)
	}
	for _, call := range f.told() {
		if strings.Contains(call, "cancel") {
			t.Errorf("it was stopped: %s", call)
		}
	}
	// Whoever is asked and interrupts has not said yes.
	in, out := io.Pipe()
	defer out.Close()
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	s := f.screen()
	s.asks, s.in = true, in
	before := len(f.told())
	if err := s.purge(ctx, []string{"rabbit-eu1/orders.dead"}); exitCode(err) != exitNoYes || len(f.told()) != before+1 {
		t.Errorf("interrupted when asked: %v, %q", err, f.told()[before:])
	}
}

func TestRefusalsHaveCodes(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{403: exitDenied, 404: exitNothing, 409: exitNotDone, 422: exitNotDone, 503: exitNoAnswer, 400: exitUsage} {
		for _, path := range []string{"/previews", "/commands"} {
			f := newFakeConsole(t)
			f.refuse[path] = status
			err := f.screen().purge(t.Context(), []string{"rabbit-eu1/orders.dead", "--yes"})
			if exitCode(err) != want || !strings.Contains(err.Error(), "the broker's reason") {
				t.Errorf("%s %d: got %d, %v; want %d", path, status, exitCode(err), err, want)
			}
			if unknown := strings.Contains(err.Error(), "Whether it was ordered is not known"); unknown != (path == "/commands" && want == exitNoAnswer) {
				t.Errorf("%s %d: %v", path, status, err)
			}
		}
	}
}

// An order whose answer is lost is sent again: the console makes one command of
// it.
func TestALostAnswerToAnOrderIsAskedForAgain(t *testing.T) {
	t.Parallel()
	f := newFakeConsole(t)
	f.lose = 2
	err := f.screen().purge(t.Context(), []string{"rabbit-eu1/orders.dead", "--yes"})
	if calls := f.told(); err != nil || len(calls) != 4 || calls[1] != calls[3] {
		t.Errorf("got %v after %q, want the same order until it is answered", err, calls)
	}
	f.lose = 100
	err = f.screen().purge(t.Context(), []string{"rabbit-eu1/orders.dead", "--yes"})
	if exitCode(err) != exitNoAnswer || !strings.Contains(err.Error(), "Whether it was ordered is not known") {
		t.Errorf("got %v, want to be told that nothing is known", err)
	}
}

func TestWordsAboutCommands(t *testing.T) {
	t.Parallel()
	at := "POST /commands/" + cmdID + "/"
	for _, tc := range []struct {
		args []string
		in   string
		asks bool
		code int
		want []string
		says string
	}{
		{args: nil, says: "running"},
		{args: []string{"list", "--open", "-o", "json"}, says: `"commands":[`},
		{args: []string{"show", cmdID}, says: "evil␛"},
		{args: []string{"show", cmdID, "--outcomes"}, says: "no route"},
		{args: []string{"show", "xyz"}, code: exitUsage, says: "32 hexadecimal digits"},
		{args: []string{"explode"}, code: exitUsage, says: `no "explode"`},
		{args: []string{"approve", cmdID}, code: exitNoYes},
		{args: []string{"approve", cmdID}, asks: true, in: "n\n", code: exitNoYes, says: "fingerprint F1"},
		{args: []string{"approve", cmdID}, asks: true, in: "yes\n", want: []string{at + `approve {"fingerprint":"F1"}`}, says: "order is lost"},
		{args: []string{"approve", cmdID, "--yes", "--fingerprint", "F2"}, code: exitNotDone, says: "nothing was approved"},
		{args: []string{"approve", cmdID, "--yes", "--fingerprint", "F1"}, want: []string{at + `approve {"fingerprint":"F1"}`}},
		{args: []string{"refuse", cmdID, "--reason", "no"}, want: []string{at + `refuse {"reason":"no"}`}, says: "Refused"},
		{args: []string{"cancel", cmdID}, want: []string{at + `cancel {"reason":""}`}, says: "Asked to stop"},
		{args: []string{"abandon", cmdID}, want: []string{at + `abandon {"reason":""}`}},
		{args: []string{"pause", cmdID}, want: []string{at + `control {"paused":true}`}},
		{args: []string{"continue", cmdID}, want: []string{at + `control {"paused":false}`}},
		{args: []string{"rate", cmdID, "25"}, want: []string{at + `control {"rate":25}`}},
		{args: []string{"rate", cmdID, "fast"}, code: exitUsage, says: "messages per second"},
		{args: []string{"rate", cmdID}, code: exitUsage},
		{args: []string{"undo", cmdID, "--dry-run", "--rate", "10"}, want: []string{at + `undo {"rate":10}`}, says: "replay rabbit-eu1/orders.dead"},
		{args: []string{"undo", cmdID, "--yes", "--wait=false"}, want: []string{at + `undo {}`, `POST /commands {"preview":"D1","reason":""}`}},
	} {
		f := newFakeConsole(t)
		f.states = []string{"awaiting_approval"}
		s := f.screen()
		s.asks, s.in = tc.asks, strings.NewReader(tc.in)
		err := s.commands(t.Context(), tc.args)
		text := s.out.String() + s.err.String()
		if err != nil {
			text += err.Error()
		}
		text = strings.Join(strings.Fields(text), " ")
		if exitCode(err) != tc.code || !strings.Contains(text, tc.says) || !slices.Equal(f.told(), tc.want) {
			t.Errorf("%q: got %d, %q, sent %q; want %d, %q, %q", tc.args, exitCode(err), text, f.told(), tc.code, tc.says, tc.want)
		}
		if strings.ContainsAny(text, "\x1b\x07\u202e") {
			t.Errorf("%q: %q steers a terminal", tc.args, text)
		}
	}
	f := newFakeConsole(t)
	f.states = []string{"running"}
	if err := f.screen().commands(t.Context(), []string{"approve", cmdID, "--yes"}); exitCode(err) != exitNotDone || len(f.told()) > 0 {
		t.Errorf("approval of what runs: %v, %q", err, f.told())
	}
	if err := f.screen().detours(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

func TestTapsAreSwitched(t *testing.T) {
	t.Parallel()
	f := newFakeConsole(t)
	s := f.screen()
	if err := s.tapOn(t.Context(), []string{"rabbit-eu1/orders.placed", "--for", "1h", "--reason", "late"}); err != nil || !strings.Contains(s.out.String(), "running") {
		t.Errorf("on: %v, %q", err, &s.out)
	}
	if err := s.tapOff(t.Context(), []string{"rabbit-eu1/orders.placed"}); err != nil {
		t.Errorf("off: %v", err)
	}
	want := []string{`POST /taps {"env":"production","system":"rabbitmq","broker":"rabbit-eu1","channel":"orders.placed","reason":"late","lease":"1h0m0s"}`, "DELETE /taps"}
	if got := f.told(); !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	if err := s.tapOff(t.Context(), []string{"rabbit-eu1/other"}); exitCode(err) != exitNothing {
		t.Errorf("off without a tap: %v", err)
	}
	if err := s.tapOn(t.Context(), []string{"rabbit-eu1/x"}); !errors.Is(err, errUsage) {
		t.Errorf("on without a reason: %v", err)
	}
}
