package commands

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/ledger"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// fieldView is one field of a form.
type fieldView struct {
	Name, Label, Help string
	Kind              string // text, code, area, select, check
	Value, Wrong      string
	Options           []component.Option
	Checked           bool
	Required          bool
	Focus             bool
	Wide              bool
	Numeric           bool
	List              string // of offers
}

// ID is the element's.
func (f fieldView) ID() string { return "f-" + f.Name }

// sectionView is a group of fields.
type sectionView struct {
	Title, Text string
	Fields      []fieldView
	Folded      bool
}

type kindChoice struct {
	Act
	Does string
}

type formView struct {
	Kind     string
	Title    string
	Does     string
	Level    string
	EnvName  string
	Wrong    string
	Note     string
	Why      string // it cannot be asked for
	Sections []sectionView
	Steps    *stepsView
	Hidden   []component.Pair
	Back     string
	Kinds    []kindChoice // where no kind was chosen
	Envs     []string
	Brokers  []string
}

// maxForm is what a form may send: a schema and a body fit.
const maxForm = 256 << 10

func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return nil, fmt.Errorf("%w: form: %w", controlbus.ErrInvalid, err)
	}
	return r.PostForm, nil
}

// offered are the kinds in the chooser's order.
var offered = []controlbus.CommandKind{
	controlbus.CommandRedrive, controlbus.CommandReplay, controlbus.CommandTest, controlbus.CommandDetour, controlbus.CommandPause, controlbus.CommandResume,
	controlbus.CommandTap, controlbus.CommandUntap, controlbus.CommandUndetour, controlbus.CommandDiscard, controlbus.CommandPurge,
}

func (p *Pages) form(w http.ResponseWriter, r *http.Request) error {
	f := r.URL.Query()
	if like := controlbus.CommandID(f.Get("like")); like != "" {
		// The same as an earlier command, for changing.
		ctx, cancel := page.Bound(r, p.site.Timeout)
		defer cancel()
		c, err := p.svc.Command(ctx, like)
		if err != nil {
			return err
		}
		f = values(&c.CommandSpec)
	}
	return p.showForm(w, r, f, nil, nil)
}

// NewDetour is the form of a detour at an address of its own.
func (p *Pages) NewDetour(w http.ResponseWriter, r *http.Request) error {
	f := r.URL.Query()
	f.Set("kind", string(controlbus.CommandDetour))
	return p.showForm(w, r, f, nil, nil)
}

// reform shows the form again with a step more, fewer, or moved. It changes
// nothing.
func (p *Pages) reform(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(w, r)
	if err != nil {
		return err
	}
	if err := editSteps(f); err != nil {
		return err
	}
	return p.showForm(w, r, f, nil, nil)
}

func (p *Pages) showForm(w http.ResponseWriter, r *http.Request, f url.Values, faults map[string]string, wrong error) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	kind := controlbus.CommandKind(f.Get("kind"))
	if _, ok := kind.Info(); kind != "" && (!ok || kind == controlbus.CommandPeek) {
		return fmt.Errorf("%w: kind %.40q: want one of those offered", controlbus.ErrInvalid, string(kind))
	}
	ch := target(f)
	v.Env = ch.Env
	m := formView{Kind: string(kind), EnvName: component.Visible(ch.Env), Level: page.Level(ch.Env), Envs: v.Envs, Brokers: p.brokers(r.Context()), Back: "/control"}
	if ch.Name != "" {
		m.Back = v.Channel(ch)
	}
	options := page.Options{Title: "New command", Area: "control", Still: true}
	if kind == "" {
		m.Title = "What is to be done?"
		for _, k := range offered {
			if k == controlbus.CommandUndetour || k == controlbus.CommandUntap {
				continue // begun where the detour or the tap is
			}
			id, _ := access.From(r.Context())
			a := Act{Label: kindWords[k].name, Icon: kindIcon(k), URL: NewURL(k, ch)}
			if need := ledger.Action(k); !id.Somewhere(need) {
				a.Why = id.Why(need)
			}
			m.Kinds = append(m.Kinds, kindChoice{Act: a, Does: kindWords[k].does})
		}
		return v.Render(w, options, Form(m))
	}
	m.Title = kindWords[kind].name
	if ch.Name != "" {
		m.Title += " " + map[bool]string{true: "into ", false: ""}[kind == controlbus.CommandReplay || kind == controlbus.CommandTest] + component.Visible(ch.Name)
	}
	m.Does = kindWords[kind].does
	options.Title = m.Title
	if ch.Name != "" && ch.Broker != "" {
		m.Why, m.Note = Able(r.Context(), p.svc.Abilities(r.Context(), ch.Env, ch.Broker), kind, ch)
	}
	b := builder{f: f, faults: faults, now: v.Now}
	m.Sections = b.sections(kind, v.Envs)
	m.Hidden = []component.Pair{{Name: "kind", Value: string(kind)}}
	if s := f.Get("system"); s != "" {
		m.Hidden = append(m.Hidden, component.Pair{Name: "system", Value: s})
	}
	if kind == controlbus.CommandDetour {
		m.Steps = b.steps()
	}
	if len(faults) > 0 {
		options.Status = http.StatusBadRequest
		m.Wrong = "Nothing was asked for yet. " + component.Plural(len(faults), "field") + " cannot be read; each says what to type."
		if text := faults[""]; text != "" {
			m.Wrong = "Nothing was asked for yet. " + text
		}
	}
	if wrong != nil {
		options.Status = statusOf(wrong)
		text, _ := reason(wrong)
		m.Wrong = "No preview, and nothing was done. " + text
	}
	return v.Render(w, options, Form(m))
}

// target is the channel a form is about.
func target(f url.Values) controlbus.ChannelName {
	return controlbus.ChannelName{
		Env: strings.TrimSpace(f.Get("env")), System: f.Get("system"), Broker: strings.TrimSpace(f.Get("broker")), Name: strings.TrimSpace(f.Get("channel")),
	}
}

// preview asks for the preview of what the form says, and leads to it.
func (p *Pages) preview(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(w, r)
	if err != nil {
		return err
	}
	id, _ := access.From(r.Context())
	q, faults := p.request(r.Context(), f, id, p.site.Now())
	if len(faults) > 0 {
		return p.showForm(w, r, f, faults, nil)
	}
	ctx, cancel := context.WithTimeout(r.Context(), waiting)
	defer cancel()
	d, err := p.svc.Preview(ctx, q)
	if err != nil {
		if _, mine := reason(err); mine {
			return p.showForm(w, r, f, nil, err)
		}
		return err
	}
	http.Redirect(w, r, draftURL(d.ID), http.StatusSeeOther)
	return nil
}

// builder makes fields with their values and what is wrong with them.
type builder struct {
	f       url.Values
	faults  map[string]string
	now     time.Time
	focused bool
}

// field has its value raw: the input must send back the name that was asked for,
// however strange it is; templ escapes it.
func (b *builder) field(kind, name, label, help, otherwise string) fieldView {
	v := fieldView{Name: name, Label: label, Help: help, Kind: kind, Value: otherwise, Wrong: b.faults[name]}
	if b.f.Has(name) {
		v.Value = b.f.Get(name)
	}
	if v.Wrong != "" && !b.focused {
		v.Focus, b.focused = true, true
	}
	return v
}

func (b *builder) text(name, label, help, otherwise string) fieldView {
	return b.field("text", name, label, help, otherwise)
}

func (b *builder) code(name, label, help, otherwise string) fieldView {
	return b.field("code", name, label, help, otherwise)
}

func (b *builder) check(name, label, help string) fieldView {
	v := b.field("check", name, label, help, "")
	v.Checked = b.f.Get(name) != ""
	return v
}

func (b *builder) choose(name, label, help string, all ...component.Pair) fieldView {
	v := b.field("select", name, label, help, "")
	for _, o := range all {
		v.Options = append(v.Options, component.Option{Label: o.Value, URL: o.Name, Current: o.Name == b.f.Get(name)})
	}
	return v
}

func wide(v fieldView) fieldView { v.Wide = true; return v }

func numeric(v fieldView) fieldView { v.Numeric = true; return v }

const filterHelp = "in the language of the search; empty takes all"

// sections are a kind's fields.
func (b *builder) sections(kind controlbus.CommandKind, envs []string) []sectionView {
	env := b.text("env", "Environment", "", "")
	env.List = "envs"
	if b.f.Get("env") == "" && len(envs) == 1 {
		env.Value = component.Visible(envs[0])
	}
	broker := b.text("broker", "Broker", "as agents name it", "")
	broker.List = "brokers"
	where := sectionView{Title: "Channel", Fields: []fieldView{env, broker, b.code("channel", "Channel", "", "")}}
	for i := range where.Fields {
		where.Fields[i].Required = true
	}
	fails := "Share that cannot be sent, such as 5 %; empty never stops"
	if kind == controlbus.CommandRedrive {
		fails = "Share that cannot be sent or comes back dead, such as 5 %; whatever arrives dead meanwhile counts; empty never stops"
	}
	pace := sectionView{Title: "Pace", Text: "A canary first: so many messages, a look at what became of them, then the next step.", Fields: []fieldView{
		numeric(b.text("rate", "At most, per second", "such as 50; empty is as fast as the broker confirms", "50")),
		b.text("ramp", "Ramp", "messages per step; empty sends all at once", rampText(controlbus.DefaultRamp())),
		b.text("settle", "Look after each step", "such as 2s or 1m", ""),
		b.text("stop_ratio", "Stop when more fail than", fails, "5 %"),
		numeric(b.text("stop_min", "but not before so many", "", "20")),
		numeric(b.text("max", "At most so many messages", "empty takes what the preview counts", "")),
	}}
	filter := wide(b.code("filter", "Only messages that match", filterHelp, ""))
	var out []sectionView
	switch kind {
	case controlbus.CommandPurge:
		out = []sectionView{where, {Title: "What", Fields: []fieldView{filter, b.choose("backup", "Copy", "from a copy they can be put back",
			component.Pair{Name: "", Value: "keep a copy with the agent"}, component.Pair{Name: "none", Value: "keep none: they are gone for good"})}}}
	case controlbus.CommandDiscard:
		pace.Folded = true
		pace.Text = ""
		pace.Fields = []fieldView{numeric(b.text("rate", "At most, per second", "empty is as fast as the broker confirms", "")), numeric(b.text("max", "At most so many messages", "empty takes what the preview counts", ""))}
		out = []sectionView{where, {Title: "What", Text: "The agent keeps a copy of what it discards.", Fields: []fieldView{filter}}, pace}
	case controlbus.CommandRedrive:
		where.Title = "Dead-letter channel"
		out = []sectionView{where, {Title: "What, and where to", Fields: []fieldView{filter,
			b.code("to_channel", "To channel", "empty: each goes to where it died", ""),
			b.check("force", "Also those that were redriven "+strconv.Itoa(controlbus.MaxRedrives)+" times before", "")}}, pace}
	case controlbus.CommandReplay:
		where.Title = "To"
		since, until := b.code("since", "Stored from", "a time such as 2026-11-21T14:00:00Z, or how long ago, such as 2h", "1h"), b.code("until", "to", "empty: now", "")
		fromEnv := b.text("from_env", "Environment they are from", "", b.f.Get("env"))
		fromEnv.List = "envs"
		what := sectionView{Title: "What", Text: "From the message store, in the order of their time, each marked as replayed. What was masked or cut when it was tapped is left alone and counted.", Fields: []fieldView{fromEnv, since, until, filter}}
		if b.f.Get("uid") != "" {
			uid := wide(b.code("uid", "Messages, by their ids in the store", "one or several", ""))
			what.Fields = []fieldView{fromEnv, uid}
		}
		out = []sectionView{what, where, pace}
	case controlbus.CommandTest:
		body := wide(b.field("area", "body", "Body", "", `{"test": true}`))
		headers := wide(b.field("area", "headers", "Headers", "one a line: name: value", ""))
		out = []sectionView{where, {Title: "Message", Text: "It carries the header " + controlbus.HeaderTest + ", by which its way is followed.", Fields: []fieldView{
			b.code("content_type", "Content type", "", "application/json"), b.code("key", "Routing key or subject", "where the channel has more than one", ""), body, headers,
			b.check("separate", "Keep it from business consumers where the broker can", "")}}}
	case controlbus.CommandPause:
		out = []sectionView{where, {Title: "How long", Text: "It always ends by itself.", Fields: []fieldView{
			b.text("for", "Pause for", "such as 15m; at most "+component.Span(controlbus.MaxPause), "15m"), b.code("consumer", "Only this consumer or group", "empty: all", "")}}}
	case controlbus.CommandTap:
		out = []sectionView{where, {Title: "How long", Fields: []fieldView{b.text("for", "Tap for", "such as 1h; it ends by itself", "1h"), b.text("max_bytes", "Of each body at most", "such as 64kb; empty: as the agent has it", "")}}}
	case controlbus.CommandDetour:
		out = []sectionView{where, {Title: "Terms", Text: "A detour has an owner, a reason and an end. When it ends, what waits is worked off before the direct way is restored.", Fields: []fieldView{
			b.code("id", "Name", "letters, digits, - and _", detourName(b.f.Get("channel"))), b.text("for", "Ends by itself after", "such as 30m or 2d; at most "+component.Span(controlbus.MaxDetour), "1h"), filter,
			b.choose("on_failure", "What fails a step", "after its retries", component.Pair{Name: "", Value: "is parked"}, component.Pair{Name: string(controlbus.DetourBypass), Value: "goes on without the step"}),
			b.code("park", "Park in", "empty: in a channel of the detour's own", ""), b.code("to", "Go on to", "where the broker cannot give messages back to the channel itself", "")}}}
	case controlbus.CommandUndetour:
		out = []sectionView{where, {Title: "Which", Fields: []fieldView{b.code("id", "Name of the detour", "", "")}}}
	case controlbus.CommandResume, controlbus.CommandUntap:
		out = []sectionView{where}
		if kind == controlbus.CommandResume {
			out = append(out, sectionView{Title: "Which", Fields: []fieldView{b.code("consumer", "Only this consumer or group", "empty: all", "")}})
		}
	}
	return append(out, sectionView{Title: "Patience", Folded: true, Fields: []fieldView{
		b.text("accept_within", "Wait for the agent at most", "then it expires and nothing was done", controlbusSpan(controlbus.DefaultAcceptWithin)),
		b.text("run_within", "Let it run at most", "then it stops where it is", controlbusSpan(controlbus.DefaultRunWithin)),
		b.check("look", "Look at waiting messages for the samples, even where that leaves a trace on the broker", ""),
	}})
}

func controlbusSpan(d time.Duration) string {
	s := d.String()
	s = strings.TrimSuffix(s, "0s")
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// detourName proposes one that is unique and still tells the channel.
func detourName(channel string) string {
	slug := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, channel)
	slug = strings.Trim(slug, "-")
	if len(slug) > 30 {
		slug = strings.Trim(slug[:30], "-")
	}
	return cmp.Or(slug, "detour") + "-" + strings.ToLower(rand.Text()[:5])
}

// stepsView is the editor of a detour's steps. It works without script: each
// button sends the form, which comes back with a step more, fewer or moved.
type stepsView struct {
	Steps []stepForm
	Wrong string
	Offer []component.Pair
}

type stepForm struct {
	N, Label, Kind string
	First, Last    bool
	Fields         []fieldView
}

// stepKinds are the steps offered, in the order of use.
var stepKinds = []component.Pair{
	{Name: "hold", Value: "hold: keep messages until the detour ends"},
	{Name: "validate", Value: "check bodies against a JSON Schema"},
	{Name: "headers", Value: "add or remove headers"},
	{Name: "rate", Value: "let so many per second pass"},
	{Name: "copy", Value: "copy to another channel"},
	{Name: "http", Value: "call an HTTP endpoint"},
	{Name: "channel", Value: "send through a channel of your own"},
}

var stepFields = map[string][]string{
	"hold": nil, "validate": {"schema"}, "headers": {"set", "remove"}, "rate": {"per_second"}, "copy": {"channel"},
	"http": {"url", "timeout", "retries", "replace"}, "channel": {"send", "receive"},
}

const maxSteps = 16

func stepName(i int, field string) string { return "s" + strconv.Itoa(i) + "_" + field }

func (b *builder) steps() *stepsView {
	m := &stepsView{Offer: stepKinds, Wrong: b.faults["steps"]}
	kinds := b.f["step"]
	kinds = kinds[:min(len(kinds), maxSteps)]
	for i, kind := range kinds {
		s := stepForm{N: strconv.Itoa(i), Kind: kind, First: i == 0, Last: i == len(kinds)-1}
		for _, k := range stepKinds {
			if k.Name == kind {
				s.Label = strings.ToUpper(k.Value[:1]) + k.Value[1:]
			}
		}
		at := func(name string) string { return stepName(i, name) }
		switch kind {
		case "validate":
			s.Fields = []fieldView{wide(b.field("area", at("schema"), "JSON Schema", "draft 2020-12; bodies that are not as it says are refused", "{\n  \"type\": \"object\",\n  \"required\": [\"orderId\"]\n}"))}
		case "headers":
			s.Fields = []fieldView{wide(b.field("area", at("set"), "Set", "one a line: name: value", "")), wide(b.code(at("remove"), "Remove", "names, with commas between", ""))}
		case "rate":
			s.Fields = []fieldView{numeric(b.text(at("per_second"), "Messages per second", "such as 10 or 0.5", ""))}
		case "copy":
			s.Fields = []fieldView{b.code(at("channel"), "Channel that gets the copy", "of the same broker", "")}
		case "http":
			s.Fields = []fieldView{wide(b.code(at("url"), "URL", "one that the agent's own configuration allows (commands.http_allow)", "")), b.text(at("timeout"), "Give up after", "such as 5s", "5s"),
				numeric(b.text(at("retries"), "Tries after the first", "0 to 10", "2")), b.check(at("replace"), "Its answer becomes the body", "")}
		case "channel":
			s.Fields = []fieldView{b.code(at("send"), "Send to", "", ""), b.code(at("receive"), "Get back from", "", "")}
		}
		m.Steps = append(m.Steps, s)
	}
	return m
}

// editSteps does what the pressed button says to the steps of a form.
func editSteps(f url.Values) error {
	type step struct {
		kind   string
		fields map[string]string
	}
	var all []step
	for i, kind := range f["step"] {
		s := step{kind, map[string]string{}}
		for _, name := range stepFields[kind] {
			if f.Has(stepName(i, name)) {
				s.fields[name] = f.Get(stepName(i, name))
			}
		}
		all = append(all, s)
	}
	for name := range f {
		if len(name) > 2 && name[0] == 's' && name[1] >= '0' && name[1] <= '9' && strings.Contains(name, "_") {
			f.Del(name)
		}
	}
	do, arg, _ := strings.Cut(f.Get("do"), "-")
	i, err := strconv.Atoi(arg)
	if do != "add" && (err != nil || i < 0 || i >= len(all)) {
		return fmt.Errorf("%w: %.40q: want a step that is there", controlbus.ErrInvalid, f.Get("do"))
	}
	switch do {
	case "add":
		kind := f.Get("add")
		if _, ok := stepFields[kind]; !ok {
			return fmt.Errorf("%w: step %.40q: want one of those offered", controlbus.ErrInvalid, kind)
		}
		if len(all) >= maxSteps {
			return fmt.Errorf("%w: at most %d steps", controlbus.ErrInvalid, maxSteps)
		}
		all = append(all, step{kind, nil})
		if n := len(all); n > 1 && all[n-2].kind == "hold" {
			all[n-1], all[n-2] = all[n-2], all[n-1] // nothing comes after hold
		}
	case "remove":
		all = slices.Delete(all, i, i+1)
	case "up":
		if i > 0 {
			all[i-1], all[i] = all[i], all[i-1]
		}
	case "down":
		if i+1 < len(all) {
			all[i], all[i+1] = all[i+1], all[i]
		}
	default:
		return fmt.Errorf("%w: %.40q: want add, remove, up or down", controlbus.ErrInvalid, do)
	}
	f.Del("step")
	f.Del("do")
	for i, s := range all {
		f.Add("step", s.kind)
		for name, value := range s.fields {
			f.Set(stepName(i, name), value)
		}
	}
	return nil
}

// faulty says that a folded section has a field to look at.
func faulty(s sectionView) bool {
	return slices.ContainsFunc(s.Fields, func(f fieldView) bool { return f.Wrong != "" || f.Checked })
}

// described are the attributes that tie a field to its help and its fault.
func described(f fieldView) templ.Attributes {
	a := templ.Attributes{}
	var by []string
	if f.Wrong != "" {
		a["aria-invalid"] = "true"
		by = append(by, f.ID()+"-wrong")
	}
	if f.Help != "" {
		by = append(by, f.ID()+"-help")
	}
	if len(by) > 0 {
		a["aria-describedby"] = strings.Join(by, " ")
	}
	if f.List != "" {
		a["list"] = f.List
	}
	if f.Numeric {
		a["inputmode"] = "decimal"
	}
	return a
}
