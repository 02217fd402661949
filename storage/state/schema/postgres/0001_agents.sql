CREATE TABLE agents (
	id           TEXT COLLATE "C" PRIMARY KEY,
	report       TEXT COLLATE "C" NOT NULL DEFAULT '{}', -- controlbus.Agent as JSON
	last_seen    BIGINT NOT NULL DEFAULT 0, -- Unix nanoseconds, console's clock
	clock_offset BIGINT NOT NULL DEFAULT 0, -- nanoseconds
	desired      TEXT COLLATE "C" NOT NULL DEFAULT '{}'  -- controlbus.Desired as JSON
)
