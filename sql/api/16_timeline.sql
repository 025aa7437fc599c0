-- TIMELINE: noticing that the end of the log was lost, and never giving again what it had given away.
--
-- A replica that is promoted, or a recovery to a point in time, goes on from where it had got to. What was committed behind that is lost, but
-- not what came of it: runners execute runs that this database has not granted, jobs and clients hold cursors that saw transactions which
-- never were, and the counters would give the same numbers again. Postgres begins a timeline of its own then, and `timeline` holds the last
-- one that was noticed. Who joins, renews or claims looks first whether that is still the one. If it is not:
--   * Epochs go on from `id`, the time in microseconds: no grant has an epoch of the lost end, nor of another copy that was promoted. What was
--     granted before the split is still its runner's, which never notices.
--   * Nobody is granted anything, nor declared dead, until a lease is over: until then, whoever executes what was granted in the lost end has
--     come here and been told, or its guard has ended it.
--   * Counters that runners and emitters hold numbers of make a leap, at random: two copies do not leap alike.
--   * A cursor carries the timeline that it is of. One of an earlier timeline goes back to `border`, which is before the split: whatever came
--     there is handed out, some of it again. One of a timeline that is not in this database's past is refused.
-- The log's own cursors need none of that. They were written after what they saw, so a copy that has a cursor has all that it saw, and its next
-- transaction ids are behind it.

-- Postgres' number of it. NULL where a server of another make does not tell: then it is for that server to lose nothing.
CREATE OR REPLACE FUNCTION pgsig_private.timeline_number() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Not pg_control_checkpoint(): it tells of the last checkpoint, and a promotion does not wait for one.
    RETURN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer;
EXCEPTION WHEN feature_not_supported OR insufficient_privilege THEN
    RETURN NULL;
END $$;

-- The timeline in force, after it was looked at. p_lease: a runner's, if it is one that asks; for as long, nothing is granted on a new timeline.
CREATE OR REPLACE FUNCTION pgsig_private.note_timeline(p_lease interval DEFAULT NULL) RETURNS pgsig_private.timeline
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_number integer := pgsig_private.timeline_number();
    v_known  pgsig_private.timeline;
BEGIN
    SELECT * INTO v_known FROM pgsig_private.timeline t ORDER BY t.id DESC LIMIT 1;
    IF v_known.number IS DISTINCT FROM v_number THEN
        PERFORM pg_advisory_xact_lock(1885827945, 1006);
        SELECT * INTO v_known FROM pgsig_private.timeline t ORDER BY t.id DESC LIMIT 1;
        IF v_known.number IS DISTINCT FROM v_number THEN
            v_known := pgsig_private.begin_timeline(v_number, (
                SELECT max(pg_snapshot_xmax(c.s1)) FROM pgsig_private.lane l,
                       LATERAL (SELECT k.s1 FROM pgsig_private.cursor k WHERE k.lane = l.lane ORDER BY k.seq DESC LIMIT 1) c));
        END IF;
    END IF;
    IF v_known.id > 0 AND p_lease IS NOT NULL AND coalesce(v_known.quiet_until < v_known.since + p_lease, true) THEN
        UPDATE pgsig_private.timeline t SET quiet_until = greatest(t.quiet_until, t.since + p_lease) WHERE t.id = v_known.id RETURNING * INTO v_known;
    END IF;
    RETURN v_known;
END $$;

CREATE OR REPLACE FUNCTION pgsig_private.begin_timeline(p_number integer, p_border xid8) RETURNS pgsig_private.timeline
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_new pgsig_private.timeline;
BEGIN
    INSERT INTO pgsig_private.timeline (id, number, border)
    SELECT greatest(max(t.id) + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint), p_number, p_border FROM pgsig_private.timeline t
    RETURNING * INTO v_new;
    PERFORM setval(s.name, nextval(s.name) + 1000000 + (random() * 1000000000)::bigint)
       FROM (VALUES ('pgsig_private.process_id_seq'::regclass), ('pgsig_private.run_id'), ('pgsig_private.signal_id')) s(name);
    RETURN v_new;
END $$;

-- A cursor of another timeline, as this one means it. NULL: it is of one that is not in this database's past.
CREATE OR REPLACE FUNCTION pgsig_private.carried_over(p_snapshot pg_snapshot, p_timeline bigint) RETURNS pg_snapshot
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN NOT EXISTS (SELECT FROM pgsig_private.timeline t WHERE t.id = p_timeline) THEN NULL
        WHEN b.border IS NULL OR pg_snapshot_xmax(p_snapshot) <= b.border THEN p_snapshot
        ELSE (least(pg_snapshot_xmin(p_snapshot), b.border)::text || ':' || b.border::text || ':'
              || coalesce((SELECT string_agg(x::text, ',' ORDER BY x) FROM pg_snapshot_xip(p_snapshot) x WHERE x < b.border), ''))::pg_snapshot END
      FROM (SELECT min(t.border) AS border FROM pgsig_private.timeline t WHERE t.id > p_timeline) b
$$;

-- The cursor of a reader that begins now.
CREATE OR REPLACE FUNCTION pgsig_private.cursor_here() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgsig_private.here()::text || CASE max(t.id) WHEN 0 THEN '' ELSE '@' || max(t.id) END FROM pgsig_private.timeline t
$$;
