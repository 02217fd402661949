-- Times are Unix nanoseconds of the console's clock. A command's row is the fold
-- of its events, kept beside them so that lists are one read.
CREATE TABLE commands (
	id           TEXT PRIMARY KEY,
	state        TEXT NOT NULL,
	open         INTEGER NOT NULL, -- has not ended
	kind         TEXT NOT NULL,
	agent        TEXT NOT NULL,
	env          TEXT NOT NULL,
	broker       TEXT NOT NULL,
	channel      TEXT NOT NULL,
	requester    TEXT NOT NULL,
	requested_at INTEGER NOT NULL,
	body         TEXT NOT NULL     -- controlbus.Command as JSON
) STRICT;
CREATE INDEX commands_open ON commands (agent, id) WHERE open = 1;
CREATE INDEX commands_channel ON commands (env, broker, channel, id);

CREATE TABLE command_events (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	command_id TEXT NOT NULL REFERENCES commands (id),
	n          INTEGER NOT NULL,   -- within the command, from 1
	agent_seq  INTEGER NOT NULL,   -- the agent's own number, 0 = the console's event
	at         INTEGER NOT NULL,
	type       TEXT NOT NULL,
	body       TEXT NOT NULL,      -- ledger.Event as JSON
	UNIQUE (command_id, n)
) STRICT;
-- What an agent says twice is taken once.
CREATE UNIQUE INDEX command_events_agent ON command_events (command_id, agent_seq) WHERE agent_seq > 0;
CREATE TRIGGER command_events_no_update BEFORE UPDATE ON command_events BEGIN SELECT RAISE(ABORT, 'the ledger is only appended to'); END;
CREATE TRIGGER command_events_no_delete BEFORE DELETE ON command_events BEGIN SELECT RAISE(ABORT, 'the ledger is only appended to'); END;

-- One destructive command for each channel of a broker.
CREATE TABLE command_locks (
	resource   TEXT PRIMARY KEY,
	command_id TEXT NOT NULL REFERENCES commands (id) DEFERRABLE INITIALLY DEFERRED
) STRICT;

-- What is to be sent to agents, until they have answered.
CREATE TABLE command_outbox (
	command_id TEXT NOT NULL REFERENCES commands (id),
	what       TEXT NOT NULL, -- dispatch, cancel
	agent      TEXT NOT NULL,
	PRIMARY KEY (command_id, what)
) STRICT;
CREATE INDEX command_outbox_agent ON command_outbox (agent, command_id);

-- The tree over the audit table. Leaf n is the record with the chain value of the
-- leaf before it; audit_hashes are the tree's stored hashes (sumdb/tlog), and the
-- head is signed with a key that is not in this file.
CREATE TABLE audit_leaves (
	n     INTEGER PRIMARY KEY,    -- from 0
	seq   INTEGER NOT NULL UNIQUE, -- audit.seq
	chain BLOB NOT NULL            -- SHA-256 of the record, which has the chain value before it
) STRICT;
CREATE TABLE audit_hashes (
	i    INTEGER PRIMARY KEY,
	hash BLOB NOT NULL
) STRICT;
CREATE TABLE audit_head (
	one  INTEGER PRIMARY KEY CHECK (one = 1),
	size INTEGER NOT NULL,
	note TEXT NOT NULL
) STRICT;
