package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/klauspost/compress/gzhttp"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui/page"
	"github.com/signalbox-dev/signalbox/ui/page/problem"
)

const (
	defaultExport = 100_000
	maxExport     = 10_000_000
	// exportPage is how many messages are held at once.
	exportPage = 500
	// bodyBytesAtOnce bounds the bodies that are held at once; none is stored
	// longer than maxBody, whatever size its message claims.
	bodyBytesAtOnce = 8 << 20
	maxBody         = 1 << 20
	// maxExports is how many are written at the same time: each keeps the store
	// busy for as long as it lasts.
	maxExports = 4
	// exportTime bounds one export, and stalled how long a reader may not take
	// what is written.
	exportTime = 15 * time.Minute
	stalled    = 30 * time.Second
)

// End is the last record of an export: whether it is all, and where to go on.
type End struct {
	Complete bool      `json:"complete"`
	Messages int       `json:"messages"`
	Limit    int       `json:"limit"`
	Stopped  string    `json:"stopped"`
	Reason   string    `json:"reason,omitempty"`
	Next     string    `json:"next,omitempty"`
	From     Timestamp `json:"from"`
	To       Timestamp `json:"to"`
	Reached  Timestamp `json:"reached"`
}

// Why an export stopped beside the reasons of a search.
const stopError = "error"

// encoder writes one format. It may keep rows until close.
type encoder interface {
	write(rows []*storage.MessageDetail) error
	close(end End) error
}

// Trailers of an export, for clients that read them: they say what its last
// record says.
const (
	trailerComplete = "Signalbox-Export-Complete"
	trailerMessages = "Signalbox-Export-Messages"
	trailerStopped  = "Signalbox-Export-Stopped"
	trailerNext     = "Signalbox-Export-Next"
)

var formats = map[string]struct {
	kind string
	open func(w http.ResponseWriter, bodies bool) encoder
}{
	"ndjson":  {"application/x-ndjson", func(w http.ResponseWriter, bodies bool) encoder { return newNDJSON(w, bodies) }},
	"csv":     {"text/csv; charset=utf-8; header=present", func(w http.ResponseWriter, bodies bool) encoder { return newCSV(w, bodies) }},
	"parquet": {"application/vnd.apache.parquet", func(w http.ResponseWriter, bodies bool) encoder { return newParquet(w, bodies) }},
}

// export writes what a search finds, page by page: it holds one page at a time
// and ends when the reader goes away. What is found at first is found before the
// answer begins, so that mistakes are problem documents; what goes wrong later
// is said in the last record.
func (a *API) export(w http.ResponseWriter, r *http.Request) error {
	p := a.params(r)
	format := p.choice("format", "ndjson", "csv", "parquet")
	q, _ := p.search()
	x := export{a: a, r: r, q: q, limit: p.number("limit", defaultExport, 1, maxExport), bodies: p.flag("bodies")}
	if p.err != nil {
		return p.err
	}
	select {
	case a.exports <- struct{}{}:
		defer func() { <-a.exports }()
	default:
		return fmt.Errorf("%d exports are being written already: %w", maxExports, controlbus.ErrOverloaded)
	}
	x.until = time.Now().Add(a.deps.ExportTime)
	x.end = End{Limit: x.limit, From: at(q.Range.From), To: at(q.Range.To)}
	rows, done, err := x.page()
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}

	f := formats[format]
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Content-Disposition", `attachment; filename="signalbox-messages-`+a.deps.Now().UTC().Format("20060102T150405Z")+"."+format+`"`)
	h.Set("Cache-Control", "no-store")
	for _, name := range []string{trailerComplete, trailerMessages, trailerStopped, trailerNext} {
		h.Add("Trailer", name)
	}
	if format == "parquet" {
		h.Set(gzhttp.HeaderNoCompression, "1") // its columns are compressed already
	}
	rc := http.NewResponseController(w)
	patience := func(d time.Duration) error {
		t := time.Time{}
		if d > 0 {
			t = time.Now().Add(d)
		}
		if err := rc.SetWriteDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		return nil
	}
	defer func() { _ = patience(0) }() // the connection may serve another request
	out := f.open(w, x.bodies)
	for {
		if patience(stalled) != nil || out.write(rows) != nil || x.gone() {
			return nil // the reader has gone; nobody is left to be told
		}
		_ = rc.Flush() // a recorder of a test has nothing to flush
		if done {
			break
		}
		if rows, done, err = x.page(); err != nil {
			x.broke(err)
			break
		}
	}
	if x.gone() {
		return nil
	}
	if patience(stalled) != nil || out.close(x.end) != nil {
		return nil
	}
	h.Set(trailerComplete, strconv.FormatBool(x.end.Complete))
	h.Set(trailerMessages, strconv.Itoa(x.end.Messages))
	h.Set(trailerStopped, x.end.Stopped)
	h.Set(trailerNext, x.end.Next)
	return nil
}

// export walks the pages of a search.
type export struct {
	a      *API
	r      *http.Request
	q      storage.MessageQuery
	limit  int
	bodies bool
	until  time.Time
	rest   []storage.Message // found and not yet written
	end    End               // Stopped is set with the last search
}

func (x *export) gone() bool { return x.r.Context().Err() != nil }

// broke ends the export with an error. A reader sees of it what an error page
// would say.
func (x *export) broke(err error) {
	x.end.Stopped, x.end.Complete, x.end.Next = stopError, false, x.q.Cursor
	what, known := problem.Of(err)
	x.end.Reason = what.Title
	if known {
		x.end.Reason = err.Error()
	}
}

// page is what is to be written next; done says that nothing follows.
func (x *export) page() (rows []*storage.MessageDetail, done bool, err error) {
	if len(x.rest) == 0 {
		if err := x.search(); err != nil {
			return nil, false, err
		}
	}
	n := len(x.rest)
	rows = make([]*storage.MessageDetail, 0, n)
	var bodies map[controlbus.ID][]byte
	if x.bodies && n > 0 {
		size := min(x.rest[0].BodySize, maxBody)
		for n = 1; n < len(x.rest); n++ {
			if size += min(x.rest[n].BodySize, maxBody); size > bodyBytesAtOnce {
				break
			}
		}
		ctx, cancel := x.a.bound(x.r)
		defer cancel()
		if bodies, err = x.a.deps.Store.Bodies(ctx, x.rest[:n]); err != nil {
			return nil, false, err
		}
	}
	for i := range x.rest[:n] {
		m := &x.rest[i]
		d := &storage.MessageDetail{Message: *m}
		d.Body, d.BodyStored = bodies[m.UID]
		rows = append(rows, d)
	}
	x.rest = x.rest[n:]
	x.end.Messages += n
	return rows, len(x.rest) == 0 && x.end.Stopped != "", nil
}

// search finds the next page and says whether it is the last. A search whose
// own time is up goes on where it was, as long as it comes further.
func (x *export) search() error {
	if time.Now().After(x.until) {
		x.end.Stopped, x.end.Next = string(storage.StopDeadline), x.q.Cursor
		return nil
	}
	found, err := x.find(min(exportPage, x.limit-x.end.Messages))
	if err != nil {
		return err
	}
	before := x.q.Cursor
	x.rest, x.q.Cursor, x.end.Reached = found.Messages, found.Next, at(found.Scan.Reached)
	switch {
	case found.Next == "":
		x.end.Stopped, x.end.Complete = string(storage.StopEnd), true
	case x.end.Messages+len(found.Messages) >= x.limit:
		// It may be all there is: one more would tell.
		more, err := x.find(1)
		if err == nil && more.Next == "" && len(more.Messages) == 0 {
			x.end.Stopped, x.end.Complete, x.end.Reached = string(storage.StopEnd), true, at(more.Scan.Reached)
			return nil
		}
		x.end.Stopped, x.end.Next = string(storage.StopLimit), found.Next
	case len(found.Messages) == 0 && found.Next == before:
		x.end.Stopped, x.end.Next = string(storage.StopDeadline), found.Next
	}
	return nil
}

func (x *export) find(limit int) (storage.MessagePage, error) {
	ctx, cancel := x.a.bound(x.r)
	defer cancel()
	q := x.q
	q.Limit = limit
	found, err := x.a.deps.Store.Messages(ctx, q)
	return page.Answered(x.r, found, err)
}
