// Package invalid is the invalid message channel: records that nobody could
// understand, with their sender, the reason and their bytes.
package invalid

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/controlbus/decode"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// Reader is the store as the pages need it. It blocks until ctx ends at most
// and returns ErrDenied and ErrUnavailable. Data is empty where payloads may
// not be read.
type Reader interface {
	Invalid(ctx context.Context, within storage.TimeRange, limit int) ([]storage.Invalid, error)
}

// Pages are the list and the page of one record.
type Pages struct {
	site  *page.Site
	store Reader
}

// New returns the pages.
func New(site *page.Site, store Reader) *Pages { return &Pages{site: site, store: store} }

// Routes lists the addresses.
func (p *Pages) Routes() []page.Route {
	return []page.Route{
		{Pattern: "GET /invalid", Handler: p.list, Action: access.ViewMetadata},
		{Pattern: "GET /invalid/record", Handler: p.one, Action: access.ReadBody},
		{Pattern: "GET /invalid/data", Handler: p.data, Action: access.ReadBody},
	}
}

const pageSize = 100

type row struct {
	At                                      time.Time
	URL, Sender, Signal, Reason, Size, Text string
}

type reason struct{ Text, Count string }

type listView struct {
	Sub     string
	Rows    []row
	Reasons []reason
	NextURL string
	Hidden  bool // payloads may not be read
	Empty   *component.Empty
}

func (p *Pages) list(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	list, err := p.store.Invalid(ctx, v.Range, pageSize+1)
	if errors.Is(err, controlbus.ErrDenied) {
		return err
	}
	m := listView{Hidden: !v.May(access.ReadBody)}
	m.build(v, list, err)
	o := page.Options{Title: "Invalid messages", Area: "invalid"}
	if !v.Form.Has("to") {
		o.Refresh = 10 * time.Second
	}
	return v.Render(w, o, List(m))
}

func (m *listView) build(v *page.View, list []storage.Invalid, err error) {
	m.Sub = "Records that nobody could understand. They are kept here instead of being dropped."
	period := strings.ToLower(v.RangeLabel()[:1]) + v.RangeLabel()[1:]
	if !v.Relative() {
		period = "range"
	}
	switch {
	case err != nil:
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Stop, Word: "Down"}, Title: "The message store does not answer", Text: component.Visible(err.Error()), Links: []component.Option{{Label: "Try again", URL: v.With()}}}
		return
	case len(list) == 0:
		m.Empty = &component.Empty{Mark: component.State{Kind: component.Clear, Word: "Nothing wrong"}, Title: "Everything was understood in the " + period}
		if v.Range.Duration() < 24*time.Hour {
			m.Empty.Links = []component.Option{{Label: "Last 24 hours", URL: v.With("range", "24h", "from", "", "to", "")}}
		}
		return
	}
	if len(list) > pageSize {
		m.NextURL = v.With("from", v.Range.From.UTC().Format(time.RFC3339Nano), "to", time.Unix(0, list[pageSize-1].Time).UTC().Format(time.RFC3339Nano), "range", "")
		list = list[:pageSize]
	}
	counts := map[string]int{}
	for i := range list {
		rec := &list[i]
		counts[rec.Reason]++
		n := 0
		for j := range i {
			if list[j].Time == rec.Time {
				n++
			}
		}
		m.Rows = append(m.Rows, row{
			At: time.Unix(0, rec.Time), URL: v.URL("/invalid/record", at(rec.Time, n)...),
			Sender: sender(rec), Signal: component.Visible(rec.Signal), Reason: component.Visible(rec.Reason), Size: component.Size(rec.Size),
			Text: component.Visible(cut(string(rec.Data), 160)),
		})
	}
	for text, n := range counts {
		m.Reasons = append(m.Reasons, reason{component.Visible(text), component.Count(n)})
	}
	slices.SortFunc(m.Reasons, func(a, b reason) int { return cmp.Or(counts[b.Text]-counts[a.Text], cmp.Compare(a.Text, b.Text)) })
}

// at names a record: its time, and which of that time it is.
func at(ns int64, n int) []string {
	out := []string{"at", strconv.FormatInt(ns, 10)}
	if n > 0 {
		out = append(out, "n", strconv.Itoa(n))
	}
	return out
}

func sender(rec *storage.Invalid) string {
	if rec.Sender == "" {
		return "not numbered"
	}
	return component.Visible(rec.Sender)
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

// find reads the record that the address names.
func (p *Pages) find(ctx context.Context, form url.Values) (storage.Invalid, int, error) {
	ns, err := strconv.ParseInt(form.Get("at"), 10, 64)
	if err != nil {
		return storage.Invalid{}, 0, fmt.Errorf("%w: at %q: want nanoseconds since 1970", controlbus.ErrInvalid, form.Get("at"))
	}
	n := 0
	if text := form.Get("n"); text != "" {
		if n, err = strconv.Atoi(text); err != nil || n < 0 || n > 999 {
			return storage.Invalid{}, 0, fmt.Errorf("%w: n %q: want a number below 1000", controlbus.ErrInvalid, text)
		}
	}
	t := time.Unix(0, ns)
	list, err := p.store.Invalid(ctx, storage.TimeRange{From: t, To: t.Add(1)}, n+1)
	if err != nil {
		return storage.Invalid{}, n, fmt.Errorf("read the record: %w", err)
	}
	if len(list) <= n {
		return storage.Invalid{}, n, fmt.Errorf("the record: %w", controlbus.ErrNotFound)
	}
	return list[n], n, nil
}

type oneView struct {
	ListURL, DataURL             string
	At                           time.Time
	Sender, Signal, Reason, Size string
	Tabs                         []component.Option
	Lines                        []decode.Line
	Hex                          bool
	Notes                        []string
	Hidden                       bool
}

func (p *Pages) one(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	rec, n, err := p.find(ctx, v.Form)
	if err != nil {
		return err
	}
	as, known := decode.Parse(v.Form.Get("as"))
	if !known {
		as = decode.Hex
	}
	m := oneView{
		ListURL: v.URL("/invalid"), DataURL: v.URL("/invalid/data", at(rec.Time, n)...), At: time.Unix(0, rec.Time), Sender: sender(&rec),
		Signal: component.Visible(rec.Signal), Reason: component.Visible(rec.Reason), Size: component.Plural(rec.Size, "byte"), Hidden: len(rec.Data) == 0 && rec.Size > 0,
	}
	res := decode.Decode(rec.Data, decode.Options{As: as, Truncated: int64(len(rec.Data)) < rec.Size})
	m.Lines, m.Hex = res.Lines, res.Format == decode.Hex
	for _, note := range res.Notes {
		m.Notes = append(m.Notes, component.Visible(strings.ToUpper(note[:1])+note[1:])+".")
	}
	for _, t := range [][2]string{{"hex", "Hex"}, {"text", "Text"}, {"json", "JSON"}} {
		m.Tabs = append(m.Tabs, component.Option{Label: t[1], URL: v.With("as", t[0]), Current: string(as) == t[0]})
	}
	return v.Render(w, page.Options{Title: "Invalid record", Area: "invalid"}, One(m))
}

// data hands out the record's bytes as a download.
func (p *Pages) data(w http.ResponseWriter, r *http.Request) error {
	v, err := p.site.Begin(r)
	if err != nil {
		return err
	}
	ctx, cancel := v.Context()
	defer cancel()
	rec, _, err := p.find(ctx, v.Form)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", `attachment; filename="invalid-`+strconv.FormatInt(rec.Time, 10)+`.bin"`)
	h.Set("Content-Length", strconv.Itoa(len(rec.Data)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(rec.Data) // a reader that went away is not our error
	return nil
}
