package command

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// number writes 12500 as 12,500.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count writes how many messages fall under a preview.
func count(p *controlbus.Preview) string {
	switch {
	case p.Count < 0:
		return "an unknown number of messages"
	case p.Count == 0 && p.AtLeast:
		return "an unknown number of messages"
	case p.Count == 1 && !p.AtLeast:
		return "1 message"
	case p.AtLeast:
		return "at least " + number(p.Count) + " messages"
	}
	return number(p.Count) + " messages"
}

// excerpts of bodies in previews.
const excerptRunes = 256

func excerpt(body string) string {
	if len(body) > 4*excerptRunes {
		body = body[:4*excerptRunes]
	}
	body = strings.ToValidUTF8(body, string(utf8.RuneError))
	n := 0
	for i := range body {
		if n == excerptRunes {
			return body[:i] + "…"
		}
		n++
	}
	return body
}

func encodeArgs(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err == nil && len(b) > controlbus.MaxCommandArgs {
		err = fmt.Errorf("arguments of %d bytes: at most %d", len(b), controlbus.MaxCommandArgs)
	}
	if err != nil {
		return nil, fmt.Errorf("command: %w: %w", controlbus.ErrInvalid, err)
	}
	return b, nil
}
