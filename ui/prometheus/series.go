package prometheus

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	promstorage "github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// scope is what series, labels and label values are asked about.
type scope struct {
	limit   int
	sets    [][]*labels.Matcher
	querier promstorage.Querier
	mint    int64
	maxt    int64
}

// scope reads a request. How a matcher that cannot be read is told differs
// between endpoints.
func (a *API) scope(r *http.Request, matchers func(error) *apiError) (scope, *apiError) {
	bad := func(parameter string, err error) (scope, *apiError) { return scope{}, invalid(parameter, err).err }
	var s scope
	var err error
	if s.limit, err = parseLimit(r.FormValue("limit")); err != nil {
		return bad("limit", err)
	}
	start, err := timeOr(r, "start", minTime)
	if err != nil {
		return bad("start", err)
	}
	end, err := timeOr(r, "end", maxTime)
	if err != nil {
		return bad("end", err)
	}
	s.mint, s.maxt = start.UnixMilli(), end.UnixMilli()
	for _, m := range r.Form["match[]"] {
		if len(m) > maxQuery {
			return bad("match[]", fmt.Errorf("%d characters, want at most %d", len(m), maxQuery))
		}
	}
	if s.sets, err = parser.ParseMetricSelectors(r.Form["match[]"]); err != nil {
		return scope{}, matchers(err)
	}
	for _, set := range s.sets {
		if !slices.ContainsFunc(set, func(m *labels.Matcher) bool { return m != nil && !m.Matches("") }) {
			return scope{}, matchers(errors.New("match[] must contain at least one non-empty matcher"))
		}
	}
	if s.querier, err = a.queryable.Querier(s.mint, s.maxt); err != nil {
		return scope{}, apiErrorOf(err)
	}
	return s, nil
}

// hint is one more than is wanted, so that more can be told from enough.
func (s scope) hint() int {
	if s.limit > 0 {
		return s.limit + 1
	}
	return 0
}

// series lists the labels of series.
func (a *API) series(ctx context.Context, r *http.Request) result {
	if len(r.Form["match[]"]) == 0 {
		return result{err: refuse(badData, errors.New("no match[] parameter provided"))}
	}
	s, refused := a.scope(r, func(err error) *apiError { return invalid("match[]", err).err })
	if refused != nil {
		return result{err: refused}
	}
	hints := &promstorage.SelectHints{Start: s.mint, End: s.maxt, Func: "series", Limit: s.hint()}
	sets := make([]promstorage.SeriesSet, len(s.sets))
	for i, matchers := range s.sets {
		sets[i] = s.querier.Select(ctx, true, hints, matchers...)
	}
	found := sets[0]
	if len(sets) > 1 {
		found = promstorage.NewMergeSeriesSet(sets, 0, promstorage.ChainedSeriesMerge)
	}
	list, warnings := []labels.Labels{}, annotations.Annotations(nil)
	for found.Next() {
		if s.limit > 0 && len(list) == s.limit {
			warnings = warnings.Add(errTruncated)
			break
		}
		list = append(list, found.At().Labels())
	}
	if err := found.Err(); err != nil {
		return result{err: apiErrorOf(err)}
	}
	return result{data: list, warnings: warnings}
}

// labelNames lists the names of labels.
func (a *API) labelNames(ctx context.Context, r *http.Request) result {
	return a.texts(r, func(s scope, matchers []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return s.querier.LabelNames(ctx, &promstorage.LabelHints{Limit: s.hint()}, matchers...)
	})
}

// labelValues lists the values of one label.
func (a *API) labelValues(ctx context.Context, r *http.Request) result {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") { // how names beyond the old alphabet travel in a path
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return result{err: refuse(badData, fmt.Errorf("invalid label name: %q", name))}
	}
	return a.texts(r, func(s scope, matchers []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return s.querier.LabelValues(ctx, name, &promstorage.LabelHints{Limit: s.hint()}, matchers...)
	})
}

// texts asks once for each set of matchers and answers what any found.
func (a *API) texts(r *http.Request, ask func(scope, []*labels.Matcher) ([]string, annotations.Annotations, error)) result {
	s, refused := a.scope(r, func(err error) *apiError { return refuse(badData, err) })
	if refused != nil {
		return result{err: refused}
	}
	if len(s.sets) == 0 {
		s.sets = [][]*labels.Matcher{nil}
	}
	list := []string{}
	var warnings annotations.Annotations
	for _, matchers := range s.sets {
		found, w, err := ask(s, matchers)
		if err != nil {
			return result{err: apiErrorOf(err)}
		}
		warnings = warnings.Merge(w)
		list = append(list, found...)
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if s.limit > 0 && len(list) > s.limit {
		list, warnings = list[:s.limit], warnings.Add(errTruncated)
	}
	return result{data: list, warnings: warnings}
}

// description is what is known of a metric beside its samples.
type description struct {
	Type string `json:"type"`
	Unit string `json:"unit"`
	Help string `json:"help"`
}

// metadata tells type and unit of metrics, and the names they were sent under.
func (a *API) metadata(ctx context.Context, r *http.Request) result {
	limit, perMetric := -1, -1
	for _, p := range []struct {
		name string
		into *int
	}{{"limit", &limit}, {"limit_per_metric", &perMetric}} {
		if text := r.FormValue(p.name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil {
				return result{err: refuse(badData, errors.New(p.name+" must be a number"))}
			}
			*p.into = n
		}
	}
	list, err := a.queryable.catalogue.get(ctx, catalogueFresh)
	if err != nil {
		return result{err: apiErrorOf(err)}
	}
	wanted := r.FormValue("metric")
	all := map[string][]description{}
	for _, m := range list {
		if m.family == "" || wanted != "" && wanted != m.family {
			continue
		}
		have, known := all[m.family]
		if !known && limit >= 0 && len(all) >= limit {
			continue
		}
		d := description{Type: m.Kind, Unit: m.Unit, Help: help(m)}
		if slices.Contains(have, d) || known && perMetric > 0 && len(have) >= perMetric {
			continue
		}
		all[m.family] = append(have, d)
	}
	return result{data: all}
}

// help names a metric as it was sent: OpenTelemetry's description of it is not
// kept.
func help(m metric) string {
	if m.help != "" {
		return m.help
	}
	sent := m.Metric.Name
	if m.Kind == "histogram" || m.Kind == "summary" {
		for _, s := range partSuffixes {
			if b, ok := strings.CutSuffix(sent, s); ok {
				sent = b
				break
			}
		}
	}
	if sent == m.family {
		return ""
	}
	return "Sent as " + sent + "."
}
