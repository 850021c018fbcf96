-- Policies by zone. Owner and only writer: the operations partition. A policy is never changed: each change is a
-- new version, so a decision of the past can still be read beside the policy it followed.

CREATE TABLE policy (
    zone TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    body TEXT NOT NULL,  -- JSON
    key TEXT,            -- idempotency key of the request that set it
    actor TEXT NOT NULL,
    time REAL NOT NULL,  -- seconds, Unix
    PRIMARY KEY (zone, version)
) STRICT;
CREATE UNIQUE INDEX policy_key ON policy (key) WHERE key IS NOT NULL;
CREATE TRIGGER policy_kept BEFORE UPDATE ON policy BEGIN SELECT RAISE(ABORT, 'append_only'); END;
CREATE TRIGGER policy_recent BEFORE DELETE ON policy
WHEN OLD.version > (SELECT max(version) FROM policy WHERE zone = OLD.zone) - $versions_max
BEGIN SELECT RAISE(ABORT, 'append_only'); END;
CREATE TRIGGER policy_forward BEFORE INSERT ON policy
WHEN NEW.version <> coalesce((SELECT max(version) FROM policy WHERE zone = NEW.zone), 0) + 1
BEGIN SELECT RAISE(ABORT, 'version_skipped'); END;
