package ui_test

import (
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// payloads are messages whose bodies need something of the message page.
func payloads(at time.Time) map[string]storage.Message {
	make1 := func(name, contentType, body string) storage.Message {
		m := event(at.Add(-3*time.Second), "rabbitmq", "rabbit-eu1", "payments.capture", controlbus.OpTap, controlbus.OutcomeOK, 900+len(body))
		m.UID = controlbus.HashID("payload", name)
		m.ContentType, m.Body, m.BodySize = contentType, []byte(body), int64(len(body))
		return m
	}
	out := map[string]storage.Message{
		"message-xml":     make1("xml", "application/xml", `<?xml version="1.0"?><order id="ORD-1"><customer vip="true">4182207</customer><items><item sku="TEA-0412" qty="2">Tea &amp; pot</item></items><note><![CDATA[ring <twice>]]></note></order>`),
		"message-msgpack": make1("msgpack", "application/msgpack", "\x83\xa7orderId\xa5ORD-1\xa2id\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa4when\xd6\xff\x65\x5f\x5f\x00"),
		"message-cbor":    make1("cbor", "", "\xa2\x67orderId\x65ORD-1\x64when\xc1\x1a\x65\x5f\x5f\x00"),
		"message-wrong":   make1("wrong", "application/json", `{"orderId":"ORD-1","total":01}`),
		"message-hex":     make1("hex", "application/x-protobuf", "\x0a\x05ORD-1\x10\x96\x01\xff\x00"),
		"message-cut":     make1("cut", "application/json", `{"orderId":"ORD-1","items":[{"sku":"TEA-04`),
	}
	cut := out["message-cut"]
	cut.Truncated, cut.BodySize = true, 48213
	out["message-cut"] = cut
	hash := make1("hash", "application/json", "")
	hash.BodyPolicy, hash.BodySize, hash.BodySHA256 = controlbus.BodyHash, 1127, strings.Repeat("8d21f0aa", 8)
	out["message-hash"] = hash
	meta := make1("meta", "application/json", "")
	meta.BodyPolicy, meta.BodySize = controlbus.BodyMetadata, 1127
	out["message-metadata"] = meta
	return out
}

func TestMessagePageSaysWhatItShowsAndWhy(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	all := payloads(now)
	for _, m := range all {
		s.messages = append(s.messages, m)
	}
	u := newUI(t, s, r, noLive)
	for _, tt := range []struct {
		page, query string
		want        []string
	}{
		{"message-xml", "", []string{"Shown as XML: its content type says so.", `<customer vip="true">4182207</customer>`, "Tea &amp; pot", "<![CDATA[ring <twice>]]>"}},
		{"message-xml", "?as=text", []string{"Text", `<?xml version="1.0"?><order id="ORD-1">`}},
		{"message-msgpack", "", []string{"Shown as MessagePack: its content type says so.", `"id": 18446744073709551615`, "2023-11-23T14:17:36Z"}},
		{"message-msgpack", "?as=hex", []string{"83 a7 6f 72"}},
		{"message-cbor", "", []string{"Shown as CBOR: guessed: all of it reads as CBOR.", "1(1700749056) 2023-11-23T14:17:36Z"}},
		{"message-cbor", "?as=json", []string{"It does not read as JSON: position 1: want a value"}},
		{"message-wrong", "", []string{"The content type says JSON, but it does not read as that: position 28: want a value, have 01.", `{"orderId":"ORD-1","total":01}`}},
		{"message-hex", "", []string{"Shown as hex: its content type needs a schema or a program to read it", "0a 05 4f 52"}},
		{"message-cut", "", []string{"The first 42 bytes of 48,213 are kept", "cut here: the rest was not kept"}},
		{"message-hash", "", []string{"This tap keeps a fingerprint only", "sha256 8d21f0aa"}},
		{"message-metadata", "", []string{"This tap keeps metadata only", "Its size was 1,127 bytes."}},
	} {
		m := all[tt.page]
		w, doc := get(t, u, "/messages/"+m.UID.String()+tt.query)
		got := mainText(doc)
		for _, want := range tt.want {
			if w.Code != 200 || !strings.Contains(got, want) {
				t.Errorf("%s%s: got %d without %q in:\n%s", tt.page, tt.query, w.Code, want, got)
			}
		}
		w, _ = get(t, u, "/messages/"+m.UID.String()+"/body")
		if want := len(m.Body) > 0; want != (w.Code == 200) || want && w.Body.String() != string(m.Body) {
			t.Errorf("%s: the download is %d %q, want the original bytes", tt.page, w.Code, w.Body.String())
		}
	}
	m := all["message-xml"]
	if w, doc := get(t, u, "/messages/"+m.UID.String()+"?as=yaml"); w.Code != 400 || !strings.Contains(mainText(doc), "want json, xml, msgpack, cbor, text or hex") {
		t.Errorf("an unknown format: got %d %q", w.Code, mainText(doc))
	}
}
