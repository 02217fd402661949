package job

import "time"

// window is what "lately" means.
const window = 5 * time.Second

// meter knows how fast a job has sent lately.
type meter struct{ points []point }

type point struct {
	at   time.Time
	sent int64
}

func (m *meter) reset() { m.points = m.points[:0] }

// add notes how much had been sent at a time. Points a tenth of a second apart
// are enough, which bounds how many there are.
func (m *meter) add(at time.Time, sent int64) {
	if n := len(m.points); n == 0 || at.Sub(m.points[n-1].at) >= window/50 {
		m.points = append(m.points, point{at, sent})
	}
	drop := 0
	for drop < len(m.points)-1 && at.Sub(m.points[drop+1].at) >= window {
		drop++
	}
	m.points = append(m.points[:0], m.points[drop:]...)
}

// rate is messages per second up to now; 0 where it is too early to say.
func (m *meter) rate(now time.Time, sent int64) float64 {
	if len(m.points) == 0 {
		return 0
	}
	first := m.points[0]
	d := now.Sub(first.at)
	if d < 10*time.Millisecond || d > 4*window {
		return 0
	}
	return float64(sent-first.sent) / d.Seconds()
}

// left estimates how long the rest takes at the present speed; -1 unknown.
func (j *Job[M]) left(p Progress) time.Duration {
	total := p.Total
	if l := j.cfg.Limit; l > 0 && (total < 0 || l < total) {
		total = l
	}
	r := p.Job.Rate
	if j.ctl.Rate > 0 && (r == 0 || r > j.ctl.Rate) {
		r = j.ctl.Rate
	}
	switch {
	case total >= 0 && total <= p.Matched:
		return 0
	case total < 0 || r <= 0 || p.Job.Paused:
		return -1
	}
	s := float64(total-p.Matched) / r
	if s > (365 * 24 * time.Hour).Seconds() {
		return -1
	}
	return time.Duration(s * float64(time.Second))
}
