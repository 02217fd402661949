package decode

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// selfDescribed is tag 55799, with which CBOR says that it is CBOR.
var selfDescribed = []byte{0xd9, 0xd9, 0xf7}

// cborTokens walks one CBOR value into the diagnostic notation of RFC 8949.
// Floats, simple values and big numbers are written by fxamacker/cbor; the walk
// is our own, so that order, duplicates and bounds are kept.
func cborTokens(b []byte, lim Limits, partial bool) (*builder, error) {
	out := &builder{limit: lim.Values}
	w := cborWalk{out: out, b: b, partial: partial}
	for started := false; ; started = true {
		for f := out.top(); f != nil && !f.open && f.left == 0; f = out.top() {
			w.finish()
		}
		if started && len(out.open) == 0 {
			break
		}
		from := w.i
		if err := w.item(); err != nil {
			if partial && errors.Is(err, errShort) {
				return out, nil
			}
			return nil, fmt.Errorf("byte %d: %w", from, err)
		}
	}
	if rest := len(b) - w.i; rest > 0 {
		return nil, fmt.Errorf("byte %d: %s follow the value", w.i, bytesWords(rest))
	}
	if w.bad > 0 {
		out.notes = append(out.notes, "some strings are not UTF-8")
	}
	return out, nil
}

type cborWalk struct {
	out     *builder
	b       []byte
	i       int
	partial bool
	bad     int
	epoch   time.Time // the number within a tag 1, as a time
}

func (w *cborWalk) finish() {
	f := w.out.finish()
	if f.kind == '(' && f.tag == 1 && !w.epoch.IsZero() {
		w.out.remark(w.epoch.UTC().Format(time.RFC3339Nano))
	}
	w.epoch = time.Time{}
}

// head reads the first bytes of an item.
func (w *cborWalk) head() (major, info byte, arg uint64, err error) {
	if w.i >= len(w.b) {
		return 0, 0, 0, errShort
	}
	c := w.b[w.i]
	major, info = c>>5, c&31
	w.i++
	switch {
	case info < 24:
		return major, info, uint64(info), nil
	case info < 28:
		n := 1 << (info - 24)
		if len(w.b)-w.i < n {
			w.i--
			return 0, 0, 0, errShort
		}
		for _, d := range w.b[w.i : w.i+n] {
			arg = arg<<8 | uint64(d)
		}
		w.i += n
		return major, info, arg, nil
	case info == 31:
		return major, info, 0, nil
	}
	return 0, 0, 0, fmt.Errorf("no value begins with %02x", c)
}

func (w *cborWalk) item() error {
	from := w.i
	major, info, arg, err := w.head()
	if err != nil {
		return err
	}
	top := w.out.top()
	if major == 7 && info == 31 {
		if top == nil || !top.open || top.kind == '{' && top.items%2 != 0 {
			return errors.New("a break where nothing is open")
		}
		top.open, top.left = false, 0
		return nil
	}
	if top != nil && top.kind == 'c' && (major != top.major || info == 31) {
		return errors.New("a chunk of another kind than its string")
	}
	endless := info == 31
	left := uint64(len(w.b) - w.i)
	switch major {
	case 0, 1:
		if endless {
			return fmt.Errorf("no value begins with %02x", w.b[from])
		}
		w.integer(major, arg)
	case 2, 3:
		if endless {
			w.out.begin(frame{kind: 'c', open: true, major: major}, "(_ ")
			return nil
		}
		if arg > left {
			return errShort
		}
		s := w.b[w.i : w.i+int(arg)]
		w.i += int(arg)
		if major == 2 {
			w.out.bytes(s)
			break
		}
		if !utf8.Valid(s) {
			w.bad++
		}
		w.out.scalar('"', quote(string(s)))
	case 4, 5:
		f := frame{kind: '[', left: arg, open: endless}
		text := "["
		if major == 5 {
			f.kind, text = '{', "{"
			if arg > math.MaxUint64/2 {
				return errShort
			}
			f.left *= 2
		}
		if endless {
			text += "_ "
		}
		if f.left > left && !w.partial {
			return fmt.Errorf("%d values are announced and %s are left", f.left, bytesWords(int(left)))
		}
		w.out.begin(f, text)
	case 6:
		if endless {
			return fmt.Errorf("no value begins with %02x", w.b[from])
		}
		if done, err := w.bignum(from, arg); done || err != nil {
			return err
		}
		w.out.begin(frame{kind: '(', left: 1, tag: arg}, strconv.FormatUint(arg, 10)+"(")
	case 7:
		if info == 24 && arg < 32 {
			return fmt.Errorf("simple value %d in two bytes", arg)
		}
		text, err := diagnose(w.b[from:w.i])
		if err != nil {
			return err
		}
		kind := byte('l')
		if info >= 25 && info <= 27 {
			kind = '0'
			if f, err := strconv.ParseFloat(text, 64); err == nil && top != nil && top.tag == 1 && writable(int64(f)) {
				whole, part := math.Modf(f)
				w.epoch = time.Unix(int64(whole), int64(part*1e9))
			}
		}
		w.out.scalar(kind, text)
	}
	return nil
}

func (w *cborWalk) integer(major byte, arg uint64) {
	var text string
	switch {
	case major == 0:
		text = strconv.FormatUint(arg, 10)
	case arg < math.MaxInt64:
		text = strconv.FormatInt(-1-int64(arg), 10)
	default:
		n := new(big.Int).SetUint64(arg)
		text = n.Not(n).String()
	}
	if top := w.out.top(); top != nil && top.kind == '(' && top.tag == 1 {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && writable(n) {
			w.epoch = time.Unix(n, 0)
		}
	}
	w.out.scalar('0', text)
}

// bignum reads a big number, which is a tag with bytes, as the number it is.
func (w *cborWalk) bignum(from int, tag uint64) (bool, error) {
	const most = 256 // digits cost their square; longer ones stay bytes
	if tag != 2 && tag != 3 || w.i >= len(w.b) || w.b[w.i]>>5 != 2 || w.b[w.i]&31 > 25 {
		return false, nil
	}
	at := w.i
	_, _, n, err := w.head()
	if err != nil {
		w.i = from
		return true, err
	}
	if n > most {
		w.i = at
		return false, nil
	}
	if n > uint64(len(w.b)-w.i) {
		return true, errShort
	}
	w.i += int(n)
	text, err := diagnose(w.b[from:w.i])
	if err == nil {
		w.out.scalar('0', text)
	}
	return true, err
}

// diagnose writes a single value without parts.
func diagnose(b []byte) (string, error) { return cbor.Diagnose(b) }
