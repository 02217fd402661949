package prometheustest

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Answer is what an endpoint answered, its data as they were written.
type Answer struct {
	Code      int             `json:"code"`
	Data      json.RawMessage `json:"data,omitempty"`
	ErrorType string          `json:"errorType,omitempty"`
	Error     string          `json:"error,omitempty"`
	Warnings  []string        `json:"warnings,omitempty"`
	Infos     []string        `json:"infos,omitempty"`
}

// Read reads an answer. Fields that Prometheus does not have are an error.
func Read(code int, body []byte) (Answer, error) {
	var a struct {
		Answer
		Status string `json:"status"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return Answer{}, fmt.Errorf("%d %q: %w", code, body, err)
	}
	if (a.Status == "success") != (code == 200) || a.Status == "error" && a.ErrorType == "" {
		return Answer{}, fmt.Errorf("%d with status %q, errorType %q", code, a.Status, a.ErrorType)
	}
	a.Code = code
	return a.Answer, nil
}

// Diff says where two answers to a request differ, values as the exact texts
// they are. It is empty where they are the same. The order of results counts
// where the expression makes one; else it is nobody's promise, and some
// functions of the engine deal it out at random.
func Diff(r Request, want, got Answer) string {
	ordered := inOrder.MatchString(r.Form.Get("query")) && r.Endpoint == "query"
	w, errW := flat(want, ordered)
	g, errG := flat(got, ordered)
	if errW != nil || errG != nil {
		return fmt.Sprintf("cannot read: %v, %v", errW, errG)
	}
	if bytes.Equal(w, g) {
		return ""
	}
	i := 0
	for i < min(len(w), len(g)) && w[i] == g[i] {
		i++
	}
	around := func(b []byte) []byte { return b[max(0, i-200):min(len(b), i+200)] }
	return fmt.Sprintf("at byte %d\nwant …%s…\n got …%s…", i, around(w), around(g))
}

var inOrder = regexp.MustCompile(`^(sort|sort_desc|topk|bottomk)\b`)

// flat is an answer as one text. What JSON lets one write in two ways is
// written in one; numbers stay as they are.
func flat(a Answer, ordered bool) ([]byte, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if data, ok := v["data"].(map[string]any); ok && !ordered && (data["resultType"] == "vector" || data["resultType"] == "matrix") {
		list, _ := data["result"].([]any)
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(metricOf(a), metricOf(b)) })
	}
	return json.Marshal(v)
}

func metricOf(v any) string {
	m, _ := v.(map[string]any)
	text, _ := json.Marshal(m["metric"]) // never fails: it was JSON
	return string(text)
}

// WriteAnswers keeps answers by their requests.
func WriteAnswers(path string, answers map[string]Answer) error {
	text, err := json.Marshal(answers)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // a level there is
	if _, err := z.Write(text); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, packed.Bytes(), 0o644)
}

// ReadAnswers reads what WriteAnswers wrote.
func ReadAnswers(path string) (map[string]Answer, error) {
	packed, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	var answers map[string]Answer
	err = json.NewDecoder(z).Decode(&answers)
	return answers, err
}
