package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/controlbus"
)

func redactor(t testing.TB, cfg Redaction) *Redactor {
	t.Helper()
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 1 << 20
	}
	r, err := NewRedactor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func paths(paths ...string) Redaction {
	var r Redaction
	for _, p := range paths {
		r.Paths = append(r.Paths, PathRule{Path: p})
	}
	return r
}

func TestPathsMaskInPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, path, body, want string }{
		{"a member", "$.card.pan", `{"card":{"pan":"4111","cvc":1}}`, `{"card":{"pan":"***","cvc":1}}`},
		{"order, spaces and numbers stay", "$.b", "{ \"z\" : 12345678901234567890.10 ,\n\t\"b\":1, \"a\":[ ] }", "{ \"z\" : 12345678901234567890.10 ,\n\t\"b\":\"***\", \"a\":[ ] }"},
		{"an object", "$.card", `{"card":{"pan":"x","n":[1,{"}":2}]},"y":1}`, `{"card":"***","y":1}`},
		{"an array", "$.card", `{"card":[1,"]",[2]],"y":1}`, `{"card":"***","y":1}`},
		{"null, true and a number", "$.*", `{"a":null,"b":true,"c":-1.5e3}`, `{"a":"***","b":"***","c":"***"}`},
		{"at any depth", "$..password", `{"password":1,"a":[{"b":{"password":"x"}},"password"],"c":{"password":{"password":2}}}`, `{"password":"***","a":[{"b":{"password":"***"}},"password"],"c":{"password":"***"}}`},
		{"a path at any depth", "$..card.pan", `{"a":{"card":{"pan":1}},"card":{"x":{"pan":2},"pan":3},"pan":4}`, `{"a":{"card":{"pan":"***"}},"card":{"x":{"pan":2},"pan":"***"},"pan":4}`},
		{"wildcard in an array", "$.items[*].key", `{"items":[{"key":1},{"no":2},{"key":3}],"key":4}`, `{"items":[{"key":"***"},{"no":2},{"key":"***"}],"key":4}`},
		{"an index", "$.a[1]", `{"a":[1,2,3]}`, `{"a":[1,"***",3]}`},
		{"an array at the top", "$[*].pin", `[{"pin":1},{"pin":2}]`, `[{"pin":"***"},{"pin":"***"}]`},
		{"a quoted name", `$['a.b']["c d"]`, `{"a.b":{"c d":1},"a":{"b":2}}`, `{"a.b":{"c d":"***"},"a":{"b":2}}`},
		{"an escaped key", "$.password", `{"p\u0061ssword":"x","pass\"word":1}`, `{"p\u0061ssword":"***","pass\"word":1}`},
		{"repeated keys", "$.a", `{"a":1,"a":2}`, `{"a":"***","a":"***"}`},
		{"quotes in strings", "$.b", `{"a":"\"b\":1,","b":"\\\"x","c":"\\"}`, `{"a":"\"b\":1,","b":"***","c":"\\"}`},
		{"documents in a row", "$.p", "{\"p\":1}\n{\"p\":2}\n", "{\"p\":\"***\"}\n{\"p\":\"***\"}\n"},
		{"broken off in a value", "$.p", `{"a":1,"p":"secr`, `{"a":1,"p":"***"`},
		{"broken off after it", "$.p", `{"p":"secret","b":[1,`, `{"p":"***","b":[1,`},
		{"a byte order mark", "$.p", "\xef\xbb\xbf{\"p\":1}", "\xef\xbb\xbf{\"p\":\"***\"}"},
		{"text", "$.p", `p is "p": 1`, `p is "p": 1`},
		{"a log line", "$..p", `[INFO] p "p":1`, `[INFO] p "p":1`},
		{"binary", "$..p", "\x00\x01\xff{\"p\":1}", "\x00\x01\xff{\"p\":1}"},
		{"empty", "$..p", "", ""},
		{"no match", "$.q.r", `{"p":1}`, `{"p":1}`},
		{"case counts", "$.Password", `{"password":1}`, `{"password":1}`},
	} {
		r := redactor(t, paths(c.path))
		ev := &controlbus.MessageEvent{Body: []byte(c.body), BodySize: int64(len(c.body))}
		r.Apply(ev, controlbus.BodyFull, 0)
		if diff := cmp.Diff(c.want, string(ev.Body)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if got, want := len(ev.Redacted) > 0, c.body != c.want; got != want {
			t.Errorf("%s: rules named %q, body changed: %v", c.name, ev.Redacted, want)
		}
		if ev.BodySize != int64(len(c.body)) {
			t.Errorf("%s: body size changed", c.name)
		}
	}
}

func TestSeveralPathsInOnePass(t *testing.T) {
	t.Parallel()
	cfg := paths("$.card.pan", "$..password", "$.card")
	cfg.Paths[1].Name = "passwords"
	r := redactor(t, cfg)
	ev := &controlbus.MessageEvent{Body: []byte(`{"user":{"password":1},"card":{"pan":2,"password":3}}`)}
	r.Apply(ev, controlbus.BodyFull, 0)
	if diff := cmp.Diff(`{"user":{"password":"***"},"card":"***"}`, string(ev.Body)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"passwords", "$.card"}, ev.Redacted); diff != "" {
		t.Error(diff)
	}
}

func TestDeepDocumentsAreMaskedRatherThanLetOut(t *testing.T) {
	t.Parallel()
	const depth = 100_000
	body := strings.Repeat(`{"a":`, depth) + `{"password":"hunter2"}` + strings.Repeat("}", depth)
	r := redactor(t, paths("$..password"))
	ev := &controlbus.MessageEvent{Body: []byte(body)}
	r.Apply(ev, controlbus.BodyFull, 0)
	if bytes.Contains(ev.Body, []byte("hunter2")) {
		t.Error("a secret below the depth limit got through")
	}
	if !json.Valid(ev.Body) {
		t.Error("the masked document is not JSON any more")
	}
	ev = &controlbus.MessageEvent{Body: []byte(body)}
	redactor(t, paths("$.x.password")).Apply(ev, controlbus.BodyFull, 0)
	if string(ev.Body) != body {
		t.Error("a deep document no path leads into was changed")
	}
}

func TestHeadersAreMasked(t *testing.T) {
	t.Parallel()
	r := redactor(t, DefaultRedaction())
	ev := &controlbus.MessageEvent{Headers: []controlbus.Header{
		{Key: "Authorization", Value: "Bearer x"}, {Key: "COOKIE", Value: "x"}, {Key: "x-refresh-Token", Value: "x"},
		{Key: "x-death[0].client-secret", Value: "x"}, {Key: "user_password", Value: "x"}, {Key: "X-Api-Key", Value: "x"},
		{Key: "x-tenant", Value: "acme"}, {Key: "Authorization", Value: "second"},
	}}
	r.Apply(ev, controlbus.BodyFull, 0)
	for _, h := range ev.Headers {
		if want := map[bool]string{true: "acme", false: Mask}[h.Key == "x-tenant"]; h.Value != want {
			t.Errorf("%s: got %q, want %q", h.Key, h.Value, want)
		}
	}
	want := []string{"header authorization", "header cookie", "header *token*", "header *secret*", "header *password*", "header x-api-key"}
	if diff := cmp.Diff(want, ev.Redacted); diff != "" {
		t.Error(diff)
	}
}

func TestBodyPolicyIsTheStricterOfTapAndChannel(t *testing.T) {
	t.Parallel()
	const full, meta, hash = controlbus.BodyFull, controlbus.BodyMetadata, controlbus.BodyHash
	r := redactor(t, Redaction{Bodies: []BodyRule{
		{Channel: "hr.public", Policy: full}, {Channel: "hr.*", Policy: meta}, {Channel: "pay", Broker: "b*", Policy: hash},
	}})
	for _, c := range []struct {
		broker, channel string
		tap, want       controlbus.BodyPolicy
	}{
		{"b1", "orders", full, full}, {"b1", "orders", hash, hash}, {"b1", "hr.x", full, meta}, {"b1", "hr.x", hash, meta},
		{"b1", "hr.public", full, full}, {"b1", "pay", full, hash}, {"b1", "pay", meta, meta}, {"c1", "pay", full, full},
	} {
		ev := &controlbus.MessageEvent{Broker: c.broker, Destination: c.channel, Body: []byte("hello"), BodySize: 5}
		r.Apply(ev, c.tap, 0)
		if ev.BodyPolicy != c.want || (ev.Body != nil) != (c.want == full) || ev.BodySize != 5 {
			t.Errorf("%+v: got policy %v, body %q, size %d", c, ev.BodyPolicy, ev.Body, ev.BodySize)
		}
		const sum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
		if got := ev.BodySHA256; (got == sum) != (c.want == hash) {
			t.Errorf("%+v: SHA-256 %q", c, got)
		}
	}
}

func TestBodiesAreCut(t *testing.T) {
	t.Parallel()
	cfg := paths("$.p")
	cfg.MaxBody = 10
	r := redactor(t, cfg)
	for _, c := range []struct {
		body string
		cap  int64
		want string
		cut  bool
	}{
		{"0123456789", 0, "0123456789", false}, {"0123456789a", 0, "0123456789", true}, {"0123456789", 4, "0123", true},
		{"0123456789abc", 100, "0123456789", true},                                          // a tap cannot raise the cap
		{`{"p":"secret"}`, 0, `{"p":"***"`, true}, {`{"p":1,"q":2}`, 0, `{"p":"***"`, true}, // masking may lengthen it
	} {
		ev := &controlbus.MessageEvent{Body: []byte(c.body), BodySize: int64(len(c.body))}
		r.Apply(ev, controlbus.BodyFull, c.cap)
		if string(ev.Body) != c.want || ev.Truncated != c.cut || ev.BodySize != int64(len(c.body)) {
			t.Errorf("%q cap %d: got %q, truncated %v, size %d, want %q, %v", c.body, c.cap, ev.Body, ev.Truncated, ev.BodySize, c.want, c.cut)
		}
	}
}

func TestCompressedBodiesAreWithheldWherePathsApply(t *testing.T) {
	t.Parallel()
	cfg := paths("$..password")
	cfg.Paths[0].Channel = "users.*"
	r := redactor(t, cfg)
	for _, c := range []struct {
		channel, encoding, body string
		withheld                bool
	}{
		{"users.new", "gzip", "x", true}, {"users.new", "", "\x1f\x8b\x08", true}, {"users.new", "", "\x28\xb5\x2f\xfd", true},
		{"users.new", "UTF-8", "x", false}, {"users.new", "identity", "x", false}, {"orders", "gzip", "x", false},
	} {
		ev := &controlbus.MessageEvent{Destination: c.channel, ContentEncoding: c.encoding, Body: []byte(c.body)}
		r.Apply(ev, controlbus.BodyFull, 0)
		if got := ev.BodyPolicy == controlbus.BodyMetadata; got != c.withheld || (ev.Body == nil) != c.withheld {
			t.Errorf("%+v: withheld %v, body %q", c, got, ev.Body)
		}
	}
}

func TestRedactionRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"", "card.pan", "$", "$.", "$..", "$.a..", "$.a[", "$.a[x]", "$['a", "$a", "$.a[-1]", "$.a.[0]"} {
		cfg := paths(p)
		cfg.MaxBody = 1
		if _, err := NewRedactor(cfg); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("path %q: got %v, want ErrInvalid", p, err)
		}
	}
	if _, err := NewRedactor(Redaction{MaxBody: -1, Bodies: []BodyRule{{}}}); err == nil || !strings.Contains(err.Error(), "max_body_bytes") || !strings.Contains(err.Error(), "bodies[0].channel") {
		t.Errorf("got %v, want both problems", err)
	}
}

// The caches must not let a producer, who chooses the names, fill the memory.
func TestCachesAreBounded(t *testing.T) {
	t.Parallel()
	r := redactor(t, DefaultRedaction())
	for i := range 3 * maxCached {
		ev := &controlbus.MessageEvent{Destination: fmt.Sprint("c", i), Headers: []controlbus.Header{{Key: fmt.Sprint("token", i), Value: "x"}}}
		r.Apply(ev, controlbus.BodyFull, 0)
		if ev.Headers[0].Value != Mask {
			t.Fatalf("header %d was not masked", i)
		}
	}
	if len(r.names) > maxCached || len(r.channels) > maxCached {
		t.Errorf("%d names and %d channels cached, want at most %d", len(r.names), len(r.channels), maxCached)
	}
}

// For any JSON document: it stays JSON, nothing named by the path is left, and
// what the path does not name is the same as before.
func FuzzMaskedJSONStaysJSON(f *testing.F) {
	for _, s := range []string{`{"password":"x","a":[1,{"password":{"b":2}}]}`, `[{"p\u0061ssword":1e9}]`, `{"a":{"":[]}} {"password":[]}`, `{"password":"\"`, `[[[`, "{\"password\" : \"\\u0022\" , \"x\":1.0}"} {
		f.Add([]byte(s))
	}
	r := redactor(f, paths("$..password", "$.a.b", "$.c[*]"))
	f.Fuzz(func(t *testing.T, body []byte) {
		ev := &controlbus.MessageEvent{Body: bytes.Clone(body)}
		r.Apply(ev, controlbus.BodyFull, 0)
		if !json.Valid(body) || len(ev.Redacted) > 0 && ev.Redacted[0] == RuleEncoded {
			return // only that it ends and does not panic
		}
		if !json.Valid(ev.Body) {
			t.Fatalf("%q became %q", body, ev.Body)
		}
		var was, is any
		if json.Unmarshal(body, &was) != nil || json.Unmarshal(ev.Body, &is) != nil {
			return // numbers out of range
		}
		if diff := cmp.Diff(masked(was, nil), is); diff != "" {
			t.Fatalf("%q became %q: %s", body, ev.Body, diff)
		}
	})
}

// masked is the slow and obvious version of what the test above checks.
func masked(v any, at []string) any {
	in := func(path ...string) bool { return slices.Equal(at, path) }
	switch v := v.(type) {
	case map[string]any:
		for k, c := range v {
			if k == "password" || k == "b" && in("a") {
				v[k] = Mask
			} else {
				v[k] = masked(c, append(slices.Clone(at), k))
			}
		}
	case []any:
		for i, c := range v {
			if in("c") {
				v[i] = Mask
			} else {
				v[i] = masked(c, append(slices.Clone(at), "[]"))
			}
		}
	}
	return v
}

func BenchmarkRedact(b *testing.B) {
	cfg := DefaultRedaction()
	cfg.Paths = []PathRule{{Path: "$.card.pan"}, {Path: "$..password"}}
	r := redactor(b, cfg)
	body := []byte(`{"id":"order-4711","customer":{"name":"Ada","address":{"street":"Main 1","city":"Ulm"}},"card":{"pan":"4111111111111111","exp":"12/29"},"items":[` +
		strings.Repeat(`{"sku":"A-1","n":2,"price":12.50},`, 8) + `{"sku":"B","n":1,"price":1}],"note":"` + strings.Repeat("x", 40) + `"}`)
	headers := []controlbus.Header{{Key: "content-type", Value: "application/json"}, {Key: "authorization", Value: "x"}, {Key: "x-tenant", Value: "acme"}}
	ev := &controlbus.MessageEvent{}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		ev.Body, ev.Headers, ev.Redacted = body, headers, ev.Redacted[:0]
		r.Apply(ev, controlbus.BodyFull, 0)
	}
}

// What an adapter lifts out of a header goes where the header goes.
func TestMaskedHeaderTakesItsErrorTextAlong(t *testing.T) {
	t.Parallel()
	r, err := NewRedactor(Redaction{Headers: []string{"x-exception-*"}, MaxBody: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	ev := &controlbus.MessageEvent{
		ErrorType: "com.acme.Declined", DeadLetterReason: "card 4111 declined",
		Headers: []controlbus.Header{{Key: "x-exception-message", Value: "card 4111 declined\nand more"}, {Key: "x-error-type", Value: "com.acme.Declined"}},
	}
	r.Apply(ev, controlbus.BodyFull, 0)
	if ev.DeadLetterReason != Mask || ev.ErrorType != "com.acme.Declined" || ev.Headers[0].Value != Mask {
		t.Errorf("got reason %q, error type %q, headers %q", ev.DeadLetterReason, ev.ErrorType, ev.Headers)
	}
}
