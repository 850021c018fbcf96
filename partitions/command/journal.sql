-- Decisions and what became of them. Owner and only writer: the command partition. Rows are never changed; the
-- oldest go beyond a retention, because every request of a caller adds one.

CREATE TABLE decision (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,       -- idempotency key of the request; a request that had to be decided anew has several
    time REAL NOT NULL,      -- seconds, Unix
    actor TEXT NOT NULL,
    partition TEXT NOT NULL, -- its name in the request
    code INTEGER NOT NULL,   -- version of the deciding function
    inputs TEXT NOT NULL,    -- JSON: request, resources, policy
    answer TEXT NOT NULL     -- JSON of the decision, byte for byte
) STRICT;
CREATE INDEX decision_key ON decision (key);
CREATE INDEX decision_partition ON decision (partition);
CREATE TRIGGER decision_kept BEFORE UPDATE ON decision BEGIN SELECT RAISE(ABORT, 'append_only'); END;
CREATE TRIGGER decision_recent BEFORE DELETE ON decision
WHEN OLD.id > (SELECT max(id) FROM decision) - $decisions_max
BEGIN SELECT RAISE(ABORT, 'append_only'); END;

CREATE TABLE outcome (
    decision INTEGER PRIMARY KEY REFERENCES decision (id) ON DELETE CASCADE,
    outcome TEXT NOT NULL CHECK (outcome IN ('committed', 'refused', 'superseded')),
    detail TEXT NOT NULL -- JSON: the plan of a committed one, the error of a refused one
) STRICT;
CREATE TRIGGER outcome_kept BEFORE UPDATE ON outcome BEGIN SELECT RAISE(ABORT, 'append_only'); END;
