package messages

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/signalbox-dev/signalbox/storage"
)

func flat(p Payload) string {
	var b strings.Builder
	for i, l := range p.Lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		for _, part := range l.Parts {
			b.WriteString(part.Text)
		}
	}
	return b.String()
}

func TestFormat(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70)
	tests := []struct {
		name, body, mode, kind, want string
		truncated, redacted          bool
	}{
		{"exact", `{"b":9007199254740993127,"a":1.10,"b":1E5}`, "", "JSON", "{\n  \"b\": 9007199254740993127,\n  \"a\": 1.10,\n  \"b\": 1E5\n}", false, false},
		{"short values on one line", `{"a":{"b":[1,2],"c":{}},"d":"` + long + `"}`, "", "JSON", "{\n  \"a\": { \"b\": [1, 2], \"c\": {} },\n  \"d\": \"" + long + "\"\n}", false, false},
		{"escapes kept", `{"a":"\u00e9\"\n"}`, "", "JSON", "{\n  \"a\": \"\\u00e9\\\"\\n\"\n}", false, false},
		{"masked", `{"a":"***"}`, "", "JSON", "{\n  \"a\": masked at the agent\n}", false, true},
		{"a value that looks masked", `{"a":"***"}`, "", "JSON", "{\n  \"a\": \"***\"\n}", false, false},
		{"cut", `{"a":[1,2,{"b":"hel`, "", "JSON", "{\n  \"a\": [\n    1,\n    2,\n    {\n      \"b\": \"hel", true, false},
		{"not quite", `{"a":01}`, "", "text", `{"a":01}`, false, false},
		{"text", "hello\nworld", "", "text", "hello\nworld", false, false},
		{"hidden characters", "a\u202Eb\x00", "", "text", "a⟨U+202E⟩b␀", false, false},
		{"binary", "\xff\xfeA", "", "binary", "ff fe 41 " + strings.Repeat(" ", 40) + "..A", false, false},
		{"raw", `{"a":1}`, "raw", "text", `{"a":1}`, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Format([]byte(tt.body), tt.truncated, tt.redacted, tt.mode)
			if got.Kind != tt.kind || flat(got) != tt.want {
				t.Errorf("got %s\n%q\nwant %s\n%q", got.Kind, flat(got), tt.kind, tt.want)
			}
		})
	}
}

// FuzzFormat: nothing panics, and JSON is shown as JSON exactly when it is
// JSON, with not a byte of its tokens changed.
func FuzzFormat(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}]}`, `[]`, `{`, "\xff", `{"a":1}}`, `[1 2]`, `{"a":}`, strings.Repeat("[", 200), `[-0.5e+3,true]`, `["\u202e"]`} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, cut bool) {
		Format(body, cut, true, "")
		Format(body, cut, false, "hex")
		trimmed := bytes.TrimLeft(body, " \t\r\n")
		if cut || len(trimmed) == 0 || trimmed[0] != '{' && trimmed[0] != '[' {
			return
		}
		toks, ok := tokens(body, false)
		if json.Valid(body) && !ok {
			t.Fatalf("valid JSON is refused: %q", body)
		}
		if !ok {
			return
		}
		var joined strings.Builder
		for _, k := range toks {
			joined.WriteString(strings.TrimSuffix(k.text, " "))
		}
		var want bytes.Buffer
		if json.Compact(&want, body) == nil && joined.String() != want.String() {
			t.Fatalf("tokens %q differ from %q", joined.String(), want.String())
		}
	})
}

func TestParse(t *testing.T) {
	t.Parallel()
	var q storage.MessageQuery
	reads, err := Parse(`channel:orders.* header.x-tenant:acme failed correlation:"a b" card declined`, &q)
	if err != nil {
		t.Fatal(err)
	}
	if q.Channel != "orders.*" || q.HeaderName != "x-tenant" || q.HeaderValue != "acme" || !q.FailedOnly || q.CorrelationID != "a b" || q.BodyWord != "card declined" {
		t.Errorf("got %+v", q)
	}
	if want := "channel matches orders.*, and header x-tenant is acme, and it did not end well, and correlation is a b, and body has “card declined”"; reads != want {
		t.Errorf("got %q, want %q", reads, want)
	}
	for _, bad := range []string{`chanel:x`, `channel:`, `"open`, `channel:a channel:b`, `trace:123`, `header.:x`, `body:a b`} {
		if _, err := Parse(bad, &storage.MessageQuery{}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`channel:orders.* "a b" x=1 header.a=b`)
	f.Add(Term("correlation", "a\"b c:d"))
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = Parse(s, &storage.MessageQuery{})
		if strings.ContainsAny(s, "\"\n\r\v\f") || strings.TrimSpace(s) == "" {
			return
		}
		var q storage.MessageQuery
		if _, err := Parse(Term("channel", s), &q); err != nil || q.Channel != s {
			t.Fatalf("a link with channel %q reads back as %q: %v", s, q.Channel, err)
		}
	})
}
