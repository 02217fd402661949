package telemetry

import (
	"encoding/base64"
	"math"
	"strconv"
	"unicode/utf8"
)

// value is an AnyValue: the kind, and either its bytes (text, bytes, or the
// unread list within) or its number.
type value struct {
	kind kind
	b    []byte
	n    uint64
}

type kind uint8

const (
	kindNone kind = iota
	kindText
	kindBool
	kindInt
	kindDouble
	kindBytes
	kindArray
	kindMap
)

type keyValue struct {
	key string
	value
}

// readValue merges the AnyValue b into v and checks whatever is nested in it.
func (d *Decoder) readValue(b []byte, v *value, depth int) (ok bool) {
	w := wire{b: b}
	for {
		field, typ, more := w.next()
		if !more {
			return !w.bad
		}
		switch field {
		case 1:
			*v = value{kind: kindText, b: w.lengthDelimited(typ)}
		case 2:
			if w.expect(typ, typeVarint) {
				*v = value{kind: kindBool, n: w.varint()}
			}
		case 3:
			if w.expect(typ, typeVarint) {
				*v = value{kind: kindInt, n: w.varint()}
			}
		case 4:
			if w.expect(typ, typeI64) {
				*v = value{kind: kindDouble, n: w.fixed64()}
			}
		case 5:
			*v = value{kind: kindArray, b: w.lengthDelimited(typ)}
			if !w.bad && !d.checkList(v.b, kindArray, depth) {
				return false
			}
		case 6:
			*v = value{kind: kindMap, b: w.lengthDelimited(typ)}
			if !w.bad && !d.checkList(v.b, kindMap, depth) {
				return false
			}
		case 7:
			*v = value{kind: kindBytes, b: w.lengthDelimited(typ)}
		case 8: // index into a dictionary that only profiles have
			if w.expect(typ, typeVarint) {
				w.varint()
				*v = value{}
			}
		default:
			w.skip(typ)
		}
	}
}

// checkList reads through a list so that malformed bytes in it are refused.
// Deeper than the limit nothing is read and the record is marked.
func (d *Decoder) checkList(b []byte, k kind, depth int) (ok bool) {
	switch {
	case depth == checked:
		return true
	case depth >= d.limits.Depth:
		d.tooDeep = true
		return true
	}
	it := list{w: wire{b: b}, kind: k, depth: depth + 1}
	for kv := (keyValue{}); d.nextIn(&it, &kv); {
	}
	return !it.w.bad
}

// list reads the values of an array or map one by one.
type list struct {
	w     wire
	kind  kind
	depth int // of the values in it, or checked
}

// checked stands for the depth of values that were read through before. Reading
// them again must not look into them again, or rendering a nested value would
// cost its size once per level.
const checked = -1

// nextIn reads the next value; false at the end or where bytes are malformed.
func (d *Decoder) nextIn(it *list, kv *keyValue) bool {
	for {
		field, typ, more := it.w.next()
		if !more {
			return false
		}
		if field != 1 {
			it.w.skip(typ)
			continue
		}
		item := it.w.lengthDelimited(typ)
		*kv = keyValue{}
		ok := !it.w.bad
		if ok && it.kind == kindMap {
			ok = d.readKeyValue(item, kv, it.depth)
		} else if ok {
			ok = d.readValue(item, &kv.value, it.depth)
		}
		if !ok {
			it.w.fail()
		}
		return ok
	}
}

func (d *Decoder) readKeyValue(b []byte, kv *keyValue, depth int) (ok bool) {
	w := wire{b: b}
	for {
		field, typ, more := w.next()
		if !more {
			return !w.bad
		}
		switch field {
		case 1:
			kv.key = view(w.lengthDelimited(typ))
		case 2:
			b := w.lengthDelimited(typ)
			if !w.bad && !d.readValue(b, &kv.value, depth) {
				return false
			}
		case 3:
			if w.expect(typ, typeVarint) {
				w.varint()
			}
		default:
			w.skip(typ)
		}
	}
}

// text is the value as valid UTF-8, at most limit bytes long. It is a view
// into the request or into the decoder's scratch.
func (d *Decoder) text(v *value, limit int) string {
	switch v.kind {
	case kindText:
		return d.clean(v.b, limit)
	case kindNone:
		return ""
	}
	start := len(d.scratch)
	switch v.kind {
	case kindBytes:
		d.scratch = base64.StdEncoding.AppendEncode(d.scratch, v.b[:min(len(v.b), limit)])
	default:
		d.scratch = d.appendJSON(d.scratch, v, start+limit, 0)
	}
	return view(cut(d.scratch[start:], limit))
}

// clean replaces what is not UTF-8 and cuts to limit.
func (d *Decoder) clean(b []byte, limit int) string {
	b = cut(b, limit)
	if utf8.Valid(b) {
		return view(b)
	}
	start := len(d.scratch)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		d.scratch = utf8.AppendRune(d.scratch, r)
		b = b[size:]
	}
	return view(cut(d.scratch[start:], limit))
}

// cut shortens b to limit bytes without splitting a rune.
func cut(b []byte, limit int) []byte {
	if len(b) <= limit {
		return b
	}
	for i := limit; i > limit-utf8.UTFMax && i > 0; i-- {
		if utf8.RuneStart(b[i]) {
			return b[:i]
		}
	}
	return b[:limit]
}

// appendJSON renders a value as JSON and stops growing once past limit: the
// caller cuts there.
func (d *Decoder) appendJSON(dst []byte, v *value, limit, depth int) []byte {
	if len(dst) > limit || depth > d.limits.Depth {
		return dst
	}
	switch v.kind {
	case kindNone:
		return append(dst, "null"...)
	case kindText:
		return appendQuoted(dst, v.b)
	case kindBool:
		return strconv.AppendBool(dst, v.n != 0)
	case kindInt:
		return strconv.AppendInt(dst, int64(v.n), 10)
	case kindDouble:
		return appendDouble(dst, math.Float64frombits(v.n), depth > 0)
	case kindBytes:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.b)
		return append(dst, '"')
	}
	open, end := byte('['), byte(']')
	if v.kind == kindMap {
		open, end = '{', '}'
	}
	dst = append(dst, open)
	first := true
	it := list{w: wire{b: v.b}, kind: v.kind, depth: checked}
	for kv := (keyValue{}); len(dst) <= limit && d.nextIn(&it, &kv); {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		if v.kind == kindMap {
			dst = append(appendQuoted(dst, raw(kv.key)), ':')
		}
		dst = d.appendJSON(dst, &kv.value, limit, depth+1)
	}
	return append(dst, end)
}

func appendDouble(dst []byte, f float64, quoteSpecial bool) []byte {
	if quoteSpecial && (math.IsNaN(f) || math.IsInf(f, 0)) {
		dst = append(dst, '"')
		dst = strconv.AppendFloat(dst, f, 'g', -1, 64)
		return append(dst, '"')
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

const hexDigits = "0123456789abcdef"

// appendQuoted writes b as a JSON string; bytes that are not UTF-8 are replaced.
func appendQuoted(dst, b []byte) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(b); {
		c := b[i]
		switch {
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(b[i:])
			dst = utf8.AppendRune(dst, r)
			i += size
			continue
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c < 0x20:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			dst = append(dst, c)
		}
		i++
	}
	return append(dst, '"')
}

// int is the value as a whole number, also where an SDK sent it as text.
func (v *value) int() (int64, bool) {
	switch v.kind {
	case kindInt:
		return int64(v.n), true
	case kindText:
		n, err := strconv.ParseInt(view(v.b), 10, 64)
		return n, err == nil
	case kindDouble:
		f := math.Float64frombits(v.n)
		return int64(f), f == math.Trunc(f) && math.Abs(f) < 1<<53
	}
	return 0, false
}
