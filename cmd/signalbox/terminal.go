package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/signalbox-dev/signalbox/ui/component"
)

// terminal is where a verb reads and writes. What it shows of messages is their
// producers': no byte of it reaches a terminal that could steer it.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
	colour   bool // out is a terminal that wants colours
	tty      bool // out is a terminal
	asks     bool // somebody reads err and can answer on in
	live     bool // err is a terminal whose line can be written again
	width    int  // of err, where it is one

	lines *bufio.Reader // of in, once somebody was asked
}

func newTerminal() *terminal {
	tty, says := term.IsTerminal(int(os.Stdout.Fd())), term.IsTerminal(int(os.Stderr.Fd()))
	width, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	return &terminal{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv, tty: tty, width: width,
		colour: tty && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		asks:   says && term.IsTerminal(int(os.Stdin.Fd())), live: says && os.Getenv("TERM") != "dumb",
	}
}

// note tells a person something beside the result.
func (t *terminal) note(format string, args ...any) { fmt.Fprintf(t.err, format+"\n", args...) }

// colour of a cell.
type colour string

const (
	unset  colour = ""
	dim    colour = "2"
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
)

// painted is text in a colour.
type painted struct {
	text string
	in   colour
}

// table writes rows in columns as they come. The width of a column is that of
// the first rows; a longer cell later moves its line only.
type table struct {
	t      *terminal
	heads  []string
	right  map[int]bool // numbers
	rows   [][]painted
	widths []int
}

func (t *terminal) table(heads ...string) *table {
	tb := &table{t: t, right: map[int]bool{}}
	for i, h := range heads {
		if name, ok := strings.CutPrefix(h, "#"); ok {
			h, tb.right[i] = name, true
		}
		tb.heads = append(tb.heads, h)
	}
	return tb
}

// add takes strings and painted cells.
func (tb *table) add(cells ...any) {
	row := make([]painted, 0, len(cells))
	for _, c := range cells {
		p, ok := c.(painted)
		if !ok {
			p = painted{text: fmt.Sprint(c)}
		}
		p.text = component.Visible(p.text)
		row = append(row, p)
	}
	tb.rows = append(tb.rows, row)
}

// flush writes what was added since.
func (tb *table) flush() {
	if tb.widths == nil && len(tb.rows) > 0 {
		head := make([]painted, 0, len(tb.heads))
		tb.widths = make([]int, len(tb.heads))
		for i, h := range tb.heads {
			head = append(head, painted{h, dim})
			tb.widths[i] = utf8.RuneCountInString(h)
		}
		for _, row := range tb.rows {
			for i, c := range row {
				tb.widths[i] = max(tb.widths[i], utf8.RuneCountInString(c.text))
			}
		}
		tb.rows = append([][]painted{head}, tb.rows...)
	}
	var b strings.Builder
	for _, row := range tb.rows {
		for i, c := range row {
			pad := max(0, tb.widths[i]-utf8.RuneCountInString(c.text))
			if i > 0 {
				b.WriteString("  ")
			}
			if tb.right[i] {
				b.WriteString(strings.Repeat(" ", pad))
			}
			if tb.t.colour && c.in != unset && c.text != "" {
				b.WriteString("\x1b[" + string(c.in) + "m" + c.text + "\x1b[0m")
			} else {
				b.WriteString(c.text)
			}
			if !tb.right[i] && i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", pad))
			}
		}
		b.WriteByte('\n')
	}
	tb.rows = tb.rows[:0]
	fmt.Fprint(tb.t.out, b.String())
}

// json writes JSON as it came from the console, with what a terminal might obey
// (or a reader be misled by) as \u escapes: the same JSON, harmless to look at.
func (t *terminal) json(raw []byte) {
	raw = bytes.TrimRight(raw, "\n")
	if isClean(raw) {
		fmt.Fprintf(t.out, "%s\n", raw)
		return
	}
	var b bytes.Buffer
	b.Grow(len(raw) + 64)
	for _, r := range string(raw) {
		switch {
		case !steers(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	fmt.Fprintf(t.out, "%s\n", b.Bytes())
}

func isClean(raw []byte) bool {
	for _, c := range raw {
		if c >= 0x7f {
			return false
		}
	}
	return true
}

// steers says whether a character is one that component.Visible would show as a
// mark. Controls below space are escaped in JSON already, and newlines and
// blanks between its tokens are to stay.
func steers(r rune) bool {
	return r >= 0x7f && component.Visible(string(r)) != string(r)
}

// text writes lines of text, such as CSV, as they are into a file, and without
// anything that steers onto a terminal.
func (t *terminal) text(s string) {
	if t.tty {
		s = component.VisibleText(s)
	}
	fmt.Fprint(t.out, s)
}

// local is a time in the reader's zone.
func local(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.Local().Format("2006-01-02 15:04:05.000")
}
