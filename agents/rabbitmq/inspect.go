package rabbitmq

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// queueDetail is what the management API tells of one queue. Its numbers lag
// by the broker's statistics interval, its arguments and policy do not.
type queueDetail struct {
	Type      string         `json:"type"`
	Durable   bool           `json:"durable"`
	Exclusive bool           `json:"exclusive"`
	Arguments map[string]any `json:"arguments"`
	Policy    map[string]any `json:"effective_policy_definition"`
	Unacked   *int64         `json:"messages_unacknowledged"`
	Head      any            `json:"head_message_timestamp"` // seconds; "" or null where none
	Messages  int64          `json:"messages"`
	Bytes     int64          `json:"message_bytes"`
}

const detailColumns = "type,durable,exclusive,arguments,effective_policy_definition,messages_unacknowledged,head_message_timestamp,messages,message_bytes"

func (m *management) detail(ctx context.Context, vhost, queue string) (queueDetail, error) {
	var raw struct {
		queueDetail
		Policy json.RawMessage `json:"effective_policy_definition"` // [] where there is none, in some versions
	}
	err := m.do(ctx, http.MethodGet, "/api/queues/"+url.PathEscape(vhost)+"/"+url.PathEscape(queue)+
		"?"+url.Values{"columns": {detailColumns}}.Encode(), nil, &raw)
	if err != nil {
		return queueDetail{}, err
	}
	q := raw.queueDetail
	if q.Type == "" {
		q.Type = "classic"
	}
	if len(raw.Policy) == 0 {
		// It comes with the first statistics, which an idle queue does not give.
		q.Policy = m.policyOf(ctx, vhost, queue, q.Type)
		return q, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw.Policy))
	dec.UseNumber()
	_ = dec.Decode(&q.Policy)
	return q, nil
}

// policyOf works out which policy holds for a queue. It knows none where the
// agent may not list policies, nor those whose pattern only the broker's own
// regular expressions understand.
func (m *management) policyOf(ctx context.Context, vhost, queue, kind string) map[string]any {
	var merged map[string]any
	for _, list := range []string{"policies", "operator-policies"} {
		var all []struct {
			Pattern    string         `json:"pattern"`
			ApplyTo    string         `json:"apply-to"`
			Priority   json.Number    `json:"priority"`
			Definition map[string]any `json:"definition"`
		}
		if m.do(ctx, http.MethodGet, "/api/"+list+"/"+url.PathEscape(vhost), nil, &all) != nil {
			continue
		}
		var best map[string]any
		var rank int64
		for _, p := range all {
			if p.ApplyTo != "" && p.ApplyTo != "all" && p.ApplyTo != "queues" && p.ApplyTo != kind+"_queues" && p.ApplyTo != kind+"s" {
				continue
			}
			pattern, err := regexp.Compile(p.Pattern)
			if n, _ := p.Priority.Int64(); err == nil && pattern.MatchString(queue) && (best == nil || n > rank) {
				best, rank = p.Definition, n
			}
		}
		for k, v := range best {
			have, isNumber := number(merged[k])
			n, _ := number(v)
			if merged == nil {
				merged = map[string]any{}
			}
			if !isNumber || n < have {
				merged[k] = v
			}
		}
	}
	return merged
}

// setting is an optional argument of a queue: x-name among its arguments, or
// name in the policy that holds for it. Of two numbers the broker takes the
// smaller.
func (q queueDetail) setting(name string) (value any, set bool) {
	a, okA := q.Arguments["x-"+name]
	p, okP := q.Policy[name]
	if okA && okP {
		na, isA := number(a)
		np, isP := number(p)
		if isA && isP && np < na {
			return p, true
		}
		return a, true
	}
	if okA {
		return a, true
	}
	return p, okP
}

func (q queueDetail) number(name string) (n int64, set bool) {
	v, ok := q.setting(name)
	if !ok {
		return 0, false
	}
	return number(v)
}

func number(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case float64:
		return int64(v), true
	default:
		return 0, false
	}
}

// queueDetail is what the management API tells of a queue, or empty without one.
func (a *Adapter) queueDetail(ctx context.Context, vhost, queue string) (queueDetail, error) {
	a.mu.Lock()
	api := a.api
	a.mu.Unlock()
	if api == nil {
		return queueDetail{}, nil
	}
	q, err := api.detail(ctx, vhost, queue)
	if errors.Is(err, controlbus.ErrNotFound) {
		return queueDetail{}, err
	}
	if err != nil {
		return queueDetail{}, nil //nolint:nilerr // AMQP itself says what the queue allows
	}
	return q, nil
}

// Inspect asks the broker for exact counts, and the management API for the rest.
func (a *Adapter) Inspect(ctx context.Context, channel string) (agents.ChannelView, error) {
	ctrl, api, err := a.control(ctx)
	if err != nil {
		return agents.ChannelView{}, err
	}
	vhost, queue := a.resolve(channel)
	wrap := func(err error) error { return fmt.Errorf("rabbitmq: inspect %q: %w", channel, err) }
	st, err := a.inspect(ctx, ctrl[vhost], queue)
	if err != nil {
		return agents.ChannelView{}, wrap(err)
	}
	v := agents.ChannelView{Kind: "queue", Ready: int64(st.Messages), Unsettled: -1, Consumers: int64(st.Consumers)}
	if api == nil {
		v.Notes = append(v.Notes, "Without management_url the kind of the queue, its bindings and what consumers hold unacknowledged are not known.")
		return v, nil
	}
	q, err := api.detail(ctx, vhost, queue)
	if err != nil {
		return agents.ChannelView{}, wrap(err)
	}
	bindings, err := api.bindings(ctx, vhost, queue)
	if err != nil {
		return agents.ChannelView{}, wrap(err)
	}
	v.Topology = fingerprint(q.Type, bindings)
	v.Kind = q.Type + " queue"
	if q.Unacked != nil {
		v.Unsettled = *q.Unacked
	}
	if n, ok := number(q.Head); ok && plausible(time.Unix(n, 0), time.Now()) {
		v.Oldest = time.Unix(n, 0)
	}
	v.Notes = notes(q)
	if q.Type == "stream" {
		v.Kind, v.Unsettled = "stream", -1
		if v.UpTo, err = a.streamEnd(ctx, vhost, queue); err != nil {
			return agents.ChannelView{}, wrap(err)
		}
	}
	return v, nil
}

// fingerprint is of what leads messages into the queue.
func fingerprint(kind string, bindings []binding) string {
	ids := make([]string, len(bindings))
	for i, b := range bindings {
		ids[i] = b.id()
	}
	slices.Sort(ids)
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", kind)
	for _, id := range ids {
		fmt.Fprintf(h, "%q\n", id)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// notes are what people should know of the queue before they act on it.
func notes(q queueDetail) []string {
	var out []string
	if q.Type == "quorum" {
		if n, ok := q.number("delivery-limit"); ok && n >= 0 {
			out = append(out, fmt.Sprintf("The queue removes or dead-letters a message that was given back %d times; being looked at or left over by a command counts.", n))
		}
	}
	n, bounded := q.number("max-length")
	if b, ok := q.number("max-length-bytes"); ok && !bounded {
		n, bounded = b, true
	}
	if bounded {
		if how, _ := q.setting("overflow"); how == "reject-publish" || how == "reject-publish-dlx" {
			out = append(out, fmt.Sprintf("The queue is bounded (%d) and refuses messages when it is full.", n))
		} else {
			out = append(out, fmt.Sprintf("The queue is bounded (%d) and drops its oldest messages when it is full.", n))
		}
	}
	if ms, ok := q.number("message-ttl"); ok {
		out = append(out, fmt.Sprintf("Messages expire after %s in the queue.", time.Duration(ms)*time.Millisecond))
	}
	if v, _ := q.setting("single-active-consumer"); v == true {
		out = append(out, "The queue has a single active consumer; what a command takes while it works is missing in that consumer's order.")
	}
	if q.Exclusive {
		out = append(out, "The queue is exclusive to one connection: nobody else can use it.")
	}
	if !q.Durable {
		out = append(out, "The queue is not durable: its messages are gone when the broker restarts.")
	}
	return out
}
