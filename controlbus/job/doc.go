// Package job is the machine that bulk commands run on: replay, redrive, discard,
// purge with a copy. It knows no broker; a Source gives it items, a Sink takes
// them, and it decides how many, how fast, and whether to go on.
//
//	          ┌──────────────── control: rate, paused ───────────────┐
//	          ▼                                                      │
//	ready ─▶ tokens ─▶ Source.Next ─▶ Sink.Send ─▶ Save ─▶ Source.Settle ─▶ look ─┐
//	  ▲  (pause)   (most fit 50 ms)   (confirmed)  (durable)  (leaves the source)  │
//	  └───────────── ramp: 1, 10, 100, …: wait, look at what arrived dead ◀────────┘
//
// The order is what makes it safe: nothing leaves the source before it is
// confirmed where it went and before the position is durable. A crash in between
// may send an item again, never lose one.
//
// A job is run by one goroutine. When a connection is lost Run returns the error;
// the caller opens source and sink anew, attaches them and calls Run again.
package job
