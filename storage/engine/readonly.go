package engine

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// guard lets only reads of stored data through. It stands behind connections
// that the engine itself opened with readonly=2; what that leaves open are
// table functions, which read files and call other machines, and the settings
// that are this process's memory caps.
type guard struct {
	functions map[string]bool // refused, lower case
	timeout   time.Duration   // of a statement; a reader may ask for less
}

// Table functions that make rows out of nothing but their arguments. A new one
// in a later engine is refused until it is listed here.
var harmlessFunctions = []string{
	"numbers", "numbers_mt", "zeros", "zeros_mt", "generate_series", "generateseries", "values", "null", "view", "format", "primes",
}

// Ordinary functions that reach outside the data.
var harmfulFunctions = []string{"file", "catboostevaluate", "sleep", "sleepeachrow", "addresstoline", "addresstolinewithinlines", "addresstosymbol",
	"demangle", "aigenerate", "aiembed", "executable"}

// Settings that a reader may not change, by prefix.
var guardedSettings = []string{"max_memory", "max_bytes", "max_threads_", "readonly", "allow_", "max_execution_time", "max_server", "temporary_files",
	"file", "s3_", "url_", "external_", "max_result", "max_temporary", "storage_", "object_storage", "enable_url", "log_comment", "timeout_overflow_mode", "implicit_select"}

// newGuard asks the engine for its table functions, so that none is forgotten.
func newGuard(c *conn, timeout time.Duration) (*guard, error) {
	r, err := c.query("SELECT name FROM system.table_functions", "TSVRaw", nil)
	if err != nil {
		return nil, err
	}
	defer r.free()
	g := &guard{functions: make(map[string]bool), timeout: timeout}
	for name := range strings.FieldsSeq(string(r.data())) {
		if name = strings.ToLower(name); !slices.Contains(harmlessFunctions, name) {
			g.functions[name] = true
		}
	}
	for _, name := range harmfulFunctions {
		g.functions[name] = true
	}
	return g, nil
}

// checkSettings refuses settings that would lift a cap, and drops those that
// only say what holds in any case.
func (g *guard) checkSettings(req *request) error {
	kept := req.settings[:0]
	for _, p := range req.settings {
		name := strings.ToLower(p.name)
		if name == "readonly" && (p.value == "1" || p.value == "2") {
			continue // a client making sure; it is
		}
		if name == "max_execution_time" {
			if v, err := strconv.ParseFloat(p.value, 64); err != nil || !(v > 0 && v <= g.timeout.Seconds()) {
				continue // ours stays
			}
		} else if guarded(name) {
			return refuse("the setting %s may not be changed here", p.name)
		}
		kept = append(kept, p)
	}
	req.settings = kept
	return nil
}

// check refuses everything but one reading statement over stored data. Our own
// tokens and the engine's parser must both agree: text on which two parsers
// differ is how such checks are usually passed by.
func (g *guard) check(c *conn, req *request) error {
	if req.data != nil || !req.st.reads() || len(req.st.verbs) > 0 {
		return refuse("only SELECT, SHOW, DESCRIBE, EXISTS, EXPLAIN and CHECK are answered")
	}
	if err := g.checkTokens(&req.st); err != nil {
		return err
	}
	if class, n := c.analyse(req.sql); class == classUnknown || n > 1 {
		return exceptionf(codeSyntax, "Cannot parse the query as one statement. (SYNTAX_ERROR)")
	} else if class != classReadOnly {
		return refuse("only SELECT, SHOW, DESCRIBE, EXISTS, EXPLAIN and CHECK are answered")
	}
	// These name tables in places that the tree does not show.
	if !req.st.streams() && req.st.paths {
		return refuse("names and patterns with a slash are not answered by %s", req.st.verb)
	}
	// The clause FORMAT would change the answer's form.
	r, err := c.query("EXPLAIN AST\n"+req.st.withoutFormat(req.sql), "TSVRaw", req.params)
	if err != nil {
		return err
	}
	defer r.free()
	return g.checkTree(string(r.data()))
}

var treeRoot = regexp.MustCompile(`^[A-Z][A-Za-z]+( |\n)`)

// A table's name as the tree shows it. The engine's default database takes any
// other name for the path of a file, and reads that.
var tableName = regexp.MustCompile(`^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?( \(alias |$)`)

// checkTree looks through the engine's syntax tree, one node a line.
func (g *guard) checkTree(tree string) error {
	if !treeRoot.MatchString(tree) {
		return refuse("the query cannot be analysed")
	}
	for line := range strings.SplitSeq(tree, "\n") {
		kind, rest, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
		switch kind {
		case "Function":
			name, _, _ := strings.Cut(rest, " ")
			if g.functions[strings.ToLower(name)] {
				return refuse("the function %s reaches outside the stored data", name)
			}
		case "TableIdentifier":
			if !tableName.MatchString(rest) {
				return refuse("%q is no table's name, and files are not read", rest)
			}
		case "Identifier":
			if strings.ContainsAny(rest, `/\`) { // x IN table is an Identifier
				return refuse("%q is no table's name, and files are not read", rest)
			}
		}
	}
	return nil
}

func (g *guard) checkTokens(st *statement) error {
	for _, name := range st.calls {
		if g.functions[strings.ToLower(name)] {
			return refuse("the function %s reaches outside the stored data", name)
		}
	}
	for _, name := range st.assigned {
		if guarded(name) && st.hasSettings {
			return refuse("the setting %s may not be changed here", name)
		}
	}
	return nil
}

func guarded(name string) bool {
	for _, prefix := range guardedSettings {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func refuse(format string, args ...any) error {
	e := exceptionf(codeReadonly, format, args...)
	e.Message = "This listener is read-only: " + e.Message + ". (READONLY)"
	return e
}
