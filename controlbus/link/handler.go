package link

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Handler answers agents at Path.
func (r *Roster) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "agents report with POST", http.StatusMethodNotAllowed)
			return
		}
		if kind, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			http.Error(w, "want Content-Type application/json", http.StatusUnsupportedMediaType)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, MaxReport))
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			http.Error(w, "report is too large", http.StatusRequestEntityTooLarge)
			return
		} else if err != nil {
			http.Error(w, "report did not arrive whole", http.StatusBadRequest)
			return
		}
		var a controlbus.Agent
		if err := json.Unmarshal(body, &a); err != nil {
			http.Error(w, "report is not the JSON of an agent: "+err.Error(), http.StatusBadRequest)
			return
		}
		if err := speaksFor(req.Context(), a); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		desired, err := r.Report(req.Context(), a)
		switch {
		case errors.Is(err, controlbus.ErrInvalid):
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		case err != nil:
			r.log.ErrorContext(req.Context(), "agent report not kept", "agent", a.ID, "error", err)
			w.Header().Set("Retry-After", "5")
			http.Error(w, "the console cannot keep reports right now", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(desired); err != nil {
			r.log.DebugContext(req.Context(), "agent went away before the answer", "agent", a.ID, slog.Any("error", err))
		}
	})
}
