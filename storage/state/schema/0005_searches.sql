-- Saved searches of the message store. An owner is a user's id, empty for what
-- was saved before people signed in: that is everybody's.
CREATE TABLE searches (
	id         TEXT PRIMARY KEY,
	owner      TEXT NOT NULL,
	shared     INTEGER NOT NULL DEFAULT 0,
	name       TEXT NOT NULL,
	query      TEXT NOT NULL,
	env        TEXT NOT NULL DEFAULT '',
	any_env    INTEGER NOT NULL DEFAULT 0,
	range      TEXT NOT NULL DEFAULT '',
	columns    TEXT NOT NULL DEFAULT '',
	oldest     INTEGER NOT NULL DEFAULT 0,
	created_at INTEGER NOT NULL, -- Unix nanoseconds
	UNIQUE (owner, name)
) STRICT;
