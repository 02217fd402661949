package controlbus

const (
	nanosPerDay = int64(24 * 60 * 60 * 1e9)

	// MinTime and MaxTime bound the times that are filed: 1970-01-02, because
	// 0 means "no time", and 2100-01-01.
	MinTime = nanosPerDay
	MaxTime = 47482 * nanosPerDay

	ahead  = nanosPerDay       // how far an event may be before its agent's clock
	behind = 400 * nanosPerDay // and how far behind it
)

// EventTime is the time under which an event is filed: its own, unless that is
// unknown or so far from the agent's clock that it is a mistake or a forgery;
// then the agent's. Producers choose event times, and every new day is a new
// partition in every table of a store: without a bound one producer could fill
// it with tens of thousands of them. Whoever adds up events by time files them
// under this time too, and filters compare it.
func EventTime(event, agent int64) int64 {
	switch {
	case event <= 0:
		return ClampTime(agent)
	case agent > 0 && (event > agent+ahead || event < agent-behind):
		return ClampTime(agent)
	}
	return ClampTime(event)
}

// ClampTime moves a time to where it can be filed.
func ClampTime(ns int64) int64 { return min(max(ns, MinTime), MaxTime) }
