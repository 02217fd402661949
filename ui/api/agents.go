package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
)

// Agents is the fleet.
type Agents struct {
	Agents []Agent `json:"agents"`
}

// Agent is an agent as the console knows it.
type Agent struct {
	ID              string    `json:"id"`
	Presence        string    `json:"presence"`
	LastSeen        Timestamp `json:"last_seen"`
	Env             string    `json:"env"`
	Host            string    `json:"host"`
	Version         string    `json:"version"`
	Incarnation     string    `json:"incarnation"`
	StartedAt       Timestamp `json:"started_at,omitzero"`
	ClockOffsetNs   *string   `json:"clock_offset_ns"`
	Revision        int64     `json:"revision"`
	DesiredRevision int64     `json:"desired_revision"`
	Rival           string    `json:"rival,omitempty"`
	Brokers         []Broker  `json:"brokers"`
	Taps            []Tap     `json:"taps"`
	Spool           Spool     `json:"spool"`
}

// Broker is a connection of an agent.
type Broker struct {
	Name         string    `json:"name"`
	System       string    `json:"system"`
	Product      string    `json:"product,omitempty"`
	Connected    bool      `json:"connected"`
	Since        Timestamp `json:"since,omitzero"`
	Error        string    `json:"error,omitempty"`
	Capabilities []string  `json:"capabilities"`
	Leftovers    []string  `json:"leftovers,omitempty"`
}

// Spool is an agent's disk buffer.
type Spool struct {
	Bytes    int64     `json:"bytes"`
	MaxBytes int64     `json:"max_bytes"`
	Records  int64     `json:"records"`
	Dropped  int64     `json:"dropped"`
	SentLast Timestamp `json:"sent_last,omitzero"`
	Error    string    `json:"error,omitempty"`
}

// Taps is what is tapped.
type Taps struct {
	Taps []Tap `json:"taps"`
}

// Tap is a wire tap that an agent holds, or was asked for and has not reported
// yet.
type Tap struct {
	ID         string    `json:"id"`
	Agent      string    `json:"agent"`
	Env        string    `json:"env"`
	Broker     string    `json:"broker"`
	Channel    string    `json:"channel"`
	Pattern    string    `json:"pattern,omitempty"`
	State      string    `json:"state"`
	Technique  string    `json:"technique,omitempty"`
	Notes      []string  `json:"notes,omitempty"`
	Since      Timestamp `json:"since,omitzero"`
	Error      string    `json:"error,omitempty"`
	Origin     string    `json:"origin"`
	Owner      string    `json:"owner,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Until      Timestamp `json:"until,omitzero"`
	BodyPolicy string    `json:"body_policy"`
	Loss       *Loss     `json:"loss,omitempty"`
}

// Loss is what a tap saw and what it missed.
type Loss struct {
	Received        int64   `json:"received"`
	DroppedByAgent  int64   `json:"dropped_by_agent"`
	DroppedByBroker *int64  `json:"dropped_by_broker,omitempty"`
	BlindNs         *string `json:"blind_ns"`
	Gaps            int64   `json:"gaps"`
}

func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func agent(v *controlbus.AgentView) Agent {
	out := Agent{
		ID: v.ID, Presence: string(v.Presence), LastSeen: at(v.LastSeen), Env: v.Env, Host: v.Host, Version: v.Version, Incarnation: v.Incarnation,
		StartedAt: at(v.StartedAt), ClockOffsetNs: big(int64(v.ClockOffset), true), Revision: v.Revision, DesiredRevision: v.Desired.Revision, Rival: v.Rival,
		Brokers: make([]Broker, 0, len(v.Brokers)), Taps: tapsOf(v),
		Spool: Spool{v.Spool.Bytes, v.Spool.MaxBytes, v.Spool.Records, v.Spool.Dropped, at(v.Spool.SentLast), v.Spool.Error},
	}
	for _, b := range v.Brokers {
		out.Brokers = append(out.Brokers, Broker{b.Name, b.System, b.Product, b.Connected, at(b.Since), b.Error, list(b.Capabilities), b.Leftovers})
	}
	return out
}

// stateAsked is a tap the agent has not said anything of yet.
const stateAsked = "asked"

func tapsOf(v *controlbus.AgentView) []Tap {
	out := make([]Tap, 0, len(v.Taps)+len(v.Desired.Taps))
	spec := func(s *controlbus.TapSpec) Tap {
		return Tap{
			ID: s.ID, Agent: v.ID, Env: v.Env, Broker: s.Broker, Channel: s.Channel, State: stateAsked,
			Origin: s.Origin, Owner: s.Owner, Reason: s.Reason, Until: at(s.Until), BodyPolicy: s.Body.String(),
		}
	}
	reported := map[string]bool{}
	for i := range v.Taps {
		s := &v.Taps[i]
		reported[s.Spec.ID] = true
		t := spec(&s.Spec)
		t.State, t.Technique, t.Notes, t.Since, t.Error = string(s.State), s.Technique, s.Notes, at(s.Since), s.Error
		if s.Channel != "" && s.Channel != s.Spec.Channel {
			t.Channel, t.Pattern = s.Channel, s.Spec.Channel
		}
		t.Loss = &Loss{Received: s.Loss.Received, DroppedByAgent: s.Loss.DroppedByAgent, BlindNs: big(int64(s.Loss.Blind), true), Gaps: s.Loss.Gaps}
		if s.Loss.DroppedByBroker >= 0 {
			t.Loss.DroppedByBroker = &s.Loss.DroppedByBroker
		}
		out = append(out, t)
	}
	for i := range v.Desired.Taps {
		if s := &v.Desired.Taps[i]; !reported[s.ID] {
			out = append(out, spec(s))
		}
	}
	return out
}

func (a *API) agents(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	env := p.text("env")
	all, err := a.fleet(r.Context())
	if p.err != nil {
		err = p.err
	}
	if err != nil {
		return err
	}
	out := Agents{Agents: []Agent{}}
	for i := range all {
		if env == "" || all[i].Env == env {
			out.Agents = append(out.Agents, agent(&all[i]))
		}
	}
	return write(w, http.StatusOK, out)
}

func (a *API) taps(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	env, broker := p.text("env"), p.text("broker")
	all, err := a.fleet(r.Context())
	if p.err != nil {
		err = p.err
	}
	if err != nil {
		return err
	}
	out := Taps{Taps: []Tap{}}
	for i := range all {
		for _, t := range tapsOf(&all[i]) {
			if (env == "" || t.Env == env) && (broker == "" || t.Broker == broker) {
				out.Taps = append(out.Taps, t)
			}
		}
	}
	return write(w, http.StatusOK, out)
}

// TapRequest asks for a tap.
type TapRequest struct {
	Env     string `json:"env"`
	System  string `json:"system"`
	Broker  string `json:"broker"`
	Channel string `json:"channel"`
	Reason  string `json:"reason"`
	Lease   string `json:"lease"`
}

const (
	minLease = time.Minute
	maxLease = 24 * time.Hour
)

func (a *API) startTap(w http.ResponseWriter, r *http.Request) error {
	all, err := a.fleet(r.Context())
	if err != nil {
		return err
	}
	var q TapRequest
	if err := readBody(w, r, &q); err != nil {
		return err
	}
	if q.Broker == "" || q.Channel == "" {
		return fmt.Errorf("%w: a channel is named by broker and channel", controlbus.ErrInvalid)
	}
	lease, err := time.ParseDuration(q.Lease)
	if err != nil || lease < minLease || lease > maxLease {
		return fmt.Errorf("%w: lease %.40q: want a duration from 1m to 24h", controlbus.ErrInvalid, q.Lease)
	}
	ask := channels.TapRequest{
		Channel: controlbus.ChannelName{Env: q.Env, System: q.System, Broker: q.Broker, Name: q.Channel}, Reason: q.Reason, Lease: lease,
	}
	id, err := channels.Ask(r.Context(), all, a.deps.Fleet, a.deps.Now(), ask)
	if err != nil {
		return err
	}
	// The wish is recorded; the answer is what was recorded.
	for _, v := range a.deps.Fleet.Agents(r.Context()) {
		for _, t := range tapsOf(&v) {
			if v.ID == id && t.Broker == q.Broker && t.Channel == q.Channel && t.Origin == "console" {
				return write(w, http.StatusAccepted, t)
			}
		}
	}
	return fmt.Errorf("tap %s: it was asked for and is gone already: %w", q.Channel, controlbus.ErrConflict)
}

func (a *API) endTap(w http.ResponseWriter, r *http.Request) error {
	if _, err := a.fleet(r.Context()); err != nil {
		return err
	}
	p := a.params(r)
	agentID, tapID := p.required("agent"), p.required("id")
	if p.err != nil {
		return p.err
	}
	if err := a.deps.Fleet.ReleaseTap(r.Context(), agentID, tapID); err != nil {
		return fmt.Errorf("end tap %s: %w", tapID, err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// maxRequest is what the body of a request may be.
const maxRequest = 64 << 10

// readBody reads one JSON object with known fields only.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return fmt.Errorf("%w: content type %.100q: want application/json", controlbus.ErrInvalid, r.Header.Get("Content-Type"))
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return fmt.Errorf("%w: a request of more than %d bytes", controlbus.ErrTooLarge, maxRequest)
		}
		return fmt.Errorf("%w: body: %w", controlbus.ErrInvalid, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: body: want one JSON object and nothing behind it", controlbus.ErrInvalid)
	}
	return nil
}
