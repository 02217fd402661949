package filter

import (
	"math/bits"
	"strconv"
	"strings"
)

// int128 is a sign and a magnitude of up to maxDigits decimal digits: enough
// for any 64-bit identifier, and exact.
type int128 struct {
	neg    bool
	hi, lo uint64
}

const maxDigits = 38

func smallInt(n int64) int128 {
	if n < 0 {
		return int128{neg: true, lo: uint64(-n)}
	}
	return int128{lo: uint64(n)}
}

func (a int128) int64() int64 {
	if a.neg {
		return -int64(a.lo)
	}
	return int64(a.lo)
}

// fits says that the number is an int64 of either sign.
func (a int128) fits() bool { return a.hi == 0 && a.lo < 1<<63 }

func (a int128) String() string {
	var buf [maxDigits + 2]byte
	i := len(buf)
	hi, lo := a.hi, a.lo
	for {
		var r uint64
		hi, r = hi/10, hi%10
		lo, r = bits.Div64(r, lo, 10)
		i--
		buf[i] = '0' + byte(r)
		if hi == 0 && lo == 0 {
			break
		}
	}
	if a.neg {
		i--
		buf[i] = '-'
	}
	return string(buf[i:])
}

func compare128(a, b int128) int {
	c := 0
	switch {
	case a.neg != b.neg:
		c = 1
		if a.neg {
			c = -1
		}
		return c
	case a.hi != b.hi:
		c = 1
		if a.hi < b.hi {
			c = -1
		}
	case a.lo != b.lo:
		c = 1
		if a.lo < b.lo {
			c = -1
		}
	}
	if a.neg {
		return -c
	}
	return c
}

// parse128 reads an optional minus and 1 to maxDigits digits.
func parse128(s string) (int128, bool) {
	digits := strings.TrimPrefix(s, "-")
	if len(digits) == 0 || len(digits) > maxDigits {
		return int128{}, false
	}
	var n int128
	for i := range len(digits) {
		d := digits[i] - '0'
		if d > 9 {
			return int128{}, false
		}
		over, lo := bits.Mul64(n.lo, 10)
		var carry uint64
		n.lo, carry = bits.Add64(lo, uint64(d), 0)
		n.hi = n.hi*10 + over + carry
	}
	n.neg = len(digits) < len(s) && (n.hi != 0 || n.lo != 0)
	return n, true
}

// isNumber says that s is written as a number: -12, 3.5, 1e6. It is the
// grammar of JSON, except that leading zeros are allowed.
func isNumber(s string) bool {
	i := 0
	digits := func() bool {
		from := i
		for i < len(s) && s[i]-'0' <= 9 {
			i++
		}
		return i > from
	}
	if i < len(s) && s[i] == '-' {
		i++
	}
	if !digits() {
		return false
	}
	if i < len(s) && s[i] == '.' {
		i++
		if !digits() {
			return false
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		i++
		if i < len(s) && (s[i] == '-' || s[i] == '+') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(s)
}

// parseNumber reads a literal.
func parseNumber(s string) (value, bool) {
	if !isNumber(s) {
		return value{}, false
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil { // beyond what a float holds
		return value{}, false
	}
	if n, ok := parse128(s); ok {
		return value{kind: kindInt, num: n, f: float64Of(n)}, true
	}
	return value{kind: kindFloat, f: f + 0}, true
}

func float64Of(n int128) float64 {
	f, _ := strconv.ParseFloat(n.String(), 64)
	return f
}

// compareNumber compares a text with a number. Two integers compare exactly,
// everything else as 64-bit floating-point numbers. ok says that the text is
// a number at all.
func compareNumber(text string, v *value) (c int, ok bool) {
	if v.kind == kindInt {
		if n, ok := parse128(text); ok {
			return compare128(n, v.num), true
		}
	}
	if !isNumber(text) {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, false
	}
	return compareFloat(f, v.f), true
}

func compareFloat(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
