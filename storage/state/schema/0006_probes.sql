-- Probes and what became of their messages. A run's id sorts by its time.
CREATE TABLE probes (
	id   TEXT PRIMARY KEY,
	name TEXT NOT NULL UNIQUE,
	body TEXT NOT NULL -- JSON
) STRICT;
CREATE TABLE probe_runs (
	probe TEXT NOT NULL,
	id    TEXT NOT NULL,
	body  TEXT NOT NULL, -- JSON
	PRIMARY KEY (probe, id)
) STRICT, WITHOUT ROWID;
