-- ORIGIN: which cluster's transaction ids the log speaks of, and going on in another one.
--
-- A physical copy keeps transaction ids: a replica that is promoted, a base backup, pg_upgrade. A dump does not. Restored into another
-- cluster, the log's ids and the snapshots of cursors and rules are numbers of a cluster that is not there: what was evaluated would be
-- evaluated again, and what was not would be passed over. So nothing works on such a database (PS024) until somebody says that it shall
-- go on here (`pgsig migrate --restored`). From then on this cluster's ids are shifted behind everything that the old one can have used:
-- every snapshot, wherever it is kept, also in the checkpoint of a job or the hands of a client, goes on to mean what it meant.

-- Where the log is now: what snapshots in pgsig are made of. STABLE: it is the snapshot of the statement that asks.
CREATE OR REPLACE FUNCTION pgsig_private.here() RETURNS pg_snapshot
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_here  pg_snapshot := pg_current_snapshot();
    v_shift bigint := (SELECT o.shift FROM pgsig_private.origin o);
BEGIN
    IF v_shift = 0 THEN
        RETURN v_here;
    END IF;
    RETURN (pg_snapshot_xmin(v_here)::text::bigint + v_shift || ':' || pg_snapshot_xmax(v_here)::text::bigint + v_shift || ':'
            || coalesce((SELECT string_agg((x::text::bigint + v_shift)::text, ',' ORDER BY x) FROM pg_snapshot_xip(v_here) x), ''))::pg_snapshot;
END $$;

-- The number under which this transaction writes into the log.
CREATE OR REPLACE FUNCTION pgsig_private.own_xid() RETURNS xid8
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (pg_current_xact_id()::text::bigint + o.shift)::text::xid8 FROM pgsig_private.origin o
$$;

-- A row's header holds 32 bits of the transaction that wrote it. The whole number, for one of the last two thousand million transactions.
CREATE OR REPLACE FUNCTION pgsig_private.whole(p_xid xid) RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT n - (n - p_xid::text::bigint) % 4294967296 FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint) c(n)
$$;

-- NULL where all is well, else what speaks against it. The row is the original one if the transaction that it names is the one in its header,
-- and it names the log by an oid that only a physical copy keeps. A cursor ahead of the cluster is a second sign.
CREATE OR REPLACE FUNCTION pgsig_private.foreign_origin() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM pgsig_private.origin) OR EXISTS (
            SELECT FROM pgsig_private.origin o
             WHERE o.xid::text::bigint % 4294967296 <> o.xmin::text::bigint OR o.log <> 'pgsig_private.signal'::regclass::oid)
        THEN 'it was restored from a dump, and the transaction ids in it are those of another cluster'
        WHEN pg_snapshot_xmax(pgsig_private.here()) < (
            SELECT max(pg_snapshot_xmax(c.s1)) FROM pgsig_private.lane l,
                   LATERAL (SELECT k.s1 FROM pgsig_private.cursor k WHERE k.lane = l.lane ORDER BY k.seq DESC LIMIT 1) c)
        THEN 'the transaction ids of this cluster are behind those in it'
    END
$$;

-- The last transaction of a restore by pg_restore or psql, so long as sql/api was not applied since: triggers come after the data.
-- Rows of later transactions were emitted here.
CREATE OR REPLACE FUNCTION pgsig_private.restored_until() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest((SELECT max(pgsig_private.whole(t.xmin)) FROM pg_trigger t WHERE t.tgrelid = 'pgsig.signals'::regclass AND t.tgname = 'insert_signal'),
                    (SELECT max(pgsig_private.whole(o.xmin)) FROM pgsig_private.origin o))
$$;

-- Go on in this cluster. p_border: see restored_until. Returns how many signals were emitted here before.
CREATE OR REPLACE FUNCTION pgsig_private.adopt(p_border bigint) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_before bigint := coalesce((SELECT max(o.shift) FROM pgsig_private.origin o), 0);
    v_shift  bigint;
    v_moved  bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1885827945, l.lane) FROM pgsig_private.lane l ORDER BY l.lane;
    -- Nobody may be in the middle of emitting under the old numbers.
    LOCK TABLE pgsig_private.signal IN ACCESS EXCLUSIVE MODE;
    -- Behind everything that the old cluster wrote, and what it wrote after the dump: a round number, thousands of millions away.
    SELECT (greatest(
                (SELECT max(n.newest::text::bigint) FROM pgsig_private.lane l,
                        LATERAL (SELECT max(s.xid) AS newest FROM pgsig_private.signal s WHERE s.lane = l.lane) n),
                (SELECT max(pg_snapshot_xmax(coalesce(c.s2, c.s1))::text::bigint) FROM pgsig_private.cursor c),
                (SELECT max(pg_snapshot_xmax(r.since)::text::bigint) FROM pgsig_private.rule r),
                v_before) / 4294967296 + 2) * 4294967296 INTO v_shift;

    -- What was emitted here since the restore was numbered by the shift that the dump brought along.
    UPDATE pgsig_private.signal s SET xid = (s.xid::text::bigint - v_before + v_shift)::text::xid8
     WHERE pgsig_private.whole(s.xmin) > p_border
       AND s.xid::text::bigint - v_before BETWEEN p_border + 1 AND pgsig_private.whole(s.xmin);
    GET DIAGNOSTICS v_moved = ROW_COUNT;
    EXECUTE format('ALTER TABLE pgsig_private.signal ALTER COLUMN xid SET DEFAULT ((pg_current_xact_id()::text::bigint + %s)::text::xid8)', v_shift);
    EXECUTE format('ALTER VIEW pgsig.signals ALTER COLUMN xid SET DEFAULT ((pg_current_xact_id()::text::bigint + %s)::text::xid8)', v_shift);
    DELETE FROM pgsig_private.origin;
    INSERT INTO pgsig_private.origin (shift) VALUES (v_shift);

    -- Whoever ran in the old cluster and comes here is unknown: it ends what it has in hand and joins anew. Its runs are given to others, or
    -- end, as their policy says. Numbers that the old cluster may have given away after the dump are not given again.
    UPDATE pgsig_private.process SET ended_at = clock_timestamp() WHERE ended_at IS NULL;
    UPDATE pgsig_private.run SET epoch = epoch + 1000000 WHERE state IN ('queued', 'starting', 'running', 'retrying');
    -- Cursors in other hands stay as they are: the shift has taken care of them.
    PERFORM pgsig_private.begin_timeline(pgsig_private.timeline_number(), NULL);
    UPDATE pgsig_private.timeline SET quiet_until = since WHERE quiet_until IS NULL;
    RETURN v_moved;
END $$;
