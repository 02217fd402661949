package decode

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/tinylib/msgp/msgp"
)

var seeds = []string{
	`{"a":[1,{"b":null}]}`, `[]`, `{`, "\xff", `{"a":1}}`, `[1 2]`, `{"a":}`, `[-0.5e+3,true]`, `["\u202e"]`, `{"a":"\u12"}`, "[\"\x01\"]",
	`<a b="c"><!-- d --><e/>f &g; <![CDATA[h]]></a>`, `<?xml version="1.0" encoding="latin1"?><a/>`, `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`,
	"\x83\xa2id\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa1f\xcb?\xf0\x00\x00\x00\x00\x00\x00\xa1n\xc0", "\xd6\xff\x65\x5f\x5f\x00", "\xc7\x03\x05\x01\x02\x03", "\xdf\xff\xff\xff\xff", "\x91\x91\x91\x90",
	"\xa2aa\x1b\xff\xff\xff\xff\xff\xff\xff\xffab\xf9>\x00", "\xbf\x61\x61\x9f\x01\xff\xff", "\x7f\x61\x61\x61\x62\xff", "\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00", "\xd9\xd9\xf7\x01", "\xf8\x18", "\xc1\xfb\x41\xd4\x51\x2e\x5a\x00\x00\x00",
	"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xab\x56\x4a\x54\xb2\x32\xac\x05\x00\xf7\x4c\x9b\x8a\x07\x00\x00\x00", "\x28\xb5\x2f\xfd\x04\x00", "\xff\xfeh\x00", "\xef\xbb\xbf{}",
	"text\nof lines\r\n", "caf\xe9",
}

// FuzzDecode: nothing panics, everything stays within its bounds, and what is
// not asked for is never claimed without the bytes having it.
func FuzzDecode(f *testing.F) {
	for i, s := range seeds {
		f.Add([]byte(s), []string{"", "application/json", "text/xml; charset=utf-16", "application/msgpack", "application/cbor", "text/plain; charset=latin1"}[i%6], []string{"", "gzip", "zstd", "base64"}[i%4], []string{"", "json", "xml", "msgpack", "cbor", "text", "hex"}[i%7], i%2 == 0)
	}
	lim := Limits{Bytes: 4 << 10, HexBytes: 256, Values: 200, Depth: 8, Lines: 100}
	f.Fuzz(func(t *testing.T, body []byte, contentType, encoding, as string, cut bool) {
		want, known := Parse(as)
		if !known {
			want = ""
		}
		before := bytes.Clone(body)
		got := Decode(body, Options{ContentType: contentType, ContentEncoding: encoding, As: want, Truncated: cut, Masks: []string{"***"}, Limits: lim})
		if !bytes.Equal(before, body) {
			t.Fatal("the body was changed")
		}
		if len(got.Lines) > lim.Lines+1 {
			t.Fatalf("%d lines", len(got.Lines))
		}
		size := 0
		for _, l := range got.Lines {
			for _, p := range l.Parts {
				size += len(p.Text)
			}
		}
		if most := 64*(len(body)+lim.Bytes) + 100*lim.Lines; size > most {
			t.Fatalf("%d bytes of text of %d", size, len(body))
		}
		if _, ok := Parse(string(got.Format)); !ok || got.Why == "" {
			t.Fatalf("format %q because %q", got.Format, got.Why)
		}
		if want == "" && got.Format == JSON && !cut && got.Unpacked == "" && len(body) < lim.Bytes && strings.HasPrefix(got.Charset, "UTF-8") && !json.Valid(bytes.TrimPrefix(body, bom8)) {
			t.Fatalf("shown as JSON and is not: %q", body)
		}
	})
}

// FuzzJSON: exactly what encoding/json calls valid is read, with not a byte of
// its tokens changed; every beginning of it is read as a cut body.
func FuzzJSON(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), 3)
	}
	f.Add([]byte(strings.Repeat("[", 200)), 9)
	lim := DefaultLimits()
	f.Fuzz(func(t *testing.T, body []byte, at int) {
		out, err := jsonTokens(body, lim, false)
		if valid := json.Valid(body); valid != (err == nil) {
			// encoding/json gives up below ten thousand levels; this does not.
			if depth := bytes.Count(body, []byte("[")) + bytes.Count(body, []byte("{")); depth < 10000 {
				t.Fatalf("json.Valid says %v, this says %v: %q", valid, err, body)
			}
		}
		if err != nil {
			return
		}
		var joined strings.Builder
		for _, k := range out.toks {
			joined.WriteString(strings.TrimSuffix(k.text, " "))
		}
		var want bytes.Buffer
		if !out.full && json.Compact(&want, body) == nil && joined.String() != want.String() {
			t.Fatalf("tokens %q differ from %q", joined.String(), want.String())
		}
		if at > 0 && at < len(body) {
			if _, err := jsonTokens(body[:at], lim, true); err != nil {
				t.Fatalf("the first %d bytes of %q are refused: %v", at, body, err)
			}
		}
	})
}

// FuzzMessagePack: exactly what msgp can skip as one value is read.
func FuzzMessagePack(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), 3)
	}
	lim := DefaultLimits()
	f.Fuzz(func(t *testing.T, body []byte, at int) {
		_, err := msgpackTokens(body, lim, false)
		rest, want := msgp.Skip(body)
		if (want == nil && len(rest) == 0) != (err == nil) && !errors.Is(want, msgp.ErrRecursion) {
			t.Fatalf("msgp says %v with %d left, this says %v: %x", want, len(rest), err, body)
		}
		if err == nil && at > 0 && at < len(body) {
			if _, err := msgpackTokens(body[:at], lim, true); err != nil {
				t.Fatalf("the first %d bytes of %x are refused: %v", at, body, err)
			}
		}
	})
}

// FuzzCBOR: exactly what fxamacker/cbor calls well-formed is read.
func FuzzCBOR(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s), 3)
	}
	mode, err := cbor.DecOptions{MaxNestedLevels: 65535, MaxArrayElements: 1 << 30, MaxMapPairs: 1 << 30}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	lim := DefaultLimits()
	f.Fuzz(func(t *testing.T, body []byte, at int) {
		_, err := cborTokens(body, lim, false)
		want := mode.Wellformed(body)
		var deep *cbor.MaxNestedLevelError
		var items *cbor.MaxArrayElementsError
		var pairs *cbor.MaxMapPairsError
		if (want == nil) != (err == nil) && !errors.As(want, &deep) && !errors.As(want, &items) && !errors.As(want, &pairs) {
			t.Fatalf("fxamacker/cbor says %v, this says %v: %x", want, err, body)
		}
		if err == nil && at > 0 && at < len(body) {
			if _, err := cborTokens(body[:at], lim, true); err != nil {
				t.Fatalf("the first %d bytes of %x are refused: %v", at, body, err)
			}
		}
	})
}

// FuzzXML: of what is read, not a byte is lost but blanks between tags.
func FuzzXML(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	lim := Limits{Bytes: 1 << 20, Values: 1 << 20, Depth: 1 << 20, Lines: 1 << 20}
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
	f.Fuzz(func(t *testing.T, body []byte) {
		lines, cut, err := xmlLines(body, lim, false)
		if err != nil || cut {
			return
		}
		var b strings.Builder
		for _, l := range lines {
			for _, p := range l.Parts {
				b.WriteString(p.Text)
			}
		}
		if got, want := squeeze(b.String()), squeeze(string(body)); got != want {
			t.Fatalf("%q is shown as %q", want, got)
		}
	})
}
