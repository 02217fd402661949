CREATE TABLE agents (
	id           TEXT PRIMARY KEY,
	report       TEXT NOT NULL DEFAULT '{}', -- controlbus.Agent as JSON
	last_seen    INTEGER NOT NULL DEFAULT 0, -- Unix nanoseconds, console's clock
	clock_offset INTEGER NOT NULL DEFAULT 0, -- nanoseconds
	desired      TEXT NOT NULL DEFAULT '{}'  -- controlbus.Desired as JSON
) STRICT
