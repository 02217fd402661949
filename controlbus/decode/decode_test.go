package decode

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
)

func flat(r Result) string {
	var b strings.Builder
	for i, l := range r.Lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		for _, p := range l.Parts {
			switch p.Kind {
			case Masked:
				b.WriteString("MASKED")
			case Comment, Remark:
				b.WriteString("«" + strings.TrimSpace(p.Text) + "»")
			default:
				b.WriteString(p.Text)
			}
		}
	}
	return b.String()
}

func unhex(t testing.TB, s string) string {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDecode(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70)
	x := func(s string) string { return unhex(t, s) }
	tests := []struct {
		name, body string
		o          Options
		format     Format
		want       string
	}{
		{"exact numbers, order and duplicates", `{"b":9007199254740993127,"a":1.10,"b":1E5}`, Options{}, JSON, "{\n  \"b\": 9007199254740993127,\n  \"a\": 1.10,\n  \"b\": 1E5\n}"},
		{"short values on one line", `{"a":{"b":[1,2],"c":{}},"d":"` + long + `"}`, Options{}, JSON, "{\n  \"a\": { \"b\": [1, 2], \"c\": {} },\n  \"d\": \"" + long + "\"\n}"},
		{"escapes kept", `{"a":"\u00e9\"\n"}`, Options{}, JSON, "{\n  \"a\": \"\\u00e9\\\"\\n\"\n}"},
		{"masked", `{"a":"***","b":"**"}`, Options{Masks: []string{"***"}}, JSON, "{\n  \"a\": MASKED,\n  \"b\": \"**\"\n}"},
		{"a value that looks masked", `{"a":"***"}`, Options{}, JSON, "{\n  \"a\": \"***\"\n}"},
		{"cut", `{"a":[1,2,{"b":"hel`, Options{Truncated: true}, JSON, "{\n  \"a\": [\n    1,\n    2,\n    {\n      \"b\": \"hel\n«cut here: the rest was not kept»"},
		{"not quite JSON", `{"a":01}`, Options{}, Text, `{"a":01}`},
		{"a number is text unless said otherwise", `42`, Options{}, Text, `42`},
		{"a number said to be JSON", `42`, Options{ContentType: "application/vnd.acme+json; v=1"}, JSON, `42`},
		{"said to be JSON and is not", `hello`, Options{ContentType: "application/json"}, Text, `hello`},
		{"JSON said to be text", `{"a":1}`, Options{ContentType: "text/plain"}, Text, `{"a":1}`},
		{"JSON said to be bytes", `{"a":1}`, Options{ContentType: "application/octet-stream"}, JSON, "{\n  \"a\": 1\n}"},
		{"text asked for", `{"a":1}`, Options{As: Text}, Text, `{"a":1}`},
		{"text", "hello\r\nworld", Options{}, Text, "hello\nworld"},
		{"a control character is not text", "a\x00b", Options{}, Hex, "61 00 62" + strings.Repeat(" ", 41) + "a.b"},
		{"a control character in what is said to be text", "a\x00b", Options{ContentType: "text/plain"}, Text, "a\x00b"},
		{"cut within a character", "caf\xc3", Options{Truncated: true}, Text, "caf\xc3\n«cut here: the rest was not kept»"},
		{"latin-1", "caf\xe9", Options{ContentType: "text/plain; charset=ISO-8859-1"}, Text, "café"},
		{"EBCDIC", x("c8 85 93 93 96"), Options{ContentType: "text/plain; charset=IBM037"}, Text, "Hello"},
		{"UTF-16", "\xff\xfeh\x00i\x00", Options{}, Text, "hi"},
		{"byte order mark", "\xef\xbb\xbf{\"a\":1}", Options{}, JSON, "{\n  \"a\": 1\n}"},
		{"protobuf is not guessed at", `{"a":1}`, Options{ContentType: "application/x-protobuf"}, Hex, "7b 22 61 22 3a 31 7d" + strings.Repeat(" ", 29) + `{"a":1}`},
		{"hex asked for", "\xff\xfeA", Options{As: Hex}, Hex, "ff fe 41 " + strings.Repeat(" ", 40) + "..A"},

		{"XML", `<?xml version="1.0"?><o id="1" x='&lt;2'><sku>TEA &amp; POT</sku><empty/><n></n><!-- c --><t><![CDATA[a<b]]></t></o>`, Options{}, XML,
			"<?xml version=\"1.0\"?>\n<o id=\"1\" x='&lt;2'>\n  <sku>TEA &amp; POT</sku>\n  <empty/>\n  <n></n>\n  <!-- c -->\n  <t><![CDATA[a<b]]></t>\n</o>"},
		{"XML with mixed content", "<p>one <b>two</b>\n three\n four</p>", Options{}, XML, "<p>one\n  <b>two</b>\n  three\n  four\n</p>"},
		{"entities stay names", `<!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;"><!ENTITY x SYSTEM "file:///etc/passwd">]><l>&b;&x;</l>`, Options{}, XML,
			"<!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\"><!ENTITY x SYSTEM \"file:///etc/passwd\">]>\n<l>&b;&x;</l>"},
		{"XML in latin-1", "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><a>\xe9</a>", Options{}, XML, "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<a>é</a>"},
		{"XML cut", `<a><b>x</b><c`, Options{Truncated: true}, XML, "<a>\n  <b>x</b>\n«cut here: the rest is not shown»"},
		{"HTML is not XML", `<!doctype html><p>a<br>b`, Options{}, Text, `<!doctype html><p>a<br>b`},
		{"not nested rightly", `<a><b></a></b>`, Options{}, Text, `<a><b></a></b>`},
		{"namespaces", `<s:a xmlns:s="u"><s:b/></s:a>`, Options{}, XML, "<s:a xmlns:s=\"u\">\n  <s:b/>\n</s:a>"},

		{"MessagePack guessed", x("83 a2 6964 cf ffffffffffffffff a1 66 cb 3ff0000000000000 a1 6e c0"), Options{}, MessagePack, "{\n  \"id\": 18446744073709551615,\n  \"f\": 1.0,\n  \"n\": null\n}"},
		{"MessagePack with everything", x("8a 01 02 a1 61 93 01 ff c2 a1 61 c4 02 0102 a1 74 d6 ff 65 5f 5f 00 a1 75 c7 03 05 010203 a1 73 d9 03 22 0a 5c d0 80 d3 8000000000000000 a1 66 ca 3dcccccd c3 80 90 c0"), Options{ContentType: "application/msgpack"}, MessagePack,
			"{\n  1: 2,\n  \"a\": [1, -1, false],\n  \"a\": h'0102',\n  \"t\": ext -1(h'655f5f00')«2023-11-23T14:17:36Z»,\n  \"u\": ext 5(h'010203'),\n  \"s\": \"\\\"\\n\\\\\",\n  -128: -9223372036854775808,\n  \"f\": 0.1,\n  true: {},\n  []: null\n}"},
		{"MessagePack that is not a map is not guessed", x("93 c0 c2 c3"), Options{}, Hex, "93 c0 c2 c3" + strings.Repeat(" ", 38) + "...."},
		{"MessagePack that is not a map, asked for", x("93 c0 c2 c3"), Options{As: MessagePack}, MessagePack, "[\n  null,\n  false,\n  true\n]"},
		{"a list of maps", x("92 81 a1 61 01 81 a1 61 02"), Options{}, MessagePack, "[\n  { \"a\": 1 },\n  { \"a\": 2 }\n]"},
		{"MessagePack cut", x("82 a1 61 01 a1 62 d9 10 41"), Options{ContentType: "application/msgpack", Truncated: true}, MessagePack, "{\n  \"a\": 1,\n  \"b\"\n«cut here: the rest was not kept»"},
		{"MessagePack with a rest", x("81 a1 61 01 00"), Options{}, Hex, "81 a1 61 01 00" + strings.Repeat(" ", 35) + "..a.."},

		{"CBOR guessed", x("a2 61 61 1b ffffffffffffffff 61 62 f9 3e00"), Options{}, CBOR, "{\n  \"a\": 18446744073709551615,\n  \"b\": 1.5\n}"},
		{"CBOR with everything", x("ac 01 3b ffffffffffffffff 61 61 9f 01 02 ff 61 61 42 0102 61 62 bf 61 78 f6 ff 61 73 7f 61 61 61 62 ff 61 74 c1 1a 655f5f00 61 6e c2 49 010000000000000000 61 6d c3 41 05 61 75 d8 20 63 612f62 61 66 fb 7ff8000000000000 61 71 f8 ff 81 01 f7"), Options{ContentType: "application/cbor"}, CBOR,
			"{\n  1: -18446744073709551616,\n  \"a\": [_ 1, 2],\n  \"a\": h'0102',\n  \"b\": {_ \"x\": null },\n  \"s\": (_ \"a\", \"b\"),\n  \"t\": 1(1700749056)«2023-11-23T14:17:36Z»,\n  \"n\": 18446744073709551616,\n  \"m\": -6,\n  \"u\": 32(\"a/b\"),\n  \"f\": NaN,\n  \"q\": simple(255),\n  [1]: undefined\n}"},
		{"CBOR that says so", x("d9d9f7 01"), Options{}, CBOR, "55799(1)"},
		{"CBOR cut", x("a2 61 61 01 61 62 78 20 41"), Options{ContentType: "application/cbor", Truncated: true}, CBOR, "{\n  \"a\": 1,\n  \"b\"\n«cut here: the rest was not kept»"},
		{"CBOR list without maps is not guessed", x("83 01 02 03"), Options{}, Hex, "83 01 02 03" + strings.Repeat(" ", 38) + "...."},
		{"empty", "", Options{}, Text, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Decode([]byte(tt.body), tt.o)
			if got.Format != tt.format {
				t.Errorf("format %s (%s, %q), want %s", got.Format, got.Why, got.Notes, tt.format)
			}
			if diff := cmp.Diff(tt.want, flat(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestNotesSayWhatIsDoubtful(t *testing.T) {
	t.Parallel()
	tests := []struct {
		body string
		o    Options
		want string
	}{
		{`{"a":1,"\u0061":2}`, Options{}, `the key "\u0061" stands twice in one object; both are shown`},
		{`{"a":1]`, Options{ContentType: "application/json"}, "the content type says JSON, but it does not read as that: position 7: want a comma or the end of what is open"},
		{"{\"a\":\"x\ny\"}", Options{As: JSON}, "it does not read as JSON: position 8: want no control character in a string"},
		{"{\"a\":\"\xff\"}", Options{}, "some bytes are not UTF-8; they are shown as ⟨x…⟩"},
		{"\x81\xa1a", Options{As: MessagePack}, "it does not read as MessagePack: byte 3: it ends too early"},
		{"\xdf\xff\xff\xff\xff", Options{As: MessagePack}, "it does not read as MessagePack: byte 0: 8589934590 values are announced and 0 bytes are left"},
		{"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", Options{As: CBOR}, "it does not read as CBOR: byte 0: 18446744073709551615 values are announced and 0 bytes are left"},
		{"<a><b></a>", Options{As: XML}, "it does not read as XML: </a> closes nothing that is open"},
		{"x", Options{ContentEncoding: "br"}, "its content encoding br cannot be undone here, so the bytes are shown as they are"},
		{"x", Options{ContentEncoding: "gzip"}, "its content encoding says gzip, but it does not unpack: unexpected EOF"},
		{"x", Options{ContentType: "text/plain; charset=klingon"}, "its charset klingon is not known here, so it is read as UTF-8"},
	}
	for _, tt := range tests {
		if got := Decode([]byte(tt.body), tt.o).Notes; len(got) != 1 || got[0] != tt.want {
			t.Errorf("%q: got notes %q, want %q", tt.body, got, tt.want)
		}
	}
}

func TestContentEncodings(t *testing.T) {
	t.Parallel()
	const body = `{"a":1}`
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write([]byte(body))
	_ = w.Close()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zs := e.EncodeAll([]byte(body), nil)
	for _, tt := range []struct {
		name, encoding, unpacked string
		body                     []byte
	}{
		{"gzip", "gzip", "gzip", z.Bytes()}, {"gzip unsaid", "", "gzip", z.Bytes()},
		{"zstd", "zstd", "zstd", zs}, {"zstd unsaid", "", "zstd", zs}, {"base64", "base64", "base64", []byte("eyJhIjoxfQ==")}, {"a charset", "utf-8", "", []byte(body)},
	} {
		got := Decode(tt.body, Options{ContentEncoding: tt.encoding})
		if got.Format != JSON || got.Unpacked != tt.unpacked || flat(got) != "{\n  \"a\": 1\n}" || len(got.Notes) > 0 {
			t.Errorf("%s: got %s of %q: %q, notes %q", tt.name, got.Format, got.Unpacked, flat(got), got.Notes)
		}
	}
	if got := Decode(z.Bytes(), Options{As: Hex}); !strings.HasPrefix(flat(got), "1f 8b") {
		t.Errorf("hex shows %q, want the bytes as they came", flat(got))
	}
	// A bomb costs no more than what is shown of it.
	z.Reset()
	w = gzip.NewWriter(&z)
	for range 64 {
		_, _ = w.Write(make([]byte, 1<<20))
	}
	_ = w.Close()
	if got := Decode(z.Bytes(), Options{ContentType: "text/plain"}); got.Unpacked != "gzip" || len(got.Lines) != 2 || !strings.Contains(flat(got), "cut here: the first 262,144 bytes") {
		t.Errorf("a bomb: %d lines, unpacked %q", len(got.Lines), got.Unpacked)
	}
}

func TestLimitsSayCutHere(t *testing.T) {
	t.Parallel()
	lim := Limits{Bytes: 1000, HexBytes: 32, Values: 20, Depth: 3, Lines: 10}
	for name, tt := range map[string]struct {
		body string
		as   Format
		want string
	}{
		"bytes":          {strings.Repeat("a", 2000), Text, "cut here: the first 1,000 bytes are shown"},
		"hex":            {strings.Repeat("a", 2000), Hex, "cut here: the first 32 bytes are shown"},
		"lines":          {strings.Repeat("a\n", 20), Text, "cut here"},
		"JSON values":    {"[" + strings.Repeat("[],", 100) + "1]", JSON, "cut here: the first 10 lines are shown"},
		"JSON depth":     {strings.Repeat("[", 90) + "1" + strings.Repeat("]", 90), JSON, "cut here: nested deeper than 3 levels"},
		"JSON bytes":     {`{"a":"` + strings.Repeat("a", 2000) + `"}`, JSON, "cut here: the first 1,000 bytes are shown"},
		"MessagePack":    {"\xdc\x00\x40" + strings.Repeat("\x90", 64), MessagePack, "cut here: the first 10 lines"},
		"MessagePack in": {strings.Repeat("\x91", 90) + "\x90", MessagePack, "nested deeper than 3 levels"},
		"CBOR in":        {strings.Repeat("\x81", 90) + "\x80", CBOR, "nested deeper than 3 levels"},
		"CBOR bytes":     {"\x58\x64" + strings.Repeat("\x01", 100), CBOR, "cut here: 64 of 100 bytes are shown"},
		"XML depth":      {strings.Repeat("<a>", 90) + strings.Repeat("</a>", 90), XML, "cut here: nested deeper than 3 levels"},
		"XML lines":      {"<a>" + strings.Repeat("<b/>", 90) + "</a>", XML, "cut here: the first 10 lines are shown"},
	} {
		got := Decode([]byte(tt.body), Options{As: tt.as, Limits: lim})
		if got.Format != tt.as || !strings.Contains(flat(got), tt.want) {
			t.Errorf("%s: got %s without %q (notes %q):\n%s", name, got.Format, tt.want, got.Notes, flat(got))
		}
		if len(got.Lines) > lim.Lines+1 {
			t.Errorf("%s: %d lines, want at most %d", name, len(got.Lines), lim.Lines+1)
		}
	}
	few := Decode([]byte("["+strings.Repeat("[],", 100)+"1]"), Options{Limits: Limits{Bytes: 1000, HexBytes: 32, Values: 20, Depth: 3, Lines: 1000}})
	if !strings.Contains(flat(few), "cut here: the first 20 values are shown") {
		t.Errorf("values: got\n%s", flat(few))
	}
}

func BenchmarkDecode(b *testing.B) {
	order := []byte(`{"orderId":"ORD-1","paymentId":9007199254740993127,"amount":{"value":"129.90","currency":"EUR"},"items":[{"sku":"TEA-0412","qty":2,"price":"24.95"},{"sku":"POT-0077","qty":1,"price":"80.00"}]}`)
	big := []byte("[" + strings.Repeat(string(order)+",", 1200) + "1]")
	for name, body := range map[string][]byte{"order": order, "big": big} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				Decode(body, Options{})
			}
		})
	}
}
