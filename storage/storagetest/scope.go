package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// scopes reads everything as somebody who may see a part.
func scopes(t *testing.T, s Store) {
	now := time.Now().UTC().Truncate(time.Minute).Add(-2 * time.Minute)
	trace := [16]byte{7, 7}
	b := s.NewBatch()
	where := []struct{ env, channel string }{{"prod", "orders.new"}, {"prod", "orders%_x"}, {"prod", "payments"}, {"test", "orders.new"}, {"", "orders.new"}}
	for i, w := range where {
		at := now.Add(time.Duration(i) * time.Second).UnixNano()
		b.AppendMessage(&controlbus.MessageEvent{UID: uid("scope", i), Time: at, Env: w.env, System: "nats", Broker: "n1", Destination: w.channel, MessageID: fmt.Sprint("m", i), CorrelationID: "c",
			TraceID: trace, Op: controlbus.OpTap, Body: []byte("body of " + w.channel), BodySize: 8, Tap: w.env + "/" + w.channel, Headers: []controlbus.Header{{Key: w.env + "/" + w.channel}}})
		b.AppendSpan(&storage.Span{Time: at, TraceID: trace, SpanID: [8]byte{byte(i + 1)}, Env: w.env, Name: "span", Service: "x", Destination: w.channel})
		b.AppendLog(&storage.Log{Time: at, UID: uid("log", i), Env: w.env, Service: "x", Body: "log", TraceID: trace, Destination: w.channel})
		b.AppendPane(&storage.Pane{Time: at, Env: w.env, System: "nats", Broker: "n1", Destination: w.channel, Op: controlbus.OpTap, Count: 10, Bytes: 90})
		b.AppendSample(&storage.Sample{Metric: controlbus.MetricChannelMessages, Series: uint64(100 + i), Kind: "gauge", Time: at, Value: 5, Labels: []storage.Attr{
			{Key: controlbus.AttrEnvironment, Value: w.env}, {Key: controlbus.AttrBroker, Value: "n1"}, {Key: controlbus.AttrDestination, Value: w.channel}, {Key: controlbus.AttrSystem, Value: "nats"}}})
	}
	// What belongs to no channel is for who may see all of them.
	b.AppendSpan(&storage.Span{Time: now.UnixNano(), TraceID: trace, SpanID: [8]byte{99}, Env: "prod", Name: "bare", Service: "x"})
	b.AppendLog(&storage.Log{Time: now.UnixNano(), UID: uid("bare log"), Env: "prod", Service: "x", Body: "bare", TraceID: trace})
	if err := s.Write(t.Context(), "scopes", b); err != nil {
		t.Fatal(err)
	}
	type rules = []controlbus.ScopeRule
	for _, c := range []struct {
		name  string
		scope controlbus.Scope
		want  []int // of where
		bare  bool
	}{
		{"everything", controlbus.Everything(), []int{0, 1, 2, 3, 4}, true},
		{"nothing", controlbus.Scope{}, nil, false},
		{"an environment", controlbus.NewScope(rules{{Env: "prod", Channel: "*"}}), []int{0, 1, 2}, true},
		{"environments by pattern", controlbus.NewScope(rules{{Env: "t*", Channel: "*"}}), []int{3}, false},
		{"a pattern", controlbus.NewScope(rules{{Env: "*", Channel: "orders.*"}}), []int{0, 3, 4}, false},
		{"wildcards of SQL are none", controlbus.NewScope(rules{{Env: "prod", Channel: "orders%_*"}}), []int{1}, false},
		{"two rules", controlbus.NewScope(rules{{Env: "prod", Channel: "payments"}, {Env: "test", Channel: "*"}}), []int{2, 3}, false},
		{"two sets", controlbus.NewScope(rules{{Env: "prod", Channel: "*"}}, rules{{Env: "*", Channel: "orders.*"}}), []int{0}, false},
		{"quotes are only text", controlbus.NewScope(rules{{Env: "prod' OR '1'='1", Channel: `\* OR 1`}}), nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := controlbus.WithScope(t.Context(), c.scope)
			r := storage.Last(time.Hour, now.Add(time.Minute))
			// check compares what an answer holds with where.
			check := func(what string, got []string, err error) {
				t.Helper()
				var want []string
				for _, i := range c.want {
					want = append(want, where[i].env+"/"+where[i].channel)
				}
				slices.Sort(got)
				slices.Sort(want)
				if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
					t.Errorf("%s: got %v, %v; want %v", what, got, err, want)
				}
			}
			names := func(list []storage.Message) (out []string) {
				for _, m := range list {
					out = append(out, m.Env+"/"+m.Destination)
				}
				return out
			}
			for _, q := range []storage.MessageQuery{{}, {Order: storage.OldestFirst}, {BodyWord: "body"}, {CorrelationID: "c"}, {Snippets: true}} {
				q.Range = r
				p, err := s.Messages(ctx, q)
				check(fmt.Sprintf("messages %+v", q), names(p.Messages), err)
			}
			for _, q := range []storage.MessageQuery{{Range: r}, {Range: r, BodyWord: "body"}} {
				h, err := s.Histogram(ctx, q, time.Minute)
				want := uint64(len(c.want))
				if q.Summed() {
					want *= 10
				}
				if err != nil || h.Messages != want {
					t.Errorf("histogram of %q: got %d, %v; want %d", q.BodyWord, h.Messages, err, want)
				}
			}
			for _, field := range []string{"tap", "header."} { // each message has its own
				list, err := s.FieldValues(ctx, storage.ValuesQuery{Range: r, Field: field})
				var got []string
				for _, v := range list {
					got = append(got, v.Value)
				}
				check("values of "+field, got, err)
			}
			channels := map[string]bool{}
			for _, i := range c.want {
				channels[where[i].channel] = true
			}
			if list, err := s.FieldValues(ctx, storage.ValuesQuery{Range: r, Field: "channel"}); err != nil || len(list) != len(channels) {
				t.Errorf("channels to complete: got %v, %v; want %v", list, err, channels)
			}
			var one []string
			for i := range where {
				d, err := s.Message(ctx, uid("scope", i), now)
				switch {
				case err == nil && d.BodyStored:
					one = append(one, d.Env+"/"+d.Destination)
				case !isNotFound(err):
					t.Errorf("message %d: got body %v, %v", i, d.BodyStored, err)
				}
			}
			check("each message", one, nil)
			everything, err := s.Messages(t.Context(), storage.MessageQuery{Range: r})
			if err != nil {
				t.Fatal(err)
			}
			if bodies, err := s.Bodies(ctx, everything.Messages); err != nil || len(bodies) != len(c.want) {
				t.Errorf("bodies: got %d, %v; want %d", len(bodies), err, len(c.want))
			}
			conv, err := s.Conversation(ctx, storage.ConversationQuery{Range: r, TraceID: trace})
			var messages, spans, logs []string
			bare := 0
			for _, e := range conv.Events {
				switch {
				case e.Message != nil:
					messages = append(messages, e.Message.Env+"/"+e.Message.Destination)
				case e.Span != nil && e.Span.Destination == "", e.Log != nil && e.Log.Destination == "":
					bare++
				case e.Span != nil:
					spans = append(spans, e.Span.Env+"/"+e.Span.Destination)
				case e.Log != nil:
					logs = append(logs, e.Log.Env+"/"+e.Log.Destination)
				}
			}
			check("messages of a conversation", messages, err)
			check("spans", spans, nil)
			check("logs", logs, nil)
			if (bare == 2) != c.bare || bare == 1 {
				t.Errorf("what belongs to no channel: got %d, want it seen %v", bare, c.bare)
			}
			list, err := s.Channels(ctx, storage.ChannelQuery{Range: r})
			var described, tapped []string
			for _, ch := range list {
				if !ch.SeenAt.IsZero() {
					described = append(described, ch.Env+"/"+ch.Name)
				}
				if ch.Tapped > 0 {
					tapped = append(tapped, ch.Env+"/"+ch.Name)
				}
			}
			check("channels as brokers describe them", described, err)
			check("channels as taps see them", tapped, nil)
			var charted []string
			for _, w := range where {
				cs, err := s.ChannelSeries(ctx, storage.SeriesQuery{Channel: controlbus.ChannelName{Env: w.env, System: "nats", Broker: "n1", Name: w.channel}, Range: r, Step: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range cs.Ready {
					if p.Value == 5 && (w.env != "" || c.scope.All()) {
						charted = append(charted, w.env+"/"+w.channel)
						break
					}
				}
			}
			if !slices.ContainsFunc(c.want, func(i int) bool { return where[i].env == "" }) || c.scope.All() { // an empty environment in a query is any
				check("charts", charted, nil)
			}
			sum, err := s.Totals(ctx, "", r)
			want := uint64(len(c.want))
			extra := uint64(0)
			if c.bare {
				extra = 1
			}
			if err != nil || sum.Messages != 10*want || sum.Channels != want || sum.Spans != want+extra || sum.Logs != want+extra {
				t.Errorf("totals: got %d messages, %d channels, %d spans, %d logs, %v; want them of %d", sum.Messages, sum.Channels, sum.Spans, sum.Logs, err, want)
			}
			envs, err := s.Environments(ctx, r)
			var wantEnvs []string
			for _, i := range c.want {
				if !slices.Contains(wantEnvs, where[i].env) {
					wantEnvs = append(wantEnvs, where[i].env)
				}
			}
			slices.Sort(wantEnvs)
			if err != nil || !slices.Equal(envs, wantEnvs) {
				t.Errorf("environments: got %q, %v; want %q", envs, err, wantEnvs)
			}
			if !c.scope.All() {
				if _, err := s.Invalid(ctx, r, 10); err == nil {
					t.Error("invalid messages, which belong to nobody, were shown to a limited reader")
				}
			}
		})
	}
}
