"""Ways to read a log that look right, and lose or repeat signals under concurrency. `test_take.py` shows how."""

# A log with what the variants share: the lane's lock, a cursor without the key that would catch some of their mistakes.
VARIANTS = r"""
CREATE SCHEMA naive;
CREATE TABLE naive.cursor (seq bigint GENERATED ALWAYS AS IDENTITY, s1 pg_snapshot, last_id bigint DEFAULT 0);
INSERT INTO naive.cursor (s1) VALUES (pg_current_snapshot());
CREATE FUNCTION naive.lock() RETURNS boolean LANGUAGE sql AS $$
    SELECT pg_try_advisory_xact_lock(1885827945, (hashtextextended('default', 0) & 3)::integer) $$;
CREATE FUNCTION naive.new(s1 pg_snapshot) RETURNS SETOF pgsig.signals LANGUAGE sql AS $$
    SELECT * FROM pgsig.signals s WHERE s.xid >= pg_snapshot_xmax(s1) OR s.xid IN (SELECT pg_snapshot_xip(s1)) ORDER BY s.id $$;

-- The end of the window is read first, the rows in the next statement, and nothing keeps out what committed in between.
CREATE FUNCTION naive.no_filter() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE v_end pg_snapshot; v_s1 pg_snapshot;
BEGIN
    IF NOT naive.lock() THEN RETURN; END IF;
    v_end := pg_current_snapshot();
    SELECT c.s1 INTO v_s1 FROM naive.cursor c ORDER BY seq DESC LIMIT 1;
    RETURN QUERY SELECT n.key FROM naive.new(v_s1) n;
    INSERT INTO naive.cursor (s1) VALUES (v_end);
END $$;

-- The rows first, then the snapshot up to which they are said to go.
CREATE FUNCTION naive.snapshot_late() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE v_s1 pg_snapshot;
BEGIN
    IF NOT naive.lock() THEN RETURN; END IF;
    SELECT c.s1 INTO v_s1 FROM naive.cursor c ORDER BY seq DESC LIMIT 1;
    RETURN QUERY SELECT n.key FROM naive.new(v_s1) n;
    LOCK TABLE naive.cursor IN ROW EXCLUSIVE MODE;
    INSERT INTO naive.cursor (s1) VALUES (pg_current_snapshot());
END $$;

-- Right in READ COMMITTED, when it is the first thing in its transaction. Elsewhere it is not.
CREATE FUNCTION naive.anywhere() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE v_end pg_snapshot; v_s1 pg_snapshot;
BEGIN
    IF NOT naive.lock() THEN RETURN; END IF;
    v_end := pg_current_snapshot();
    SELECT c.s1 INTO v_s1 FROM naive.cursor c ORDER BY seq DESC LIMIT 1;
    RETURN QUERY SELECT n.key FROM naive.new(v_s1) n WHERE pg_visible_in_snapshot(n.xid, v_end);
    INSERT INTO naive.cursor (s1) VALUES (v_end);
END $$;

-- The cursor of every first draft: positions come in order, do they not?
CREATE FUNCTION naive.last_id() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE v_last bigint;
BEGIN
    IF NOT naive.lock() THEN RETURN; END IF;
    SELECT c.last_id INTO v_last FROM naive.cursor c ORDER BY seq DESC LIMIT 1;
    RETURN QUERY SELECT s.key FROM pgsig.signals s WHERE s.id > v_last ORDER BY s.id;
    INSERT INTO naive.cursor (last_id) SELECT coalesce(max(id), 0) FROM pgsig.signals;
END $$;
"""
