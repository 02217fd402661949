package command

import (
	"slices"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/storage"
)

// spread returns samples from all over an age range, oldest first: one from each
// of MaxSamples equal parts, and of those at hand as many as parts are empty.
// Where take fails, those at hand will do.
func spread(have []controlbus.PreviewSample, oldest, newest time.Time, take func(storage.TimeRange) ([]controlbus.PreviewSample, error)) []controlbus.PreviewSample {
	step := newest.Sub(oldest) / controlbus.MaxSamples
	if step <= 0 {
		return have
	}
	var out []controlbus.PreviewSample
	add := func(list []controlbus.PreviewSample) {
		for _, s := range list {
			if len(out) < controlbus.MaxSamples && !slices.ContainsFunc(out, func(o controlbus.PreviewSample) bool { return o.UID == s.UID }) {
				out = append(out, s)
			}
		}
	}
	for part := range controlbus.MaxSamples {
		from := oldest.Add(time.Duration(part) * step)
		r := storage.TimeRange{From: from, To: from.Add(step)}
		if part == controlbus.MaxSamples-1 {
			r.To = newest.Add(1) // ranges leave their end out
		}
		list, err := take(r)
		if err != nil {
			return have
		}
		add(list)
	}
	add(have)
	slices.SortStableFunc(out, func(a, b controlbus.PreviewSample) int { return a.At.Compare(b.At) })
	return out
}
