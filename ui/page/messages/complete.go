package messages

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// CompletePath answers what can be put in at the cursor of a filter box. Other
// pages' boxes may ask it too.
const CompletePath = "/messages/complete"

const (
	maxItems      = 20
	valuePatience = 45 * time.Millisecond // what an answer waits for the store
	valueBudget   = time.Second           // what the store has; a late answer serves the next key
	valueFresh    = 10 * time.Second
	valueList     = 1000 // values kept of one field
	valueWindow   = 24 * time.Hour
	valueKept     = 256 // lists
)

// completion is the answer. Positions are in UTF-16 units, as scripts count.
type completion struct {
	Start int              `json:"start"`
	End   int              `json:"end"`
	Items []completionItem `json:"items"`
	Reads string           `json:"reads,omitempty"`
	Error *filterFault     `json:"error,omitempty"`
	// Partial says that values of the store were too late for this answer.
	Partial bool `json:"partial,omitempty"`
}

type completionItem struct {
	Text   string `json:"text"` // to be put in
	Label  string `json:"label"`
	Kind   string `json:"kind"` // field, operator, keyword or value
	Doc    string `json:"doc,omitempty"`
	Sample string `json:"sample,omitempty"`
}

// filterFault is a filter.Error with the text it was found in.
type filterFault struct {
	Start      int    `json:"start"`
	End        int    `json:"end"`
	Message    string `json:"message"`
	Suggestion string `json:"suggestion,omitempty"`
	Fixed      string `json:"fixed,omitempty"` // the whole text with the suggestion in it

	Before, Wrong, After string `json:"-"`
	URL                  string `json:"-"`
}

// fault says where err is in text; nil where err is of another kind.
func fault(text string, err error) *filterFault {
	e := new(filter.Error)
	if !errors.As(err, &e) {
		return nil
	}
	at := min(max(e.Pos, 0), len(text))
	end := min(at+max(e.Len, 0), len(text))
	f := &filterFault{
		Start: units(text[:at]), End: units(text[:end]), Message: component.Visible(e.Msg), Suggestion: e.Suggestion,
		Before: component.Visible(text[:at]), Wrong: component.Visible(text[at:end]), After: component.Visible(text[end:]),
	}
	if e.Suggestion != "" {
		f.Fixed = text[:at] + e.Suggestion + text[end:]
	}
	return f
}

// units is the length of a text in UTF-16.
func units(s string) int {
	n := 0
	for _, r := range s {
		n += max(1, utf16.RuneLen(r))
	}
	return n
}

// offset is the byte at which n UTF-16 units of a text end.
func offset(s string, n int) int {
	for i, r := range s {
		if n <= 0 {
			return i
		}
		n -= max(1, utf16.RuneLen(r))
	}
	return len(s)
}

// complete answers CompletePath.
func (p *Pages) complete(w http.ResponseWriter, r *http.Request) error {
	form := r.URL.Query()
	text := form.Get("q")
	if len(text) > filter.MaxLength {
		return fmt.Errorf("%w: filter of %d bytes: want at most %d", controlbus.ErrTooLarge, len(text), filter.MaxLength)
	}
	cursor := len(text)
	if given := form.Get("cursor"); given != "" {
		n, err := strconv.Atoi(given)
		if err != nil || n < 0 {
			return fmt.Errorf("%w: cursor %.20q: want a position", controlbus.ErrInvalid, given)
		}
		cursor = offset(text, n)
	}
	now := p.site.Now()
	c := filter.Complete(text, cursor)
	out := completion{Start: units(text[:c.Start]), End: units(text[:c.End]), Items: []completionItem{}}
	for _, i := range c.Items {
		out.Items = append(out.Items, completionItem{Text: i.Text, Label: strings.TrimSpace(i.Text), Kind: i.Kind, Doc: i.Doc, Sample: i.Sample})
	}
	if c.Field != "" {
		var values []storage.FieldValue
		values, out.Partial = p.values(r, form.Get("env"), now, c.Field, c.Prefix)
		for _, v := range values {
			if item, ok := valueItem(c.Field, v); ok {
				out.Items = append(out.Items, item)
			}
		}
	}
	out.Items = out.Items[:min(len(out.Items), maxItems)]
	if f, err := filter.Parse(text, now); err == nil {
		if !f.Empty() {
			out.Reads = component.Visible(f.Explain())
		}
	} else {
		out.Error = fault(text, err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(out) // a reader that went away is not our error
	return nil
}

// valueItem offers a value so that it is read as just that.
func valueItem(field string, v storage.FieldValue) (completionItem, bool) {
	if !utf8.ValidString(v.Value) || len(v.Value) > 200 {
		return completionItem{}, false
	}
	item := completionItem{Text: filter.Quote(v.Value), Label: component.Visible(v.Value), Kind: "value", Sample: component.Count(v.Messages)}
	if field == headerColumn {
		item.Kind, item.Label = "field", headerColumn+item.Label
		item.Text = headerTerm(v.Value)
		if item.Text == "" {
			return completionItem{}, false
		}
	}
	return item, true
}

// headerTerm writes a header's name so that a condition can follow, or nothing
// where the language has no way to.
func headerTerm(name string) string {
	for _, written := range []string{headerColumn + name, headerColumn + `"` + strings.ReplaceAll(name, `"`, `""`) + `"`} {
		f, err := filter.Parse(written+":*", time.Time{})
		if err != nil || !f.Only(headerColumn) {
			continue
		}
		yes := controlbus.MessageEvent{Headers: []controlbus.Header{{Key: name, Value: "x"}}}
		if f.Match(&yes) {
			return written + ":"
		}
	}
	return ""
}

// values are known values of a field that hold part, those that begin with it
// first. late says that the store did not answer in time; it goes on, for the
// next question.
func (p *Pages) values(r *http.Request, env string, now time.Time, field, part string) (list []storage.FieldValue, late bool) {
	timer := time.NewTimer(valuePatience)
	defer timer.Stop()
	look := func(part string) (found []storage.FieldValue, ok bool) {
		e := p.cache.get(r, p.store, storage.ValuesQuery{
			Range: storage.TimeRange{From: now.Add(-valueWindow), To: now}, Env: env, Field: field, Part: part, Limit: valueList,
		}, now)
		select {
		case <-e.done:
			return e.list, true
		case <-timer.C:
			timer.Reset(0)
			return nil, false
		case <-r.Context().Done():
			return nil, false
		}
	}
	all, ok := look("")
	if !ok {
		return nil, true
	}
	if len(all) >= valueList && part != "" { // there are more than were read
		if all, ok = look(part); !ok {
			return nil, true
		}
	}
	low := strings.ToLower(part)
	for _, v := range all {
		if strings.Contains(strings.ToLower(v.Value), low) {
			list = append(list, v)
		}
	}
	slices.SortStableFunc(list, func(a, b storage.FieldValue) int {
		return begins(b.Value, low) - begins(a.Value, low)
	})
	return list, false
}

func begins(s, low string) int {
	if strings.HasPrefix(strings.ToLower(s), low) {
		return 1
	}
	return 0
}

// valueCache keeps lists of values for seconds: keys follow one another faster
// than values change.
type valueCache struct {
	mu    sync.Mutex
	lists map[valueKey]*valueEntry
}

// valueKey is a question and what its answer is limited to.
type valueKey struct{ field, env, part, scope string }

type valueEntry struct {
	at   time.Time
	done chan struct{} // closed when list is there
	list []storage.FieldValue
}

func (c *valueCache) get(r *http.Request, store Reader, q storage.ValuesQuery, now time.Time) *valueEntry {
	scope, _ := controlbus.ScopeFrom(r.Context())
	key := valueKey{field: q.Field, env: q.Env, part: q.Part, scope: fmt.Sprint(scope.All(), scope.Sets())}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.lists[key]; e != nil && now.Sub(e.at) < valueFresh {
		return e
	}
	if c.lists == nil || len(c.lists) >= valueKept {
		c.lists = make(map[valueKey]*valueEntry)
	}
	e := &valueEntry{at: now, done: make(chan struct{})}
	c.lists[key] = e
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), valueBudget)
	go func() {
		defer cancel()
		list, err := store.FieldValues(ctx, q)
		if err != nil {
			c.forget(key, e) // ask again next time
		}
		e.list = list
		close(e.done)
	}()
	return e
}

func (c *valueCache) forget(key valueKey, e *valueEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lists[key] == e {
		delete(c.lists, key)
	}
}

// Term is the condition that finds a field's exact value. What the language
// cannot write, text that is not UTF-8, is left out.
func Term(field, value string) string {
	return field + ":" + filter.Quote(strings.ToValidUTF8(value, ""))
}

// Suggestions are the samples that browsers without script offer in a box.
func Suggestions() []component.Pair {
	var out []component.Pair
	for _, f := range filter.Fields() {
		out = append(out, component.Pair{Name: f.Examples[0], Value: f.Doc})
	}
	return out
}

// syntaxLines explain the language: how things are said, then each field.
func syntaxLines() []component.Pair {
	out := []component.Pair{
		{Name: `timeout`, Value: "a word in the payload, upper or lower case; in quotes a phrase"},
		{Name: `channel:orders.*`, Value: "a field's value, with * for anything"},
		{Name: `service = 'a b'`, Value: "exactly; also != < <= > >= and IN ('a', 'b'), BETWEEN 1 AND 5, LIKE 'EU-%', ~ 'regular expression'"},
		{Name: `tap:*`, Value: "the field is there; NOT tap:* that it is not"},
		{Name: `(a OR b) NOT c`, Value: "either, and not the third"},
	}
	for _, f := range filter.Fields() {
		name := strings.Join(f.Examples[:min(len(f.Examples), 2)], "   ")
		out = append(out, component.Pair{Name: name, Value: f.Doc})
	}
	return out
}

// Mistake shows what is wrong with the filter of a page, and where; nil where err
// is of another kind.
func Mistake(v *page.View, err error) templ.Component {
	f := fault(v.Query, err)
	if f == nil {
		return nil
	}
	if f.Fixed != "" {
		f.URL = v.With("q", f.Fixed)
	}
	return Wrong(*f)
}

// Box is the filter box of a page that understands the filter language.
func Box(v *page.View, action, label string, kept []component.Pair, err error) *component.FilterView {
	b := &component.FilterView{
		Action: action, Label: label, Value: v.Query, Kept: kept, Coded: true, Wrong: err != nil,
		Hint: "channel:orders.* attempts > 3 timeout", Suggestions: Suggestions(), Complete: v.URL(CompletePath, "env", v.Env),
	}
	if f := fault(v.Query, err); f != nil {
		b.WrongFrom, b.WrongTo = strconv.Itoa(f.Start), strconv.Itoa(f.End)
	}
	return b
}
