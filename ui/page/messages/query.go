package messages

import (
	"fmt"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/component"
)

// field is one name of the search box.
type field struct {
	name, meaning, sample string
	set                   func(*storage.MessageQuery, string)
}

var fields = []field{
	{"channel", "channel, * stands for anything", "channel:orders.*", func(q *storage.MessageQuery, s string) { q.Channel = s }},
	{"id", "message id", "id:018f6a3e-51c7", func(q *storage.MessageQuery, s string) { q.MessageID = s }},
	{"correlation", "correlation id", "correlation:ORD-7731904", func(q *storage.MessageQuery, s string) { q.CorrelationID = s }},
	{"trace", "trace id, 32 hex digits", "trace:5b8aa5a2d2c872e8321cf37308d69df2", func(q *storage.MessageQuery, s string) { q.TraceID = strings.ToLower(s) }},
	{"header.", "a header's exact value", "header.x-tenant:acme", nil},
	{"body", "text in the body", `body:"card declined"`, func(q *storage.MessageQuery, s string) { q.BodyWord = s }},
	{"service", "who sent or processed it", "service:payment-service", func(q *storage.MessageQuery, s string) { q.Service = s }},
	{"broker", "broker", "broker:rabbit-eu1", func(q *storage.MessageQuery, s string) { q.Broker = s }},
	{"system", "kind of broker", "system:rabbitmq", func(q *storage.MessageQuery, s string) { q.System = s }},
	{"uid", "one observation", "uid:32 hex digits", func(q *storage.MessageQuery, s string) { q.UID = strings.ToLower(s) }},
}

// Parse reads the search box into q and explains it in English. Terms are
// field:value or plain words; all must match. Quotes keep blanks together.
// Errors are ErrInvalid with the position and what would be right.
func Parse(text string, q *storage.MessageQuery) (reads string, err error) {
	var words, parts []string
	seen := map[string]bool{}
	for pos := 0; pos < len(text); {
		if text[pos] == ' ' || text[pos] == '\t' {
			pos++
			continue
		}
		start := pos
		term, quoted, next, err := scan(text, pos)
		if err != nil {
			return "", err
		}
		pos = next
		name, value, isField := strings.Cut(term, ":")
		if quoted || !isField {
			var isHeader bool
			name, value, isHeader = strings.Cut(term, "=")
			switch {
			case isHeader && !quoted && strings.HasPrefix(name, "header."):
			case term == "failed" && !quoted:
				q.FailedOnly = true
				parts = append(parts, "it did not end well")
				continue
			default:
				words = append(words, term)
				continue
			}
		}
		term = name
		if value == "" {
			return "", fmt.Errorf("%w: position %d: %s has no value", controlbus.ErrInvalid, start+1, term)
		}
		if seen[term] {
			return "", fmt.Errorf("%w: position %d: %s is given twice", controlbus.ErrInvalid, start+1, term)
		}
		seen[term] = true
		if header, ok := strings.CutPrefix(term, "header."); ok {
			if header == "" || q.HeaderName != "" {
				return "", fmt.Errorf("%w: position %d: want one header, such as header.x-tenant:acme", controlbus.ErrInvalid, start+1)
			}
			q.HeaderName, q.HeaderValue = header, value
			parts = append(parts, "header "+component.Visible(header)+" is "+component.Visible(value))
			continue
		}
		f := find(term)
		if f == nil {
			return "", fmt.Errorf("%w: position %d: no field %q; a word with a colon goes into quotes, fields are %s", controlbus.ErrInvalid, start+1, component.Visible(term), names())
		}
		if (term == "trace" || term == "uid") && !isHex32(value) {
			return "", fmt.Errorf("%w: position %d: %s wants 32 hexadecimal digits", controlbus.ErrInvalid, start+1, term)
		}
		f.set(q, value)
		verb := " is "
		if strings.Contains(value, "*") && term == "channel" {
			verb = " matches "
		} else if term == "body" {
			verb = " has "
		}
		parts = append(parts, term+verb+component.Visible(value))
	}
	if len(words) > 0 {
		if q.BodyWord != "" {
			return "", fmt.Errorf("%w: plain words are looked for in the body, and body: is given too", controlbus.ErrInvalid)
		}
		q.BodyWord = strings.Join(words, " ")
		parts = append(parts, "body has “"+component.Visible(q.BodyWord)+"”")
	}
	if len(parts) == 0 {
		return "", nil
	}
	return strings.Join(parts, ", and "), nil
}

// scan reads one term; quotes may stand anywhere in it.
func scan(text string, pos int) (term string, quoted bool, next int, err error) {
	var b strings.Builder
	quoted = text[pos] == '"'
	for pos < len(text) && text[pos] != ' ' && text[pos] != '\t' {
		if text[pos] != '"' {
			b.WriteByte(text[pos])
			pos++
			continue
		}
		end := strings.IndexByte(text[pos+1:], '"')
		if end < 0 {
			return "", false, 0, fmt.Errorf("%w: position %d: this quote is not closed", controlbus.ErrInvalid, pos+1)
		}
		b.WriteString(text[pos+1 : pos+1+end])
		pos += end + 2
	}
	return b.String(), quoted, pos, nil
}

func find(name string) *field {
	for i := range fields {
		if fields[i].name == name && fields[i].set != nil {
			return &fields[i]
		}
	}
	return nil
}

func names() string {
	var out []string
	for _, f := range fields {
		out = append(out, f.name)
	}
	return strings.Join(out, ", ")
}

func isHex32(s string) bool {
	_, err := controlbus.ParseID(s)
	return err == nil
}

// Term writes a field with a value so that Parse reads it back.
func Term(name, value string) string {
	if strings.ContainsAny(value, " \t:=") {
		value = `"` + strings.ReplaceAll(value, `"`, "") + `"`
	}
	return name + ":" + value
}

// Suggestions are offered by the browser while typing.
func Suggestions() []component.Pair {
	out := []component.Pair{{Name: "failed", Value: "only what did not end well"}}
	for _, f := range fields {
		out = append(out, component.Pair{Name: f.sample, Value: f.meaning})
	}
	return out
}
