// Package link joins agents to the console: what an agent reports of itself,
// what the console wants of it, and the commands it orders.
//
// Commands travel as Frames over a Link. Dispatcher is the console's end, over
// the ledger; Executor the agent's, over its journal:
//
//	Dispatcher                                              Executor
//	    ◀──────────────── Hello{nonce} ─────────────────────  connects
//	    ───────────────── Hello{nonce}, epoch ──────────────▶
//	    ◀──────────────── Hello{journal, head} ─────────────
//	  commit dispatched
//	    ───────────────── Dispatch{command, attempt} ───────▶  journal BEGUN
//	    ◀──────────────── Event{accepted} ──────────────────
//	    ◀──────────────── Event{progress}* ─────────────────  journal checkpoint
//	  commit result                                            journal DONE
//	    ◀──────────────── Event{result} ────────────────────
//	    ───────────────── AckEvent ─────────────────────────▶  tombstone
//
// Each side writes down before it speaks, and repeats what was not answered: a
// frame may be lost, doubled or late, and either side may die between any two
// lines. Frames of another session are known by their epoch and dropped. What
// this holds is written in docs/decisions/0009-control-bus.md and tried by the
// simulation in sim_test.go.
//
// State is told whole and repeated: an agent reports what it is and does, and is
// answered with everything the console wants it to be in. Client is the agent's
// end of that over plain HTTP, Roster the console's.
package link

import "time"

const (
	// Path is where agents report.
	Path = "/v1/agents/report"
	// ReportInterval is how often an agent reports when nothing changes.
	ReportInterval = 5 * time.Second
	// MissedReports makes an agent silent.
	MissedReports = 3
	// MaxReport bounds a report's size in bytes.
	MaxReport = 4 << 20
	// MaxDesired bounds an answer's size in bytes.
	MaxDesired = 4 << 20
)
