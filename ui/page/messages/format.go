package messages

import (
	"strconv"
	"time"
)

// milli is a time for script: Unix milliseconds.
func milli(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }
