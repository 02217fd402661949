-- When each probe was last begun on its schedule, by whichever console.
CREATE TABLE probe_turns (
	probe TEXT COLLATE "C" PRIMARY KEY,
	at    BIGINT NOT NULL -- Unix milliseconds
);
