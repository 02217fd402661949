// Package journal is an agent's memory of commands: what it has begun, how far
// it came, and how it ended, on disk before anything happens and before anything
// is said. With it a command that arrives twice is done once, and a crash in the
// middle of one is known as such.
//
//	            Begin            Checkpoint*           Done             Acked
//	unknown ───────────▶ begun ──────────────▶ begun ───────▶ done ──────────▶ tombstone, 7 days
//	   └──────────────────────────────── Done (rejected) ──────▲
//
// Whoever runs commands calls Begin before the first effect and Done with the
// result after the last one; a result is told until Acked. After a restart what
// is begun and not done was cut off: resumable kinds go on from their
// checkpoint, of the others nobody knows.
//
// Records lie in a storage/spool log, which is append-only, checksummed and
// fsynced. Where a part of it was damaged, the journal takes another identity,
// so that the console does not trust it to remember.
package journal
