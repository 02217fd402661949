package export

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// segment is one step of a path.
type segment struct {
	name  string
	index int // array index; -1: not one
	any   bool
	deep  bool // matches at any depth below, as in $..name
	last  bool
	rule  int
}

// parsePath reads the part of JSONPath that names places: $.a.b, $['a b'],
// $.a[0], $.a[*], $.*, $..name. Errors are ErrInvalid.
func parsePath(path string) ([]segment, error) {
	bad := func(why string) error {
		return fmt.Errorf("%w: path %q: %s", controlbus.ErrInvalid, path, why)
	}
	rest, ok := strings.CutPrefix(path, "$")
	if !ok {
		return nil, bad("want it to begin with $")
	}
	var segs []segment
	for rest != "" {
		s := segment{index: -1}
		switch {
		case strings.HasPrefix(rest, "..["):
			s.deep, rest = true, rest[2:]
		case strings.HasPrefix(rest, ".."):
			s.deep, rest = true, rest[1:]
		}
		switch {
		case strings.HasPrefix(rest, "["):
			var inner string
			if q := rest[1:]; q != "" && (q[0] == '\'' || q[0] == '"') {
				end := strings.Index(q[1:], q[:1]+"]")
				if end < 0 {
					return nil, bad("a bracket is not closed")
				}
				s.name, rest = q[1:1+end], q[1+end+2:]
				break
			}
			if inner, rest, ok = strings.Cut(rest[1:], "]"); !ok {
				return nil, bad("a bracket is not closed")
			}
			if inner == "*" {
				s.any = true
			} else if n, err := strconv.ParseUint(inner, 10, 31); err == nil {
				s.index = int(n)
			} else {
				return nil, bad("want a number, * or a quoted name in brackets")
			}
		case strings.HasPrefix(rest, "."):
			end := strings.IndexAny(rest[1:], ".[")
			if end < 0 {
				end = len(rest) - 1
			}
			s.name, rest = rest[1:1+end], rest[1+end:]
			if s.name == "" {
				return nil, bad("a name is empty")
			}
			if s.name == "*" {
				s.any, s.name = true, ""
			}
		default:
			return nil, bad("want a . or a [ after each name")
		}
		segs = append(segs, s)
	}
	if len(segs) == 0 {
		return nil, bad("want at least one name; use a body policy for whole bodies")
	}
	segs[len(segs)-1].last = true
	return segs, nil
}

// pathSet finds all its paths in one pass over a document.
type pathSet struct {
	segs   []segment
	starts []int32
	names  []string
}

func (p *pathSet) add(name string, segs []segment) {
	p.starts = append(p.starts, int32(len(p.segs)))
	for _, s := range segs {
		s.rule = len(p.names)
		p.segs = append(p.segs, s)
	}
	p.names = append(p.names, name)
}

// edit is one value to mask.
type edit struct{ from, to, rule int }

// maxDepth is how deep paths are followed. What lies deeper, where a path may
// still match, is masked as a whole: better too much than a secret let out.
const maxDepth = 128

// find returns the values to mask, in order and without overlap. Text that is
// not JSON has none. A document that breaks off is searched as far as it goes,
// and several in a row are all searched.
func (p *pathSet) find(body []byte) []edit {
	s := scanner{set: p, b: body}
	s.space()
	if len(body) >= 3 && string(body[:3]) == "\xef\xbb\xbf" {
		s.i = 3
		s.space()
	}
	for s.i < len(s.b) && (s.b[s.i] == '{' || s.b[s.i] == '[') {
		s.arena = append(s.arena[:0], p.starts...)
		if !s.container(0, len(s.arena), 0) {
			break
		}
		s.space()
		if s.i < len(s.b) && s.b[s.i] == ',' {
			s.i++
			s.space()
		}
	}
	return s.edits
}

// scanner walks a document. The states in which the paths are form a stack in
// arena: the ones of the present container are arena[lo:hi].
type scanner struct {
	set   *pathSet
	b     []byte
	i     int
	arena []int32
	edits []edit
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// container walks an object or an array; false means that the text broke off.
func (s *scanner) container(lo, hi, depth int) bool {
	object := s.b[s.i] == '{'
	end := byte(']')
	if object {
		end = '}'
	}
	s.i++
	for n := 0; ; n++ {
		s.space()
		if s.i >= len(s.b) {
			return false
		}
		if s.b[s.i] == end {
			s.i++
			return true
		}
		if n > 0 {
			if s.b[s.i] != ',' {
				return false
			}
			s.i++
			s.space()
		}
		var key []byte
		if object {
			if s.i >= len(s.b) || s.b[s.i] != '"' {
				return false
			}
			from := s.i
			if !s.str() {
				return false
			}
			key = s.b[from:s.i]
			s.space()
			if s.i >= len(s.b) || s.b[s.i] != ':' {
				return false
			}
			s.i++
			s.space()
		}
		if s.i >= len(s.b) {
			return false
		}
		if !s.child(key, n, lo, hi, depth) {
			return false
		}
	}
}

// child handles one value: masked, walked or skipped.
func (s *scanner) child(key []byte, index, lo, hi, depth int) bool {
	name := key
	if key != nil {
		name = key[1 : len(key)-1]
		if slices.Contains(name, '\\') {
			var plain string
			if json.Unmarshal(key, &plain) == nil {
				name = []byte(plain)
			}
		}
	}
	nlo := len(s.arena)
	defer func() { s.arena = s.arena[:nlo] }()
	mask := -1
	for _, st := range s.arena[lo:hi] {
		seg := &s.set.segs[st]
		if seg.deep {
			s.arena = append(s.arena, st)
		}
		match := seg.any
		if !match {
			if key != nil {
				match = seg.index < 0 && seg.name == string(name)
			} else {
				match = seg.index == index
			}
		}
		if match && seg.last {
			mask = seg.rule
			break
		}
		if match && !slices.Contains(s.arena[nlo:], st+1) {
			s.arena = append(s.arena, st+1)
		}
	}
	from := s.i
	container := s.b[s.i] == '{' || s.b[s.i] == '['
	if mask < 0 && container && len(s.arena) > nlo {
		if depth < maxDepth {
			return s.container(nlo, len(s.arena), depth+1)
		}
		mask = s.set.segs[s.arena[nlo]].rule
	}
	whole := s.skip()
	if mask >= 0 {
		s.edits = append(s.edits, edit{from, s.i, mask})
	}
	return whole
}

// str moves behind a string; at its end where it is not closed.
func (s *scanner) str() bool {
	for s.i++; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '\\':
			s.i++
		case '"':
			s.i++
			return true
		}
	}
	s.i = len(s.b)
	return false
}

// delimiter has the bytes that end a number or a word.
var delimiter = [256]bool{'"': true, ',': true, ':': true, '{': true, '}': true, '[': true, ']': true, ' ': true, '\t': true, '\n': true, '\r': true}

// skip moves behind any value without looking at what it means. It does not
// recurse, so that depth costs nothing.
func (s *scanner) skip() bool {
	depth := 0
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case '"':
			if !s.str() {
				return false
			}
		case '{', '[':
			depth++
			s.i++
			continue
		case '}', ']':
			if depth == 0 {
				return true // the end of what is around
			}
			depth--
			s.i++
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return true
			}
			s.i++
			continue
		default:
			for s.i < len(s.b) && !delimiter[s.b[s.i]] {
				s.i++
			}
		}
		if depth == 0 {
			return true
		}
	}
	return depth == 0
}
