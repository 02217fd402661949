-- Saved searches of the message store. An owner is a user's id, empty for what
-- was saved before people signed in: that is everybody's.
CREATE TABLE searches (
	id         TEXT COLLATE "C" PRIMARY KEY,
	owner      TEXT COLLATE "C" NOT NULL,
	shared     BIGINT NOT NULL DEFAULT 0,
	name       TEXT COLLATE "C" NOT NULL,
	query      TEXT COLLATE "C" NOT NULL,
	env        TEXT COLLATE "C" NOT NULL DEFAULT '',
	any_env    BIGINT NOT NULL DEFAULT 0,
	range      TEXT COLLATE "C" NOT NULL DEFAULT '',
	columns    TEXT COLLATE "C" NOT NULL DEFAULT '',
	oldest     BIGINT NOT NULL DEFAULT 0,
	created_at BIGINT NOT NULL, -- Unix nanoseconds
	UNIQUE (owner, name)
);
