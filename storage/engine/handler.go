package engine

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	appendBytes   = 1 << 20   // read from an insert's body at a time
	bufferedBytes = 64 << 20  // result held back for wait_end_of_query
	wholeBytes    = 256 << 20 // result in a format that cannot be sent in pieces
	bodyStall     = time.Minute
	writeStall    = time.Minute
)

// pidHeader in the answer to /ping tells the supervisor which process it met.
const pidHeader = "X-Signalbox-Pid"

// handler is ClickHouse's HTTP interface on top of a pool.
type handler struct {
	pool     *pool
	readOnly *guard // nil on the socket of the console
	version  string
	dataDir  string
	reserve  Bytes
	free     func(dir string) (Bytes, error)
	log      *slog.Logger
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-ClickHouse-Server-Display-Name", "signalbox")
	w.Header().Set("X-ClickHouse-Timezone", "UTC")
	if h.readOnly != nil {
		// A page in a browser could otherwise reach the listener through a
		// name that resolves to this machine.
		if r.Header.Get("Origin") != "" || !localHost(r.Host) {
			fail(w, exceptionf(codeReadonly, "This listener answers local programs only. (READONLY)"))
			return
		}
	}
	switch {
	case r.URL.Path == "/ping" || r.URL.Path == "/" && r.Method == http.MethodGet && r.URL.RawQuery == "":
		if h.readOnly == nil {
			w.Header().Set(pidHeader, strconv.Itoa(os.Getpid()))
		}
		_, _ = io.WriteString(w, "Ok.\n")
		return
	case r.URL.Path != "/" && r.URL.Path != "":
		http.NotFound(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodPost:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	// The body is read in turns with the engine's work, so its deadline moves
	// with every piece.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyStall))
	// The server does not reset this one for the connection's next request.
	defer func() { _ = rc.SetWriteDeadline(time.Time{}) }()
	req, err := parseRequest(r)
	if err != nil {
		fail(w, err)
		return
	}
	if req.queryID != "" {
		w.Header().Set("X-ClickHouse-Query-Id", req.queryID)
	}
	if isHello(req) {
		w.Header().Set("Content-Type", "application/octet-stream")
		enc := responseEncoder(w, w.Header(), req.accept, req.compress, req.httpCompress, req.method)
		if _, err := enc.Write(helloBlock(req.revision, h.version)); err == nil {
			_ = enc.Close() // the client has gone, and nobody is left to tell
		}
		return
	}
	if err := h.run(w, r, rc, req); err != nil {
		fail(w, err)
	}
}

// run executes one statement. It returns an error only while nothing of the
// answer has been sent.
func (h *handler) run(w http.ResponseWriter, r *http.Request, rc *http.ResponseController, req *request) error {
	ctx := r.Context()
	if h.readOnly != nil {
		if err := h.readOnly.checkSettings(req); err != nil {
			return err
		}
	}
	whole := req.st.streams() && req.data == nil && (req.buffered || !streamable(req.outputFormat()))
	if whole {
		// The whole result is made in memory.
		req.settings = append(req.settings, param{"max_result_bytes", fmt.Sprint(wholeBytes)}, param{"result_overflow_mode", "throw"})
	}
	s, err := h.pool.acquire(ctx, cmp.Or(req.database, defaultDatabase), req.settings)
	if err != nil {
		return err
	}
	defer h.pool.release(s)
	if h.readOnly != nil {
		if err := h.readOnly.check(s.conn, req); err != nil {
			return err
		}
	} else if r.Method == http.MethodGet {
		if class, _ := s.analyse(req.sql); req.data != nil || class != classReadOnly {
			return exceptionf(codeReadonly, "Cannot execute query in readonly mode: use POST for statements that change something. (READONLY)")
		}
	}
	switch {
	case req.data != nil:
		return h.insert(ctx, w, rc, s, req)
	// A buffered answer is run to its end, for the summary tells what was read
	// only then.
	case req.st.streams() && !whole:
		return h.stream(ctx, w, rc, s, req)
	default:
		return h.exec(ctx, w, s, req)
	}
}

// checkDisk refuses to write while the disk is all but full: merges, the
// console's own database and the operator need what is left.
func (h *handler) checkDisk() error {
	free, err := h.free(h.dataDir)
	if err != nil {
		h.log.Warn("free disk space is unknown", "dir", h.dataDir, "error", err)
		return nil
	}
	if free < h.reserve {
		return exceptionf(codeNotEnoughSpace, "the disk is full: %s has %v MiB free and %v are kept in reserve. (NOT_ENOUGH_SPACE)", h.dataDir, int64(free/MiB), h.reserve)
	}
	return nil
}

func (h *handler) insert(ctx context.Context, w http.ResponseWriter, rc *http.ResponseController, s *session, req *request) error {
	if err := h.checkDisk(); err != nil {
		return err
	}
	// An insert that fails half way may leave its connection in any state.
	failed := func(err error) error {
		s.dirty = true
		return err
	}
	done := h.pool.watch(ctx, s)
	defer done()
	in, err := s.insert(req.sql, req.st.format, req.params)
	if err != nil {
		return failed(err)
	}
	defer in.close()
	buf := make([]byte, appendBytes)
	for {
		n, rerr := fill(req.data, buf, rc)
		if n > 0 {
			if err := in.append(buf[:n]); err != nil {
				return failed(err)
			}
		}
		if rerr == io.EOF { //nolint:errorlint // a wrapped one is an end too early
			break
		}
		if rerr != nil {
			in.cancel()
			return failed(bodyError(rerr))
		}
	}
	// From here on only the server's background read can notice that the
	// client has gone, and that must not have a deadline.
	_ = rc.SetReadDeadline(time.Time{})
	rows, bytes, err := in.finish()
	if err != nil {
		return failed(err)
	}
	w.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(`{"read_rows":"0","read_bytes":"0","written_rows":"%d","written_bytes":"%d"}`, rows, bytes))
	w.WriteHeader(http.StatusOK)
	return nil
}

// fill reads until buf is full or the input ends. Each read has a deadline of
// its own, so a slow sender is no problem and a silent one is.
func fill(r io.Reader, buf []byte, rc *http.ResponseController) (n int, err error) {
	for n < len(buf) && err == nil {
		_ = rc.SetReadDeadline(time.Now().Add(bodyStall))
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// exec runs a statement to its end before the first byte of the answer, so
// that its failure is always a status.
func (h *handler) exec(ctx context.Context, w http.ResponseWriter, s *session, req *request) error {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if !req.st.reads() {
		s.dirty = true // SET, USE, temporary tables
		if req.st.verb == "INSERT" || len(req.st.verbs) > 0 {
			if err := h.checkDisk(); err != nil {
				return err
			}
		}
	}
	done := h.pool.watch(ctx, s)
	res, err := s.query(req.sql, req.outputFormat(), req.params)
	done()
	if err != nil {
		s.dirty = true
		return err
	}
	defer res.free()
	if req.buffered && len(res.data()) > bufferedBytes {
		return exceptionf(codeTooLarge, "The result exceeds the %v that wait_end_of_query may hold back. (TOO_MANY_ROWS_OR_BYTES)", Bytes(bufferedBytes))
	}
	w.Header().Set("X-ClickHouse-Summary", res.summary())
	h.head(w, req)
	enc := responseEncoder(w, w.Header(), "", req.compress, false, req.method)
	if _, err := enc.Write(res.data()); err == nil {
		_ = enc.Close() // the client has gone, and nobody is left to tell
	}
	return nil
}

func (r result) summary() string {
	return fmt.Sprintf(`{"read_rows":"%d","read_bytes":"%d","written_rows":"%d","written_bytes":"%d"}`,
		r.lib.storageRowsRead(r.h), r.lib.storageBytesRead(r.h), r.lib.resultRowsWritten(r.h), r.lib.resultBytesWritten(r.h))
}

func (h *handler) stream(ctx context.Context, w http.ResponseWriter, rc *http.ResponseController, s *session, req *request) error {
	_ = rc.SetReadDeadline(time.Time{})
	done := h.pool.watch(ctx, s)
	defer done()
	st, err := s.stream(req.sql, req.outputFormat(), req.params)
	if err != nil {
		s.dirty = true
		return err
	}
	defer st.close()
	// The first piece decides the status: most statements that fail have
	// failed by then.
	piece, more, err := st.next()
	if err != nil {
		s.dirty = true
		return err
	}
	if !more {
		return h.empty(w, s, req)
	}
	out := &output{w: w, rc: rc, req: req, h: h}
	for more {
		err := out.write(piece.data())
		piece.free()
		if err != nil {
			s.dirty = true
			var e *Exception
			if errors.As(err, &e) {
				return e // held back and grown too large: nothing was sent
			}
			return nil // the client has gone; closing st cancels the statement
		}
		if piece, more, err = st.next(); err != nil {
			s.dirty = true
			return out.fail(err)
		}
	}
	out.close()
	return nil
}

// empty answers a result without rows. libchdb then writes nothing at all in
// Native, so the columns are asked for.
func (h *handler) empty(w http.ResponseWriter, s *session, req *request) error {
	var body []byte
	if strings.EqualFold(req.outputFormat(), "Native") {
		switch req.st.verb {
		case "SELECT", "WITH", "(", "FROM":
			if columns, err := s.describe(req); err == nil {
				body = emptyBlock(columns)
			}
		}
	}
	h.head(w, req)
	enc := responseEncoder(w, w.Header(), "", req.compress, false, req.method)
	if len(body) > 0 {
		if _, err := enc.Write(body); err == nil {
			_ = enc.Close() // the client has gone, and nobody is left to tell
		}
	}
	return nil
}

// describe returns the names and types of a query's columns.
func (s *session) describe(req *request) ([]param, error) {
	sql := strings.TrimRight(req.st.withoutFormat(req.sql), "; \t\r\n")
	r, err := s.query("DESCRIBE TABLE (\n"+sql+"\n)", "RowBinary", req.params)
	if err != nil {
		return nil, err
	}
	defer r.free()
	var fields []string
	for b := r.data(); len(b) > 0; {
		n, w := binary.Uvarint(b)
		if w <= 0 || uint64(len(b)-w) < n {
			return nil, errors.New("engine: describe: cut off")
		}
		fields = append(fields, string(b[w:w+int(n)]))
		b = b[w+int(n):]
	}
	const perColumn = 7 // name, type, default kind and expression, comment, codec, TTL
	var columns []param
	for i := 0; i+perColumn <= len(fields); i += perColumn {
		columns = append(columns, param{fields[i], fields[i+1]})
	}
	return columns, nil
}

func (h *handler) head(w http.ResponseWriter, req *request) {
	w.Header().Set("X-ClickHouse-Format", req.outputFormat())
	w.Header().Set("Content-Type", contentType(req.outputFormat()))
}

// output sends a streamed result. Its header goes out with the first piece.
type output struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	req  *request
	h    *handler
	enc  encoder
	held []byte // for wait_end_of_query
	tag  string
}

func (o *output) write(p []byte) error {
	if o.req.buffered {
		if len(o.held)+len(p) > bufferedBytes {
			return exceptionf(codeTooLarge, "The result exceeds the %v that wait_end_of_query may hold back. (TOO_MANY_ROWS_OR_BYTES)", Bytes(bufferedBytes))
		}
		o.held = append(o.held, p...)
		return nil
	}
	return o.send(p)
}

func (o *output) send(p []byte) error {
	if o.enc == nil {
		var tag [8]byte
		_, _ = rand.Read(tag[:]) // never fails
		o.tag = hex.EncodeToString(tag[:])
		o.w.Header().Set("X-ClickHouse-Exception-Tag", o.tag)
		o.h.head(o.w, o.req)
		o.enc = responseEncoder(o.w, o.w.Header(), o.req.accept, o.req.compress, o.req.httpCompress, o.req.method)
	}
	_ = o.rc.SetWriteDeadline(time.Now().Add(writeStall))
	if _, err := o.enc.Write(p); err != nil {
		return err
	}
	if err := o.enc.Flush(); err != nil {
		return err
	}
	return o.rc.Flush()
}

// fail ends the answer with an error. Once data has been sent the status says
// 200, so the error goes into the body as ClickHouse frames it, and the
// connection is cut: no client can take the answer for a whole one.
func (o *output) fail(err error) error {
	if o.enc == nil {
		return err
	}
	e := asException(err)
	msg := e.Error()
	const most = 8 << 10 // clients look for the frame in the last 16 KiB
	if len(msg) > most {
		msg = msg[:most]
	}
	frame := []byte(fmt.Sprintf("\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n", o.tag, msg, len(msg)+1, o.tag))
	var werr error
	if f, ok := o.enc.(*frames); ok {
		werr = f.verbatim(frame)
	} else if _, werr = o.enc.Write(frame); werr == nil {
		werr = o.enc.Flush()
	}
	if werr == nil {
		_ = o.rc.Flush() // cutting the connection comes next in any case
	}
	panic(http.ErrAbortHandler)
}

// close sends what is left. Where it fails the client has gone, and nobody is
// left to tell.
func (o *output) close() {
	if len(o.held) > 0 && o.send(o.held) != nil {
		return
	}
	if o.enc != nil {
		_ = o.enc.Close()
	}
}

func asException(err error) *Exception {
	var e *Exception
	if errors.As(err, &e) {
		return e
	}
	return &Exception{Code: codeUnknown, Message: err.Error()}
}

// fail answers with an error alone.
func fail(w http.ResponseWriter, err error) {
	e := asException(err)
	hd := w.Header()
	hd.Set("Content-Type", "text/plain; charset=UTF-8")
	hd.Set("X-ClickHouse-Exception-Code", fmt.Sprint(e.Code))
	if e.Code == codeTooManyQueries || e.Code == codeAborted {
		hd.Set("Retry-After", "1")
	}
	w.WriteHeader(e.httpStatus())
	_, _ = bufferedLine(w, e.Error()) // the client has gone, and nobody is left to tell
}

func bufferedLine(w io.Writer, s string) (int, error) {
	b := bufio.NewWriter(w)
	n, _ := b.WriteString(s + "\n")
	return n, b.Flush()
}

func (req *request) outputFormat() string {
	if req.st.format != "" && !req.st.insertData {
		return req.st.format
	}
	return req.format
}

// streamable reports whether libchdb writes a format correctly piece by piece.
// Those with a header repeat it in each piece, those that end with totals (JSON)
// count only the last piece's rows: both are made whole in memory.
func streamable(format string) bool {
	f := strings.ToLower(format)
	if strings.Contains(f, "withnames") {
		return false
	}
	for _, prefix := range []string{"native", "rowbinary", "tabseparated", "tsv", "csv", "values", "lineasstring", "rawblob", "null"} {
		if strings.HasPrefix(f, prefix) {
			return true
		}
	}
	return strings.Contains(f, "eachrow") || f == "jsonlines" || f == "ndjson"
}

func contentType(format string) string {
	f := strings.ToLower(format)
	switch {
	case strings.Contains(f, "eachrow"), f == "ndjson", f == "jsonlines":
		return "application/x-ndjson; charset=UTF-8"
	case strings.HasPrefix(f, "json"):
		return "application/json; charset=UTF-8"
	case strings.HasPrefix(f, "csv"):
		return "text/csv; charset=UTF-8; header=" + map[bool]string{true: "present", false: "absent"}[strings.Contains(f, "names")]
	case strings.HasPrefix(f, "tsv"), strings.HasPrefix(f, "tabseparated"):
		return "text/tab-separated-values; charset=UTF-8"
	case f == "xml":
		return "application/xml; charset=UTF-8"
	case strings.HasPrefix(f, "pretty"), f == "vertical", f == "values", f == "markdown":
		return "text/plain; charset=UTF-8"
	}
	return "application/octet-stream"
}

// localHost reports whether a Host header names this machine.
func localHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}
