// Package ledger keeps commands as events. What happens to a command is
// appended and committed before anything is sent or shown; a command's state is
// the fold over its events. In the same transaction go the audit record of each
// change of state, the outbox row that makes the link send something, and the
// lock that keeps two destructive commands off one channel.
//
//	Request ─ policy ─▶ awaiting approval ─ Approve ─▶ queued ─▶ outbox ─▶ link ─▶ agent
//	   └─────────────────────────────────────────────────▲                    │
//	                                    Merge ◀── Accepted, Progress, Result ──┘
//
// Merge is idempotent by (command, agent's journal, number of its record); a result that
// comes late is recorded, never dropped. Package controlbus draws the states.
//
// The package declares the Store it needs; storage/state has it in SQLite and PostgreSQL.
// Ledger starts nothing: controlbus/link calls it as frames arrive and time
// passes.
package ledger
