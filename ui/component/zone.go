package component

import (
	"context"
	"time"
)

type zoneKey struct{}

// WithZone makes templates write times in a zone. Without one they write UTC.
func WithZone(ctx context.Context, loc *time.Location) context.Context {
	if loc == nil {
		return ctx
	}
	return context.WithValue(ctx, zoneKey{}, loc)
}

// zoneOf is the zone of a context.
func zoneOf(ctx context.Context) *time.Location {
	if loc, ok := ctx.Value(zoneKey{}).(*time.Location); ok {
		return loc
	}
	return time.UTC
}

// ClockIn writes a time as it is shown in a zone.
func ClockIn(t time.Time, kind string, loc *time.Location) string {
	t = t.In(loc)
	switch kind {
	case Milli:
		return t.Format("15:04:05.000")
	case Minute:
		return t.Format("15:04")
	case Date:
		return t.Format("2 Jan")
	case Day, Ago:
		return t.Format("2 Jan 15:04:05")
	}
	return t.Format("15:04:05")
}

// Clock writes a time in UTC for readers without script.
func Clock(t time.Time, kind string) string { return ClockIn(t, kind, time.UTC) }

// exact is the whole truth about a time, in the reader's zone and in UTC.
func exact(ctx context.Context, t time.Time) string {
	const layout = "Mon 2006-01-02 15:04:05.000000"
	utc := t.UTC().Format(layout + " UTC")
	if loc := zoneOf(ctx); loc != time.UTC {
		return t.In(loc).Format(layout+" MST") + ", " + utc
	}
	return utc
}
