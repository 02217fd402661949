package action

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/controlbus"
)

// A copied message is not a copied header. These families tell of a message's
// death, or tell a broker what to do; carried along, they have lost, wiped and
// multiplied messages. Names are compared in lower case.
var (
	deathPrefixes = []string{
		"x-death", "x-first-death-", "x-last-death-", // RabbitMQ: before 4.0 it obeys a copied one
		"kafka_dlt-", "kafka_exception-", "retry_topic-", "__connect.errors.", "__streams.errors.", "__dlq.errors.",
		"_amq_orig_",
	}
	orderPrefixes = []string{"nats-", "x-opt-", "_amq_sched_"}
	orderNames    = []string{"x-delivery-count", "x-acquired-count", "x-stream-offset", "cc", "bcc", "user-id", "_amq_dupl_id"}
	// ownNames are of an earlier operation on the message.
	ownNames = []string{
		controlbus.HeaderReplay, controlbus.HeaderRedriveID, controlbus.HeaderDetour, controlbus.HeaderHops,
	}
)

func hasPrefix(key string, list []string) bool {
	return slices.ContainsFunc(list, func(p string) bool { return strings.HasPrefix(key, p) })
}

// tellsDeath says whether a header tells how its message died.
func tellsDeath(key string) bool { return hasPrefix(strings.ToLower(key), deathPrefixes) }

// orders says whether a header would make a broker do something.
func orders(key string) bool {
	k := strings.ToLower(strings.TrimSpace(key))
	return hasPrefix(k, orderPrefixes) && !strings.HasPrefix(k, "nats-service-") || slices.Contains(orderNames, k)
}

// copyOf is a message as it is sent again: the same content and identity, without
// what belongs to its life so far. An expiry of its own is not put back: it would
// count from now. deaths says that what tells of its death goes, too, and is
// returned.
func copyOf(m *agents.Message, deaths bool) (out *agents.Message, stripped []agents.Field) {
	c := *m
	c.Raw, c.TTL, c.Deliveries = nil, 0, 0
	c.Headers = make([]agents.Field, 0, len(m.Headers)+4)
	for _, h := range m.Headers {
		switch {
		case orders(h.Key), slices.Contains(ownNames, strings.ToLower(h.Key)):
		case deaths && tellsDeath(h.Key):
			stripped = append(stripped, h)
		default:
			c.Headers = append(c.Headers, h)
		}
	}
	return &c, stripped
}

// maxDeaths bounds the sb-deaths header.
const maxDeaths = 8 << 10

// deathNote is what was stripped, as JSON. What is too long loses its long texts,
// then its last entries; that it did is said in it.
func deathNote(stripped []agents.Field) string {
	type entry struct {
		Header string `json:"header"`
		Value  any    `json:"value"`
	}
	list := make([]entry, len(stripped))
	for i, h := range stripped {
		list[i] = entry{h.Key, plain(h.Value, maxDeaths, 0)}
	}
	b, err := json.Marshal(list)
	if err == nil && len(b) <= maxDeaths {
		return string(b)
	}
	for i, h := range stripped {
		list[i] = entry{cutText(h.Key, 128), plain(h.Value, 200, 0)}
	}
	for n := len(list); n >= 0; n-- {
		short := append(slices.Clone(list[:n]), entry{"sb-cut", len(stripped) - n})
		if b, err = json.Marshal(short); err == nil && len(b) <= maxDeaths {
			return string(b)
		}
	}
	return ""
}

// plain makes a header's value fit for JSON.
func plain(v any, most, depth int) any {
	if depth > 16 {
		return "…"
	}
	switch v := v.(type) {
	case string:
		return cutText(v, most)
	case []byte:
		if utf8.Valid(v) {
			return cutText(string(v), most)
		}
		return "base64:" + base64.StdEncoding.EncodeToString(v[:min(len(v), most)])
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case float32, float64:
		return fmt.Sprint(v) // NaN is no JSON
	case []any:
		out := make([]any, 0, min(len(v), 50))
		for _, e := range v[:min(len(v), 50)] {
			out = append(out, plain(e, most, depth+1))
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			if len(out) < 50 {
				out[cutText(k, 128)] = plain(e, most, depth+1)
			}
		}
		return out
	}
	return v
}

// cutText cuts at a byte limit, not within a character.
func cutText(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// redrives is how often the message says that it was redriven. Producers write
// headers: what is no number counts as none.
func redrives(m *agents.Message) int {
	for _, h := range m.Headers {
		if !strings.EqualFold(h.Key, controlbus.HeaderRedrive) {
			continue
		}
		n, err := strconv.Atoi(fmt.Sprint(plain(h.Value, 20, 0)))
		if err == nil && n > 0 {
			return min(n, 1<<20)
		}
	}
	return 0
}

// diedIn is the channel a message died in: the newest death that its broker tells
// of, else what libraries write. Empty: nothing says.
func diedIn(ad agents.Adapter, channel string, m *agents.Message) string {
	if r, ok := ad.(agents.Reviver); ok {
		if ch := r.DiedIn(channel, m); ch != "" {
			return ch
		}
	}
	ev := &controlbus.MessageEvent{Destination: channel, Headers: flatHeaders(m)}
	agents.LiftHeaders(ev)
	return ev.DeadLetterSource
}
