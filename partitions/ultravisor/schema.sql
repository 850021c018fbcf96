-- The master resource database (U2, U4). Owner and only writer: the ultravisor partition.
--
-- The rules of the machine stand here as constraints and triggers, so that no code path can get round them:
-- a change that breaks one aborts its whole transaction. Each trigger raises the name of its rule, which
-- refusals.py turns into a sentence and the conflicting rows. Placeholders with a dollar sign are filled in by
-- database.py from the shared layout and from the tables of types.py and states.py.
--
-- Ids are slot | generation << 16. Segment ids are the keeper's. Addresses and sizes are bytes, frames are
-- numbers of 4 KiB pages of machine memory.

-- Version of the contents: one step for each committed change.
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL,
    endpoint_generation INTEGER NOT NULL, -- last one given out; unique over all endpoints, hence over all ports
    epoch INTEGER NOT NULL                -- last one reserved; terms of office are unique over all servers
) STRICT;
CREATE TRIGGER head_forward BEFORE UPDATE ON head
WHEN NEW.version < OLD.version OR NEW.endpoint_generation < OLD.endpoint_generation OR NEW.epoch < OLD.epoch
BEGIN SELECT RAISE(ABORT, 'generation_reused'); END;
CREATE TRIGGER head_stays BEFORE DELETE ON head BEGIN SELECT RAISE(ABORT, 'generation_reused'); END;

-- Last generation of each slot. It only ever grows, so no id names two lives.
CREATE TABLE life (
    scope TEXT NOT NULL CHECK (scope IN ('partition', 'device', 'channel')),
    slot INTEGER NOT NULL CHECK (slot BETWEEN 0 AND 65535),
    generation INTEGER NOT NULL CHECK (generation BETWEEN 1 AND 140737488355327),
    PRIMARY KEY (scope, slot)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER life_forward BEFORE UPDATE ON life
WHEN NEW.generation <> OLD.generation + 1 OR NEW.scope <> OLD.scope OR NEW.slot <> OLD.slot
BEGIN SELECT RAISE(ABORT, 'generation_reused'); END;
CREATE TRIGGER life_stays BEFORE DELETE ON life BEGIN SELECT RAISE(ABORT, 'generation_reused'); END;

-- Charged by the triggers below, in the transaction that takes the resource and before any act outside (rule 33).
CREATE TABLE quota (
    resource TEXT PRIMARY KEY,
    used INTEGER NOT NULL DEFAULT 0 CONSTRAINT quota_negative CHECK (used >= 0),
    maximum INTEGER NOT NULL CHECK (maximum >= 0),
    CONSTRAINT quota_exceeded CHECK (used <= maximum)
) STRICT, WITHOUT ROWID;

CREATE TABLE machine (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    first_frame INTEGER NOT NULL CHECK (first_frame > 0), -- so that no valid hpa is 0
    frames INTEGER NOT NULL CHECK (frames > 0 AND first_frame + frames <= $frame_end)
) STRICT;

CREATE TABLE processor (
    number INTEGER PRIMARY KEY CHECK (number BETWEEN 0 AND 4095),
    role TEXT NOT NULL CHECK (role IN ($processor_roles))
) STRICT;

CREATE TABLE partition (
    id INTEGER PRIMARY KEY CHECK (id = (slot | (generation << 16))),
    slot INTEGER NOT NULL UNIQUE CHECK (slot BETWEEN 0 AND $partitions_max - 1),
    generation INTEGER NOT NULL CHECK (generation > 0),
    name TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL CHECK (type IN ($types)),
    state TEXT NOT NULL CHECK (state IN ($states)),
    uid INTEGER CHECK (uid BETWEEN 0 AND 4294967294),
    memory INTEGER NOT NULL CHECK (memory >= 0 AND memory % $page = 0),
    map_pages INTEGER NOT NULL CHECK (map_pages * $page >= memory),
    map_generation INTEGER NOT NULL,
    call_capacity INTEGER NOT NULL,
    services TEXT NOT NULL, -- JSON list of services that it may connect to
    program TEXT NOT NULL   -- JSON: what hostd needs to start it again; kept for it, not looked at
) STRICT;
-- Processes of one uid may read each other's memory, so two guests never share one (rule 27).
CREATE UNIQUE INDEX partition_uid ON partition (uid) WHERE type = 'guest' AND uid IS NOT NULL;
CREATE TABLE move (source TEXT NOT NULL, target TEXT NOT NULL, PRIMARY KEY (source, target)) STRICT, WITHOUT ROWID;
CREATE TRIGGER partition_defined BEFORE INSERT ON partition WHEN NEW.state <> 'defined'
BEGIN SELECT RAISE(ABORT, 'state_move'); END;
CREATE TRIGGER partition_move BEFORE UPDATE OF state ON partition
WHEN NEW.state <> OLD.state AND NOT EXISTS (SELECT 1 FROM move WHERE source = OLD.state AND target = NEW.state)
BEGIN SELECT RAISE(ABORT, 'state_move'); END;
CREATE TRIGGER partition_runs BEFORE UPDATE OF state ON partition
WHEN NEW.state = 'running' AND OLD.state = 'starting' AND NOT EXISTS (SELECT 1 FROM process WHERE partition = NEW.id)
BEGIN SELECT RAISE(ABORT, 'running_without_process'); END;
CREATE TRIGGER partition_ends BEFORE UPDATE OF state ON partition
WHEN NEW.state NOT IN ($with_process) AND EXISTS (SELECT 1 FROM process WHERE partition = NEW.id)
BEGIN SELECT RAISE(ABORT, 'process_remains'); END;
CREATE TRIGGER partition_identity BEFORE UPDATE OF id, slot, generation, name, type, uid ON partition
BEGIN SELECT RAISE(ABORT, 'immutable'); END;
CREATE TRIGGER partition_delete BEFORE DELETE ON partition WHEN OLD.state <> 'removed'
BEGIN SELECT RAISE(ABORT, 'state_move'); END;
CREATE TRIGGER partition_charge AFTER INSERT ON partition
BEGIN UPDATE quota SET used = used + 1 WHERE resource = 'partitions'; END;
CREATE TRIGGER partition_discharge AFTER DELETE ON partition
BEGIN UPDATE quota SET used = used - 1 WHERE resource = 'partitions'; END;

CREATE TABLE partition_processor (
    partition INTEGER NOT NULL REFERENCES partition (id),
    processor INTEGER NOT NULL REFERENCES processor (number),
    PRIMARY KEY (partition, processor)
) STRICT, WITHOUT ROWID;

-- pid and start time name a process for good; a pid alone does not.
CREATE TABLE process (
    partition INTEGER PRIMARY KEY REFERENCES partition (id),
    pid INTEGER NOT NULL CHECK (pid > 0),
    start_time INTEGER NOT NULL CHECK (start_time >= 0), -- clock ticks since boot
    UNIQUE (pid, start_time)
) STRICT;
CREATE TRIGGER process_state BEFORE INSERT ON process
WHEN (SELECT state FROM partition WHERE id = NEW.partition) NOT IN ($with_process)
BEGIN SELECT RAISE(ABORT, 'process_without_state'); END;
CREATE TRIGGER process_identity BEFORE UPDATE ON process BEGIN SELECT RAISE(ABORT, 'immutable'); END;

-- A segment belongs to one partition for all its life and is never handed to another (rule 6). `doomed`: its
-- owner gave it up; what it backs stays taken until the keeper has dropped it.
CREATE TABLE segment (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    partition INTEGER NOT NULL REFERENCES partition (id),
    kind TEXT NOT NULL CHECK (kind IN ('memory', 'view', 'map', 'call', 'events', 'channel', 'ledger')),
    size INTEGER NOT NULL CHECK (size > 0),
    doomed INTEGER NOT NULL DEFAULT 0 CHECK (doomed IN (0, 1))
) STRICT;
CREATE INDEX segment_partition ON segment (partition);
CREATE UNIQUE INDEX segment_single ON segment (partition, kind) WHERE kind IN ('view', 'map', 'call', 'events');
CREATE TRIGGER segment_identity BEFORE UPDATE OF id, partition, kind, size ON segment
BEGIN SELECT RAISE(ABORT, 'immutable'); END;
CREATE TRIGGER segment_delete BEFORE DELETE ON segment WHEN OLD.doomed = 0
BEGIN SELECT RAISE(ABORT, 'segment_in_use'); END;

-- Ownership of machine memory.
CREATE TABLE extent (
    frame INTEGER PRIMARY KEY,
    frames INTEGER NOT NULL CHECK (frames > 0),
    partition INTEGER NOT NULL REFERENCES partition (id),
    gpa INTEGER NOT NULL CHECK (gpa >= 0 AND gpa % $page = 0),
    segment INTEGER NOT NULL UNIQUE REFERENCES segment (id)
) STRICT;
CREATE INDEX extent_partition ON extent (partition, gpa);
CREATE TRIGGER extent_frames BEFORE INSERT ON extent
WHEN EXISTS (SELECT 1 FROM extent WHERE frame < NEW.frame + NEW.frames AND NEW.frame < frame + frames)
BEGIN SELECT RAISE(ABORT, 'frames_overlap'); END;
CREATE TRIGGER extent_gpa BEFORE INSERT ON extent
WHEN EXISTS (SELECT 1 FROM extent WHERE partition = NEW.partition
             AND gpa < NEW.gpa + NEW.frames * $page AND NEW.gpa < gpa + frames * $page)
BEGIN SELECT RAISE(ABORT, 'addresses_overlap'); END;
CREATE TRIGGER extent_machine BEFORE INSERT ON extent
WHEN NOT EXISTS (SELECT 1 FROM machine WHERE first_frame <= NEW.frame
                 AND NEW.frames <= frames AND NEW.frame - first_frame <= frames - NEW.frames)
BEGIN SELECT RAISE(ABORT, 'frames_outside_machine'); END;
CREATE TRIGGER extent_map BEFORE INSERT ON extent
WHEN NOT EXISTS (SELECT 1 FROM partition WHERE id = NEW.partition
                 AND NEW.frames <= map_pages AND NEW.gpa / $page <= map_pages - NEW.frames)
BEGIN SELECT RAISE(ABORT, 'addresses_outside_map'); END;
CREATE TRIGGER extent_segment BEFORE INSERT ON extent
WHEN NOT EXISTS (SELECT 1 FROM segment WHERE id = NEW.segment AND partition = NEW.partition AND kind = 'memory'
                 AND size = NEW.frames * $page)
BEGIN SELECT RAISE(ABORT, 'foreign_segment'); END;
CREATE TRIGGER extent_identity BEFORE UPDATE ON extent BEGIN SELECT RAISE(ABORT, 'immutable'); END;
CREATE TRIGGER extent_delete BEFORE DELETE ON extent
WHEN NOT EXISTS (SELECT 1 FROM segment WHERE id = OLD.segment AND doomed = 1)
BEGIN SELECT RAISE(ABORT, 'segment_in_use'); END;
CREATE TRIGGER extent_charge AFTER INSERT ON extent
BEGIN UPDATE quota SET used = used + NEW.frames WHERE resource = 'frames'; END;
CREATE TRIGGER extent_discharge AFTER DELETE ON extent
BEGIN UPDATE quota SET used = used - OLD.frames WHERE resource = 'frames'; END;
-- What partitions really have: without the extents that wait for the keeper to drop their segments.
CREATE VIEW live_extent AS
SELECT extent.* FROM extent JOIN segment ON segment.id = extent.segment WHERE doomed = 0;
CREATE TRIGGER machine_shrink BEFORE UPDATE ON machine
WHEN EXISTS (SELECT 1 FROM extent WHERE frame < NEW.first_frame
             OR frame + extent.frames > NEW.first_frame + NEW.frames)
BEGIN SELECT RAISE(ABORT, 'frames_outside_machine'); END;
CREATE TRIGGER machine_delete BEFORE DELETE ON machine BEGIN SELECT RAISE(ABORT, 'immutable'); END;

-- Memory that is kept from its own partition: no page of it is translated, for nobody (U5). `given` at its creation, or
-- revoked while it runs (rule 24); `generation`: the partition map's since which no page of it is translated.
CREATE TABLE withheld (
    partition INTEGER NOT NULL REFERENCES partition (id),
    gpa INTEGER NOT NULL CHECK (gpa >= 0 AND gpa % $page = 0),
    size INTEGER NOT NULL CHECK (size > 0 AND size % $page = 0),
    state TEXT NOT NULL DEFAULT 'given' CHECK (state IN ('given', 'revoking', 'quarantine', 'freed')),
    generation INTEGER NOT NULL DEFAULT 0 CHECK (generation >= 0),
    PRIMARY KEY (partition, gpa)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER withheld_inside BEFORE INSERT ON withheld
WHEN NOT EXISTS (SELECT 1 FROM partition WHERE id = NEW.partition AND NEW.size <= map_pages * $page
                 AND NEW.gpa <= map_pages * $page - NEW.size)
BEGIN SELECT RAISE(ABORT, 'addresses_outside_map'); END;
CREATE TRIGGER withheld_overlap BEFORE INSERT ON withheld
WHEN EXISTS (SELECT 1 FROM withheld WHERE partition = NEW.partition
             AND gpa < NEW.gpa + NEW.size AND NEW.gpa < gpa + size)
BEGIN SELECT RAISE(ABORT, 'withheld_overlap'); END;
CREATE TRIGGER withheld_identity BEFORE UPDATE OF partition, gpa, size, generation ON withheld
BEGIN SELECT RAISE(ABORT, 'immutable'); END;
CREATE TRIGGER withheld_begins BEFORE INSERT ON withheld WHEN NEW.state NOT IN ('given', 'revoking')
BEGIN SELECT RAISE(ABORT, 'revocation_move'); END;
CREATE TRIGGER withheld_move BEFORE UPDATE OF state ON withheld
WHEN NOT (OLD.state = NEW.state OR OLD.state = 'revoking' AND NEW.state IN ('quarantine', 'freed')
          OR OLD.state = 'quarantine' AND NEW.state = 'freed')
BEGIN SELECT RAISE(ABORT, 'revocation_move'); END;
-- Only what nobody can reach any more is granted again.
CREATE TRIGGER withheld_stays BEFORE DELETE ON withheld
WHEN (SELECT state FROM partition WHERE id = OLD.partition) <> 'removed' AND OLD.state <> 'freed'
BEGIN SELECT RAISE(ABORT, 'revocation_move'); END;

CREATE TABLE bus (
    number INTEGER PRIMARY KEY CHECK (number BETWEEN 0 AND $buses_max - 1),
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TRIGGER bus_identity BEFORE UPDATE ON bus BEGIN SELECT RAISE(ABORT, 'immutable'); END;

CREATE TABLE device (
    id INTEGER PRIMARY KEY CHECK (id = (slot | (generation << 16))),
    slot INTEGER NOT NULL UNIQUE CHECK (slot BETWEEN 0 AND $devices_max - 1),
    generation INTEGER NOT NULL CHECK (generation > 0),
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('nic', 'disk')),
    class TEXT NOT NULL CHECK (class IN ($device_classes)),
    ports INTEGER NOT NULL CHECK (ports BETWEEN 1 AND $ports_max), -- endpoints that it can hold
    partition INTEGER NOT NULL REFERENCES partition (id), -- its process
    bus INTEGER REFERENCES bus (number) -- on which it lies; none where the manifest names no buses
) STRICT;
CREATE TRIGGER device_type BEFORE INSERT ON device
WHEN (SELECT type FROM partition WHERE id = NEW.partition) <> 'device'
BEGIN SELECT RAISE(ABORT, 'partition_type'); END;
CREATE TRIGGER device_identity BEFORE UPDATE ON device BEGIN SELECT RAISE(ABORT, 'immutable'); END;

-- What one guest has to itself: a device, or a bus with whatever lies on it (H4).
CREATE TABLE assignment (
    partition INTEGER NOT NULL REFERENCES partition (id),
    device INTEGER UNIQUE REFERENCES device (id),
    bus INTEGER UNIQUE REFERENCES bus (number),
    CONSTRAINT assignment_shape CHECK ((device IS NULL) <> (bus IS NULL))
) STRICT;
CREATE INDEX assignment_partition ON assignment (partition);
-- Devices with the partition that has each to itself.
CREATE VIEW device_owner AS
SELECT device.id AS device, assignment.partition AS partition
FROM device JOIN assignment ON assignment.device = device.id OR assignment.bus = device.bus;
CREATE TRIGGER assignment_type BEFORE INSERT ON assignment
WHEN (SELECT type FROM partition WHERE id = NEW.partition) <> 'guest'
BEGIN SELECT RAISE(ABORT, 'assignment_type'); END;
CREATE TRIGGER assignment_owned BEFORE INSERT ON assignment
WHEN EXISTS (SELECT 1 FROM device_owner JOIN device ON device.id = device_owner.device
             WHERE (device.id = NEW.device OR device.bus = NEW.bus) AND device_owner.partition <> NEW.partition)
BEGIN SELECT RAISE(ABORT, 'device_owned'); END;
CREATE TRIGGER assignment_used BEFORE INSERT ON assignment
WHEN EXISTS (SELECT 1 FROM endpoint JOIN device ON device.id = endpoint.device
             WHERE (device.id = NEW.device OR device.bus = NEW.bus) AND endpoint.partition <> NEW.partition)
BEGIN SELECT RAISE(ABORT, 'device_used'); END;
CREATE TRIGGER assignment_identity BEFORE UPDATE ON assignment BEGIN SELECT RAISE(ABORT, 'immutable'); END;

-- A device as one partition sees it.
CREATE TABLE endpoint (
    generation INTEGER PRIMARY KEY CHECK (generation > 0),
    partition INTEGER NOT NULL REFERENCES partition (id),
    number INTEGER NOT NULL CHECK (number BETWEEN 0 AND $endpoints_max - 1),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 15),
    kind TEXT NOT NULL,
    device INTEGER NOT NULL REFERENCES device (id),
    port INTEGER NOT NULL CHECK (port >= 0),
    server INTEGER REFERENCES partition (id),           -- I/O partition in charge; none: the console's own device
    standby INTEGER REFERENCES partition (id),          -- the one that takes over
    read_only INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    operations INTEGER NOT NULL CHECK (operations > 0), -- bit per operation of the shared layout
    max_transfer INTEGER NOT NULL CHECK (max_transfer > 0),
    file TEXT,
    offset INTEGER NOT NULL CHECK (offset >= 0 AND offset % $sector = 0),
    length INTEGER NOT NULL CHECK (length >= 0 AND length % $sector = 0),
    path TEXT NOT NULL CHECK (path IN ($paths)),       -- in force
    wanted TEXT NOT NULL CHECK (wanted IN ($paths)),   -- what the last transaction wants; differs while it changes
    weight INTEGER NOT NULL CHECK (weight BETWEEN 1 AND $weight_max), -- share of the device beside the others
    limits TEXT NOT NULL CHECK (json_valid(limits)),   -- JSON: token buckets, as hostd hands them to the device
    budget INTEGER NOT NULL CHECK (budget > 0),        -- bytes of buffers that others may hold for it
    mac TEXT CHECK (mac GLOB '[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]:[0-9a-f][0-9a-f]'),
    UNIQUE (partition, number),
    UNIQUE (partition, name),
    UNIQUE (device, port),
    CONSTRAINT endpoint_shape CHECK (
        (kind = 'disk' AND file IS NOT NULL AND length > 0 AND mac IS NULL)
        OR (kind = 'nic' AND file IS NULL AND offset = 0 AND length = 0 AND mac IS NOT NULL AND read_only = 0)),
    CONSTRAINT endpoint_read_only CHECK (read_only = 0 OR operations & $write_mask = 0),
    CONSTRAINT endpoint_standby CHECK (standby <> server)
) STRICT;
CREATE UNIQUE INDEX endpoint_mac ON endpoint (device, mac) WHERE mac IS NOT NULL;
CREATE TRIGGER endpoint_device BEFORE INSERT ON endpoint
WHEN NOT EXISTS (SELECT 1 FROM device WHERE id = NEW.device AND kind = NEW.kind AND NEW.port < ports)
BEGIN SELECT RAISE(ABORT, 'device_mismatch'); END;
CREATE TRIGGER endpoint_class BEFORE INSERT ON endpoint
WHEN NOT EXISTS (SELECT 1 FROM device WHERE id = NEW.device AND (class = 'shared'
                 OR (class = 'host-managed') = ((SELECT type FROM partition WHERE id = NEW.partition) = 'console')))
BEGIN SELECT RAISE(ABORT, 'device_class'); END;
CREATE TRIGGER endpoint_owned BEFORE INSERT ON endpoint
WHEN EXISTS (SELECT 1 FROM device_owner WHERE device = NEW.device AND partition <> NEW.partition)
BEGIN SELECT RAISE(ABORT, 'device_owned'); END;
-- Only the console drives a device by itself, and only one that is host-managed.
CREATE TRIGGER endpoint_alone BEFORE INSERT ON endpoint
WHEN NEW.server IS NULL AND ((SELECT type FROM partition WHERE id = NEW.partition) <> 'console' OR NEW.standby IS NOT NULL
     OR NOT EXISTS (SELECT 1 FROM device WHERE id = NEW.device AND class = 'host-managed'))
BEGIN SELECT RAISE(ABORT, 'endpoint_alone'); END;
CREATE TRIGGER endpoint_server BEFORE INSERT ON endpoint
WHEN EXISTS (SELECT 1 FROM partition WHERE id IN (NEW.server, NEW.standby) AND type <> 'io')
BEGIN SELECT RAISE(ABORT, 'partition_type'); END;
-- Two partitions may look at one file, but only one of them may write where the other looks.
CREATE TRIGGER endpoint_writers BEFORE INSERT ON endpoint
WHEN NEW.read_only = 0 AND EXISTS (
    SELECT 1 FROM endpoint WHERE device = NEW.device AND file = NEW.file AND read_only = 0
    AND offset < NEW.offset + NEW.length AND NEW.offset < offset + length)
BEGIN SELECT RAISE(ABORT, 'two_writers'); END;
CREATE TRIGGER endpoint_identity BEFORE UPDATE OF generation, partition, number, name, kind, device, port, server,
    standby, read_only, operations, max_transfer, file, offset, mac, weight, limits, budget ON endpoint
BEGIN SELECT RAISE(ABORT, 'immutable'); END;
-- Who has a disk may find more of it, and never less.
CREATE TRIGGER endpoint_grows BEFORE UPDATE OF length ON endpoint
WHEN NEW.kind <> 'disk' OR NEW.length < OLD.length
BEGIN SELECT RAISE(ABORT, 'disk_shrinks'); END;
CREATE TRIGGER endpoint_reaches BEFORE UPDATE OF length ON endpoint
WHEN NEW.read_only = 0 AND EXISTS (
    SELECT 1 FROM endpoint WHERE device = NEW.device AND file = NEW.file AND read_only = 0
    AND offset < NEW.offset + NEW.length AND NEW.offset < offset + length AND generation <> NEW.generation)
BEGIN SELECT RAISE(ABORT, 'two_writers'); END;
-- An endpoint begins on the path that needs nobody's set-up, and goes over only to one that a transaction wants.
-- One without a server has nothing but its queue pair.
CREATE TRIGGER endpoint_begins BEFORE INSERT ON endpoint
WHEN NEW.path <> iif(NEW.server IS NULL, '$path_alone', '$path_first') OR NEW.server IS NULL AND NEW.wanted <> NEW.path
BEGIN SELECT RAISE(ABORT, 'path_unwanted'); END;
CREATE TRIGGER endpoint_path BEFORE UPDATE OF path, wanted ON endpoint
WHEN NEW.path <> OLD.path AND NEW.path <> OLD.wanted OR OLD.server IS NULL AND NEW.wanted <> OLD.path
BEGIN SELECT RAISE(ABORT, 'path_unwanted'); END;
CREATE TRIGGER endpoint_charge AFTER INSERT ON endpoint
BEGIN UPDATE quota SET used = used + 1 WHERE resource = 'endpoints'; END;
CREATE TRIGGER endpoint_discharge AFTER DELETE ON endpoint
BEGIN UPDATE quota SET used = used - 1 WHERE resource = 'endpoints'; END;

-- Memory channels (U4): the queues of endpoints to their server, the queue pairs of endpoints to their device, which
-- carry the direct path, and control channels between partitions.
CREATE TABLE channel (
    id INTEGER PRIMARY KEY CHECK (id = (slot | (generation << 16))),
    slot INTEGER NOT NULL UNIQUE CHECK (slot BETWEEN 0 AND $channels_max - 1),
    generation INTEGER NOT NULL CHECK (generation > 0),
    kind TEXT NOT NULL CHECK (kind IN ('queue', 'pair', 'control')),
    client INTEGER NOT NULL REFERENCES partition (id),
    server INTEGER NOT NULL REFERENCES partition (id),
    capacity INTEGER NOT NULL
        CHECK (capacity BETWEEN 2 AND $ring_slots_max AND capacity & (capacity - 1) = 0),
    segment INTEGER NOT NULL UNIQUE REFERENCES segment (id),
    ledger INTEGER UNIQUE REFERENCES segment (id),     -- queues only
    endpoint INTEGER REFERENCES endpoint (generation), -- queues and pairs
    queue INTEGER,                                     -- queues only: its number within the endpoint
    service TEXT,                                      -- control channels only
    UNIQUE (endpoint, queue),
    CONSTRAINT channel_ends CHECK (client <> server),
    CONSTRAINT channel_shape CHECK (
        (kind = 'queue' AND ledger IS NOT NULL AND endpoint IS NOT NULL AND queue BETWEEN 0 AND 1 AND service IS NULL)
        OR (kind = 'pair' AND ledger IS NULL AND endpoint IS NOT NULL AND queue IS NULL AND service IS NULL)
        OR (kind = 'control' AND ledger IS NULL AND endpoint IS NULL AND queue IS NULL AND service IS NOT NULL))
) STRICT;
CREATE UNIQUE INDEX channel_control ON channel (client, server, service) WHERE kind = 'control';
CREATE UNIQUE INDEX channel_pair ON channel (endpoint) WHERE kind = 'pair';
CREATE INDEX channel_server ON channel (server);
CREATE TRIGGER channel_segment BEFORE INSERT ON channel
WHEN NOT EXISTS (SELECT 1 FROM segment WHERE id = NEW.segment AND partition = NEW.client AND kind = 'channel')
  OR NEW.ledger IS NOT NULL AND NOT EXISTS (
     SELECT 1 FROM segment WHERE id = NEW.ledger AND partition = NEW.client AND kind = 'ledger')
BEGIN SELECT RAISE(ABORT, 'foreign_segment'); END;
-- Over a pair nobody stands between the two: it must end at the endpoint's own partition and its own device.
CREATE TRIGGER channel_pair_ends BEFORE INSERT ON channel
WHEN NEW.kind = 'pair' AND NOT EXISTS (
    SELECT 1 FROM endpoint JOIN device ON device.id = endpoint.device
    WHERE endpoint.generation = NEW.endpoint AND endpoint.partition = NEW.client AND device.partition = NEW.server)
BEGIN SELECT RAISE(ABORT, 'pair_ends'); END;
CREATE TRIGGER channel_identity BEFORE UPDATE ON channel BEGIN SELECT RAISE(ABORT, 'immutable'); END;
CREATE TRIGGER channel_charge AFTER INSERT ON channel
BEGIN UPDATE quota SET used = used + 1 WHERE resource = 'channels'; END;
CREATE TRIGGER channel_discharge AFTER DELETE ON channel
BEGIN UPDATE quota SET used = used - 1 WHERE resource = 'channels'; END;

-- Range of terms of office that an I/O partition may use up without asking again.
CREATE TABLE epoch (
    server INTEGER PRIMARY KEY REFERENCES partition (id),
    first INTEGER NOT NULL CHECK (first > 0),
    last INTEGER NOT NULL CHECK (last >= first)
) STRICT;

-- Changes that are about to make segments at the keeper: what stands here after a crash never happened.
CREATE TABLE intent (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    actor TEXT NOT NULL,
    operations TEXT NOT NULL
) STRICT;

-- Answers of committed transactions by idempotency key (rule 34).
CREATE TABLE answer (
    key TEXT PRIMARY KEY,
    digest TEXT NOT NULL, -- of the operations: one key must not stand for two changes
    version INTEGER NOT NULL,
    results TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX answer_version ON answer (version);
CREATE TRIGGER answer_kept BEFORE UPDATE ON answer BEGIN SELECT RAISE(ABORT, 'append_only'); END;

CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL, -- seconds, Unix
    version INTEGER NOT NULL,
    actor TEXT NOT NULL,
    key TEXT,
    outcome TEXT NOT NULL CHECK (outcome IN ('committed', 'refused', 'rolled back')),
    operations TEXT NOT NULL, -- JSON, cut to $audit_text_max characters
    detail TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_kept BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'append_only'); END;
CREATE TRIGGER audit_recent BEFORE DELETE ON audit
WHEN OLD.sequence > (SELECT max(sequence) FROM audit) - $audit_rows_max
BEGIN SELECT RAISE(ABORT, 'append_only'); END;
