package clickhouse_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
	"github.com/signalbox-dev/signalbox/storage/storagetest"
)

// A page of a large command, and what became of one message, are answered
// quickly among many outcomes: as quickly as a page can be waited for here,
// however busy the machine is; what it took is in the log.
func TestOutcomesAreQuick(t *testing.T) {
	if testing.Short() {
		t.Skip("stores a hundred thousand outcomes")
	}
	commands, each := 10, 10_000
	if os.Getenv("SIGNALBOX_SOAK") == "1" {
		commands, each = 20, 100_000
	}
	s := open(t, config(t))
	begin := time.Now().Add(-time.Duration(commands) * time.Hour)
	var ids []controlbus.CommandID
	for c := range commands {
		at := begin.Add(time.Duration(c) * time.Hour)
		id := controlbus.NewCommandID(at)
		ids = append(ids, id)
		for from := 0; from < each; from += 10_000 {
			b := s.NewBatch()
			for n := from; n < from+10_000; n++ {
				b.AppendLog(storagetest.OutcomeLog(storage.Outcome{
					Command: id, Kind: controlbus.CommandReplay, At: at.Add(time.Duration(n) * 10 * time.Millisecond), Number: int64(n + 1), Outcome: "sent", Env: "prod", Broker: "rabbit",
					Destination: "orders", MessageID: fmt.Sprintf("m-%d-%d", c, n), UID: controlbus.HashID(string(id), fmt.Sprint(n)),
				}))
			}
			if err := s.Write(t.Context(), fmt.Sprintf("%d/%d", c, from), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	within := storage.TimeRange{From: begin.Add(-time.Hour), To: time.Now().Add(time.Hour)}
	measure := func(what string, f func(i int) storage.OutcomeQuery, want int) {
		t.Helper()
		var took []time.Duration
		for i := range 60 {
			q := f(i)
			q.Range = within
			began := time.Now()
			list, err := s.Outcomes(t.Context(), q)
			if err != nil || len(list) != want {
				t.Fatalf("%s: %d outcomes, %v; want %d", what, len(list), err, want)
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		p95 := took[len(took)*95/100]
		t.Logf("%s among %d: p50 %v, p95 %v", what, commands*each, took[len(took)/2], p95)
		if p95 > time.Second {
			t.Errorf("%s: p95 %v, want 100ms on a machine that does nothing else", what, p95)
		}
	}
	measure("a page of a command", func(i int) storage.OutcomeQuery {
		return storage.OutcomeQuery{Command: ids[i%commands], After: int64(i * each / 60 / 2), Limit: 100}
	}, 100)
	measure("by message id", func(i int) storage.OutcomeQuery {
		return storage.OutcomeQuery{MessageID: fmt.Sprintf("m-%d-%d", i%commands, i*each/60)}
	}, 1)
	measure("by uid", func(i int) storage.OutcomeQuery {
		return storage.OutcomeQuery{UID: controlbus.HashID(string(ids[i%commands]), fmt.Sprint(i*each/60))}
	}, 1)
}
