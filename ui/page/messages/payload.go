package messages

import (
	"context"
	"io"
	"strings"

	"github.com/a-h/templ"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/decode"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
	"github.com/signalbox-dev/signalbox/ui/page"
)

// mask is what redaction at the agent leaves in place of a value.
const mask = "***"

// payloadView is a body as lines to show, with what must be known about it.
type payloadView struct {
	Sub, Why string
	Tabs, As []component.Option
	Lines    []decode.Line
	Hex      bool
	Doubts   []string // cuts and mistakes in the body
	Foot     []string
	URL      string // of the original bytes; empty where there are none
	Empty    *component.Empty
}

// headerView is one header.
type headerView struct {
	Name, Value string
	Masked      bool
}

func makePayload(v *page.View, d storage.MessageDetail, as decode.Format) payloadView {
	e := &d.MessageEvent
	p := payloadView{}
	if e.BodySHA256 != "" {
		p.Foot = append(p.Foot, "sha256 "+component.Visible(e.BodySHA256))
	}
	if n := len(e.Redacted); n > 0 {
		p.Foot = append(p.Foot, "Masked at the agent by "+plainRules(e.Redacted)+": the values never left its host.")
	}
	if !d.BodyStored || len(e.Body) == 0 {
		p.Empty = absent(d)
		return p
	}
	u := v.Message(e)
	p.URL = strings.Replace(u, e.UID.String(), e.UID.String()+"/body", 1)
	o := decode.Options{ContentType: e.ContentType, ContentEncoding: e.ContentEncoding, As: as, Truncated: e.Truncated}
	if len(e.Redacted) > 0 {
		o.Masks = []string{mask}
	}
	r := decode.Decode(e.Body, o)
	p.Lines, p.Hex = r.Lines, r.Format == decode.Hex
	for _, n := range r.Notes {
		p.Doubts = append(p.Doubts, component.Visible(strings.ToUpper(n[:1])+n[1:])+".")
	}
	p.Sub = strings.ToUpper(r.Format.Name()[:1]) + r.Format.Name()[1:]
	p.Why = "Shown as " + r.Format.Name() + ": " + r.Why + "."
	size := component.Plural(e.BodySize, "byte")
	if e.Truncated {
		size = "The first " + component.Plural(len(e.Body), "byte") + " of " + component.Count(e.BodySize) + " are kept"
	}
	if r.Unpacked != "" {
		size += ", unpacked from " + r.Unpacked
	}
	if r.Charset != "" {
		size += ", " + component.Visible(r.Charset)
	}
	p.Foot = append([]string{size + ".", p.Why}, p.Foot...)
	for _, t := range [][2]string{{"", "Formatted"}, {string(decode.Text), "Raw"}, {string(decode.Hex), "Hex"}} {
		p.Tabs = append(p.Tabs, component.Option{Label: t[1], URL: v.With("as", t[0]), Current: string(as) == t[0]})
	}
	for _, f := range decode.Formats {
		label := f.Name()
		if f == r.Format && as == "" {
			label += " (chosen)"
		}
		p.As = append(p.As, component.Option{Label: label, URL: v.With("as", string(f)), Current: f == as})
	}
	return p
}

func plainRules(rules []string) string {
	seen := make([]string, 0, len(rules))
	for _, r := range rules {
		seen = append(seen, component.Visible(r))
	}
	if len(seen) == 1 {
		return "the rule " + seen[0]
	}
	return "the rules " + strings.Join(seen, ", ")
}

// absent says why there is no body, and what would have to change.
func absent(d storage.MessageDetail) *component.Empty {
	e := &d.MessageEvent
	size := "Its size was " + component.Plural(e.BodySize, "byte") + "."
	switch {
	case d.BodyHidden != "":
		return &component.Empty{Mark: component.State{Kind: component.Off, Word: "Hidden"}, Title: "The body is not shown to you", Text: component.Visible(d.BodyHidden)}
	case e.BodyPolicy == controlbus.BodyMetadata:
		return &component.Empty{
			Mark: component.State{Kind: component.Off, Word: "Not kept"}, Title: "This tap keeps metadata only",
			Text: size + " The agent's configuration (bodies) says metadata for this channel, so its content never left the agent's host. With full it is kept from then on.",
		}
	case e.BodyPolicy == controlbus.BodyHash:
		return &component.Empty{
			Mark: component.State{Kind: component.Off, Word: "Not kept"}, Title: "This tap keeps a fingerprint only",
			Text: size + " The agent's configuration (bodies) says hash for this channel: equal bodies have equal sums, and the content never left the agent's host.",
		}
	case e.BodySize > 0:
		return &component.Empty{
			Mark: component.State{Kind: component.Stale, Word: "No longer kept"}, Title: "The body is no longer kept",
			Text: size + " Bodies have a shorter retention than events; storage.retention sets both.",
		}
	}
	return &component.Empty{Mark: component.State{Kind: component.Off, Word: "No body"}, Title: "This message has no body", Text: "It was sent without one."}
}

// classes are the colours of a payload's parts.
var classes = map[decode.Kind]string{
	decode.Key: "k", decode.String: "str", decode.Number: "n", decode.Literal: "lit", decode.Bytes: "lit", decode.Masked: "masked", decode.Comment: "comment", decode.Remark: "remark",
}

// line writes a line's parts without the blanks that a template would put
// between elements: in a payload every blank counts.
func line(l decode.Line) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		var b strings.Builder
		for _, p := range l.Parts {
			text := templ.EscapeString(component.VisibleText(p.Text))
			if p.Kind == decode.Masked {
				text = "masked at the agent"
			}
			if class := classes[p.Kind]; class != "" {
				text = `<span class="` + class + `">` + text + `</span>`
			}
			b.WriteString(text)
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}

// excerpt writes a row's piece of body, again without added blanks.
func excerpt(r Row) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		text := templ.EscapeString(r.Before)
		if r.Hit != "" {
			text += "<mark>" + templ.EscapeString(r.Hit) + "</mark>"
		}
		_, err := io.WriteString(w, text+templ.EscapeString(r.After))
		return err
	})
}
