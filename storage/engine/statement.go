package engine

import "strings"

// statement is what a look at the tokens tells about SQL text: enough to route
// it, never enough to trust it. The engine's own parser has the last word.
type statement struct {
	verb     string   // first keyword, upper case; "(" for a bracketed SELECT; empty without any token
	verbs    []string // further keywords outside brackets that change its nature
	multi    bool     // a second statement follows a semicolon
	calls    []string // names followed by a bracket, as written
	assigned []string // names before an equals sign, in SETTINGS or elsewhere
	format   string   // FORMAT clause at the end
	formatAt [2]int   // where that clause is

	paths       bool // a string or quoted name has a slash in it
	hasSettings bool // a SETTINGS clause may be somewhere in it

	// Of an INSERT that takes data: the text before FORMAT or VALUES, the
	// format, and where the data begins.
	insertData bool
	head       string
	dataAt     int
}

// withoutFormat is the text of a query to be put inside another.
func (st *statement) withoutFormat(sql string) string {
	if st.format != "" {
		sql = sql[:st.formatAt[0]] + sql[st.formatAt[1]:]
	}
	return sql
}

// reads reports whether the statement only yields rows.
func (st *statement) reads() bool {
	switch st.verb {
	case "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK", "VALUES":
		return true
	}
	return st.streams()
}

// streams reports whether the engine can send the statement's output while it
// runs, which it does for queries proper.
func (st *statement) streams() bool {
	for _, v := range st.verbs {
		if v == "INSERT" || v == "OUTFILE" {
			return false
		}
	}
	switch st.verb {
	case "SELECT", "WITH", "FROM", "(":
		return true
	}
	return false
}

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenWord
	tokenQuoted // an identifier in back-ticks or double quotes
	tokenString
	tokenNumber
	tokenMark
)

type token struct {
	kind       tokenKind
	text       string // of words and marks as written; of strings and quoted identifiers, unquoted
	start, end int
}

func (t token) is(keyword string) bool {
	return t.kind == tokenWord && strings.EqualFold(t.text, keyword)
}

func (t token) mark(c byte) bool { return t.kind == tokenMark && t.text[0] == c }

func (t token) name() bool { return t.kind == tokenWord || t.kind == tokenQuoted }

// lexer splits ClickHouse SQL. Text it cannot make sense of becomes marks.
type lexer struct {
	s   string
	pos int
}

func (l *lexer) next() token {
	l.skip()
	start := l.pos
	if start >= len(l.s) {
		return token{kind: tokenEnd, start: start, end: start}
	}
	t := token{kind: tokenMark, start: start}
	switch c := l.s[start]; {
	case wordStart(c):
		for l.pos < len(l.s) && wordByte(l.s[l.pos]) {
			l.pos++
		}
		t.kind = tokenWord
		t.text = l.s[start:l.pos]
	case c >= '0' && c <= '9':
		for l.pos < len(l.s) && (wordByte(l.s[l.pos]) || l.s[l.pos] == '.') {
			l.pos++
		}
		t.kind = tokenNumber
	case c == '\'':
		t.text = l.quoted(c)
		t.kind = tokenString
	case c == '`' || c == '"':
		t.text = l.quoted(c)
		t.kind = tokenQuoted
	case c == '$' && l.heredoc():
		t.kind = tokenString
	default:
		l.pos++
		t.text = l.s[start:l.pos]
	}
	t.end = l.pos
	return t
}

// skip passes white space and comments.
func (l *lexer) skip() {
	for l.pos < len(l.s) {
		rest := l.s[l.pos:]
		switch {
		case strings.IndexByte(" \t\r\n\f\v\x00", rest[0]) >= 0:
			l.pos++
		case strings.HasPrefix(rest, "--"), strings.HasPrefix(rest, "//"), strings.HasPrefix(rest, "# "), strings.HasPrefix(rest, "#!"):
			if i := strings.IndexByte(rest, '\n'); i >= 0 {
				l.pos += i + 1
			} else {
				l.pos = len(l.s)
			}
		case strings.HasPrefix(rest, "/*"):
			if i := strings.Index(rest[2:], "*/"); i >= 0 {
				l.pos += 2 + i + 2
			} else {
				l.pos = len(l.s)
			}
		default:
			return
		}
	}
}

// quoted passes a string or identifier closed by q and returns its content.
// Both ways of writing the quote inside are known: \q and qq.
func (l *lexer) quoted(q byte) string {
	var b strings.Builder
	for l.pos++; l.pos < len(l.s); l.pos++ {
		switch c := l.s[l.pos]; {
		case c == '\\' && l.pos+1 < len(l.s):
			l.pos++
			b.WriteByte(l.s[l.pos])
		case c == q && l.pos+1 < len(l.s) && l.s[l.pos+1] == q:
			l.pos++
			b.WriteByte(q)
		case c == q:
			l.pos++
			return b.String()
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// heredoc passes $tag$ … $tag$ and reports whether there was one.
func (l *lexer) heredoc() bool {
	rest := l.s[l.pos:]
	n := strings.IndexByte(rest[1:], '$')
	if n < 0 {
		return false
	}
	tag := rest[:n+2]
	for i := 1; i < len(tag)-1; i++ {
		if !wordByte(tag[i]) {
			return false
		}
	}
	end := strings.Index(rest[len(tag):], tag)
	if end < 0 {
		return false
	}
	l.pos += len(tag) + end + len(tag)
	return true
}

func wordStart(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }

func wordByte(c byte) bool { return wordStart(c) || c >= '0' && c <= '9' }

// parseStatement reads the tokens of sql. For an INSERT it stops where the
// data begins, which need not be SQL at all.
func parseStatement(sql string) statement {
	var st statement
	l := &lexer{s: sql}
	t := l.next()
	for t.mark(';') {
		t = l.next()
	}
	switch {
	case t.mark('('):
		st.verb = "("
	case t.kind == tokenWord:
		st.verb = strings.ToUpper(t.text)
	case t.kind != tokenEnd:
		st.verb = "?" // no statement begins like this; the engine says so
	}
	if st.verb == "INSERT" && st.scanInsert(l, sql) {
		return st
	}
	st.scan(l, t)
	return st
}

// scanInsert looks for the data of an INSERT. Without any it puts l back
// behind the verb.
func (st *statement) scanInsert(l *lexer, sql string) bool {
	begin := l.pos
	t := l.next()
	if t.is("INTO") {
		t = l.next()
	}
	if t.is("TABLE") {
		t = l.next()
	}
	if t.is("FUNCTION") {
		t = l.next()
	}
	// The target may be called anything, even "values".
	for t.name() {
		if t = l.next(); !t.mark('.') {
			break
		}
		t = l.next()
	}
	depth := 0
	for ; t.kind != tokenEnd; t = l.next() {
		switch {
		case t.mark('('):
			depth++
		case t.mark(')'):
			depth--
		case depth > 0:
		case t.mark(';'), t.is("SELECT"), t.is("WITH"), t.is("WATCH"), t.is("INFILE"):
			l.pos = begin
			return false
		case t.is("VALUES"):
			st.insertData, st.head, st.format, st.dataAt = true, strings.TrimSpace(sql[:t.start]), "Values", t.end
			return true
		case t.is("FORMAT"):
			f := l.next()
			if f.kind != tokenWord {
				l.pos = begin
				return false
			}
			st.insertData, st.head, st.format = true, strings.TrimSpace(sql[:t.start]), f.text
			st.dataAt = skipToData(sql, f.end)
			return true
		}
	}
	l.pos = begin
	return false
}

// skipToData passes what may stand between FORMAT x and the data: spaces, a
// semicolon, one line break. Binary formats begin right behind that.
func skipToData(sql string, i int) int {
	for i < len(sql) && (sql[i] == ' ' || sql[i] == '\t' || sql[i] == ';') {
		i++
	}
	if i < len(sql) && sql[i] == '\r' {
		i++
	}
	if i < len(sql) && sql[i] == '\n' {
		i++
	}
	return i
}

// scan reads a statement without data to its end.
func (st *statement) scan(l *lexer, first token) {
	var prev, prev2 token
	depth, ended := 0, false
	for t := first; ; t = l.next() {
		if ended && t.kind != tokenEnd && !t.mark(';') {
			st.multi = true
		}
		// FORMAT x is the clause, and no column of that name, when nothing
		// but the end or SETTINGS follows.
		if depth == 0 && prev2.is("FORMAT") && prev.name() && (t.kind == tokenEnd || t.mark(';') || t.is("SETTINGS")) {
			st.format, st.formatAt = prev.text, [2]int{prev2.start, prev.end}
		}
		if (t.kind == tokenString || t.kind == tokenQuoted) && strings.ContainsAny(t.text, `/\`) {
			st.paths = true
		}
		switch {
		case t.kind == tokenEnd:
			return
		case t.mark('('):
			depth++
			if prev.name() {
				st.calls = append(st.calls, prev.text)
			}
		case t.mark(')'):
			depth--
		case t.mark(';'):
			ended = true
		case t.is("INSERT"), t.is("OUTFILE"):
			st.verbs = append(st.verbs, strings.ToUpper(t.text))
		case t.is("SETTINGS"):
			st.hasSettings = true
		case t.mark('=') && prev.name():
			// Every comparison looks like an assignment; the caller asks for
			// particular names only.
			st.assigned = append(st.assigned, strings.ToLower(prev.text))
		}
		prev2, prev = prev, t
	}
}
