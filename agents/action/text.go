package action

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// sentence is what an error says to people: the words behind the sentinel that it
// wraps, without who said it of what. Without that sentinel it is all of it.
func sentence(err, sentinel error) string {
	text := err.Error()
	if !errors.Is(err, sentinel) {
		return text
	}
	if i := strings.LastIndex(text, sentinel.Error()+": "); i >= 0 {
		text = text[i+len(sentinel.Error())+2:]
	}
	r, n := utf8.DecodeRuneInString(text)
	text = string(unicode.ToUpper(r)) + text[n:]
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// size in the largest unit that leaves a number above 1.
func size(n int64) string {
	v, units := float64(n), []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	for len(units) > 1 && v >= 1024 {
		v, units = v/1024, units[1:]
	}
	if v >= 10 || v == float64(int64(v)) {
		return fmt.Sprintf("%.0f %s", v, units[0])
	}
	return fmt.Sprintf("%.1f %s", v, units[0])
}

// span is a duration of hours and days in words.
func span(d time.Duration) string {
	unit, name := time.Hour, "hour"
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		unit, name = 24*time.Hour, "day"
	}
	switch n := d / unit; {
	case n == 0 || d%unit != 0:
		return d.String()
	case n == 1:
		return "1 " + name
	default:
		return fmt.Sprintf("%d %ss", n, name)
	}
}
