package main

import (
	"fmt"
	"time"

	"github.com/signalbox-dev/signalbox/ui/api"
)

// selected is a range of time as a command keeps it: by its ends, because the
// command outlives the present it was typed in.
func selected(since, from, until string, now time.Time) (begin, end api.Timestamp, err error) {
	wrong := func(flag, text, want string) error {
		return fmt.Errorf("%w: --%s %q: want %s", errUsage, flag, text, want)
	}
	const aTime = "a time such as 2026-11-21T14:00:00Z or 2026-11-21T14:00"
	last := now
	if until != "" {
		if last, err = parseTime(until); err != nil {
			return begin, end, wrong("until", until, aTime)
		}
		end = api.Timestamp{Time: last}
	}
	switch {
	case since != "" && from != "":
		return begin, end, fmt.Errorf("%w: --since and --from exclude each other", errUsage)
	case from != "":
		first, err := parseTime(from)
		if err != nil {
			return begin, end, wrong("from", from, aTime)
		}
		if !first.Before(last) {
			return begin, end, fmt.Errorf("%w: the range ends before it begins", errUsage)
		}
		return api.Timestamp{Time: first}, end, nil
	}
	span := time.Hour
	if since != "" {
		if span, err = parseSpan(since); err != nil {
			return begin, end, wrong("since", since, "a length such as 15m, 1h or 7d")
		}
	}
	return api.Timestamp{Time: last.Add(-span)}, end, nil
}
