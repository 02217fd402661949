package health

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/overview"
)

type facts struct {
	Snapshot
	Now       time.Time
	Troubles  []overview.Trouble
	Tables    []storage.TableSize
	TablesErr error
	Agents    []controlbus.AgentView
	HasAgents bool
}

type view struct {
	Title, Sub string
	Started    time.Time
	Checks     []Check
	Figures    []component.Figure
	Queries    []queryRow
	Tables     []tableRow
	TablesSub  string
	TablesDown string
	Shed       []shedRow
	Spools     []spoolRow
	AgentsURL  string
}

// Check is one thing that is measured: how it is, what it means, what to do.
type Check struct {
	State                  component.State
	Name, Value, Means, Do string
	URL, Go                string
	Bad                    bool // its advice is shown at once
	Share                  float64
	HasShare               bool
	Since                  time.Time
	weight                 int
}

type queryRow struct{ Kind, Count, P50, P95, Max string }

type tableRow struct {
	Name, Rows, Bytes, Parts, Days, Holds string
	Share                                 float64
	Oldest                                string // a day of UTC: partitions are such days
}

type shedRow struct{ What, Reason, N, Means string }

type spoolRow struct {
	Agent, Text, Records string
	Share                float64
	State                component.State
	Sent                 time.Time
}

func ok(word string) component.State { return component.State{Kind: component.Clear, Word: word} }
func caution(word string) component.State {
	return component.State{Kind: component.Caution, Word: word}
}
func stop(word string) component.State { return component.State{Kind: component.Stop, Word: word} }

func build(v *page.View, f facts) view {
	m := view{Started: f.Started, AgentsURL: v.URL("/agents")}
	m.Checks = []Check{ingest(f), queue(f), shed(f), engine(f), state(f), disk(f), quarantine(f), invalid(v, f), queries(f), taps(f)}
	if f.HasAgents {
		m.Checks = append(m.Checks, spools(v, f))
	}
	for i := range m.Checks {
		switch m.Checks[i].State.Kind {
		case component.Stop, component.Failed:
			m.Checks[i].weight, m.Checks[i].Bad = 2, true
		case component.Caution:
			m.Checks[i].weight, m.Checks[i].Bad = 1, true
		}
	}
	slices.SortStableFunc(m.Checks, func(a, b Check) int { return cmp.Compare(b.weight, a.weight) })
	m.say(f)
	m.figures(v, f)
	m.details(f)
	return m
}

func (m *view) say(f facts) {
	bad, worst := 0, Check{}
	for _, c := range m.Checks {
		if c.Bad {
			if bad == 0 {
				worst = c
			}
			bad++
		}
	}
	switch {
	case bad == 0:
		m.Title = "Signalbox keeps up"
	case worst.weight == 1 && bad == 1:
		m.Title = "Signalbox keeps up, one thing to look at: " + strings.ToLower(worst.Name[:1]) + worst.Name[1:]
	case worst.weight == 1:
		m.Title = "Signalbox keeps up, " + component.Plural(bad, "thing") + " to look at"
	case bad == 1:
		m.Title = worst.Name + ": " + worst.State.Word + ", everything else is well"
	default:
		m.Title = worst.Name + ": " + worst.State.Word + ", and " + component.Plural(bad-1, "more thing") + " to look at"
	}
	store := "its own ClickHouse " + component.Visible(f.Server)
	if f.Engine == nil {
		store = "ClickHouse " + component.Visible(f.Server)
	}
	m.Sub = component.Count(f.Accepted) + " requests from " + component.Plural(f.Senders, "numbered sender") + " became " + component.Count(f.Rows) + " rows in " + store + "."
}

func ingest(f facts) Check {
	c := Check{Name: "Ingest lag", Value: component.Span(f.Lag.Round(100 * time.Millisecond)), State: ok("keeps up"), Since: f.ErrorSince,
		Means: "How long the oldest telemetry that was received waits to be stored. Pages and searches are behind by as much; live taps are not.",
		Do:    "If it grows, the store is too slow or away: see the store and the disk below. Nothing is lost while the queue has room."}
	switch {
	case f.WriteError != "":
		c.State, c.Means = stop("nothing is stored"), component.Visible(f.WriteError)+". "+c.Means
	case f.Lag > 30*time.Second:
		c.State = stop("behind")
	case f.Lag > 10*time.Second:
		c.State = caution("falls behind")
	case f.Lag < time.Second:
		c.Value = "under 1 s"
	}
	return c
}

func queue(f facts) Check {
	c := Check{Name: "Queue on disk", State: ok("room"), HasShare: true,
		Value: component.Size(f.Queue) + " of " + component.Size(f.QueueMax) + ", " + component.Size(f.Pending) + " not stored yet",
		Means: "Requests are acknowledged once they are in this queue (" + component.Visible(f.QueueDir) + "), so a crash loses nothing. What is stored is removed segment by segment.",
		Do:    "When it is full, senders are told to come back later and agents keep messages on their own disk. Find out why the store is behind; raise collector.max_bytes if the disk has room."}
	if f.QueueMax > 0 {
		c.Share = float64(f.Queue) / float64(f.QueueMax)
	}
	switch {
	case c.Share >= .9:
		c.State = stop("nearly full")
	case c.Share >= .5:
		c.State = caution("fills up")
	}
	return c
}

// meanings say what a reason to refuse or drop means.
var meanings = map[string]string{
	"queue_full":       "The queue on disk was full: the store is behind.",
	"disk":             "The disk did not take the request.",
	"malformed":        "The request was no OTLP; its sender was told and does not repeat it.",
	"too_many_senders": "More numbered senders than collector.max_senders.",
	"slow_reader":      "A browser or program read its live tap too slowly; the tap says so where it happened.",
	"max_taps":         "As many live taps as live.max_taps were open.",
	"other":            "The log names the cause.",
}

func shed(f facts) Check {
	var lost, told uint64
	for _, s := range f.Shed {
		switch s.Reason {
		case "malformed", "slow_reader", "max_taps":
			told += s.N
		default:
			lost += s.N
		}
	}
	c := Check{Name: "Shed", State: ok("nothing"), Value: component.Count(lost+told) + " since the start",
		Means: "What was refused or dropped, by reason. Agents repeat what was refused; services may not.",
		Do:    "The table below has the reasons. Requests refused because the queue is full stop once the store catches up."}
	switch {
	case lost > 0:
		c.State = caution("refused")
	case told > 0:
		c.State = component.State{Kind: component.Off, Word: "refused rightly"}
	}
	return c
}

func engine(f facts) Check {
	c := Check{Name: "Store", State: ok("answers"), Value: "ClickHouse " + component.Visible(f.Server),
		Means: "Messages, histories and metrics are kept in it.",
		Do:    "See its own log and system tables; signalbox logs every query that failed."}
	if f.TablesErr != nil {
		c.State, c.Means = stop("does not answer"), component.Visible(f.TablesErr.Error())+". What arrives meanwhile stays in the queue."
	}
	e := f.Engine
	if e == nil {
		return c
	}
	c.Value += ", embedded, " + component.Plural(e.Restarts, "restart")
	c.Means = "The embedded ClickHouse is a process of its own; when it ends, it is started again, and what was not stored is written again without counting twice."
	c.Do = "Restarts come from too little memory (storage.engine.memory_limit) or a damaged disk. The log has the last words of the process."
	switch {
	case !e.Running:
		c.State, c.Since = stop(component.Visible(e.State)), e.Since
		if e.LastError != "" {
			c.Means = component.Visible(e.LastError) + ". " + c.Means
		}
	case e.Restarts > 0 && f.Now.Sub(e.Since) < time.Hour:
		c.State, c.Since = caution("restarted"), e.Since
	}
	return c
}

func state(f facts) Check {
	c := Check{Name: "State", State: ok("answers"), Value: component.Visible(f.State),
		Means: "Users, rights, commands and the audit trail are kept in it: state.db in the data directory.",
		Do:    "signalbox audit verify computes the audit trail anew. Back up the whole data directory while the console is stopped."}
	if f.StateShared {
		c.Means = "Users, rights, commands and the audit trail are kept in it, for every console that uses it."
		c.Do = "See its own log, and that state.dsn is right. While it is away nobody can sign in and no command goes out; telemetry is taken and stored all the same."
	}
	if f.StateError != "" {
		c.State, c.Means = stop("does not answer"), component.Visible(f.StateError)+". "+c.Means
	}
	return c
}

func disk(f facts) Check {
	c := Check{Name: "Disk", State: component.State{Kind: component.Doubt, Word: "not known"}, Value: component.Unknown,
		Means: "Where the store keeps its data.",
		Do:    "Below the reserve the oldest day of all tables is dropped. Shorten storage.retention, or add space."}
	d := f.Disk
	if d == nil || d.Total <= 0 {
		return c
	}
	c.State, c.HasShare, c.Share = ok("room"), true, 1-float64(d.Free)/float64(d.Total)
	c.Value = component.Size(d.Free) + " free of " + component.Size(d.Total)
	c.Means = "Where the store keeps its data; " + component.Size(d.Reserve) + " are kept free."
	switch {
	case d.Free < d.Reserve:
		c.State = stop("below the reserve")
	case d.Free < 2*d.Reserve:
		c.State = caution("nearly full")
	}
	return c
}

func quarantine(f facts) Check {
	c := Check{Name: "Quarantine", State: ok("empty"), Value: component.Plural(f.Quarantined, "block") + ", " + component.Count(f.Retries) + " writes repeated",
		Means: "A block that the store refuses for good is put aside, so that it does not hold up the others.",
		Do:    "The log names the cause of each; the requests are kept in " + component.Visible(f.QuarantineDir) + " and can be sent again once it is mended."}
	if f.Quarantined > 0 {
		c.State = caution("put aside")
	}
	return c
}

func invalid(v *page.View, f facts) Check {
	c := Check{Name: "Invalid records", State: ok("none"), Value: component.Count(f.Invalid) + " since the start", URL: v.URL("/invalid"), Go: "Invalid messages",
		Means: "Records that could not be understood are kept in the invalid message channel instead of being dropped.",
		Do:    "The page shows who sent them, why they were not understood, and their bytes."}
	if f.Invalid > 0 {
		c.State = caution("some")
	}
	return c
}

// slow is how long a page may take to ask the store before that is called slow.
const slow = 2 * time.Second

func queries(f facts) Check {
	c := Check{Name: "Reading", State: ok("quick"), Value: component.Unknown,
		Means: "How long the latest reads of the store took, by kind; a page asks several at once.",
		Do:    "A search over a long range is slow by nature and says what it looked at. If everything is slow, the store has too little memory or disk, or is busy storing."}
	if len(f.Queries) == 0 {
		c.State = component.State{Kind: component.Off, Word: "nothing yet"}
		return c
	}
	worst := f.Queries[0]
	c.Value = "95 % within " + component.Span(worst.P95.Round(time.Millisecond)) + " (" + component.Visible(worst.Kind) + ", the slowest kind)"
	if worst.P95 > slow {
		c.State = caution("slow")
	}
	return c
}

func taps(f facts) Check {
	c := Check{Name: "Live taps", State: ok("open to all"), Value: component.Count(f.Taps) + " open, at most " + component.Count(f.MaxTaps), HasShare: f.MaxTaps > 0,
		Means: "Browsers and programs that watch messages pass.",
		Do:    "Further ones are refused; raise live.max_taps if the machine has memory for them."}
	if f.MaxTaps > 0 {
		if c.Share = float64(f.Taps) / float64(f.MaxTaps); c.Share >= .9 {
			c.State = caution("nearly all taken")
		}
	}
	return c
}

func spools(v *page.View, f facts) Check {
	c := Check{Name: "Spools of agents", State: ok("empty"), URL: v.URL("/agents"), Go: "Agents",
		Means: "What agents have copied and not sent yet lies on their own disks.",
		Do:    "A spool that fills up means that its agent cannot reach this console, or that the console refuses. When it is full, copies are left out; the messages themselves are not touched."}
	var records, dropped int64
	worst, held := 0.0, 0
	for _, a := range f.Agents {
		records += a.Spool.Records
		dropped += a.Spool.Dropped
		if a.Spool.MaxBytes > 0 {
			worst = max(worst, float64(a.Spool.Bytes)/float64(a.Spool.MaxBytes))
		}
		if a.Spool.Error != "" {
			held++
		}
	}
	c.Value = component.Plural(records, "record") + " on " + component.Plural(len(f.Agents), "agent")
	switch {
	case dropped > 0:
		c.State = caution(component.Count(dropped) + " copies left out")
	case held > 0:
		c.State = caution(component.Plural(held, "agent") + " cannot send")
	case worst >= .5:
		c.State = caution("fill up")
	case records > 0:
		c.State = ok("in motion")
	}
	return c
}

func (m *view) figures(v *page.View, f facts) {
	lag := component.Figure{ID: "lag", Name: "Ingest lag", Value: component.Span(f.Lag.Round(100 * time.Millisecond)), Note: "received and not stored yet"}
	if f.Lag < time.Second {
		lag.Value, lag.Unit, lag.Note = "under 1", "s", "everything received is stored"
	} else if f.Lag > 30*time.Second {
		lag.Tone = "bad"
	}
	var bytes, rows uint64
	var oldest time.Time
	for _, t := range f.Tables {
		bytes += t.Bytes
		rows += t.Rows
		if !t.Oldest.IsZero() && (oldest.IsZero() || t.Oldest.Before(oldest)) {
			oldest = t.Oldest
		}
	}
	size := component.Figure{ID: "size", Name: "Store", Value: component.Size(int64(bytes)), Note: component.Count(rows) + " rows"}
	if f.TablesErr != nil {
		size.Value, size.Note = component.Unknown, "the store does not answer"
	}
	free := component.Figure{ID: "disk", Name: "Disk free", Value: component.Unknown, Note: "the store does not tell"}
	if d := f.Disk; d != nil && d.Total > 0 {
		free.Value, free.Note = component.Size(d.Free), "of "+component.Size(d.Total)
		if d.Free < d.Reserve {
			free.Tone = "bad"
		}
	}
	var all uint64
	for _, s := range f.Shed {
		all += s.N
	}
	m.Figures = []component.Figure{
		lag,
		{ID: "queue", Name: "Queue", Value: component.Size(f.Queue), Note: "of " + component.Size(f.QueueMax)},
		size, free,
		{ID: "taps", Name: "Live taps", Value: component.Count(f.Taps), Note: "watching now"},
		{ID: "shed", Name: "Shed", Value: component.Count(all), Note: "refused or dropped since the start"},
	}
	if f.Engine != nil {
		m.Figures = append(m.Figures, component.Figure{ID: "restarts", Name: "Engine restarts", Value: component.Count(f.Engine.Restarts), Note: component.Visible(f.Engine.State)})
	}
}

// holds say what a table is for.
var holds = map[string]string{
	"messages": "message events", "bodies": "their payloads", "logs": "log records", "spans": "spans", "id_span": "when each message id was seen",
	"link_back": "which spans point at which", "resources": "who sends", "series": "names of metrics", "samples": "their values", "rollup": "traffic per channel, for charts", "invalid": "what could not be understood",
}

func (m *view) details(f facts) {
	for _, q := range f.Queries {
		took := func(d time.Duration) string { return component.Span(d.Round(10 * time.Microsecond)) }
		m.Queries = append(m.Queries, queryRow{Kind: component.Visible(q.Kind), Count: component.Count(q.Count), P50: took(q.P50), P95: took(q.P95), Max: took(q.Max)})
	}
	var total uint64
	for _, t := range f.Tables {
		total += t.Bytes
	}
	tables := slices.Clone(f.Tables)
	slices.SortStableFunc(tables, func(a, b storage.TableSize) int { return cmp.Compare(b.Bytes, a.Bytes) })
	for _, t := range tables {
		row := tableRow{Name: component.Visible(t.Name), Rows: component.Count(t.Rows), Bytes: component.Size(int64(t.Bytes)), Parts: component.Count(t.Parts), Holds: holds[t.Name], Days: "for ever"}
		if !t.Oldest.IsZero() {
			row.Oldest = component.Clock(t.Oldest, component.Date)
		}
		if t.Days > 0 {
			row.Days = component.Plural(t.Days, "day")
		} else if t.Rows == 0 {
			row.Days = ""
		}
		if total > 0 {
			row.Share = float64(t.Bytes) / float64(total)
		}
		m.Tables = append(m.Tables, row)
	}
	m.TablesSub = component.Size(int64(total)) + " on disk, largest first"
	if f.TablesErr != nil {
		m.TablesDown = component.Visible(f.TablesErr.Error())
	}
	for _, s := range f.Shed {
		if s.N > 0 {
			m.Shed = append(m.Shed, shedRow{What: s.What, Reason: strings.ReplaceAll(s.Reason, "_", " "), N: component.Count(s.N), Means: meanings[s.Reason]})
		}
	}
	for i := range f.Agents {
		a := &f.Agents[i]
		row := spoolRow{Agent: component.Visible(a.ID), Records: component.Count(a.Spool.Records), Sent: a.Spool.SentLast, State: ok("sends"),
			Text: component.Size(a.Spool.Bytes) + " of " + component.Size(a.Spool.MaxBytes)}
		if a.Spool.MaxBytes > 0 {
			row.Share = math.Min(1, float64(a.Spool.Bytes)/float64(a.Spool.MaxBytes))
		}
		switch {
		case a.Presence == controlbus.Silent:
			row.State = component.State{Kind: component.Stale, Word: "silent"}
		case a.Spool.Error != "":
			row.State = caution(component.Visible(a.Spool.Error))
		case a.Spool.Dropped > 0:
			row.State = caution(component.Count(a.Spool.Dropped) + " left out")
		}
		m.Spools = append(m.Spools, row)
	}
	slices.SortStableFunc(m.Spools, func(a, b spoolRow) int { return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Agent, b.Agent)) })
}
