package prometheus

import (
	"net/http"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/jsonutil"
	"github.com/prometheus/prometheus/util/stats"
)

// queryData is the data of query and query_range.
type queryData struct {
	value parser.Value
	stats stats.QueryStats
}

var encoding = jsoniter.ConfigCompatibleWithStandardLibrary

// annotationsShown bounds warnings and infos, as Prometheus does.
const annotationsShown = 10

// write sends an answer series by series, so that its text never stands in
// memory whole beside its values.
func write(w http.ResponseWriter, res result, query string) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	s := jsoniter.NewStream(encoding, w, 64<<10)
	s.WriteRaw(`{"status":"success","data":`)
	switch data := res.data.(type) {
	case queryData:
		writeQueryData(s, data)
	case []labels.Labels:
		s.WriteArrayStart()
		for i, l := range data {
			if i > 0 {
				s.WriteMore()
			}
			writeLabels(s, l)
			flush(s)
		}
		s.WriteArrayEnd()
	default:
		s.WriteVal(data)
	}
	warnings, infos := res.warnings.AsStrings(query, annotationsShown, annotationsShown)
	for _, f := range []struct {
		name string
		list []string
	}{{"warnings", warnings}, {"infos", infos}} {
		if len(f.list) > 0 {
			s.WriteMore()
			s.WriteObjectField(f.name)
			s.WriteVal(f.list)
		}
	}
	s.WriteObjectEnd()
	_ = s.Flush() // a reader that went away is not our error
}

// fail sends an error as Prometheus does.
func fail(w http.ResponseWriter, e *apiError) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(e.kind.code)
	_ = encoding.NewEncoder(w).Encode(struct {
		Status    string `json:"status"`
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
	}{"error", e.kind.word, e.err.Error()}) // a reader that went away is not our error
}

// flush hands on what has gathered.
func flush(s *jsoniter.Stream) {
	if s.Buffered() >= 32<<10 {
		_ = s.Flush() // kept in s.Error, which ends all writing
	}
}

func writeQueryData(s *jsoniter.Stream, d queryData) {
	s.WriteObjectStart()
	s.WriteObjectField("resultType")
	s.WriteString(string(d.value.Type()))
	s.WriteMore()
	s.WriteObjectField("result")
	switch v := d.value.(type) {
	case promql.Matrix:
		s.WriteArrayStart()
		for i := range v {
			if i > 0 {
				s.WriteMore()
			}
			writeSeries(s, &v[i])
			flush(s)
		}
		s.WriteArrayEnd()
	case promql.Vector:
		s.WriteArrayStart()
		for i := range v {
			if i > 0 {
				s.WriteMore()
			}
			writeSample(s, &v[i])
			flush(s)
		}
		s.WriteArrayEnd()
	default:
		s.WriteVal(v)
	}
	if d.stats != nil {
		s.WriteMore()
		s.WriteObjectField("stats")
		s.WriteVal(d.stats)
	}
	s.WriteObjectEnd()
}

func writeLabels(s *jsoniter.Stream, lset labels.Labels) {
	s.WriteObjectStart()
	first := true
	lset.Range(func(l labels.Label) {
		if !first {
			s.WriteMore()
		}
		first = false
		s.WriteString(l.Name)
		s.WriteRaw(":")
		s.WriteString(l.Value)
	})
	s.WriteObjectEnd()
}

func writeSample(s *jsoniter.Stream, p *promql.Sample) {
	s.WriteObjectStart()
	s.WriteObjectField("metric")
	writeLabels(s, p.Metric)
	s.WriteMore()
	if p.H != nil {
		s.WriteObjectField("histogram")
	} else {
		s.WriteObjectField("value")
	}
	s.WriteArrayStart()
	jsonutil.MarshalTimestamp(p.T, s)
	s.WriteMore()
	if p.H != nil {
		jsonutil.MarshalHistogram(p.H, s)
	} else {
		jsonutil.MarshalFloat(p.F, s)
	}
	s.WriteArrayEnd()
	s.WriteObjectEnd()
}

func writeSeries(s *jsoniter.Stream, m *promql.Series) {
	s.WriteObjectStart()
	s.WriteObjectField("metric")
	writeLabels(s, m.Metric)
	if len(m.Floats) > 0 {
		s.WriteMore()
		s.WriteObjectField("values")
		s.WriteArrayStart()
		for i, p := range m.Floats {
			if i > 0 {
				s.WriteMore()
			}
			s.WriteArrayStart()
			jsonutil.MarshalTimestamp(p.T, s)
			s.WriteMore()
			jsonutil.MarshalFloat(p.F, s)
			s.WriteArrayEnd()
		}
		s.WriteArrayEnd()
	}
	if len(m.Histograms) > 0 {
		s.WriteMore()
		s.WriteObjectField("histograms")
		s.WriteArrayStart()
		for i, p := range m.Histograms {
			if i > 0 {
				s.WriteMore()
			}
			s.WriteArrayStart()
			jsonutil.MarshalTimestamp(p.T, s)
			s.WriteMore()
			jsonutil.MarshalHistogram(p.H, s)
			s.WriteArrayEnd()
			flush(s)
		}
		s.WriteArrayEnd()
	}
	s.WriteObjectEnd()
}
