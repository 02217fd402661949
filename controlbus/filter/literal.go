package filter

import (
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// literal reads a value as the field's type wants it.
func (p *parser) literal(c *node, w piece, at, end int) (value, error) {
	s := w.text
	switch c.field.Type {
	case Number, Size, Duration:
		return p.quantity(c, s, at, end)
	case Time:
		return p.time(s, at, end)
	case Bool:
		switch strings.ToLower(s) {
		case "true", "yes":
			return integer(1), nil
		case "false", "no":
			return integer(0), nil
		}
		return value{}, p.fail(at, end, "true", "%s is true or false", c.label())
	case Enum:
		return p.enum(c, s, at, end)
	case Hex:
		b, err := hex.DecodeString(s)
		switch {
		case err != nil || len(b) != c.field.bytes:
			return value{}, p.fail(at, end, c.label()+":"+strings.Trim(quoteIfNeeded(s), "*")+"*", "%s has %d hexadecimal digits", c.label(), 2*c.field.bytes)
		case !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }):
			return value{}, p.fail(at, end, "", "all zeros means that there is none: write NOT %s:*", c.label())
		}
		return value{kind: kindID, text: string(b)}, nil
	case Dynamic:
		if v, ok := parseNumber(s); ok && !w.quoted {
			return v, nil
		}
	case Text:
		if s == "" {
			return value{}, p.fail(at, end, "", "an empty %s is the same as none: write NOT %s:*", c.label(), c.label())
		}
	case Body:
		if s == "" {
			return value{}, p.fail(at, end, "", "an empty body is the same as none: write NOT body:*")
		}
	}
	return value{kind: kindText, text: s}, nil
}

func integer(n int64) value { return value{kind: kindInt, num: smallInt(n), f: float64(n)} }

func (p *parser) enum(c *node, s string, at, end int) (value, error) {
	name := strings.ReplaceAll(strings.ToLower(s), "-", "_")
	if c.field.Name == "op" {
		switch name { // the conventions' old names
		case "publish":
			name = controlbus.OpSend.String()
		case "deliver":
			name = controlbus.OpProcess.String()
		}
	}
	i := slices.Index(c.field.Values, name)
	if i < 0 {
		return value{}, p.fail(at, end, closest(name, slices.Values(c.field.Values)), "no %s %q; there are %s", c.label(), s, strings.Join(c.field.Values, ", "))
	}
	return integer(int64(i) + c.field.base()), nil
}

// unit is a suffix of a number.
type unit struct {
	name   string
	factor int64
}

// Units, the largest first.
var (
	sizeUnits = []unit{
		{"tib", 1 << 40}, {"tb", 1e12}, {"gib", 1 << 30}, {"gb", 1e9}, {"mib", 1 << 20}, {"mb", 1e6}, {"kib", 1 << 10}, {"kb", 1e3}, {"b", 1},
	}
	durationUnits = []unit{
		{"w", 7 * 24 * 3600e9}, {"d", 24 * 3600e9}, {"h", 3600e9}, {"m", 60e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"µs", 1e3}, {"ns", 1},
	}
)

func (p *parser) quantity(c *node, s string, at, end int) (value, error) {
	if v, ok := parseNumber(s); ok && c.field.Type != Duration {
		if v.kind == kindInt && !v.num.fits() {
			return v, p.fail(at, end, "", "%s is out of range", s)
		}
		return v, nil
	}
	var n int64
	var ok bool
	switch c.field.Type {
	case Number:
		return value{}, p.fail(at, end, "", "%s is a number, and %q is none", c.label(), s)
	case Size:
		if n, ok = amount(s, sizeUnits, false); !ok {
			return value{}, p.fail(at, end, "", "%s wants bytes, such as 500, 100kb (1000 each) or 1mib (1024 each)", c.label())
		}
	default:
		if n, ok = amount(s, durationUnits, true); !ok {
			suggestion := ""
			if isNumber(s) {
				suggestion = s + "ms"
			}
			return value{}, p.fail(at, end, suggestion, "%s wants a number with a unit, such as 250ms, 5s or 1h30m", c.label())
		}
	}
	return integer(n), nil
}

// amount reads a number with a unit, or several that add up.
func amount(s string, units []unit, several bool) (int64, bool) {
	s = strings.ToLower(s)
	total := 0.0
	exact := int64(0)
	for first := true; first || s != ""; first = false {
		if !first && !several {
			return 0, false
		}
		i := 0
		for i < len(s) && (isDigit(s[i]) || s[i] == '.') {
			i++
		}
		j := i
		for j < len(s) && !isDigit(s[j]) && s[j] != '.' {
			j++
		}
		at := slices.IndexFunc(units, func(u unit) bool { return u.name == s[i:j] })
		if at < 0 || i == 0 || !isNumber(s[:i]) {
			return 0, false
		}
		n, err := strconv.ParseInt(s[:i], 10, 64)
		if err == nil && n <= math.MaxInt64/units[at].factor {
			n *= units[at].factor
		} else {
			f, err := strconv.ParseFloat(s[:i], 64)
			f = math.Round(f * float64(units[at].factor))
			if err != nil || f >= math.MaxInt64 {
				return 0, false
			}
			n = int64(f)
		}
		exact += n
		if total += float64(n); total >= math.MaxInt64 {
			return 0, false
		}
		s = s[j:]
	}
	return exact, true
}

// inUnits writes an amount in the largest unit in which it is whole.
func inUnits(n int64, units []unit) string {
	for _, u := range units {
		if n != 0 && n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.name
		}
	}
	return "0" + units[len(units)-1].name
}

var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"}

// time reads now, now-15m, now+1h, or a date with or without time and zone.
func (p *parser) time(s string, at, end int) (value, error) {
	if rest, ok := strings.CutPrefix(strings.ToLower(s), "now"); ok {
		n := int64(0)
		if rest != "" {
			if rest[0] == '-' || rest[0] == '+' {
				n, ok = amount(rest[1:], durationUnits, true)
			} else {
				ok = false
			}
			if rest[0] == '-' {
				n = -n
			}
		}
		if ok {
			now := p.now.UnixNano()
			t := now + n
			if n > 0 && t < now || n < 0 && t > now {
				return value{}, p.fail(at, end, "", "this time is out of range")
			}
			return value{kind: kindTime, num: smallInt(t), rel: "now" + rest}, nil
		}
	}
	for _, l := range layouts {
		t, err := time.ParseInLocation(l, strings.Replace(s, " ", "T", 1), p.now.Location())
		if err != nil {
			continue
		}
		if t.Year() < 1700 || t.Year() > 2200 {
			return value{}, p.fail(at, end, "", "this time is out of range")
		}
		return value{kind: kindTime, num: smallInt(t.UnixNano())}, nil
	}
	return value{}, p.fail(at, end, "", "want a time: now-15m, 2026-07-23, 2026-07-23T10:15 or 2026-07-23T10:15:30Z")
}
