package ledger

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Beginnings of message bodies stand in the samples of previews, and in the
// evidence of results, such as a peek's, under the same name. Whoever may not
// read bodies gets neither.
const excerptKey = "excerpt"

func previewWithout(p *controlbus.Preview) *controlbus.Preview {
	if p == nil {
		return nil
	}
	c := *p
	c.Samples = slices.Clone(p.Samples)
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

// commandWithout is a command without excerpts.
func commandWithout(c controlbus.Command) controlbus.Command {
	c.Preview, c.Result, c.LateResult = previewWithout(c.Preview), resultWithout(c.Result), resultWithout(c.LateResult)
	return c
}

// eventWithout is an event without excerpts.
func eventWithout(e Event) Event {
	e.Result = resultWithout(e.Result)
	if e.Spec != nil && e.Spec.Preview != nil {
		spec := *e.Spec
		spec.Preview = previewWithout(spec.Preview)
		e.Spec = &spec
	}
	return e
}
