-- When each probe was last begun on its schedule, by whichever console.
CREATE TABLE probe_turns (
	probe TEXT PRIMARY KEY,
	at    INTEGER NOT NULL -- Unix milliseconds
) STRICT;
