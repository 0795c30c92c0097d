"""The tables of the station's database, as scripts that change one version into the next."""

from __future__ import annotations

# Each script runs once, in one transaction; `user_version` counts them. Never change one that was released.
MIGRATIONS = (
    """
    CREATE TABLE part (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        part_id TEXT NOT NULL,
        camera TEXT NOT NULL,
        session_id TEXT NOT NULL,
        ts_ms INTEGER NOT NULL,             -- UTC of the exposure
        captured_mono_ns INTEGER NOT NULL,  -- monotonic clock, comparable within a session only
        decided_mono_ns INTEGER NOT NULL,
        decided_ns INTEGER NOT NULL,        -- UTC
        verdict TEXT NOT NULL CHECK (verdict IN ('OK', 'REVIEW', 'NG', 'MISSED', 'NO_DECISION')),
        reason TEXT NOT NULL,
        score REAL, score_coarse REAL, score_mid REAL, score_fine REAL,
        t1 REAL, t2 REAL, threshold_rev INTEGER,
        bundle_sha256 TEXT,
        infer_ms REAL,
        latency_ms REAL NOT NULL,           -- from the exposure to the verdict
        released INTEGER NOT NULL DEFAULT 0,
        -- The fail-safe rule once more, where no program can pass it by.
        CHECK (released = 0 OR verdict = 'OK'),
        CHECK (verdict <> 'OK' OR (score IS NOT NULL AND t1 IS NOT NULL AND score < t1
               AND threshold_rev IS NOT NULL AND bundle_sha256 IS NOT NULL))
    );
    CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        part_seq INTEGER NOT NULL REFERENCES part (seq),
        created_ms INTEGER NOT NULL,
        topic TEXT NOT NULL,
        body TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        acked_ms INTEGER
    );
    CREATE INDEX outbox_waiting ON outbox (seq) WHERE acked_ms IS NULL;
    CREATE INDEX outbox_acked ON outbox (seq) WHERE acked_ms IS NOT NULL;
    CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO counter VALUES ('outbox_bytes', 0), ('outbox_dropped', 0);
    CREATE TRIGGER outbox_grows AFTER INSERT ON outbox BEGIN
        UPDATE counter SET value = value + new.bytes WHERE name = 'outbox_bytes';
    END;
    CREATE TRIGGER outbox_shrinks AFTER DELETE ON outbox BEGIN
        UPDATE counter SET value = value - old.bytes WHERE name = 'outbox_bytes';
    END;
    """,
    """
    ALTER TABLE part ADD COLUMN trigger_id INTEGER;  -- as the line counts; NULL where nobody counts
    ALTER TABLE part ADD COLUMN frame_id INTEGER;    -- as the camera counts; NULL without a frame
    ALTER TABLE part ADD COLUMN cause TEXT NOT NULL DEFAULT '';
    ALTER TABLE part ADD COLUMN level TEXT NOT NULL DEFAULT '';
    ALTER TABLE part ADD COLUMN roi_x_px INTEGER;    -- the strangest region, in frame pixels
    ALTER TABLE part ADD COLUMN roi_y_px INTEGER;
    ALTER TABLE part ADD COLUMN roi_w_px INTEGER;
    ALTER TABLE part ADD COLUMN roi_h_px INTEGER;
    ALTER TABLE part ADD COLUMN area_px INTEGER;
    ALTER TABLE part ADD COLUMN image_ref TEXT NOT NULL DEFAULT '';  -- below images/
    ALTER TABLE part ADD COLUMN image_sha256 TEXT NOT NULL DEFAULT '';
    CREATE INDEX part_trigger ON part (seq) WHERE trigger_id IS NOT NULL;
    CREATE TRIGGER ok_needs_a_frame BEFORE INSERT ON part WHEN new.verdict = 'OK' AND new.frame_id IS NULL BEGIN
        SELECT RAISE(ABORT, 'an OK without a frame');
    END;
    """,
    """
    -- Events that are about no part, and which of them go first when the room is used up.
    DROP TRIGGER outbox_grows;
    DROP TRIGGER outbox_shrinks;
    DROP INDEX outbox_waiting;
    DROP INDEX outbox_acked;
    ALTER TABLE outbox RENAME TO outbox_before;
    CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        part_seq INTEGER REFERENCES part (seq),  -- NULL where it is about no part
        created_ms INTEGER NOT NULL,
        prio INTEGER NOT NULL,                   -- the lowest goes first
        topic TEXT NOT NULL,
        body TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        acked_ms INTEGER
    );
    INSERT INTO outbox SELECT seq, part_seq, created_ms, 1, topic, body, bytes, acked_ms FROM outbox_before;
    DELETE FROM sqlite_sequence WHERE name = 'outbox';
    UPDATE sqlite_sequence SET name = 'outbox' WHERE name = 'outbox_before';
    DROP TABLE outbox_before;
    CREATE INDEX outbox_waiting ON outbox (seq) WHERE acked_ms IS NULL;
    CREATE INDEX outbox_spare ON outbox (prio, seq) WHERE acked_ms IS NULL;
    CREATE INDEX outbox_acked ON outbox (acked_ms) WHERE acked_ms IS NOT NULL;
    CREATE INDEX outbox_part ON outbox (part_seq) WHERE part_seq IS NOT NULL;
    INSERT INTO counter
        SELECT 'outbox_waiting_bytes', coalesce(sum(bytes), 0) FROM outbox WHERE acked_ms IS NULL;
    CREATE TRIGGER outbox_grows AFTER INSERT ON outbox BEGIN
        UPDATE counter SET value = value + new.bytes WHERE name IN ('outbox_bytes', 'outbox_waiting_bytes');
    END;
    CREATE TRIGGER outbox_shrinks AFTER DELETE ON outbox BEGIN
        UPDATE counter SET value = value - old.bytes
        WHERE name = 'outbox_bytes' OR name = 'outbox_waiting_bytes' AND old.acked_ms IS NULL;
    END;
    CREATE TRIGGER outbox_settles AFTER UPDATE OF acked_ms ON outbox BEGIN
        UPDATE counter SET value = value + new.bytes * ((new.acked_ms IS NULL) - (old.acked_ms IS NULL))
        WHERE name = 'outbox_waiting_bytes';
    END;
    -- Events that were thrown away unsent, until an audit event has said so.
    CREATE TABLE gap (
        topic TEXT PRIMARY KEY,
        first_seq INTEGER NOT NULL,
        last_seq INTEGER NOT NULL,
        count INTEGER NOT NULL
    ) WITHOUT ROWID;
    -- The latest value of each retained topic; ver goes up with each change of any of them.
    CREATE TABLE state (topic TEXT PRIMARY KEY, body TEXT NOT NULL, ver INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE alarm (key TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE cmd_seen (cmd_id TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) WITHOUT ROWID;
    """,
    """
    -- From here on bodies in the outbox leave out what their schema says by default. The tables stay the same,
    -- but an older kenpin, which would publish such bodies as they are, must not open the file.
    """,
    """
    ALTER TABLE part ADD COLUMN light REAL;  -- of the first camera's frame, as in kenpin.quality
    ALTER TABLE part ADD COLUMN focus REAL;
    -- Few parts have a picture: to note that one is on disk, and to show them, must not read all parts.
    CREATE INDEX part_image ON part (image_ref) WHERE image_ref <> '';
    CREATE INDEX part_picture ON part (seq) WHERE image_ref <> '';
    """,
    """
    -- Versions that outgrew an integer are all alike to "later than": in their order they count from 1 again.
    INSERT OR REPLACE INTO state SELECT topic, body, row_number() OVER (ORDER BY ver, topic) FROM state
        WHERE EXISTS (SELECT 1 FROM state WHERE typeof(ver) = 'real');
    """,
    """
    -- Fresh parts are counted from the first that a calibration record has judged.
    CREATE INDEX part_judged ON part (threshold_rev) WHERE threshold_rev IS NOT NULL;
    """,
)
