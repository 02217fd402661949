package controlbus

import "time"

// ClockWindow estimates a sender's clock offset: its clock minus ours. Every
// measurement is the true offset minus the time the request travelled, so the
// largest of the last ten minutes is the best one: that request travelled least.
// The zero value is ready. It is used by one goroutine at a time.
type ClockWindow struct {
	samples []clockSample // offsets falling, times rising: a monotone queue
}

type clockSample struct {
	at     time.Time
	offset time.Duration
}

const clockMemory = 10 * time.Minute

// Add takes a measurement, sent minus received, and returns the estimate.
func (w *ClockWindow) Add(now time.Time, offset time.Duration) time.Duration {
	for len(w.samples) > 0 && now.Sub(w.samples[0].at) > clockMemory {
		w.samples = w.samples[1:]
	}
	for len(w.samples) > 0 && w.samples[len(w.samples)-1].offset <= offset {
		w.samples = w.samples[:len(w.samples)-1]
	}
	w.samples = append(w.samples, clockSample{now, offset})
	return w.samples[0].offset
}
