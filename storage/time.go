package storage

import "github.com/signalbox-dev/signalbox/controlbus"

// MinTime and MaxTime bound what a store can hold.
const (
	MinTime = controlbus.MinTime
	MaxTime = controlbus.MaxTime
)

// EventTime is the time under which an event is filed; see controlbus.EventTime.
func EventTime(event, agent int64) int64 { return controlbus.EventTime(event, agent) }

// ClampTime moves a time to where a store can hold it.
func ClampTime(ns int64) int64 { return controlbus.ClampTime(ns) }
