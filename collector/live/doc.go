// Package live is the fan-out of live taps. Taps that ask for the same share one
// group: its filter is evaluated once per message, its rows are encoded once,
// and its frames are cut once, every 100 to 250 ms, and kept in a log that is
// bounded by the bytes of all groups together. A reader is a place in that log.
//
//	Publish ─▶ match ─▶ admit (1 of n) ─▶ encode ─┬▶ group A: pending ─ cut ─▶ f7 f8 f9   ◀ reader, reader
//	          per group    per group     per event └▶ group B: pending ─ cut ─▶ f3 f4       ◀ reader
//
// So a reader that does not read costs nothing but its place, one that falls
// behind the log's start is told exactly how many messages it lost, and one that
// comes back with the token of its last frame goes on where it was: three names
// of one thing. A group is kept for a while after its last reader has gone, and
// counts on.
//
// The collector publishes, ui/live subscribes and writes to sockets. How a row
// reads is given by the caller, so nothing here knows about pages.
package live
