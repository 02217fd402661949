package engine

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// maxQueryBytes bounds SQL text; data behind an INSERT may be of any size.
const maxQueryBytes = 1 << 20

// request is one statement as it came over HTTP.
type request struct {
	st       statement
	sql      string    // text for the engine; of an INSERT with data, without them
	data     io.Reader // of an INSERT
	format   string    // default output format
	database string
	queryID  string
	params   []param
	settings []param

	compress     bool   // answer in ClickHouse's compressed frames
	accept       string // Accept-Encoding
	method       string
	httpCompress bool
	revision     int // of the Native protocol the client asks for
	buffered     bool
}

// Names in the URL that are no settings.
var ignoredInURL = []string{"user", "password", "quota_key", "http_zlib_compression_level", "add_http_cors_header",
	"buffer_size", "stacktrace", "role", "network_zstd_compression_level", "send_progress_in_http_headers",
	"http_headers_progress_interval_ms", "log_comment"}

func parseRequest(r *http.Request) (*request, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, exceptionf(codeBadArguments, "Cannot parse the query string: %v. (BAD_ARGUMENTS)", err)
	}
	req := &request{format: r.Header.Get("X-ClickHouse-Format"), database: r.Header.Get("X-ClickHouse-Database"), accept: r.Header.Get("Accept-Encoding")}
	var sql string
	var decompress bool
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names) // so that an error is the same each time
	for _, name := range names {
		v := q[name][len(q[name])-1]
		on := v == "1" || v == "true"
		switch {
		case name == "query":
			sql = v
		case name == "database":
			req.database = v
		case name == "default_format":
			req.format = v
		case name == "query_id":
			req.queryID = v
		case name == "compress":
			req.compress = on
		case name == "decompress":
			decompress = on
		case name == "network_compression_method":
			req.method = v
		case name == "enable_http_compression":
			req.httpCompress = on
		case name == "wait_end_of_query":
			req.buffered = on
		case name == "client_protocol_version":
			if req.revision, err = strconv.Atoi(v); err != nil || req.revision < 0 {
				return nil, exceptionf(codeBadArguments, "client_protocol_version: want a number, have %q. (BAD_ARGUMENTS)", v)
			}
		case name == "session_id", name == "session_timeout", name == "session_check":
			return nil, exceptionf(codeUnsupported, "Sessions over HTTP are not supported by the embedded engine. (NOT_IMPLEMENTED)")
		case strings.HasPrefix(name, "param_"):
			req.params = append(req.params, param{strings.TrimPrefix(name, "param_"), v})
		case slices.Contains(ignoredInURL, name):
		default:
			req.settings = append(req.settings, param{name, v})
		}
	}
	// The stock driver asks for gzip without the setting that a server wants.
	req.httpCompress = req.httpCompress || q.Get("client_protocol_version") != ""
	if req.format == "" {
		req.format = "TabSeparated"
	}
	body, err := requestBody(r, decompress)
	if err != nil {
		return nil, err
	}
	if ct, args, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && ct == "multipart/form-data" && args["boundary"] != "" {
		if sql, body, err = formQuery(r, sql); err != nil {
			return nil, err
		}
	}
	return req, req.join(sql, body)
}

// formQuery takes the statement from a form. A file in the form is an external
// table, which libchdb has no way to take.
func formQuery(r *http.Request, sql string) (string, io.Reader, error) {
	mr, err := r.MultipartReader()
	if err != nil {
		return "", nil, exceptionf(codeBadArguments, "Cannot read the form: %v. (BAD_ARGUMENTS)", err)
	}
	for {
		part, err := mr.NextPart()
		if err == io.EOF { //nolint:errorlint // multipart wraps it when the form is cut short
			return sql, strings.NewReader(""), nil
		}
		if err != nil {
			return "", nil, exceptionf(codeCannotRead, "Cannot read the form: %v. (CANNOT_READ_ALL_DATA)", err)
		}
		if part.FormName() != "query" || part.FileName() != "" {
			return "", nil, exceptionf(codeUnsupported, "External tables (%q) are not supported by the embedded engine. (NOT_IMPLEMENTED)", part.FormName())
		}
		text, err := io.ReadAll(io.LimitReader(part, maxQueryBytes+1))
		if err != nil {
			return "", nil, exceptionf(codeCannotRead, "Cannot read the form: %v. (CANNOT_READ_ALL_DATA)", err)
		}
		sql += string(text)
	}
}

// join makes one statement of the URL's text and the body, as ClickHouse does:
// the body continues the text, or is the data of its INSERT.
func (req *request) join(sql string, body io.Reader) error {
	if sql != "" {
		req.st = parseStatement(sql)
		if req.st.insertData {
			req.sql = req.st.head
			req.data = io.MultiReader(strings.NewReader(sql[req.st.dataAt:]), body)
			return nil
		}
		sql += "\n"
	}
	head, err := io.ReadAll(io.LimitReader(body, maxQueryBytes+1-int64(len(sql))))
	if err != nil {
		return bodyError(err)
	}
	text := sql + string(head)
	req.st = parseStatement(text)
	if req.st.verb == "" {
		return exceptionf(codeSyntax, "Empty query. (SYNTAX_ERROR)")
	}
	if req.st.insertData {
		req.sql = req.st.head
		req.data = io.MultiReader(bytes.NewReader([]byte(text[req.st.dataAt:])), body)
		return nil
	}
	if len(text) > maxQueryBytes {
		return exceptionf(codeQueryIsTooLarge, "The query is longer than %d bytes. (TOO_MANY_BYTES)", maxQueryBytes)
	}
	req.sql = strings.TrimSuffix(text, "\n")
	if req.st.multi {
		return exceptionf(codeSyntax, "Multi-statements are not allowed. (SYNTAX_ERROR)")
	}
	return nil
}

// bodyError tells a client that went away from data that is wrong.
func bodyError(err error) error {
	var e *Exception
	if errors.As(err, &e) {
		return e
	}
	return exceptionf(codeCannotRead, "Cannot read the request: %v. (CANNOT_READ_ALL_DATA)", err)
}
