package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// EnrolPath is where an agent exchanges its enrolment token for a credential of
// its own.
const EnrolPath = "/v1/agents/enrol"

const maxEnrolment = 4 << 10

type enrolment struct {
	AgentID string `json:"agent_id"`
}

type enrolled struct {
	Credential string `json:"credential"` // sent this once
}

// Enroller gives agents credentials. by is who shows the enrolment token.
type Enroller interface {
	Enrol(ctx context.Context, by access.Identity, agentID string) (controlbus.Secret, error)
}

// EnrolHandler answers at EnrolPath. Whoever mounts it puts the identity behind
// the enrolment token into the context.
func EnrolHandler(e Enroller) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "agents enrol with POST", http.StatusMethodNotAllowed)
			return
		}
		var q enrolment
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxEnrolment)).Decode(&q); err != nil {
			http.Error(w, "want the JSON of an enrolment", http.StatusBadRequest)
			return
		}
		by, _ := access.From(r.Context())
		secret, err := e.Enrol(r.Context(), by, q.AgentID)
		if err != nil {
			http.Error(w, err.Error(), enrolStatus(err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(enrolled{secret.Reveal()}) // an agent that went away has to be revoked and enrol again
	})
}

func enrolStatus(err error) int {
	switch {
	case errors.Is(err, controlbus.ErrInvalid):
		return http.StatusBadRequest
	case errors.Is(err, controlbus.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, controlbus.ErrDenied), errors.Is(err, controlbus.ErrNotFound):
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

// EnrolAgent asks a console for a credential. Errors are
// controlbus.ErrUnavailable where it may work later, controlbus.ErrDenied and
// controlbus.ErrConflict where a person has to do something first.
func EnrolAgent(ctx context.Context, client *http.Client, console string, token controlbus.Secret, agentID string) (controlbus.Secret, error) {
	u, err := url.Parse(console)
	if err != nil {
		return "", fmt.Errorf("link: console address: %w: %w", controlbus.ErrInvalid, err)
	}
	body, err := json.Marshal(enrolment{agentID})
	if err != nil {
		return "", fmt.Errorf("link: enrol: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.JoinPath(EnrolPath).String(), bytes.NewReader(body))
	if err != nil {
		return "", fmt.Errorf("link: enrol: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("link: enrol: %w: %w", controlbus.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxEnrolment))
	if err != nil {
		return "", fmt.Errorf("link: enrol: %w: %w", controlbus.ErrUnavailable, err)
	}
	switch {
	case resp.StatusCode == http.StatusConflict:
		return "", fmt.Errorf("link: enrol: %w: %.300s", controlbus.ErrConflict, answer)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return "", fmt.Errorf("link: enrol: the console does not take this enrolment token; it was used up, revoked, or has expired: %w", controlbus.ErrDenied)
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("link: enrol: %w: console answered %s: %.300s", controlbus.ErrUnavailable, resp.Status, answer)
	}
	var e enrolled
	if err := json.Unmarshal(answer, &e); err != nil || e.Credential == "" {
		return "", fmt.Errorf("link: enrol: %w: the answer holds no credential", controlbus.ErrInvalid)
	}
	return controlbus.Secret(e.Credential), nil
}

// speaksFor says whether whoever reports may report as that agent: a credential
// is one agent's, and for its environments.
func speaksFor(ctx context.Context, a controlbus.Agent) error {
	id, ok := access.From(ctx)
	switch {
	case !ok:
		return nil // nobody guards this roster: a test, or a program of one piece
	case id.Kind != access.KindAgent:
		return fmt.Errorf("link: report: %w: only agents report", controlbus.ErrDenied)
	case id.Name != "" && id.Name != a.ID:
		return fmt.Errorf("link: report: %w: this credential is that of agent %q, not of %q", controlbus.ErrDenied, id.Name, a.ID)
	case !id.Can(access.AgentLink, a.Env, "*"):
		return fmt.Errorf("link: report: %w: this credential is not for the environment %q", controlbus.ErrDenied, a.Env)
	}
	return nil
}
