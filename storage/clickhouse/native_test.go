package clickhouse

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// An answer that breaks off must never pass for a whole one.
func TestBlocksEndWholeOrWithAnError(t *testing.T) {
	t.Parallel()
	var block proto.Buffer
	n := proto.ColUInt64{1, 2, 3}
	columns := []proto.InputColumn{{Name: "n", Data: n}}
	if err := (proto.Block{Columns: 1, Rows: 3}).EncodeRawBlock(&block, 0, columns); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		send func(http.ResponseWriter)
		rows int
		err  error
	}{
		{"two blocks", func(w http.ResponseWriter) { _, _ = w.Write(block.Buf); _, _ = w.Write(block.Buf) }, 6, nil},
		{"nothing", func(http.ResponseWriter) {}, 0, nil},
		{"half a block", func(w http.ResponseWriter) { _, _ = w.Write(block.Buf[:len(block.Buf)-5]) }, 0, controlbus.ErrUnavailable},
		{"an error behind a block", func(w http.ResponseWriter) {
			_, _ = w.Write(block.Buf)
			_, _ = w.Write([]byte("\r\n__exception__\r\nCode: 241. DB::Exception: memory\r\n"))
		}, 3, controlbus.ErrUnavailable},
		{"cut between blocks", func(w http.ResponseWriter) {
			_, _ = w.Write(block.Buf)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 3, controlbus.ErrUnavailable},
		{"an error at once", func(w http.ResponseWriter) {
			w.Header().Set("X-ClickHouse-Exception-Code", "62")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte("Code: 62. DB::Exception: Syntax error"))
		}, 0, controlbus.ErrInvalid},
		{"a proxy", func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, 0, controlbus.ErrUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked url.Values
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = r.URL.Query()
				c.send(w)
			}))
			defer server.Close()
			base, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			s := &Store{cfg: DefaultConfig(), endpoints: []*endpoint{{base: *base, client: server.Client()}}}
			q := newSelection("SELECT n").unlimited("a test")
			q.bind("ids", []uint64{7, 8})
			q.bind("from", int64(-5))
			q.bind("names", hexed([]string{"it's"}))
			var got proto.ColUInt64
			rows := 0
			err = s.blocks(t.Context(), q, proto.Results{{Name: "n", Data: &got}}, func(n int) error {
				if rows += n; n != 3 || got[0] != 1 || got[2] != 3 || len(got) != 3 {
					t.Errorf("block %v of %d", got, n)
				}
				return nil
			})
			if rows != c.rows || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Errorf("%d rows, %v; want %d, %v", rows, err, c.rows, c.err)
			}
			if asked.Get("param_ids") != "[7,8]" || asked.Get("param_from") != "-5" || asked.Get("param_names") != "['69742773']" || asked.Get("max_execution_time") == "" {
				t.Errorf("parameters %v", asked)
			}
		})
	}
}

func TestBlocksEndWithTheirContext(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then is it noticed that the client has gone
		<-r.Context().Done()
	}))
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{cfg: DefaultConfig(), endpoints: []*endpoint{{base: *base, client: server.Client()}}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err = s.blocks(ctx, newSelection("SELECT n").unlimited("a test"), proto.Results{}, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline", err)
	}
	for _, v := range []any{[]string{"it's"}, "text", 1.5} {
		if text, err := parameter(v); !errors.Is(err, controlbus.ErrInvalid) {
			t.Errorf("%v becomes %q, %v; want a refusal", v, text, err)
		}
	}
	limited := controlbus.WithScope(t.Context(), controlbus.NewScope([]controlbus.ScopeRule{{Env: "prod", Channel: "*"}}))
	if err := s.blocks(limited, newSelection("SELECT n"), proto.Results{}, nil); !errors.Is(err, controlbus.ErrDenied) {
		t.Errorf("a query that says nothing of its limits: %v, want a refusal", err)
	}
}
