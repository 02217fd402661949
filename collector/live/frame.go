package live

import (
	"strconv"
	"strings"
)

// counts since the frame before.
type counts struct {
	matched int64
	sampled int64 // of those, left out by the rate limit ("1 of n")
	dropped int64 // of those, gone before this reader took them
}

// greeting is the first frame: it tells a reader that comes back whether
// anything was lost meanwhile.
type greeting struct {
	due   bool
	asked bool // there was a token
	known bool // and it was understood
}

// appendFrame writes a frame; docs/live.md describes it. rows are JSON values
// with commas between.
func appendFrame(dst, rows []byte, c counts, token string) []byte {
	dst = append(dst, `{"rows":[`...)
	dst = append(dst, rows...)
	dst = append(dst, `],"matched":`...)
	dst = strconv.AppendInt(dst, c.matched, 10)
	dst = append(dst, `,"sampled":`...)
	dst = strconv.AppendInt(dst, c.sampled, 10)
	dst = append(dst, `,"dropped":`...)
	dst = strconv.AppendInt(dst, c.dropped, 10)
	dst = append(dst, `,"resume":"`...)
	dst = append(dst, token...)
	return append(dst, `"}`...)
}

// appendGreeting writes the first frame: without rows, with what became of the
// token where there was one.
func appendGreeting(dst []byte, g greeting, c counts, token string) []byte {
	dst = appendFrame(dst, nil, c, token)
	if !g.asked {
		return dst
	}
	dst = dst[:len(dst)-1]
	if g.known {
		dst = append(dst, `,"resumed":true,"missed":`...)
		dst = strconv.AppendInt(dst, c.dropped, 10)
		return append(dst, '}')
	}
	return append(dst, `,"resumed":false,"missed":null}`...)
}

func cutDot(s string) (part, rest string, more bool) { return strings.Cut(s, ".") }
