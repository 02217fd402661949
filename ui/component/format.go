package component

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Count writes a whole number with thousands separated.
func Count[N ~int | ~int64 | ~uint64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	var b strings.Builder
	if neg {
		b.WriteString("−")
	}
	for i := range len(s) {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Unknown stands where a number is not known.
const Unknown = "–"

// Number writes a gauge: whole, and Unknown for NaN.
func Number(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return Unknown
	}
	return Count(int64(math.Round(f)))
}

// Rate writes a number per second with as many digits as matter.
func Rate(f float64) string {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return Unknown
	case f == 0:
		return "0"
	case f < 0.01:
		return "< 0.01"
	case f < 1:
		return strconv.FormatFloat(f, 'f', 2, 64)
	case f < 100:
		return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
	}
	return Number(f)
}

// Size writes bytes in decimal units.
func Size(n int64) string {
	if n < 0 {
		return Unknown
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, units := float64(n), "kMGTPE"
	i := -1
	for f >= 999.95 && i < len(units)-1 {
		f /= 1000
		i++
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[i:i+1] + "B"
}

// Span writes a duration in the two units that matter.
func Span(d time.Duration) string {
	neg := ""
	if d < 0 {
		neg, d = "−", -d
	}
	switch {
	case d == 0:
		return "0 s"
	case d < time.Microsecond:
		return neg + strconv.FormatInt(int64(d), 10) + " ns"
	case d < time.Millisecond:
		return neg + digits(float64(d)/1e3) + " µs"
	case d < time.Second:
		return neg + digits(float64(d)/1e6) + " ms"
	case d < time.Minute:
		return neg + digits(d.Seconds()) + " s"
	case d < time.Hour:
		return neg + pair(int64(d/time.Minute), "min", int64(d%time.Minute/time.Second), "s")
	case d < 48*time.Hour:
		return neg + pair(int64(d/time.Hour), "h", int64(d%time.Hour/time.Minute), "min")
	}
	return neg + strconv.FormatInt(int64(d/(24*time.Hour)), 10) + " days"
}

func digits(f float64) string {
	if f >= 9.95 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

func pair(a int64, ua string, b int64, ub string) string {
	s := strconv.FormatInt(a, 10) + " " + ua
	if b == 0 {
		return s
	}
	return s + " " + strconv.FormatInt(b, 10) + " " + ub
}

// Plural writes a count with its noun: 1 channel, 2 channels.
func Plural[N ~int | ~int64 | ~uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return Count(n) + " " + noun + "s"
}

// Middle cuts a long id in its middle; the full value belongs into a title.
func Middle(s string) string {
	if utf8.RuneCountInString(s) <= 14 {
		return s
	}
	r := []rune(s)
	return string(r[:6]) + "…" + string(r[len(r)-4:])
}

// Visible returns text from outside so that it can be shown in a line: what
// would reorder, hide or break text (control characters, bidirectional
// overrides, zero-width characters, invalid UTF-8) becomes a visible mark.
// Message producers choose channel names, headers and bodies; without this
// "invoice\u202Efdp.exe" would read as something else. Newlines and tabs become
// marks too: see VisibleText for payloads.
func Visible(s string) string { return visible(s, false) }

// VisibleText is Visible for text of several lines: it keeps newlines and tabs.
func VisibleText(s string) string { return visible(s, true) }

func visible(s string, lines bool) string {
	clean := true
	for _, r := range s {
		if hidden(r, lines) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case !hidden(r, lines):
			b.WriteRune(r)
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				b.WriteString(`⟨x` + strings.ToUpper(strconv.FormatUint(uint64(s[i])|0x100, 16)[1:]) + `⟩`)
				continue
			}
			b.WriteRune(r)
		case r < 0x20:
			b.WriteRune('␀' + r) // the control pictures block
		case r == 0x7f:
			b.WriteRune('␡')
		default:
			b.WriteString("⟨U+" + strings.ToUpper(strconv.FormatInt(int64(r)|0x10000, 16)[1:]) + "⟩")
		}
	}
	return b.String()
}

// hidden also holds for utf8.RuneError, which stands for invalid bytes.
func hidden(r rune, lines bool) bool {
	switch {
	case r == '\n' || r == '\t':
		return !lines
	case r < 0x20, r >= 0x7f && r < 0xa0, r == utf8.RuneError:
		return true
	case r < 0x300:
		return r == 0xad // soft hyphen
	}
	return r == 0x2028 || r == 0x2029 || r == 0x34f || r == 0x115f || r == 0x1160 || r == 0x3164 || r == 0xffa0 ||
		unicode.Is(unicode.Cf, r) && r != 0x200d // joiners hold emoji together
}
