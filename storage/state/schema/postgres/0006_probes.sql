-- Probes and what became of their messages. A run's id sorts by its time.
CREATE TABLE probes (
	id   TEXT COLLATE "C" PRIMARY KEY,
	name TEXT COLLATE "C" NOT NULL UNIQUE,
	body TEXT COLLATE "C" NOT NULL -- JSON
);
CREATE TABLE probe_runs (
	probe TEXT COLLATE "C" NOT NULL,
	id    TEXT COLLATE "C" NOT NULL,
	body  TEXT COLLATE "C" NOT NULL, -- JSON
	PRIMARY KEY (probe, id)
);
