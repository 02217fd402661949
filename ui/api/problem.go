package api

import (
	"errors"
	"net/http"

	"github.com/signalbox-dev/signalbox/controlbus/filter"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page/problem"
)

// Problem is an error as RFC 9457 has it.
type Problem struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Instance  string `json:"instance"`
	Hint      string `json:"hint,omitempty"`
	Reference string `json:"reference"`

	// Of a filter that cannot be read: where, in bytes, and what would be right.
	Position   *int   `json:"position,omitempty"`
	Length     *int   `json:"length,omitempty"`
	Suggestion string `json:"suggestion,omitempty"`
}

// problemTypes is what the type of a problem begins with. The addresses name
// problems; they are not there to be opened.
const problemTypes = "tag:signalbox.dev,2026:problem:"

// WriteProblem answers with an error. Detail is its text as a reader may see it;
// reference finds it in the log.
func WriteProblem(w http.ResponseWriter, r *http.Request, a problem.Answer, err error, detail, reference string) {
	p := Problem{
		Type: problemTypes + a.Kind, Title: a.Title, Status: a.Status, Detail: detail,
		Instance: r.URL.Path, Hint: a.Next, Reference: reference,
	}
	var wrong *filter.Error
	switch {
	case errors.As(err, &wrong):
		p.Type, p.Title, p.Hint = problemTypes+"filter", "The filter cannot be read", "Nothing was changed. Correct it at the position named and try again."
		p.Detail, p.Position, p.Length, p.Suggestion = component.Visible(wrong.Error()), &wrong.Pos, &wrong.Len, wrong.Suggestion
	case errors.As(err, new(errMethod)):
		p.Type, p.Title, p.Status = problemTypes+"method", "This address does not take that method", http.StatusMethodNotAllowed
	case a.Kind == "invalid":
		p.Title, p.Hint = "The request cannot be read", "Nothing was changed. Correct what is named in detail and try again."
	}
	h := w.Header()
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	}
	b, encErr := encode(p)
	if encErr != nil { // strings and a number always encode
		http.Error(w, p.Title, p.Status)
		return
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(b) // a reader that went away is not our error
}
