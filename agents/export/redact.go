package export

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Redaction is the "redaction" section of the agent's configuration. It is
// applied before anything is written to disk.
type Redaction struct {
	// Headers are names whose values are masked: any case, * for any run of
	// characters. Given, the list replaces the default one.
	Headers []string `yaml:"headers"`
	// Paths are places in JSON bodies whose values are masked.
	Paths []PathRule `yaml:"paths"`
	// Bodies says what of a body is kept, per channel; the first match counts,
	// and without one the body is kept whole.
	Bodies []BodyRule `yaml:"bodies"`
	// MaxBody cuts bodies; the true size is kept.
	MaxBody int64 `yaml:"max_body_bytes"`
}

// PathRule masks one path.
type PathRule struct {
	Name    string `yaml:"name"`    // shown on messages it changed; the path where empty
	Path    string `yaml:"path"`    // $.card.pan, $..password, $.items[*].key
	Channel string `yaml:"channel"` // pattern, of all brokers; empty for all channels
}

// BodyRule is one line of the body policy.
type BodyRule struct {
	Broker  string                `yaml:"broker"` // pattern; empty for all
	Channel string                `yaml:"channel"`
	Policy  controlbus.BodyPolicy `yaml:"policy"`
}

// DefaultRedaction masks what usually carries credentials.
func DefaultRedaction() Redaction {
	return Redaction{
		Headers: []string{
			"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "*apikey*", "*api-key*",
			"*token*", "*secret*", "*password*",
		},
		MaxBody: 256 << 10,
	}
}

// Validate reports every problem at once, each under its own key.
func (r Redaction) Validate() error {
	var errs []error
	for i, p := range r.Paths {
		if _, err := parsePath(p.Path); err != nil {
			errs = append(errs, fmt.Errorf("paths[%d].path: %w", i, err))
		}
	}
	for i, b := range r.Bodies {
		if b.Channel == "" {
			errs = append(errs, fmt.Errorf("bodies[%d].channel: want a name or a pattern", i))
		}
	}
	if r.MaxBody <= 0 || r.MaxBody > 64<<20 {
		errs = append(errs, fmt.Errorf("max_body_bytes: want 1 to %d, have %d", 64<<20, r.MaxBody))
	}
	return errors.Join(errs...)
}

// Mask takes the place of what is redacted.
const Mask = "***"

// RuleEncoded is the name of the rule that withholds a compressed body from
// which paths should be masked: they cannot be found in it.
const RuleEncoded = "encoded body"

// Redactor applies a Redaction. One goroutine uses it at a time.
type Redactor struct {
	cfg      Redaction
	headers  []headerRule
	names    map[string]int // header name as seen -> rule, -1 none; bounded
	channels map[channelKey]*channelRules
	scratch  []byte
}

type headerRule struct{ pattern, name string }

type channelKey struct{ broker, channel string }

type channelRules struct {
	policy controlbus.BodyPolicy
	paths  *pathSet // nil: none
}

// maxCached bounds the caches; a producer chooses header and channel names.
const maxCached = 4096

// NewRedactor compiles the rules.
func NewRedactor(cfg Redaction) (*Redactor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("export: redaction: %w: %w", controlbus.ErrInvalid, err)
	}
	r := &Redactor{cfg: cfg, names: map[string]int{}, channels: map[channelKey]*channelRules{}}
	for _, h := range cfg.Headers {
		r.headers = append(r.headers, headerRule{strings.ToLower(h), "header " + h})
	}
	return r, nil
}

// Apply redacts the event in place. policy is what the tap asks for; the
// stricter of it and the channel's counts. maxBody is the tap's cap, 0 for the
// configured one. The body may end in a buffer that the next call uses again.
func (r *Redactor) Apply(ev *controlbus.MessageEvent, policy controlbus.BodyPolicy, maxBody int64) {
	for i := range ev.Headers {
		if rule := r.headerRule(ev.Headers[i].Key); rule >= 0 {
			// An error text that adapters lift out of a header must not leave
			// beside it.
			for _, lifted := range []*string{&ev.ErrorType, &ev.DeadLetterReason} {
				if *lifted != "" && strings.Contains(ev.Headers[i].Value, *lifted) {
					*lifted = Mask
				}
			}
			ev.Headers[i].Value = Mask
			note(ev, r.headers[rule].name)
		}
	}
	rules := r.rules(ev.Broker, ev.Destination)
	policy = stricter(policy, stricter(rules.policy, ev.BodyPolicy))
	if policy == controlbus.BodyFull && rules.paths != nil && opaque(ev) {
		policy = controlbus.BodyMetadata
		note(ev, RuleEncoded)
	}
	if policy != controlbus.BodyFull {
		if policy == controlbus.BodyHash && !ev.Truncated {
			sum := sha256.Sum256(ev.Body)
			ev.BodySHA256 = hex.EncodeToString(sum[:])
		}
		ev.BodyPolicy, ev.Body, ev.Truncated = policy, nil, false
		return
	}
	limit := r.cfg.MaxBody
	if maxBody > 0 {
		limit = min(limit, maxBody)
	}
	cut(ev, limit)
	if rules.paths == nil {
		return
	}
	// What is masked is what is left after the cut, so that a huge body costs
	// no more than a capped one. Masking may lengthen it again.
	if edits := rules.paths.find(ev.Body); len(edits) > 0 {
		r.scratch = r.scratch[:0]
		at := 0
		for _, e := range edits {
			r.scratch = append(append(r.scratch, ev.Body[at:e.from]...), `"`+Mask+`"`...)
			at = e.to
			note(ev, rules.paths.names[e.rule])
		}
		r.scratch = append(r.scratch, ev.Body[at:]...)
		ev.Body = r.scratch
		cut(ev, limit)
	}
}

func cut(ev *controlbus.MessageEvent, limit int64) {
	if int64(len(ev.Body)) > limit {
		ev.Body, ev.Truncated = ev.Body[:limit:limit], true
	}
}

func note(ev *controlbus.MessageEvent, rule string) {
	if !slices.Contains(ev.Redacted, rule) {
		ev.Redacted = append(ev.Redacted, rule)
	}
}

// stricter orders the policies by what they let out: all, a hash, nothing.
func stricter(a, b controlbus.BodyPolicy) controlbus.BodyPolicy {
	if a == controlbus.BodyMetadata || b == controlbus.BodyMetadata {
		return controlbus.BodyMetadata
	}
	return max(a, b)
}

// opaque says that the body is compressed or encrypted.
func opaque(ev *controlbus.MessageEvent) bool {
	if e := ev.ContentEncoding; e != "" && !strings.EqualFold(e, "identity") && !strings.EqualFold(e, "utf-8") && !strings.EqualFold(e, "utf8") {
		return true
	}
	return bytes.HasPrefix(ev.Body, []byte{0x1f, 0x8b}) || bytes.HasPrefix(ev.Body, []byte{0x28, 0xb5, 0x2f, 0xfd})
}

func (r *Redactor) headerRule(key string) int {
	if rule, ok := r.names[key]; ok {
		return rule
	}
	lower := strings.ToLower(key)
	rule := slices.IndexFunc(r.headers, func(h headerRule) bool { return controlbus.MatchPattern(h.pattern, lower) })
	if len(r.names) < maxCached && len(key) <= 128 {
		r.names[strings.Clone(key)] = rule
	}
	return rule
}

func (r *Redactor) rules(broker, channel string) *channelRules {
	if c, ok := r.channels[channelKey{broker, channel}]; ok {
		return c
	}
	c := &channelRules{}
	for _, b := range r.cfg.Bodies {
		if (b.Broker == "" || controlbus.MatchPattern(b.Broker, broker)) && controlbus.MatchPattern(b.Channel, channel) {
			c.policy = b.Policy
			break
		}
	}
	var set pathSet
	for _, p := range r.cfg.Paths {
		if p.Channel != "" && !controlbus.MatchPattern(p.Channel, channel) {
			continue
		}
		segs, _ := parsePath(p.Path) // checked by Validate
		name := p.Name
		if name == "" {
			name = p.Path
		}
		set.add(name, segs)
	}
	if len(set.names) > 0 {
		c.paths = &set
	}
	if len(r.channels) < maxCached {
		r.channels[channelKey{strings.Clone(broker), strings.Clone(channel)}] = c
	}
	return c
}
