package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/test/dashboard"
)

// quiet are parts of expressions that not every broker and moment has something
// to show for: backlogs that shrink, and events that tell how long they took.
var quiet = []string{"/ 3600 > 0", "signalbox_traffic_latency_seconds"}

// Every panel and menu of the dashboards has something to show after a minute
// of the demo: what they ask for is what agents, services and the console
// itself really send.
func TestDashboards(t *testing.T) {
	dashboards, err := dashboard.Load("../../deploy/grafana/dashboards")
	if err != nil {
		t.Fatal(err)
	}
	p, console := demo(t, "-rate", "20", "-seed", "7")
	client := &http.Client{Timeout: 20 * time.Second}
	ask := func(endpoint string, form url.Values) (found int, err error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, console+"/prometheus/api/v1/"+endpoint, strings.NewReader(form.Encode()))
		if err != nil {
			return 0, err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		var answer struct {
			Status, Error string
			Data          json.RawMessage
		}
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Status != "success" {
			return 0, fmt.Errorf("%d %s: %w", res.StatusCode, answer.Error, err)
		}
		var result struct{ Result []json.RawMessage }
		var list []json.RawMessage
		if json.Unmarshal(answer.Data, &list) == nil {
			return len(list), nil
		}
		err = json.Unmarshal(answer.Data, &result)
		return len(result.Result), err
	}
	type question struct {
		where, endpoint string
		form            func() url.Values
	}
	var open []question
	for _, d := range dashboards {
		for _, panel := range d.Panels {
			for _, target := range panel.Targets {
				q := question{where: d.Title + ", " + panel.Title + ": " + target.Expr, endpoint: "query_range"}
				expr := d.Expand(target.Expr)
				q.form = func() url.Values {
					now := time.Now()
					return url.Values{"query": {expr}, "start": {fmt.Sprint(now.Add(-time.Hour).Unix())}, "end": {fmt.Sprint(now.Unix())}, "step": {"15"}}
				}
				if target.Instant {
					q.endpoint, q.form = "query", func() url.Values { return url.Values{"query": {expr}} }
				}
				if slices.ContainsFunc(quiet, func(part string) bool { return strings.Contains(target.Expr, part) }) {
					if _, err := ask(q.endpoint, q.form()); err != nil {
						t.Errorf("%s: %v", q.where, err)
					}
					continue
				}
				open = append(open, q)
			}
		}
		for _, v := range d.Templating.List {
			if selector, _, ok := dashboard.LabelValues(v.Definition); ok {
				form := url.Values{"match[]": {d.Expand(selector)}}
				open = append(open, question{d.Title + ", menu " + v.Name, "series", func() url.Values { return form }})
			}
		}
	}
	all, began := len(open), time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for len(open) > 0 && ctx.Err() == nil {
		// Somebody looks at the pages, too.
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, console+"/channels", nil)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := client.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		open = slices.DeleteFunc(open, func(q question) bool {
			n, err := ask(q.endpoint, q.form())
			if err != nil {
				t.Errorf("%s: %v", q.where, err)
			}
			return n > 0 || err != nil
		})
		select {
		case <-time.After(2 * time.Second):
		case <-p.Done():
			t.Fatalf("the demo ended:\n%s", p.Output())
		case <-ctx.Done():
		}
	}
	for _, q := range open {
		t.Errorf("nothing to show: %s", q.where)
	}
	t.Logf("%d of %d expressions have data after %v", all-len(open), all, time.Since(began).Round(time.Second))
}
