package ui_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/ui"
)

// slowStore gives small pages, and does as told before each.
type slowStore struct {
	*fakeStore
	size   int
	pages  atomic.Int32
	before func(page int32, q *storage.MessageQuery) (*storage.MessagePage, error)
}

func (s *slowStore) Messages(ctx context.Context, q storage.MessageQuery) (storage.MessagePage, error) {
	n := s.pages.Add(1)
	if s.before != nil {
		if p, err := s.before(n, &q); p != nil || err != nil {
			return *p, err
		}
	}
	q.Limit = min(q.Limit, s.size)
	return s.fakeStore.Messages(ctx, q)
}

func exportUI(t testing.TB, s ui.Store) *ui.UI {
	t.Helper()
	u, err := ui.New(ui.Config{Guard: openGuard(t), Version: "test", Store: s, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

type exportEnd struct {
	Complete              bool
	Messages, Limit       int
	Stopped, Reason, Next string
}

// lines reads an export as NDJSON.
func lines(t testing.TB, h http.Handler, query string) (uids []string, end exportEnd, trailer http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", v1+"/messages/export?"+query, nil))
	if w.Code != 200 {
		t.Fatalf("export: %d %s", w.Code, w.Body)
	}
	ended := false
	for sc := bufio.NewScanner(w.Body); sc.Scan(); {
		if ended {
			t.Fatal("something follows the end")
		}
		var line struct {
			UID  string
			End  *exportEnd
			Body *struct{ Encoding, Content string }
		}
		if err := json.Unmarshal(sc.Bytes(), &line); err != nil {
			t.Fatalf("%v in %s", err, sc.Bytes())
		}
		if line.End != nil {
			end, ended = *line.End, true
			continue
		}
		if (line.Body != nil) != strings.Contains(query, "bodies=true") {
			t.Errorf("body of %s: %v", line.UID, line.Body)
		}
		uids = append(uids, line.UID)
	}
	if !ended {
		t.Fatal("nothing says how it ended")
	}
	return uids, end, w.Result().Trailer
}

func TestAnExportIsAllOrSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	s, _ := filled(now)
	all := len(s.messages)
	h := exportUI(t, &slowStore{fakeStore: s, size: 40})
	for _, query := range []string{"", "order=oldest", "bodies=true", fmt.Sprintf("limit=%d", all)} {
		uids, end, trailer := lines(t, h, query)
		if len(uids) != all || !end.Complete || end.Stopped != "end" || end.Messages != all || end.Next != "" {
			t.Errorf("%q: got %d of %d messages and %+v", query, len(uids), all, end)
		}
		if trailer.Get("Signalbox-Export-Complete") != "true" || trailer.Get("Signalbox-Export-Messages") != fmt.Sprint(all) {
			t.Errorf("%q: trailers %v", query, trailer)
		}
	}

	// A limit is said, and its cursor goes on behind it.
	seen := map[string]bool{}
	next := ""
	for range 20 {
		uids, end, trailer := lines(t, h, url.Values{"limit": {"25"}, "cursor": {next}}.Encode())
		for _, u := range uids {
			seen[u] = true
		}
		if end.Complete != (end.Next == "") || end.Complete != (end.Stopped == "end") || trailer.Get("Signalbox-Export-Next") != end.Next || end.Limit != 25 {
			t.Fatalf("end %+v and trailers %v do not agree", end, trailer)
		}
		if next = end.Next; next == "" {
			break
		}
	}
	if len(seen) != all || next != "" {
		t.Errorf("in parts of 25: got %d of %d messages", len(seen), all)
	}

	// A store that comes no further within its time.
	stuck, _ := filled(now)
	stuck.messages = nil
	stuck.stopped = storage.StopDeadline
	if uids, end, trailer := lines(t, exportUI(t, stuck), ""); len(uids) != 0 || end.Complete || end.Stopped != "deadline" || end.Next == "" || trailer.Get("Signalbox-Export-Complete") != "false" {
		t.Errorf("a search out of time: got %d messages and %+v", len(uids), end)
	}

	// A search that is slow and gets there.
	slow := &slowStore{fakeStore: s, size: 40, before: func(n int32, q *storage.MessageQuery) (*storage.MessagePage, error) {
		if n%2 == 1 {
			return &storage.MessagePage{Next: q.Cursor + " ", Scan: storage.Scan{Stopped: storage.StopDeadline}}, nil
		}
		q.Cursor = strings.TrimSpace(q.Cursor)
		return nil, nil
	}}
	if uids, end, _ := lines(t, exportUI(t, slow), ""); len(uids) != all || !end.Complete {
		t.Errorf("a slow search: got %d of %d messages and %+v", len(uids), all, end)
	}

	// A store that breaks in the middle.
	breaks := func(err error) *slowStore {
		return &slowStore{fakeStore: s, size: 40, before: func(n int32, _ *storage.MessageQuery) (*storage.MessagePage, error) {
			if n == 3 {
				return &storage.MessagePage{}, err
			}
			return nil, nil
		}}
	}
	uids, end, _ := lines(t, exportUI(t, breaks(fmt.Errorf("engine restarts: %w", controlbus.ErrUnavailable))), "")
	if len(uids) != 80 || end.Complete || end.Stopped != "error" || !strings.Contains(end.Reason, "engine restarts") || end.Next == "" {
		t.Errorf("a store that breaks: got %d messages and %+v", len(uids), end)
	}
	if _, end, _ := lines(t, exportUI(t, breaks(fmt.Errorf("password=hunter2"))), ""); end.Stopped != "error" || strings.Contains(end.Reason, "hunter2") || end.Reason == "" {
		t.Errorf("an unforeseen error: got %+v", end)
	}
	// Before the first byte it is an answer of its own.
	s.err = fmt.Errorf("engine restarts: %w", controlbus.ErrUnavailable)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", v1+"/messages/export", nil))
	if w.Code != 503 || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("a store that is away: got %d %s", w.Code, w.Body)
	}
}

func TestACSVExportHoldsNoFormula(t *testing.T) {
	t.Parallel()
	s, _ := hostileStore()
	for i, bad := range []string{"=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1"} {
		m := s.messages[0]
		m.UID, m.Destination, m.Service, m.Body = controlbus.HashID("formula", bad), bad, bad, []byte(bad)
		m.Headers = []controlbus.Header{{Key: bad, Value: bad}}
		m.Time -= int64(i) + 1
		s.messages = append(s.messages, m)
	}
	h := exportUI(t, s)
	for _, query := range []string{"", "&bodies=true"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", v1+"/messages/export?to=2026-11-21T15:00:00Z&format=csv"+query, nil))
		rows, err := csv.NewReader(w.Body).ReadAll() // which also wants rows of one width
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != len(s.messages)+2 || rows[0][0] != "record" || rows[1][0] != "message" || rows[len(rows)-1][0] != fmt.Sprintf("end: complete, %d messages", len(s.messages)) {
			t.Errorf("got %d rows, the last %q", len(rows), rows[len(rows)-1])
		}
		for _, row := range rows {
			for i, cell := range row {
				if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(cell[0])) {
					t.Errorf("column %s: %q is a formula", rows[0][i], cell)
				}
			}
		}
		if !strings.Contains(fmt.Sprint(rows), "'=cmd|' /C calc'!A0") {
			t.Error("the text itself is gone")
		}
	}
}

func TestAParquetExportIsReadBack(t *testing.T) {
	t.Parallel()
	s, _ := hostileStore()
	w := httptest.NewRecorder()
	exportUI(t, s).ServeHTTP(w, httptest.NewRequest("GET", v1+"/messages/export?to=2026-11-21T15:00:00Z&format=parquet&bodies=true", nil))
	f, err := parquet.OpenFile(bytes.NewReader(w.Body.Bytes()), int64(w.Body.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := f.Lookup("signalbox.complete"); got != "true" {
		t.Errorf("signalbox.complete: got %q", got)
	}
	type row struct {
		UID     string  `parquet:"uid"`
		Time    int64   `parquet:"time,timestamp(nanosecond)"`
		Body    *[]byte `parquet:"body,optional"`
		Headers []struct {
			Name  string `parquet:"name"`
			Value string `parquet:"value"`
		} `parquet:"headers,list"`
	}
	rows, err := parquet.Read[row](bytes.NewReader(w.Body.Bytes()), int64(w.Body.Len()))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(s.messages) {
		t.Fatalf("got %d rows, want %d", len(rows), len(s.messages))
	}
	for i, r := range rows {
		m := s.messages[i]
		if r.UID != m.UID.String() || r.Time != m.Time || r.Body == nil || !bytes.Equal(*r.Body, m.Body) || len(r.Headers) != 1 || r.Headers[0].Value != strings.ToValidUTF8(m.Headers[0].Value, "\uFFFD") {
			t.Errorf("row %d: got %+v, want %+v", i, r, m.MessageEvent)
		}
	}
}

// An export over a real connection: its reader leaves, and the walk ends; more
// than a few at once are refused.
func TestAnExportEndsWithItsReader(t *testing.T) {
	t.Parallel()
	s, _ := filled(now)
	endless := &slowStore{fakeStore: s, size: 100}
	endless.before = func(n int32, q *storage.MessageQuery) (*storage.MessagePage, error) {
		p, err := s.Messages(t.Context(), storage.MessageQuery{Range: q.Range, Limit: 100})
		p.Next = fmt.Sprint("after ", n)
		return &p, err
	}
	srv := httptest.NewServer(exportUI(t, endless))
	defer srv.Close()
	open := func() *http.Response {
		res, err := http.Get(srv.URL + v1 + "/messages/export?limit=10000000")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(res.Body, make([]byte, 100<<10)); err != nil && res.StatusCode == 200 {
			t.Fatal(err)
		}
		return res
	}
	var held []*http.Response
	for range 4 {
		held = append(held, open())
	}
	fifth := open()
	if fifth.StatusCode != http.StatusTooManyRequests || fifth.Header.Get("Retry-After") == "" {
		t.Errorf("a fifth export: got %d", fifth.StatusCode)
	}
	fifth.Body.Close()
	for _, res := range held {
		res.Body.Close()
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		res := open()
		res.Body.Close()
		if res.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("exports go on though nobody reads them")
		}
	}
}
