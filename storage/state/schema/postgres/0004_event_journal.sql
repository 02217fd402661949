-- An agent numbers its events within its journal; another journal begins anew.
ALTER TABLE command_events ADD COLUMN journal TEXT COLLATE "C" NOT NULL DEFAULT '';
DROP INDEX command_events_agent;
CREATE UNIQUE INDEX command_events_agent ON command_events (command_id, journal, agent_seq) WHERE agent_seq > 0;
