package engine

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// handle is a pointer that C owns. It is never dereferenced in Go, and being
// an integer it is invisible to the garbage collector.
type handle uintptr

// lib is libchdb's C interface, as declared in chdb.h of version 26.7. Every
// function may block for as long as the statement runs.
type lib struct {
	version             func() string
	setSignalHandlers   func(enabled int32)
	connect             func(argc int32, argv unsafe.Pointer) uintptr // *chdb_connection
	closeConn           func(conn uintptr)
	queryParams         func(conn handle, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names, nameLens, values, valueLens unsafe.Pointer, n uintptr) handle
	streamQueryParams   func(conn handle, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names, nameLens, values, valueLens unsafe.Pointer, n uintptr) handle
	streamFetch         func(conn, result handle) handle
	streamCancel        func(conn, result handle)
	destroyResult       func(result handle)
	streamInsertParams  func(conn handle, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names, nameLens, values, valueLens unsafe.Pointer, n uintptr) handle
	streamAppend        func(stream handle, data unsafe.Pointer, n uintptr) int32
	streamDone          func(stream handle) handle
	streamCancelInsert  func(stream handle)
	streamInsertError   func(stream handle) string
	destroyInsertStream func(stream handle)
	resultBuffer        func(result handle) uintptr
	resultLength        func(result handle) uintptr
	resultError         func(result handle) string
	resultRowsRead      func(result handle) uint64
	storageRowsRead     func(result handle) uint64
	storageBytesRead    func(result handle) uint64
	resultRowsWritten   func(result handle) uint64
	resultBytesWritten  func(result handle) uint64
	classify            func(conn handle, sql unsafe.Pointer, sqlLen uintptr, database unsafe.Pointer, databaseLen uintptr, out unsafe.Pointer) int32
}

// loadLibrary opens the shared library at path and binds its functions. The
// library stays loaded: it cannot be unloaded safely once it has run threads.
func loadLibrary(path string) (l *lib, err error) {
	so, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	l = &lib{}
	for name, fn := range map[string]any{
		"chdb_version":                     &l.version,
		"chdb_set_signal_handlers_enabled": &l.setSignalHandlers,
		"chdb_connect":                     &l.connect,
		"chdb_close_conn":                  &l.closeConn,
		"chdb_query_with_params_n":         &l.queryParams,
		"chdb_stream_query_with_params_n":  &l.streamQueryParams,
		"chdb_stream_fetch_result":         &l.streamFetch,
		"chdb_stream_cancel_query":         &l.streamCancel,
		"chdb_destroy_query_result":        &l.destroyResult,
		"chdb_stream_insert_with_params_n": &l.streamInsertParams,
		"chdb_stream_append":               &l.streamAppend,
		"chdb_stream_done":                 &l.streamDone,
		"chdb_stream_cancel_insert":        &l.streamCancelInsert,
		"chdb_stream_insert_error":         &l.streamInsertError,
		"chdb_destroy_insert_stream":       &l.destroyInsertStream,
		"chdb_result_buffer":               &l.resultBuffer,
		"chdb_result_length":               &l.resultLength,
		"chdb_result_error":                &l.resultError,
		"chdb_result_rows_read":            &l.resultRowsRead,
		"chdb_result_storage_rows_read":    &l.storageRowsRead,
		"chdb_result_storage_bytes_read":   &l.storageBytesRead,
		"chdb_result_rows_written":         &l.resultRowsWritten,
		"chdb_result_bytes_written":        &l.resultBytesWritten,
		"chdb_classify_query_n":            &l.classify,
	} {
		sym, err := purego.Dlsym(so, name)
		if err != nil {
			return nil, fmt.Errorf("load %s: it lacks %s; version 26.7 or later is needed", path, name)
		}
		purego.RegisterFunc(fn, sym)
	}
	return l, nil
}

// conn is one connection to the engine's data. It runs one statement at a
// time; the pool hands it to one caller at a time.
type conn struct {
	lib *lib
	ptr uintptr // *chdb_connection
	h   handle
}

// open connects with command-line arguments. The first connection of the
// process boots the engine; later ones must name the same path.
func (l *lib) open(args []string) (*conn, error) {
	argv := make([][]byte, len(args))
	ptrs := make([]unsafe.Pointer, len(args)+1)
	var pin runtime.Pinner
	defer pin.Unpin()
	for i, a := range args {
		argv[i] = append([]byte(a), 0)
		pin.Pin(&argv[i][0])
		ptrs[i] = unsafe.Pointer(&argv[i][0])
	}
	p := l.connect(int32(len(args)), unsafe.Pointer(&ptrs[0]))
	runtime.KeepAlive(argv)
	if p == 0 {
		return nil, errors.New("the engine did not start; its message is above")
	}
	h := *(*handle)(cPointer(p))
	if h == 0 {
		return nil, errors.New("the engine did not start; its message is above")
	}
	return &conn{lib: l, ptr: p, h: h}, nil
}

func (c *conn) close() {
	if c.ptr != 0 {
		c.lib.closeConn(c.ptr)
		c.ptr, c.h = 0, 0
	}
}

// param is a bound {name:Type} parameter.
type param struct{ name, value string }

// cParams lays params out as the four arrays the C functions take.
type cParams struct {
	names, values       []unsafe.Pointer
	nameLens, valueLens []uintptr
	pin                 runtime.Pinner
}

func layoutParams(params []param) *cParams {
	p := &cParams{}
	for _, q := range params {
		p.names = append(p.names, p.str(q.name))
		p.nameLens = append(p.nameLens, uintptr(len(q.name)))
		p.values = append(p.values, p.str(q.value))
		p.valueLens = append(p.valueLens, uintptr(len(q.value)))
	}
	return p
}

// str pins a NUL-terminated copy of s: the engine measures nothing, but an
// empty string must still be an address.
func (p *cParams) str(s string) unsafe.Pointer {
	b := append([]byte(s), 0)
	p.pin.Pin(&b[0])
	return unsafe.Pointer(&b[0])
}

func slicePtr[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

type startFunc func(conn handle, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr, names, nameLens, values, valueLens unsafe.Pointer, n uintptr) handle

func (c *conn) start(f startFunc, query, format string, params []param) handle {
	p := layoutParams(params)
	defer p.pin.Unpin()
	return f(c.h, p.str(query), uintptr(len(query)), p.str(format), uintptr(len(format)),
		slicePtr(p.names), slicePtr(p.nameLens), slicePtr(p.values), slicePtr(p.valueLens), uintptr(len(params)))
}

// result is a finished statement's output and counts. Its data is a view into
// memory the engine owns, so free must come after the last use.
type result struct {
	lib *lib
	h   handle
}

func (r result) free() {
	if r.h != 0 {
		r.lib.destroyResult(r.h)
	}
}

func (r result) err() error {
	if r.h == 0 {
		return &Exception{Code: codeUnknown, Message: "the engine answered nothing"}
	}
	return parseException(r.lib.resultError(r.h))
}

func (r result) data() []byte {
	n := r.lib.resultLength(r.h)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(cPointer(r.lib.resultBuffer(r.h))), n)
}

// query runs a statement to its end and returns the whole result.
func (c *conn) query(query, format string, params []param) (result, error) {
	r := result{c.lib, c.start(c.lib.queryParams, query, format, params)}
	if err := r.err(); err != nil {
		r.free()
		return result{}, err
	}
	return r, nil
}

// exec runs a statement for its effect.
func (c *conn) exec(query string) error {
	r, err := c.query(query, "Null", nil)
	if err == nil {
		r.free()
	}
	return err
}

// stream is a running SELECT whose blocks are fetched one by one.
type stream struct {
	c    *conn
	h    handle
	done bool
}

func (c *conn) stream(query, format string, params []param) (*stream, error) {
	h := c.start(c.lib.streamQueryParams, query, format, params)
	if err := (result{c.lib, h}).err(); err != nil {
		if h != 0 {
			c.lib.destroyResult(h)
		}
		return nil, err
	}
	return &stream{c: c, h: h}, nil
}

// next returns the next piece of output, or ok false at the end. The caller
// frees the result.
func (s *stream) next() (r result, ok bool, err error) {
	r = result{s.c.lib, s.c.lib.streamFetch(s.c.h, s.h)}
	if err := r.err(); err != nil {
		s.done = true
		r.free()
		return result{}, false, err
	}
	if s.c.lib.resultLength(r.h) == 0 && s.c.lib.resultRowsRead(r.h) == 0 {
		s.done = true
		r.free()
		return result{}, false, nil
	}
	return r, true, nil
}

// close cancels the statement unless it has ended, and frees it.
func (s *stream) close() {
	if !s.done {
		s.c.lib.streamCancel(s.c.h, s.h)
	}
	s.c.lib.destroyResult(s.h)
}

// insert is an INSERT whose data is appended in pieces.
type insert struct {
	c *conn
	h handle
}

func (c *conn) insert(query, format string, params []param) (*insert, error) {
	i := &insert{c, c.start(c.lib.streamInsertParams, query, format, params)}
	if err := i.err(); err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

func (i *insert) err() error {
	if i.h == 0 {
		return &Exception{Code: codeUnknown, Message: "the engine answered nothing"}
	}
	return parseException(i.c.lib.streamInsertError(i.h))
}

// append hands over one piece; the engine copies it, and blocks while it is behind.
func (i *insert) append(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if i.c.lib.streamAppend(i.h, slicePtr(p), uintptr(len(p))) != 0 {
		if err := i.err(); err != nil {
			return err
		}
		return &Exception{Code: codeUnknown, Message: "the engine refused inserted data and gave no reason"}
	}
	return nil
}

// finish commits. The counts include rows written by materialized views.
func (i *insert) finish() (rows, bytes uint64, err error) {
	r := result{i.c.lib, i.c.lib.streamDone(i.h)}
	defer r.free()
	if err := r.err(); err != nil {
		return 0, 0, err
	}
	return i.c.lib.resultRowsWritten(r.h), i.c.lib.resultBytesWritten(r.h), nil
}

// cancel gives up without committing what has not been written yet.
func (i *insert) cancel() { i.c.lib.streamCancelInsert(i.h) }

func (i *insert) close() {
	if i.h != 0 {
		i.c.lib.destroyInsertStream(i.h)
		i.h = 0
	}
}

// queryClass is what the engine's own parser says a statement would do.
type queryClass uint32

const (
	classReadOnly queryClass = iota
	classMutating
	classMutatingGlobal
	classControl
	classUnknown
)

// analyse asks the engine's parser what sql would do, without running it.
func (c *conn) analyse(sql string) (class queryClass, statements int) {
	out := struct{ size, count, flags, class uint32 }{size: 16}
	var pin runtime.Pinner
	defer pin.Unpin()
	b := append([]byte(sql), 0)
	pin.Pin(&b[0])
	if c.lib.classify(c.h, unsafe.Pointer(&b[0]), uintptr(len(sql)), nil, 0, unsafe.Pointer(&out)) != 0 {
		return classUnknown, 0
	}
	return queryClass(out.class), int(out.count)
}

// cPointer turns an address that C returned into a pointer. Going through the
// address of p keeps vet from taking it for a Go pointer stored as an integer.
func cPointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }
