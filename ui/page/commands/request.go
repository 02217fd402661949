package commands

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/command"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page/problem"
)

// reader reads fields and notes what is wrong, by the field's name.
type reader struct {
	f      url.Values
	now    time.Time
	faults map[string]string
}

func (r *reader) get(name string) string { return strings.TrimSpace(r.f.Get(name)) }

func (r *reader) wrong(name, text string) {
	if r.faults[name] == "" {
		r.faults[name] = component.Visible(text)
	}
}

func (r *reader) duration(name string, otherwise time.Duration) time.Duration {
	s := r.get(name)
	if s == "" {
		return otherwise
	}
	d, err := parseSpan(s)
	if err != nil {
		r.wrong(name, "Type a duration such as 30s, 15m, 2h or 3d.")
	}
	return d
}

func (r *reader) number(name string) int64 {
	s := strings.ReplaceAll(r.get(name), ",", "")
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		r.wrong(name, "Type a whole number, such as 100.")
	}
	return n
}

func (r *reader) filter(name string) string {
	s := r.get(name)
	if s != "" {
		if _, err := filter.Parse(s, r.now); err != nil {
			r.wrong(name, sentence(strings.TrimPrefix(err.Error(), "invalid: ")))
		}
	}
	return s
}

// at reads a time, or how long ago.
func (r *reader) at(name string, otherwise time.Time) time.Time {
	s := r.get(name)
	if s == "" {
		return otherwise
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t
	}
	if d, err := parseSpan(s); err == nil {
		return r.now.Add(-d)
	}
	r.wrong(name, "Type a time such as 2026-11-21T14:00:00Z, or how long ago, such as 2h.")
	return otherwise
}

// pairs reads lines of name: value.
func (r *reader) pairs(name string) map[string]string {
	var out map[string]string
	for i, line := range strings.Split(strings.ReplaceAll(r.f.Get(name), "\r\n", "\n"), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		key = strings.TrimSpace(key)
		if !ok || key == "" {
			r.wrong(name, fmt.Sprintf("Line %d: type a name, a colon and a value, such as x-tenant: acme.", i+1))
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = strings.TrimSpace(value)
	}
	return out
}

func (r *reader) job() controlbus.JobOptions {
	var o controlbus.JobOptions
	var err error
	if o.Rate, err = parseRate(r.get("rate")); err != nil {
		r.wrong("rate", "Type messages per second, such as 50 or 0.5.")
	}
	for _, part := range strings.FieldsFunc(r.get("ramp"), func(c rune) bool { return c == ',' || c == ' ' || c == ';' }) {
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil || n <= 0 {
			r.wrong("ramp", "Type whole numbers with commas between, such as 1, 10, 100.")
			break
		}
		o.Ramp = append(o.Ramp, n)
	}
	o.Settle = r.duration("settle", 0)
	if s := strings.TrimSpace(strings.TrimSuffix(r.get("stop_ratio"), "%")); s != "" {
		p, err := strconv.ParseFloat(s, 64)
		if err != nil || !(p >= 0 && p <= 100) {
			r.wrong("stop_ratio", "Type a share such as 5 %, at most 100 %.")
		}
		o.StopRatio = math.Round(p*1e4) / 1e6
	}
	o.StopMin, o.Max = r.number("stop_min"), r.number("max")
	if o.StopRatio == 0 {
		o.StopMin = 0
	}
	if err := o.Check(); err != nil && len(r.faults) == 0 {
		r.wrong("rate", sentence(strings.TrimPrefix(err.Error(), "invalid: ")))
	}
	return o
}

// request is what a form asks for. faults name the fields that cannot be read
// and say what to type.
func (p *Pages) request(ctx context.Context, f url.Values, who access.Identity, now time.Time) (q command.Request, faults map[string]string) {
	r := &reader{f: f, now: now, faults: map[string]string{}}
	ch := target(f)
	q = command.Request{Kind: controlbus.CommandKind(f.Get("kind")), Env: ch.Env, Broker: ch.Broker, Channel: ch.Name, Look: f.Get("look") != ""}
	if _, ok := q.Kind.Info(); !ok {
		r.wrong("", "Choose what is to be done.")
		return q, r.faults
	}
	for name, value := range map[string]string{"env": ch.Env, "broker": ch.Broker, "channel": ch.Name} {
		if value == "" {
			r.wrong(name, "Type the "+map[string]string{"env": "environment", "broker": "broker's name", "channel": "channel's name"}[name]+".")
		}
	}
	q.AcceptWithin, q.RunWithin = r.duration("accept_within", 0), r.duration("run_within", 0)
	var args any
	switch q.Kind {
	case controlbus.CommandPurge:
		args = controlbus.PurgeArgs{Filter: r.filter("filter"), NoBackup: f.Get("backup") == "none"}
	case controlbus.CommandDiscard:
		args = controlbus.DiscardArgs{Filter: r.filter("filter"), Job: r.job()}
	case controlbus.CommandRedrive:
		args = controlbus.RedriveArgs{Filter: r.filter("filter"), Job: r.job(), Force: f.Get("force") != ""}
		if to := r.get("to_channel"); to != "" {
			q.Destination = &controlbus.ChannelName{Env: ch.Env, System: p.system(ctx, ch.Env, ch.Broker), Broker: ch.Broker, Name: to}
		}
	case controlbus.CommandReplay:
		sel := &controlbus.Selection{Env: r.get("from_env")}
		if sel.Env == "" {
			sel.Env = ch.Env
		}
		if uids := strings.Fields(f.Get("uid")); len(uids) > 0 {
			sel.UIDs = uids
			for _, u := range uids {
				if len(u) != 32 || strings.Trim(u, "0123456789abcdef") != "" {
					r.wrong("uid", "Type ids of the store: 32 hexadecimal digits each.")
				}
			}
			if len(uids) > 500 {
				r.wrong("uid", "At most 500 messages one by one; use a filter for more.")
			}
		} else {
			sel.Filter, sel.From, sel.To = r.filter("filter"), r.at("since", now.Add(-time.Hour)).UTC(), r.at("until", now).UTC()
			if !sel.From.Before(sel.To) {
				r.wrong("since", "The start must be before the end.")
			}
		}
		args = controlbus.ReplayArgs{Selection: sel, Job: r.job()}
	case controlbus.CommandTest:
		a := controlbus.TestArgs{Run: r.get("run"), ContentType: r.get("content_type"), Body: f.Get("body"), Headers: r.pairs("headers"), Key: r.get("key"), Separate: f.Get("separate") != ""}
		if a.Run == "" {
			a.Run = "t-" + strings.ToLower(rand.Text()[:12])
		}
		args = a
	case controlbus.CommandPause:
		a := controlbus.PauseArgs{For: r.duration("for", 0), Consumer: r.get("consumer")}
		if r.faults["for"] == "" && (a.For < time.Second || a.For > controlbus.MaxPause) {
			r.wrong("for", "Type a duration from 1s to "+component.Span(controlbus.MaxPause)+"; a pause always ends by itself.")
		}
		args = a
	case controlbus.CommandResume:
		args = controlbus.PauseArgs{Consumer: r.get("consumer")}
	case controlbus.CommandTap:
		a := controlbus.TapArgs{For: r.duration("for", 0)}
		if s := r.get("max_bytes"); s != "" {
			var err error
			if a.MaxBytes, err = parseBytes(s); err != nil {
				r.wrong("max_bytes", "Type a size such as 64kb or 1mb.")
			}
		}
		args = a
	case controlbus.CommandDetour:
		args = r.detour(who)
	case controlbus.CommandUndetour:
		a := controlbus.UndetourArgs{ID: r.get("id")}
		if a.ID == "" {
			r.wrong("id", "Type the name of the detour, as the page Detours has it.")
		}
		args = a
	}
	if args != nil {
		raw, err := json.Marshal(args)
		if err != nil {
			r.wrong("", sentence(err.Error()))
		}
		q.Args = raw
	}
	if len(q.Args) > controlbus.MaxCommandArgs {
		r.wrong("", fmt.Sprintf("Together the fields are %s: at most %s.", component.Size(int64(len(q.Args))), component.Size(controlbus.MaxCommandArgs)))
	}
	return q, r.faults
}

// detour reads a detour with its steps.
func (r *reader) detour(who access.Identity) controlbus.Detour {
	d := controlbus.Detour{
		ID: r.get("id"), To: r.get("to"), Owner: controlbus.Actor{Kind: string(who.Kind), ID: who.Person(), Name: who.Name}, For: r.duration("for", 0), Filter: r.filter("filter"),
		OnFailure: controlbus.DetourFailure(r.get("on_failure")), Park: r.get("park"),
	}
	for i, kind := range r.f["step"] {
		at := func(name string) string { return stepName(i, name) }
		var s controlbus.DetourStep
		switch kind {
		case "hold":
			s.Hold = &controlbus.HoldStep{}
		case "validate":
			raw := json.RawMessage(strings.TrimSpace(r.f.Get(at("schema"))))
			if !json.Valid(raw) {
				var text any
				r.wrong(at("schema"), "This is not JSON: "+sentence(fmt.Sprint(json.Unmarshal(raw, &text))))
				raw = json.RawMessage("{}")
			}
			s.Validate = &controlbus.ValidateStep{Schema: raw}
		case "headers":
			s.Headers = &controlbus.HeadersStep{Set: r.pairs(at("set")), Remove: strings.FieldsFunc(r.f.Get(at("remove")), func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\r' })}
			if len(s.Headers.Set)+len(s.Headers.Remove) == 0 {
				r.wrong(at("set"), "Type a header to set, or one to remove.")
			}
		case "rate":
			n, err := parseRate(r.get(at("per_second")))
			if err != nil || n <= 0 {
				r.wrong(at("per_second"), "Type messages per second, more than 0.")
			}
			s.Rate = &controlbus.RateStep{PerSecond: n}
		case "copy":
			if s.Copy = (&controlbus.CopyStep{Channel: r.get(at("channel"))}); s.Copy.Channel == "" {
				r.wrong(at("channel"), "Type the channel's name.")
			}
		case "http":
			s.HTTP = &controlbus.HTTPStep{URL: r.get(at("url")), Timeout: r.duration(at("timeout"), 0), Retries: int(min(r.number(at("retries")), 11)), Replace: r.f.Get(at("replace")) != ""}
			if u, err := url.Parse(s.HTTP.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				r.wrong(at("url"), "Type an address such as https://checks.example/orders.")
			}
			if s.HTTP.Timeout > time.Minute {
				r.wrong(at("timeout"), "At most 1m.")
			}
			if s.HTTP.Retries > 10 {
				r.wrong(at("retries"), "At most 10.")
			}
		case "channel":
			s.Channel = &controlbus.ChannelStep{Send: r.get(at("send")), Receive: r.get(at("receive"))}
			if s.Channel.Send == "" || s.Channel.Receive == "" || s.Channel.Send == s.Channel.Receive {
				r.wrong(at("send"), "Type two channels: one to send to, another to get back from.")
			}
		}
		d.Steps = append(d.Steps, s)
	}
	switch {
	case len(d.Steps) == 0:
		r.wrong("steps", "Add at least one step: what a detour without one would do, the direct way does.")
	case r.faults["for"] == "" && (d.For < time.Second || d.For > controlbus.MaxDetour):
		r.wrong("for", "Type a duration from 1s to "+component.Span(controlbus.MaxDetour)+"; a detour always ends by itself.")
	}
	if len(r.faults) == 0 {
		if err := d.Check(); err != nil {
			name := "steps"
			if strings.Contains(err.Error(), "detour: id ") {
				name = "id"
			}
			r.wrong(name, sentence(strings.TrimPrefix(err.Error(), "invalid: detour: ")))
		}
	}
	return d
}

// system is a broker's kind, as the fleet has it.
func (p *Pages) system(ctx context.Context, env, broker string) string {
	if p.agents == nil {
		return ""
	}
	for _, a := range p.agents.Agents(ctx) {
		for _, b := range a.Brokers {
			if a.Env == env && b.Name == broker {
				return b.System
			}
		}
	}
	return ""
}

// values are the fields that ask for the same as a command did.
func values(s *controlbus.CommandSpec) url.Values {
	f := url.Values{}
	set := func(name, value string) {
		if value != "" {
			f.Set(name, value)
		}
	}
	flag := func(name string, on bool) {
		if on {
			f.Set(name, "1")
		}
	}
	job := func(o controlbus.JobOptions) {
		f.Set("rate", rateText(o.Rate))
		f.Set("ramp", strings.ReplaceAll(rampText(o.Ramp), ",000", "000"))
		if o.Settle > 0 {
			set("settle", o.Settle.String())
		}
		f.Set("stop_ratio", "")
		if o.StopRatio > 0 {
			set("stop_ratio", percent(o.StopRatio))
			set("stop_min", strconv.FormatInt(o.StopMin, 10))
		}
		if o.Max > 0 {
			set("max", strconv.FormatInt(o.Max, 10))
		}
	}
	ch := s.Target.Channel
	set("kind", string(s.Kind))
	set("env", ch.Env)
	set("broker", ch.Broker)
	set("system", ch.System)
	set("channel", ch.Name)
	if s.AcceptWithin > 0 {
		set("accept_within", controlbusSpan(s.AcceptWithin))
	}
	if s.RunWithin > 0 {
		set("run_within", controlbusSpan(s.RunWithin))
	}
	switch s.Kind {
	case controlbus.CommandPurge:
		a := rawArgs[controlbus.PurgeArgs](s.Args)
		set("filter", a.Filter)
		if a.NoBackup {
			set("backup", "none")
		}
	case controlbus.CommandDiscard:
		a := rawArgs[controlbus.DiscardArgs](s.Args)
		set("filter", a.Filter)
		job(a.Job)
	case controlbus.CommandRedrive:
		a := rawArgs[controlbus.RedriveArgs](s.Args)
		set("filter", a.Filter)
		flag("force", a.Force)
		job(a.Job)
		if s.Destination != nil {
			set("to_channel", s.Destination.Name)
		}
	case controlbus.CommandReplay:
		a := rawArgs[controlbus.ReplayArgs](s.Args)
		if sel := a.Selection; sel != nil {
			set("from_env", sel.Env)
			set("uid", strings.Join(sel.UIDs, " "))
			set("filter", sel.Filter)
			if len(sel.UIDs) == 0 {
				set("since", sel.From.UTC().Format(time.RFC3339Nano))
				set("until", sel.To.UTC().Format(time.RFC3339Nano))
			}
		}
		job(a.Job)
	case controlbus.CommandTest:
		a := rawArgs[controlbus.TestArgs](s.Args)
		set("content_type", a.ContentType)
		set("key", a.Key)
		f.Set("body", a.Body)
		flag("separate", a.Separate)
		set("headers", pairText(a.Headers))
	case controlbus.CommandPause, controlbus.CommandResume:
		a := rawArgs[controlbus.PauseArgs](s.Args)
		set("consumer", a.Consumer)
		if a.For > 0 {
			set("for", controlbusSpan(a.For))
		}
	case controlbus.CommandTap:
		a := rawArgs[controlbus.TapArgs](s.Args)
		if a.For > 0 {
			set("for", controlbusSpan(a.For))
		}
		if a.MaxBytes > 0 {
			set("max_bytes", strconv.FormatInt(a.MaxBytes, 10))
		}
	case controlbus.CommandUndetour:
		set("id", rawArgs[controlbus.UndetourArgs](s.Args).ID)
	case controlbus.CommandDetour:
		a := rawArgs[controlbus.Detour](s.Args)
		set("for", controlbusSpan(a.For)) // a new name: the old one may still stand
		set("to", a.To)
		set("filter", a.Filter)
		set("park", a.Park)
		set("on_failure", string(a.OnFailure))
		for i, step := range a.Steps {
			f.Add("step", step.Name())
			at := func(name, value string) { f.Set(stepName(i, name), value) }
			switch {
			case step.Validate != nil:
				at("schema", string(step.Validate.Schema))
			case step.Headers != nil:
				at("set", pairText(step.Headers.Set))
				at("remove", strings.Join(step.Headers.Remove, ", "))
			case step.Rate != nil:
				at("per_second", rateText(step.Rate.PerSecond))
			case step.Copy != nil:
				at("channel", step.Copy.Channel)
			case step.HTTP != nil:
				at("url", step.HTTP.URL)
				at("timeout", step.HTTP.Timeout.String())
				at("retries", strconv.Itoa(step.HTTP.Retries))
				if step.HTTP.Replace {
					at("replace", "1")
				}
			case step.Channel != nil:
				at("send", step.Channel.Send)
				at("receive", step.Channel.Receive)
			}
		}
	}
	return f
}

func pairText(m map[string]string) string {
	var b strings.Builder
	for _, k := range sortedKeys(m) {
		b.WriteString(k + ": " + m[k] + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func rateText(r float64) string {
	if r == 0 {
		return ""
	}
	return strconv.FormatFloat(r, 'g', -1, 64)
}

// parseRate reads messages per second: 50, 0.5, 50/s, 1,000. Nothing is no
// limit.
func parseRate(s string) (float64, error) {
	s = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(s), "/s"))
	if s == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, ",", ""), 64)
	if err != nil || !(f >= 0 && f <= 1e6) {
		return 0, fmt.Errorf("%w: rate %.40q: want messages per second, such as 50, at most 1,000,000", controlbus.ErrInvalid, s)
	}
	return f, nil
}

// parseSpan is time.ParseDuration with days.
func parseSpan(s string) (time.Duration, error) {
	s = strings.ReplaceAll(strings.TrimSpace(s), " ", "")
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !(n >= 0 && n <= 4000) {
			return 0, fmt.Errorf("%w: duration %.40q", controlbus.ErrInvalid, s)
		}
		return time.Duration(n * float64(24*time.Hour)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%w: duration %.40q", controlbus.ErrInvalid, s)
	}
	return d, nil
}

// parseBytes reads a size with its unit.
func parseBytes(s string) (int64, error) {
	s = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), " ", ""))
	unit := int64(1)
	for _, u := range []struct {
		suffix string
		n      int64
	}{{"kb", 1000}, {"mb", 1e6}, {"k", 1000}, {"m", 1e6}, {"b", 1}} {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = rest, u.n
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<40/unit {
		return 0, fmt.Errorf("%w: size %.40q", controlbus.ErrInvalid, s)
	}
	return n * unit, nil
}

// statusOf is the status of a page that shows a form again.
func statusOf(err error) int {
	if errors.Is(err, context.DeadlineExceeded) {
		return http.StatusGatewayTimeout
	}
	a, _ := problem.Of(err)
	return a.Status
}
