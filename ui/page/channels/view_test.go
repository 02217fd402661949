package channels

import (
	"math"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 6, 0, 0, 0, time.UTC)
	nan := math.NaN()
	flowing := storage.ChannelState{ChannelName: controlbus.ChannelName{Name: "PAYMENTS"}, SeenAt: now, Ready: 5, Lag: nan, Consumers: 1, PublishedS: 4, DeliveredS: 4, AckedS: nan, Tapped: 100}
	for _, tc := range []struct {
		name   string
		change func(*storage.ChannelState)
		want   string
	}{
		{"as it should be", func(*storage.ChannelState) {}, "flowing"},
		{"many wait and none leaves", func(s *storage.ChannelState) { s.Ready, s.DeliveredS = 200, 0 }, "stopped"},
		{"delivered again and again, never acknowledged", func(s *storage.ChannelState) { s.Ready, s.AckedS = 200, 0 }, "stopped"},
		{"next to none leaves", func(s *storage.ChannelState) { s.Ready, s.PublishedS, s.DeliveredS = 932, 21.8, .96 }, "stopped"},
		{"some on their way", func(s *storage.ChannelState) { s.Ready, s.DeliveredS = 19, 0 }, "flowing"},
		{"rates are not known", func(s *storage.ChannelState) { s.Ready, s.PublishedS, s.DeliveredS = 200, nan, nan }, "flowing"},
		{"more arrives than leaves", func(s *storage.ChannelState) { s.Ready, s.PublishedS = 500, 10 }, "filling up"},
		{"not all that arrives is for a consumer", func(s *storage.ChannelState) { s.Ready, s.PublishedS = 103, 10 }, "flowing"},
		{"most fail", func(s *storage.ChannelState) { s.Failed = 60 }, "failing"},
		{"dead letters wait", func(s *storage.ChannelState) { s.Name, s.Failed, s.Consumers = "DEADLETTERS", 100, 0 }, "dead letters"},
		{"an empty dead letter channel is no failing one", func(s *storage.ChannelState) { s.Name, s.Failed, s.Ready = "DEADLETTERS", 100, 0 }, "empty"},
	} {
		s := flowing
		tc.change(&s)
		if got := Judge(&s, now).Word; got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestChartBeginsWhereDataDoes(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_700_000_000, 0)
	for _, tc := range []struct {
		name        string
		empty, want int
	}{{"just begun", 90, 10}, {"a while ago", 70, 100}, {"one value", 99, 100}} {
		var points []storage.Point
		for i := range 100 {
			p := storage.Point{Time: at.Add(time.Duration(i) * time.Minute), Value: math.NaN()}
			if i >= tc.empty {
				p.Value = 1
			}
			points = append(points, p)
		}
		if got := len(MakeChart("x", "X", "rate", []string{"x"}, []string{"s1"}, points).Times); got != tc.want {
			t.Errorf("%s: %d times, want %d", tc.name, got, tc.want)
		}
	}
}
