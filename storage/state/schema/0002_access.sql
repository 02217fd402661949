-- Times are Unix nanoseconds of the console's clock, 0 = never. Hashes are
-- SHA-256 of secrets with 256 random bits; the secrets themselves are nowhere.
CREATE TABLE users (
	id         TEXT PRIMARY KEY,
	name       TEXT NOT NULL,
	name_key   TEXT NOT NULL UNIQUE,       -- name in lower case
	password   TEXT NOT NULL DEFAULT '',   -- argon2id, PHC form
	issuer     TEXT NOT NULL DEFAULT '',   -- OIDC; empty for local users
	subject    TEXT NOT NULL DEFAULT '',
	grants     TEXT NOT NULL DEFAULT '[]', -- []access.Grant as JSON
	disabled   INTEGER NOT NULL DEFAULT 0,
	created_at INTEGER NOT NULL,
	last_login INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX users_subject ON users (issuer, subject) WHERE issuer <> '';

CREATE TABLE user_links (
	hash       BLOB PRIMARY KEY,
	user_id    TEXT NOT NULL UNIQUE, -- empty: the first user is made with it
	expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
	hash       BLOB PRIMARY KEY,
	id         TEXT NOT NULL UNIQUE,
	user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	created_at INTEGER NOT NULL,
	seen_at    INTEGER NOT NULL,
	expires_at INTEGER NOT NULL,
	address    TEXT NOT NULL,
	user_agent TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expiry ON sessions (expires_at);

CREATE TABLE tokens (
	id         TEXT PRIMARY KEY,
	hash       BLOB NOT NULL UNIQUE,
	kind       TEXT NOT NULL, -- api, enrol, agent
	name       TEXT NOT NULL,
	owner_id   TEXT NOT NULL DEFAULT '',
	agent_id   TEXT NOT NULL DEFAULT '',
	hint       TEXT NOT NULL,
	grants     TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL DEFAULT 0,
	last_used  INTEGER NOT NULL DEFAULT 0,
	revoked_at INTEGER NOT NULL DEFAULT 0,
	uses_left  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX tokens_owner ON tokens (kind, owner_id);
-- One credential in force for each agent.
CREATE UNIQUE INDEX tokens_agent ON tokens (agent_id) WHERE kind = 'agent' AND revoked_at = 0;

CREATE TABLE audit (
	seq        INTEGER PRIMARY KEY AUTOINCREMENT,
	at         INTEGER NOT NULL,
	actor_kind TEXT NOT NULL,
	actor_id   TEXT NOT NULL,
	actor_name TEXT NOT NULL,
	code       TEXT NOT NULL,
	target     TEXT NOT NULL,
	env        TEXT NOT NULL,
	channel    TEXT NOT NULL,
	refused    INTEGER NOT NULL,
	detail     TEXT NOT NULL,
	address    TEXT NOT NULL
) STRICT;
CREATE INDEX audit_code ON audit (code, seq);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is only appended to'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is only appended to'); END;
