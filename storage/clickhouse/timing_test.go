package clickhouse

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestQueryTimes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s Store
		if got := s.QueryTimes(); len(got) != 0 {
			t.Errorf("before any read: %+v", got)
		}
		read := func(kind string, took time.Duration) {
			defer s.timed(kind)()
			time.Sleep(took) // the bubble's clock
		}
		var wg sync.WaitGroup
		for i := range 1000 { // the first 488 of them are forgotten
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Minute)
				if i < 488 {
					read("search", 40*time.Second)
				} else {
					read("search", time.Duration(i-487)*time.Millisecond)
				}
			})
		}
		wg.Go(func() { read("totals", 2*time.Millisecond) })
		wg.Wait()
		got := s.QueryTimes()
		if len(got) != 2 || got[0].Kind != "search" || got[1].Kind != "totals" {
			t.Fatalf("got %+v, want search and totals, slowest first", got)
		}
		q := got[0]
		if q.Count != 1000 || q.Latest != 512 || q.P50 != 257*time.Millisecond || q.P95 != 486*time.Millisecond || q.Max != 512*time.Millisecond {
			t.Errorf("search: %+v", q)
		}
	})
}
