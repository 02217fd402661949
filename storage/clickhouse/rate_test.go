package clickhouse

import (
	"math"
	"testing"
)

func TestCounterRate(t *testing.T) {
	t.Parallel()
	// 100 reports in even steps: 10 a step, then nothing in the last 20, which are 40 s.
	var stopped []float64
	for i := range 100 {
		stopped = append(stopped, float64(10*min(i, 79)))
	}
	for _, tc := range []struct {
		name    string
		history []float64
		seconds float64
		want    float64
	}{
		{"one report", []float64{5}, 0, math.NaN()},
		{"two reports", []float64{5, 65}, 60, 1},
		{"a restart", []float64{100, 110, 5, 15}, 30, 25. / 30},
		{"every two seconds: an outage shows", stopped, 198, 0},
		{"every minute: the whole window counts", []float64{0, 60, 120, 120, 120}, 240, .5},
	} {
		got := counterRate(tc.history, tc.seconds)
		if math.Abs(got-tc.want) > 1e-9 || math.IsNaN(got) != math.IsNaN(tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}
