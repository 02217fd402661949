package ledger

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/access"
)

// Beginnings of message bodies stand in the samples of previews, and in the
// evidence of results, such as a peek's, under the same name; a test message's
// body stands in its arguments. Whoever may not read bodies gets none of them.
const excerptKey = "excerpt"

// sees says what of a command is for who asks: bodies, and samples at all. What
// a replay sends is of other channels than the one it is sent to, so its samples
// are for those who may see everything that it was chosen from.
func sees(who access.Identity, c *controlbus.Command) (bodies, samples bool) {
	ch := c.Target.Channel
	bodies = who.Can(access.ReadBody, ch.Env, ch.Name)
	if c.Kind != controlbus.CommandReplay {
		return bodies, true
	}
	args, err := controlbus.DecodeArgs[controlbus.ReplayArgs](c.Args)
	switch {
	case err != nil:
		return false, false
	case args.Selection == nil: // an undo: from the channel itself
		return bodies, true
	}
	return bodies && covers(who, access.ReadBody, args.Selection), covers(who, access.ViewMetadata, args.Selection)
}

// covers says whether who may do a wherever a selection was chosen from. All of
// its sets of rules hold, so one that is covered is enough; the star of a rule's
// pattern is a character that the star of who's own takes in.
func covers(who access.Identity, a access.Action, sel *controlbus.Selection) bool {
	if sel.All || len(sel.Scope) == 0 {
		return who.Can(a, sel.Env, "*")
	}
	return slices.ContainsFunc(sel.Scope, func(set []controlbus.ScopeRule) bool {
		return !slices.ContainsFunc(set, func(r controlbus.ScopeRule) bool {
			return controlbus.MatchPattern(r.Env, sel.Env) && !who.Can(a, sel.Env, r.Channel)
		})
	})
}

// argsWithout are arguments without a body; what cannot be read is left out
// whole.
func argsWithout(kind controlbus.CommandKind, raw json.RawMessage) json.RawMessage {
	if kind != controlbus.CommandTest || len(raw) == 0 {
		return raw
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return nil
	}
	for name := range fields {
		if strings.EqualFold(name, "body") { // as the decoder reads it
			delete(fields, name)
		}
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return nil
	}
	return b
}

func previewWithout(p *controlbus.Preview, samples bool) *controlbus.Preview {
	if p == nil {
		return nil
	}
	c := *p
	if c.Samples = nil; samples {
		c.Samples = slices.Clone(p.Samples)
	}
	for i := range c.Samples {
		c.Samples[i].Excerpt = ""
	}
	return &c
}

func resultWithout(r *controlbus.CommandResult) *controlbus.CommandResult {
	if r == nil || !bytes.Contains(r.Evidence, []byte(`"`+excerptKey)) && !bytes.ContainsRune(r.Evidence, '\\') {
		return r // nothing of that name, however it is written
	}
	c := *r
	c.Evidence = evidenceWithout(r.Evidence)
	return &c
}

// evidenceWithout leaves excerpts out at any depth; what cannot be read is left
// out whole.
func evidenceWithout(raw json.RawMessage) json.RawMessage {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	prune(v)
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

func prune(v any) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, excerptKey)
		for _, one := range v {
			prune(one)
		}
	case []any:
		for _, one := range v {
			prune(one)
		}
	}
}

// commandWithout is a command without bodies, and without samples at all unless
// these are for who asks.
func commandWithout(c controlbus.Command, samples bool) controlbus.Command {
	c.Args, c.Preview = argsWithout(c.Kind, c.Args), previewWithout(c.Preview, samples)
	c.Result, c.LateResult = resultWithout(c.Result), resultWithout(c.LateResult)
	return c
}

// eventWithout is an event without them.
func eventWithout(e Event, samples bool) Event {
	e.Result = resultWithout(e.Result)
	if e.Spec != nil {
		spec := *e.Spec
		spec.Args, spec.Preview = argsWithout(spec.Kind, spec.Args), previewWithout(spec.Preview, samples)
		e.Spec = &spec
	}
	return e
}
