package clickhouse

import (
	"context"
	"fmt"
	"time"

	chdriver "github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// Traffic returns what passed, from the roll-up that is no coarser than asked
// for, or from the finest that retention has kept.
func (s *Store) Traffic(ctx context.Context, tq storage.TrafficQuery) (storage.Traffic, error) {
	defer s.timed("traffic")()
	t, err := s.trafficPanes(ctx, tq)
	return t, wrap("read traffic", err)
}

func (s *Store) trafficPanes(ctx context.Context, tq storage.TrafficQuery) (storage.Traffic, error) {
	r := nanos(tq.Range)
	step := s.rollupStep(r.from/1e9, int64(tq.Width/time.Second))
	name := map[storage.TrafficMeasure]string{storage.TrafficKeys: "traffic_keys", storage.TrafficLatency: "traffic_latency"}[tq.Measure]
	if name == "" {
		name = "traffic_panes"
	}
	q := newSelection(s.query(name))
	q.where("step = {step:UInt16}")
	q.where("t >= toDateTime({start:UInt32}, 'UTC')")
	q.where("t < toDateTime({end:UInt32}, 'UTC')")
	q.bind("step", step)
	q.bind("start", uint32(r.from/1e9/int64(step)*int64(step)))
	q.bind("end", uint32((r.to+1e9-1)/1e9))
	switch tq.Measure {
	case storage.TrafficKeys, storage.TrafficMessages, storage.TrafficBytes, storage.TrafficFailed:
		// A channel without failures has a count of them, too: none.
	case storage.TrafficLatency:
		q.where("lat_n > 0")
	}
	q.visible("env", "destination")
	if name == "traffic_panes" {
		q.bind("measure", uint8(tq.Measure))
	}
	q.add("GROUP BY env, system, broker, destination, service, op\nORDER BY env, system, broker, destination, service, op\nLIMIT {limit:UInt32}")
	q.bind("limit", tq.Limit+1)
	t := storage.Traffic{Step: time.Duration(step) * time.Second}
	left := tq.Limit
	err := s.stream(ctx, q, func(rows chdriver.Rows) error {
		var one storage.TrafficSeries
		var op int8
		into := []any{&one.Env, &one.System, &one.Broker, &one.Destination, &one.Service, &op}
		if tq.Measure != storage.TrafficKeys {
			into = append(into, &one.At, &one.N)
		}
		if tq.Measure == storage.TrafficLatency {
			into = append(into, &one.SumNs, &one.Buckets, &one.Counts)
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		one.Op = controlbus.Op(op)
		if left -= max(len(one.At), 1); left < 0 {
			return fmt.Errorf("%w: more than %d panes: shorten the range or enlarge the step", controlbus.ErrTooLarge, tq.Limit)
		}
		t.Series = append(t.Series, one)
		return nil
	})
	return t, err
}
