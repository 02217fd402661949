// Package spool is a segmented, checksummed log on disk. It is the collector's
// write-ahead log and the agent's buffer towards the collector: what Append
// has acknowledged is still there after a power cut.
//
// A log is a directory. Each segment is one file, named after the position of
// its first byte; positions rise over the whole life of the log and are never
// given out twice, not even after damage, so that a range of positions can
// name an immutable batch for ever.
//
//	<dir>/id                       random id of the log
//	<dir>/lock                     held while the log is open
//	<dir>/<base, 20 digits>.seg    header, then records, each padded to 8 bytes
//	<dir>/quarantine/              damaged bytes, kept for whoever wants to look
//
// A record's header has a checksum of its own, seeded with the log's random
// id, and repeats the record's position. So after a damaged stretch the next
// whole record can be found again, and bytes inside a payload cannot pass for
// a record, whoever chose them.
//
// The package starts no goroutine: appenders that wait at the same time elect
// one of themselves to write and fsync for all (group commit). Reading follows
// writing through Reader.Next. Deciding what may be trimmed is left to the
// caller.
package spool
