package rabbitmq

import (
	"testing"
	"time"
)

func TestLossEstimate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		samples []lossSample
		want    []int64
		end     int64
	}{
		{"nothing lost", []lossSample{{published: 10, received: 10}, {published: 20, received: 15, held: 5}}, []int64{0, 0}, 0},
		{"statistics behind the deliveries", []lossSample{{published: 0, received: 50}, {published: 50, received: 80, held: 3}}, []int64{0, 0}, 0},
		{"only growth is reported", []lossSample{
			{published: 1000, received: 1, held: 100, full: true}, {published: 1000, received: 101}, {published: 1500, received: 301, held: 0},
		}, []int64{899, 0, 300}, 0},
		{"full without counters", []lossSample{{published: -1, held: 100, full: true}, {published: -1, held: 100, full: true}, {published: -1}, {published: -1}, {published: -1}}, []int64{0, 0, 0, -1, 0}, 0},
		{"full before the first counters", []lossSample{{published: -1, held: 100, full: true}, {published: 1000, received: 1, held: 100, full: true}}, []int64{0, 899}, 0},
		{"full, and the counters never tell", []lossSample{
			{published: 5, received: 1, held: 100, full: true}, {published: 5, received: 101}, {published: 5, received: 101}, {published: 5, received: 101}, {published: 5, received: 101},
		}, []int64{0, 0, 0, -1, 0}, 0},
		{"full, without counters for a while", []lossSample{
			{published: 5, received: 1, held: 100, full: true}, {published: 5, received: 101}, {published: 1000, received: 101},
		}, []int64{0, 0, 899}, 0},
		{"it ends before the counters came", []lossSample{{published: -1, held: 100, full: true}}, []int64{0}, -1},
		{"it ends before the counters told", []lossSample{{published: 5, received: 1, held: 100, full: true}, {published: 5, received: 101}}, []int64{0, 0}, -1},
	} {
		var l lossEstimate
		at := time.Now()
		for i, s := range c.samples {
			at = at.Add(5 * time.Second)
			s.at = at
			if got := l.add(s); got != c.want[i] {
				t.Errorf("%s: sample %d: got %d, want %d", c.name, i, got, c.want[i])
			}
		}
		if got := l.end(); got != c.end {
			t.Errorf("%s: at the end: got %d, want %d", c.name, got, c.end)
		}
	}
}
