package ui

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page/channels"
)

// limited is the store as whoever asks may see it. Pages and API get nothing
// else. The scope in the context, which package guard put there, limits what the
// store reads; what comes back is looked at again here, so that a store that
// forgot would show. Without an identity nothing is read. There is no embedding:
// a new method of Store does not compile until somebody has decided here.
type limited struct {
	store Store
	audit *audit
}

// who is the reader and what reading is limited to. It fails closed.
func who(ctx context.Context) (access.Identity, controlbus.Scope, error) {
	id, ok := access.From(ctx)
	scope, limitedTo := controlbus.ScopeFrom(ctx)
	if !ok || !limitedTo {
		return id, scope, fmt.Errorf("nobody is known to ask: %w", access.ErrUnauthenticated)
	}
	return id, scope, nil
}

func gone(what string) error { return fmt.Errorf("%s: %w", what, controlbus.ErrNotFound) }

func (l *limited) Environments(ctx context.Context, within storage.TimeRange) ([]string, error) {
	_, scope, err := who(ctx)
	if err != nil || scope.None() {
		return nil, err
	}
	all, err := l.store.Environments(ctx, within)
	return slices.DeleteFunc(slices.Clone(all), func(env string) bool { return !scope.AllowsEnv(env) }), err
}

// readsBodies says whether a search looks into payloads: then its answer tells
// what is in them.
func readsBodies(q storage.MessageQuery) bool { return q.BodyWord != "" || q.Filter.NeedsBody() }

// search is what a search is limited to. One that looks into payloads is done
// only where they may be read: elsewhere its answer would tell what is in them.
func search(ctx context.Context, q storage.MessageQuery) (context.Context, access.Identity, controlbus.Scope, error) {
	id, scope, err := who(ctx)
	if err != nil || !readsBodies(q) {
		return ctx, id, scope, err
	}
	bodies := id.Scope(access.ReadBody)
	if bodies.None() {
		return ctx, id, bodies, fmt.Errorf("search in payloads: %w. %s", controlbus.ErrDenied, id.Why(access.ReadBody))
	}
	scope = scope.And(bodies)
	return controlbus.WithScope(ctx, scope), id, scope, nil
}

func (l *limited) Histogram(ctx context.Context, q storage.MessageQuery, step time.Duration) (storage.Histogram, error) {
	ctx, _, _, err := search(ctx, q)
	if err != nil {
		return storage.Histogram{}, err
	}
	return l.store.Histogram(ctx, q, step)
}

// FieldValues are names, not payloads.
func (l *limited) FieldValues(ctx context.Context, q storage.ValuesQuery) ([]storage.FieldValue, error) {
	_, scope, err := who(ctx)
	if err != nil || scope.None() || q.Env != "" && !scope.AllowsEnv(q.Env) {
		return nil, err
	}
	list, err := l.store.FieldValues(ctx, q)
	return slices.DeleteFunc(slices.Clone(list), func(v storage.FieldValue) bool {
		return q.Field == "env" && !scope.AllowsEnv(v.Value) || q.Field == "channel" && q.Env != "" && !scope.Allows(q.Env, v.Value)
	}), err
}

func (l *limited) Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error) {
	ctx, id, scope, err := search(ctx, q)
	if err != nil {
		return storage.MessagePage{}, err
	}
	bodies := id.Scope(access.ReadBody)
	q.Snippets = q.Snippets && !bodies.None()
	found, err := l.store.Messages(ctx, q)
	found.Messages = slices.DeleteFunc(found.Messages, func(m storage.Message) bool { return !scope.Allows(m.Env, m.Destination) })
	shown := false
	for i := range found.Messages {
		m := &found.Messages[i]
		if !bodies.Allows(m.Env, m.Destination) {
			m.Snippet, m.BodySHA256 = "", "" // a hash tells what a short payload is
		}
		shown = shown || m.Snippet != ""
	}
	if err == nil && (shown || readsBodies(q)) {
		e := access.Event{Code: access.EventBodyPreview, Env: q.Env, Channel: q.Channel, Detail: "Beginnings of payloads in a list."}
		if readsBodies(q) {
			e.Detail = "A search in payloads."
		}
		err = l.audit.once(ctx, id, e)
	}
	return found, err
}

func (l *limited) Message(ctx context.Context, uid controlbus.ID, near time.Time) (storage.MessageDetail, error) {
	id, scope, err := who(ctx)
	if err != nil {
		return storage.MessageDetail{}, err
	}
	d, err := l.store.Message(ctx, uid, near)
	if err != nil {
		return d, err
	}
	if !scope.Allows(d.Env, d.Destination) {
		return storage.MessageDetail{}, gone("message " + uid.String())
	}
	if !id.Can(access.ReadBody, d.Env, d.Destination) {
		if d.BodyStored {
			d.BodyHidden = id.Why(access.ReadBody)
		}
		d.Body, d.Snippet, d.BodySHA256, d.BodyStored = nil, "", "", false
		return d, nil
	}
	if d.BodyStored {
		// Recorded before it is shown.
		err = l.audit.once(ctx, id, access.Event{Code: access.EventBodyRead, Target: "message " + uid.String(), Env: d.Env, Channel: d.Destination})
	}
	if err != nil {
		return storage.MessageDetail{}, err
	}
	return d, nil
}

// Bodies reads the payloads of messages that a search found, where they may be
// read; the others are missing as if they were not stored.
func (l *limited) Bodies(ctx context.Context, of []storage.Message) (map[controlbus.ID][]byte, error) {
	id, scope, err := who(ctx)
	if err != nil {
		return nil, err
	}
	scope = scope.And(id.Scope(access.ReadBody))
	allowed := make([]storage.Message, 0, len(of))
	for i := range of {
		if scope.Allows(of[i].Env, of[i].Destination) {
			allowed = append(allowed, of[i])
		}
	}
	if len(allowed) == 0 {
		return nil, nil
	}
	if err := l.audit.once(ctx, id, access.Event{Code: access.EventBodyRead, Target: "a result", Detail: "Payloads of many messages at once."}); err != nil {
		return nil, err
	}
	return l.store.Bodies(controlbus.WithScope(ctx, scope), allowed)
}

func (l *limited) Conversation(ctx context.Context, q storage.ConversationQuery) (storage.Conversation, error) {
	_, scope, err := who(ctx)
	if err != nil {
		return storage.Conversation{}, err
	}
	// Its events are without payloads.
	c, err := l.store.Conversation(ctx, q)
	c.Events = slices.DeleteFunc(c.Events, func(e storage.ConversationEvent) bool {
		switch {
		case e.Message != nil:
			return !scope.Allows(e.Message.Env, e.Message.Destination)
		case e.Span != nil:
			return !scope.Allows(e.Span.Env, e.Span.Destination)
		case e.Log != nil:
			return !scope.Allows(e.Log.Env, e.Log.Destination)
		}
		return true
	})
	return c, err
}

func (l *limited) Channels(ctx context.Context, q storage.ChannelQuery) ([]storage.ChannelState, error) {
	_, scope, err := who(ctx)
	if err != nil {
		return nil, err
	}
	all, err := l.store.Channels(ctx, q)
	return slices.DeleteFunc(all, func(c storage.ChannelState) bool { return !scope.Allows(c.Env, c.Name) }), err
}

func (l *limited) ChannelSeries(ctx context.Context, q storage.SeriesQuery) (storage.ChannelSeries, error) {
	_, scope, err := who(ctx)
	if err != nil {
		return storage.ChannelSeries{}, err
	}
	if !scope.Allows(q.Channel.Env, q.Channel.Name) {
		return storage.ChannelSeries{}, gone("channel " + q.Channel.String())
	}
	return l.store.ChannelSeries(ctx, q)
}

func (l *limited) Totals(ctx context.Context, env string, within storage.TimeRange) (storage.Totals, error) {
	_, scope, err := who(ctx)
	if err != nil {
		return storage.Totals{}, err
	}
	if scope.None() || env != "" && !scope.AllowsEnv(env) {
		return storage.Totals{}, nil
	}
	return l.store.Totals(ctx, env, within)
}

func (l *limited) Passed(ctx context.Context, env string, within storage.TimeRange) (storage.Passed, error) {
	_, scope, err := who(ctx)
	if err != nil || scope.None() || env != "" && !scope.AllowsEnv(env) {
		return storage.Passed{}, err
	}
	return l.store.Passed(ctx, env, within)
}

// Tables is how large the store is, which belongs to no environment.
func (l *limited) Tables(ctx context.Context) ([]storage.TableSize, error) {
	if _, _, err := who(ctx); err != nil {
		return nil, err
	}
	return l.store.Tables(ctx)
}

// Invalid lists records that belong to no environment, because nobody could
// read which: they are for who may see everything, and their bytes for who may
// read every payload.
func (l *limited) Invalid(ctx context.Context, within storage.TimeRange, limit int) ([]storage.Invalid, error) {
	id, scope, err := who(ctx)
	if err != nil {
		return nil, err
	}
	if !scope.All() {
		return nil, fmt.Errorf("invalid records belong to no environment, so they need the right to see all of them: %w", controlbus.ErrDenied)
	}
	list, err := l.store.Invalid(ctx, within, limit)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	if !id.Scope(access.ReadBody).All() {
		for i := range list {
			list[i].Data = nil
		}
		return list, nil
	}
	return list, l.audit.once(ctx, id, access.Event{Code: access.EventBodyRead, Target: "invalid messages", Detail: "Records that could not be understood, with their bytes."})
}

// fleet is the roster as whoever asks may see and change it.
type fleet struct {
	roster Roster
	audit  *audit
}

// Agents leaves out agents of other environments, and what concerns other
// channels.
func (f *fleet) Agents(ctx context.Context) []controlbus.AgentView {
	_, scope, err := who(ctx)
	if err != nil || scope.None() {
		return nil
	}
	all := f.roster.Agents()
	if scope.All() {
		return all
	}
	var out []controlbus.AgentView
	for _, a := range all {
		if !scope.AllowsEnv(a.Env) {
			continue
		}
		a.Taps = slices.DeleteFunc(slices.Clone(a.Taps), func(t controlbus.TapStatus) bool {
			name := t.Channel
			if name == "" {
				name = t.Spec.Channel
			}
			return !scope.Allows(a.Env, name)
		})
		a.Detours = slices.DeleteFunc(slices.Clone(a.Detours), func(d controlbus.DetourStatus) bool { return !scope.Allows(a.Env, d.Channel) })
		a.Desired.Taps = slices.DeleteFunc(slices.Clone(a.Desired.Taps), func(t controlbus.TapSpec) bool { return !scope.Allows(a.Env, t.Channel) })
		out = append(out, a)
	}
	return out
}

// find returns an agent that whoever asks may see.
func (f *fleet) find(ctx context.Context, agentID string) (controlbus.AgentView, access.Identity, error) {
	id, _, err := who(ctx)
	if err != nil {
		return controlbus.AgentView{}, id, err
	}
	for _, a := range f.Agents(ctx) {
		if a.ID == agentID {
			return a, id, nil
		}
	}
	return controlbus.AgentView{}, id, gone("agent " + agentID)
}

// RequestTap asks for a tap on a channel where whoever asks may have one. A
// pattern is allowed where all it can match is.
func (f *fleet) RequestTap(ctx context.Context, agentID string, spec controlbus.TapSpec) error {
	a, id, err := f.find(ctx, agentID)
	if err != nil {
		return err
	}
	if !id.Can(access.RequestTap, a.Env, spec.Channel) {
		return fmt.Errorf("tap %s in %s: %w. %s", spec.Channel, a.Env, controlbus.ErrDenied, id.Why(access.RequestTap))
	}
	spec.Owner = id.Name
	e := access.Event{Code: access.EventTapRequest, Target: "agent " + agentID, Env: a.Env, Channel: spec.Channel, Detail: spec.Reason}
	if err := f.audit.access.Record(ctx, e); err != nil {
		return err
	}
	return f.roster.RequestTap(ctx, agentID, spec)
}

// ReleaseTap gives back a tap that the console asked for.
func (f *fleet) ReleaseTap(ctx context.Context, agentID, tapID string) error {
	a, id, err := f.find(ctx, agentID)
	if err != nil {
		return err
	}
	channel := ""
	for _, t := range a.Desired.Taps {
		if t.ID == tapID {
			channel = t.Channel
		}
	}
	for _, t := range a.Taps {
		if t.Spec.ID == tapID {
			channel = t.Spec.Channel
		}
	}
	if channel == "" {
		return gone("tap " + tapID)
	}
	if !id.Can(access.RequestTap, a.Env, channel) {
		return fmt.Errorf("end the tap on %s in %s: %w. %s", channel, a.Env, controlbus.ErrDenied, id.Why(access.RequestTap))
	}
	e := access.Event{Code: access.EventTapRelease, Target: "agent " + agentID, Env: a.Env, Channel: channel}
	if err := f.audit.access.Record(ctx, e); err != nil {
		return err
	}
	return f.roster.ReleaseTap(ctx, agentID, tapID)
}

// tapRights say what of the passing messages whoever opens a live tap may see.
type tapRights struct {
	access *access.Service
	audit  *audit
}

func (t *tapRights) limit(ctx context.Context, q *controlbus.LiveQuery) (user string, err error) {
	id, scope, err := who(ctx)
	if err != nil {
		return "", err
	}
	q.Scope, q.Bodies = scope, id.Scope(access.ReadBody)
	if q.Env != "" && !scope.AllowsEnv(q.Env) {
		return "", fmt.Errorf("live tap in %s: %w. %s", component.Visible(q.Env), controlbus.ErrDenied, id.Why(access.LiveTap))
	}
	if !q.Bodies.None() {
		e := access.Event{Code: access.EventBodyPreview, Env: q.Env, Channel: strings.Join(q.Channels, " "), Detail: "Beginnings of payloads in a live tap."}
		if err := t.audit.once(ctx, id, e); err != nil {
			return "", err
		}
	}
	if id.Kind != access.KindAnonymous {
		user = id.ID
	}
	return user, nil
}

// still says whether what limit has allowed holds.
func (t *tapRights) still(ctx context.Context, q controlbus.LiveQuery) error {
	id, ok := access.From(ctx)
	if !ok {
		return access.ErrUnauthenticated
	}
	id, err := t.access.Still(ctx, id)
	if err != nil {
		return err
	}
	switch scope, bodies := id.Scope(access.LiveTap), id.Scope(access.ReadBody); {
	case scope.None():
		return fmt.Errorf("live taps: %w", controlbus.ErrDenied)
	case !scope.Equal(q.Scope) || !bodies.Equal(q.Bodies):
		return fmt.Errorf("rights to live taps: %w", controlbus.ErrConflict)
	}
	return nil
}

var (
	_ Store               = (*limited)(nil)
	_ channels.TapControl = (*fleet)(nil)
)

// audit records what is read. A page that refreshes itself reads the same again
// and again; that is one entry each quarter of an hour.
type audit struct {
	access *access.Service
	now    func() time.Time

	mu   sync.Mutex
	seen map[string]time.Time
}

const (
	auditAgain = 15 * time.Minute
	auditSeen  = 10000
)

func (a *audit) once(ctx context.Context, id access.Identity, e access.Event) error {
	key := strings.Join([]string{id.ID, id.Session, e.Code, e.Target, e.Env, e.Channel, e.Detail}, "\x00")
	now := a.now()
	a.mu.Lock()
	at, ok := a.seen[key]
	a.mu.Unlock()
	if ok && now.Sub(at) < auditAgain {
		return nil
	}
	if err := a.access.Record(ctx, e); err != nil {
		return fmt.Errorf("what is read is recorded, and that fails now: %w: %w", controlbus.ErrUnavailable, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seen) >= auditSeen {
		for k, at := range a.seen {
			if now.Sub(at) >= auditAgain {
				delete(a.seen, k)
			}
		}
		if len(a.seen) >= auditSeen {
			clear(a.seen)
		}
	}
	a.seen[key] = now
	return nil
}
