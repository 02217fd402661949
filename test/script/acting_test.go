package script

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/test/broker"
	"github.com/signalbox-dev/signalbox/test/program"
)

// streams of the broker beside which the agent is, with their subjects. Each
// story has its own.
var streams = map[string]string{"ORDERS": "ORDERS.>", "DEAD": "DEAD.>", "JOBS": "JOBS.>", "DONE": "done", "AGAIN": "again", "AREA": "area", "PAST": "past"}

// TestVerbsThatAct runs the stories of testdata/acting: the built console, the
// built agent, and JetStream.
func TestVerbsThatAct(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a real console and a real agent")
	}
	act(t, startSite(t), "testdata/acting", nil)
}

// act runs the stories of a directory against a site, with an agent of its own
// beside a JetStream of its own.
func act(t *testing.T, s *site, stories string, vars map[string]string) {
	t.Helper()
	nc := broker.DialNATS(t, broker.NATSEmbedded(t, nil).URL)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for name, subject := range streams {
		// Work queues: what is taken out is gone.
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{subject}, Retention: jetstream.WorkQueuePolicy}); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	cfg, err := json.Marshal(map[string]any{
		"agent":    map[string]any{"id": "beside-nats", "env": "production", "data_dir": filepath.Join(dir, "data")},
		"console":  map[string]any{"url": s.url, "report_interval": "500ms"},
		"brokers":  []any{map[string]any{"name": "nats-eu1", "type": "nats", "observe_interval": "1s", "options": map[string]any{"urls": []string{nc.ConnectedUrl()}}}},
		"commands": map[string]any{"allow": []any{map[string]any{"broker": "*", "channel": "*"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "agent.yaml") // JSON is YAML
	if err := os.WriteFile(file, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	agent := program.Start(t, program.Agent, nil, "-config", file)
	s.until(t, "agent", "/api/v1/agents", agent, func(b []byte) bool {
		var fleet struct {
			Agents []struct {
				Brokers []struct{ Connected bool }
			}
		}
		return json.Unmarshal(b, &fleet) == nil && len(fleet.Agents) == 1 && len(fleet.Agents[0].Brokers) == 1 && fleet.Agents[0].Brokers[0].Connected
	})
	bin := program.Dir(t)
	testscript.Run(t, testscript.Params{
		Dir:                 stories,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("SIGNALBOX_URL", s.url)
			env.Setenv("HOME", env.WorkDir)
			for name, value := range vars {
				env.Setenv(name, value)
			}
			env.Setenv("FIRST", controlbus.HashID("script", "7").String())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "harmless": harmless, "setid": setID,
			// publish N SUBJECT [TEXT] sends so many messages, hostile ones without a
			// text: with it they are JSON.
			"publish": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[0])
				ts.Check(err)
				text := hostile
				if len(args) > 2 {
					text = args[2]
				}
				for i := range n {
					m := nats.NewMsg(args[1])
					m.Data = fmt.Appendf(nil, `{"n":%d,"text":"%s"}`, i, text)
					_, err := js.PublishMsg(t.Context(), m)
					ts.Check(err)
				}
			},
			// ordered NAME KIND waits until a command of that kind runs, and sets a
			// variable to its id.
			"ordered": func(ts *testscript.TestScript, _ bool, args []string) {
				s.until(t, "command", "/api/v1/commands?state=running&kind="+args[1], agent, func(b []byte) bool {
					var list struct{ Commands []struct{ ID string } }
					if json.Unmarshal(b, &list) != nil || len(list.Commands) != 1 {
						return false
					}
					ts.Setenv(args[0], list.Commands[0].ID)
					return true
				})
			},
			// refused DETOUR N waits until a detour has refused so many.
			"refused": func(ts *testscript.TestScript, _ bool, args []string) {
				s.until(t, "detour", "/api/v1/detours", agent, func(b []byte) bool {
					var list struct {
						Detours []struct {
							ID      string
							Refused int
						}
					}
					return json.Unmarshal(b, &list) == nil && len(list.Detours) == 1 && list.Detours[0].ID == args[0] && fmt.Sprint(list.Detours[0].Refused) == args[1]
				})
			},
			// waiting STREAM N wants so many messages in a stream, soon.
			"waiting": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.ParseUint(args[1], 10, 64)
				ts.Check(err)
				for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
					stream, err := js.Stream(t.Context(), args[0])
					ts.Check(err)
					info, err := stream.Info(t.Context())
					ts.Check(err)
					if info.State.Msgs == want {
						return
					}
					if time.Now().After(end) {
						ts.Fatalf("%s holds %d messages, want %d", args[0], info.State.Msgs, want)
					}
				}
			},
		},
	})
}

// setid NAME FILE sets a variable to the id in a file of JSON.
func setID(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: setid NAME FILE")
	}
	var v struct{ ID string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &v))
	if v.ID == "" {
		ts.Fatalf("%s has no id", args[1])
	}
	ts.Setenv(args[0], v.ID)
}
