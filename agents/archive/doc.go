// Package archive is an agent's own copy of the messages that its commands
// removed: what the undo of a purge or a discard sends again. Bodies and the
// kinds of headers are kept as the broker had them, which no redacted copy
// elsewhere could give back.
//
//	<dir>/<command>/meta.json   what the command was, and when it ended
//	<dir>/<command>/...         the messages, a storage/spool log: fsynced, checksummed
//
// Append returns once a batch is durable; only then may its messages leave their
// channel. When they have, Removed is noted with the batch after it, so that the
// copies of which nobody knows whether their original left are known as such.
//
// The archive is bounded. It never deletes a copy that is younger than its age to
// make room: what has no room is refused. Package agents/action writes and reads
// it; one process at a time has it open.
package archive
