package detect_test

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-dev/signalbox/collector/detect"
	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

func TestPanesAddUp(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 12, 14, 20, 3, 0, time.UTC)
	p := detect.NewPanes()
	for i := range 4 {
		ev := &controlbus.MessageEvent{
			Time: at.Add(time.Duration(i) * 3 * time.Second).UnixNano(), Env: "e", System: "nats", Broker: "b", Destination: "orders",
			Op: controlbus.OpTap, BodySize: 100, LatencyNs: int64(i) * 1e6,
		}
		if i == 1 {
			ev.Outcome = controlbus.OutcomeFailed
		}
		p.Add(ev)
	}
	first := at.Truncate(detect.PaneStep).UnixNano()
	want := []*storage.Pane{
		{Time: first, Env: "e", System: "nats", Broker: "b", Destination: "orders", Op: controlbus.OpTap,
			Count: 3, Failed: 1, Bytes: 300, LatencySumNs: 3e6, LatencyMaxNs: 2e6, LatencyN: 2,
			Latency: map[uint8]uint64{detect.LatencyBucket(1e6): 1, detect.LatencyBucket(2e6): 1}},
		{Time: first + 1e10, Env: "e", System: "nats", Broker: "b", Destination: "orders", Op: controlbus.OpTap,
			Count: 1, Bytes: 100, LatencySumNs: 3e6, LatencyMaxNs: 3e6, LatencyN: 1,
			Latency: map[uint8]uint64{detect.LatencyBucket(3e6): 1}},
	}
	if diff := cmp.Diff(want, p.All()); diff != "" {
		t.Errorf("panes (-want +got):\n%s", diff)
	}
	if left := p.All(); len(left) != 0 {
		t.Errorf("panes are handed out twice: %v", left)
	}
}

func TestABucketIsWithinNinePercent(t *testing.T) {
	t.Parallel()
	for ns := uint64(1024); ns < uint64(time.Hour); ns += ns/7 + 1 {
		got := detect.BucketNs(detect.LatencyBucket(ns))
		if off := math.Abs(got-float64(ns)) / float64(ns); off > 0.09 {
			t.Errorf("%d ns is told as %.0f ns, %.0f %% off", ns, got, 100*off)
		}
	}
	if detect.LatencyBucket(0) != 0 || detect.LatencyBucket(math.MaxUint64) != 255 {
		t.Error("values outside the scale are not clamped")
	}
}
