package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Trail is the audit trail, newest first.
type Trail interface {
	Events(ctx context.Context, q access.EventQuery) ([]access.Event, error)
}

// Audit is a page of the audit trail.
type Audit struct {
	Entries []AuditEntry `json:"entries"`
	Next    string       `json:"next,omitempty"`
}

// AuditEntry is one thing that was done, or tried.
type AuditEntry struct {
	Seq     int64     `json:"seq"`
	At      Timestamp `json:"at"`
	Actor   Actor     `json:"actor"`
	Code    string    `json:"code"`
	Target  string    `json:"target,omitempty"`
	Env     string    `json:"env,omitempty"`
	Channel string    `json:"channel,omitempty"`
	Refused bool      `json:"refused"`
	Detail  string    `json:"detail,omitempty"`
	Address string    `json:"address,omitempty"`
}

// Actor is who did something, as it was called then.
type Actor struct {
	Kind string `json:"kind"`
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
}

const maxAudit = 500 // of access.EventQuery

func (a *API) audit(w http.ResponseWriter, r *http.Request) error {
	if a.deps.Trail == nil {
		return fmt.Errorf("this console keeps no audit trail: %w", controlbus.ErrNotFound)
	}
	p := a.params(r)
	limit := p.number("limit", 100, 1, maxAudit)
	q := access.EventQuery{
		Before: p.count("cursor"), Code: p.text("code"), Actor: p.text("actor"), From: p.at("from", time.Time{}), To: p.at("to", time.Time{}), Limit: limit,
	}
	if p.err != nil {
		return p.err
	}
	ctx, cancel := a.bound(r)
	defer cancel()
	found, err := a.deps.Trail.Events(ctx, q)
	if err != nil {
		return fmt.Errorf("read the audit trail: %w", err)
	}
	out := Audit{Entries: make([]AuditEntry, 0, len(found))}
	for _, e := range found {
		out.Entries = append(out.Entries, AuditEntry{
			e.Seq, at(e.At), Actor{string(e.Actor.Kind), e.Actor.ID, e.Actor.Name}, e.Code, e.Target, e.Env, e.Channel, e.Refused, e.Detail, e.Address,
		})
	}
	if len(found) >= limit && found[len(found)-1].Seq > 1 { // there may be more
		out.Next = fmt.Sprint(found[len(found)-1].Seq)
	}
	return write(w, http.StatusOK, out)
}
