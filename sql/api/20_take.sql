-- TAKE: which signals are new, exactly once, in the order in which they became visible.
--
-- The log is never updated. A lane's cursor holds a snapshot s1, up to which everything was evaluated, and while a large window is being
-- worked off, its end s2 and the last position done. New is what s2 sees and s1 did not: rows of transactions that began after s1, and of
-- those that were open then. So a transaction that commits late is simply new later, gaps mean nothing, and an open writer delays nobody.
--
-- The order of steps is what makes it right; tests/store/test_take.py shows each wrong order losing or repeating signals:
--   1. lock the lane; 2. take the snapshot, before this transaction's first write (its own later signals must count as unseen);
--   3. read with that snapshot as a filter; 4. write the cursor; 5. the caller records what was decided, and commits.
-- It runs in READ COMMITTED: in REPEATABLE READ the snapshot would be older than the lock.
--
-- A journey less for a signal that comes alone: where it is one of p_keys (namespace, space, key), each of which leads to an order for the operator
-- in the same place of p_operators, those instances are locked at once. A last row, which is no signal (id is NULL), tells what lock_instances tells
-- of them, as [operator, subject, desired, generation, runs], and has ids for p_count actions and as many runs. What is LIKE p_idle leads to nothing:
-- beside such a signal another one is alone. p_lane: look at this one alone, because it is likely that there is something, and nowhere else.

CREATE OR REPLACE FUNCTION pgsig_private.take(
    p_limit integer, p_keys text[] DEFAULT '{}', p_operators bigint[] DEFAULT '{}', p_count integer DEFAULT 0, p_idle text DEFAULT '',
    p_lane smallint DEFAULT NULL
)
RETURNS TABLE (
    lane smallint, revision bigint, id bigint, namespace text, key text, subject text, value text, source text,
    emitted_at timestamptz, xid text, depth smallint, run_id bigint, event_id text, locked jsonb, action_ids bigint[], run_ids bigint[]
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_lane   smallint;
    v_look   smallint[] := ARRAY[p_lane];
    v_cursor record;
    v_end    pg_snapshot;
    v_done   bigint;
    v_last_id bigint;
    v_lanes  smallint[]    := '{}';
    v_seqs   bigint[]      := '{}';
    v_s1     pg_snapshot[] := '{}';
    v_s2     pg_snapshot[] := '{}';
    v_last   bigint[]      := '{}';
    v_count  integer;
    v_total  integer := 0;
    v_expects boolean := p_keys <> '{}';
    v_heeded integer := 0;  -- what may lead to something, and the last of it
    v_key    text;
    v_subject text;
    v_own    bigint[];  -- the operators that it leads to
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL OR current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'take is the first thing in a READ COMMITTED transaction, or it would lose or repeat signals'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- Lanes that look as if something were new, by one statement: to find nothing in one after the other costs more than a signal does. It may
    -- err, but only about lanes that another worker is at. In random order, so that several workers start at different lanes.
    IF p_lane IS NULL THEN
        v_look := ARRAY(
            SELECT l.lane
              FROM pgsig_private.lane l, LATERAL (SELECT * FROM pgsig_private.cursor c WHERE c.lane = l.lane ORDER BY c.seq DESC LIMIT 1) c
             WHERE c.s2 IS NOT NULL
                OR EXISTS (SELECT FROM pgsig_private.signal a WHERE a.lane = l.lane AND a.xid >= pg_snapshot_xmax(c.s1))
                OR EXISTS (SELECT FROM pgsig_private.signal b WHERE b.lane = l.lane AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(c.s1))))
             ORDER BY random());
    END IF;
    FOREACH v_lane IN ARRAY v_look LOOP
        CONTINUE WHEN NOT pg_try_advisory_xact_lock(1885827945, v_lane);
        v_end := pgsig_private.here();
        SELECT c.*, l.revision INTO v_cursor FROM pgsig_private.cursor c, pgsig_private.lane l
         WHERE c.lane = v_lane AND l.lane = v_lane ORDER BY c.seq DESC LIMIT 1;
        CONTINUE WHEN NOT FOUND;
        v_end := coalesce(v_cursor.s2, v_end);
        revision := v_cursor.revision;
        v_count := 0;
        v_done := coalesce(v_cursor.last_id, 0);
        lane := v_lane;
        IF v_cursor.last_id IS NOT NULL THEN
            -- In the middle of a large window. Mostly its next signals are the next positions: walk those, and do not read and sort the
            -- whole rest of the window for each batch. Whatever is not among them is found below.
            FOR id, namespace, key, subject, value, source, emitted_at, xid, depth, run_id, event_id IN
                SELECT s.id, s.namespace, s.key, s.subject, s.value::text, s.source, s.emitted_at, s.xid::text, s.depth, s.run_id, s.event_id
                  FROM pgsig_private.signal s
                 WHERE s.id > v_done AND s.id <= v_done + 8::bigint * p_limit AND s.lane + 0 = v_lane
                   AND pg_visible_in_snapshot(s.xid, v_end) AND NOT pg_visible_in_snapshot(s.xid, v_cursor.s1)
                 ORDER BY s.id
                 LIMIT p_limit - v_total
            LOOP
                v_count := v_count + 1;
                v_last_id := id;
                IF v_expects AND key NOT LIKE p_idle THEN
                    v_heeded := v_heeded + 1;
                    v_key := namespace || ' ' || key;
                    v_subject := subject;
                END IF;
                RETURN NEXT;
            END LOOP;
            v_done := v_done + 8::bigint * p_limit;
        END IF;
        -- UNION ALL, not OR: each branch is one range of the index (lane, xid, id). "+ 0" keeps the planner from walking
        -- the index on id from its beginning in the hope of meeting the window soon.
        IF v_count < p_limit - v_total THEN
            FOR id, namespace, key, subject, value, source, emitted_at, xid, depth, run_id, event_id IN
                SELECT s.id, s.namespace, s.key, s.subject, s.value::text, s.source, s.emitted_at, s.xid::text, s.depth, s.run_id, s.event_id
                  FROM (
                    SELECT * FROM pgsig_private.signal a
                     WHERE a.lane = v_lane AND a.xid >= pg_snapshot_xmax(v_cursor.s1)
                    UNION ALL
                    SELECT * FROM pgsig_private.signal b
                     WHERE b.lane = v_lane AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(v_cursor.s1)))
                  ) s
                 WHERE pg_visible_in_snapshot(s.xid, v_end)
                   AND s.id + 0 > v_done
                 ORDER BY s.id + 0
                 LIMIT p_limit - v_total - v_count
            LOOP
                v_count := v_count + 1;
                v_last_id := id;
                IF v_expects AND key NOT LIKE p_idle THEN
                    v_heeded := v_heeded + 1;
                    v_key := namespace || ' ' || key;
                    v_subject := subject;
                END IF;
                RETURN NEXT;
            END LOOP;
        END IF;
        IF v_count > 0 OR v_cursor.s2 IS NOT NULL AND p_lane IS NULL THEN  -- who looks at one lane in vain is going to look at all
            v_lanes := v_lanes || v_lane;
            v_seqs  := v_seqs || v_cursor.seq + 1;
            IF v_count = p_limit - v_total THEN  -- perhaps more in this window: keep it, and where we are
                v_s1 := v_s1 || v_cursor.s1;  v_s2 := v_s2 || v_end;           v_last := v_last || v_last_id;
            ELSE
                v_s1 := v_s1 || v_end;        v_s2 := v_s2 || NULL::pg_snapshot; v_last := v_last || NULL::bigint;
            END IF;
            v_total := v_total + v_count;
        END IF;
        EXIT WHEN v_total >= p_limit;
    END LOOP;
    -- The primary key (lane, seq) is the second guard after the lock: two takes of one window cannot both commit.
    INSERT INTO pgsig_private.cursor (lane, seq, s1, s2, last_id)
    SELECT * FROM unnest(v_lanes, v_seqs, v_s1, v_s2, v_last);
    IF v_heeded = 1 AND v_key = ANY (p_keys) THEN
        v_own := ARRAY(SELECT e.led FROM unnest(p_keys, p_operators) e(wanted, led) WHERE e.wanted = v_key ORDER BY 1);
        SELECT jsonb_agg(jsonb_build_array(l.operator_id, l.subject, l.desired, l.generation, l.runs)),
               ARRAY(SELECT nextval('pgsig_private.action_id') FROM generate_series(1, p_count)),
               ARRAY(SELECT nextval('pgsig_private.run_id') FROM generate_series(1, p_count))
          INTO locked, action_ids, run_ids
          FROM pgsig_private.lock_instances(v_own, array_fill(v_subject, ARRAY[cardinality(v_own)])) l;
        id := NULL;
        RETURN NEXT;
    END IF;
END $$;

-- HEAR: the same for listeners, who lock nothing and keep their own cursor: a page of what p_s2 sees and p_s1 did not, in the order of positions, behind
-- p_done. Where there may be more in this window than the page has, a last row, which is no signal (id is NULL), tells up to which position it
-- was looked through.
--
-- A window of some thousand rows is read and sorted. One that a large load has made is walked by position, so that each page reads a bounded part of
-- it; before its first page its lowest position is found, in the index alone. That may be before p_s1 was taken: by who was open then.
CREATE OR REPLACE FUNCTION pgsig_private.hear(
    p_lanes smallint[], p_s1 pg_snapshot, p_s2 pg_snapshot, p_done bigint, p_most integer,
    p_regex text DEFAULT NULL, p_namespace text DEFAULT NULL, p_subject text DEFAULT NULL, p_source text DEFAULT NULL
)
RETURNS TABLE (
    id bigint, namespace text, key text, subject text, value jsonb, source text, event_id text, run_id bigint, emitted_at timestamptz,
    kind text, depth smallint, reached bigint
)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
DECLARE
    v_small  CONSTANT integer := 5000;   -- rows that are sorted
    v_stride CONSTANT integer := 5000;   -- positions of a step
    v_steps  CONSTANT integer := 20;     -- of a page
    v_done   bigint := p_done;
    v_head   bigint;
    v_rows   integer;
    v_count  integer := 0;
BEGIN
    IF v_done = 0 THEN
        SELECT count(*) INTO v_rows FROM (
            SELECT FROM pgsig_private.signal a WHERE a.lane = ANY (p_lanes) AND a.xid >= pg_snapshot_xmax(p_s1)
            UNION ALL
            SELECT FROM pgsig_private.signal b WHERE b.lane = ANY (p_lanes) AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p_s1)))
            LIMIT v_small + 1) beginning;
        IF v_rows <= v_small THEN
            RETURN QUERY
                SELECT s.id, s.namespace, s.key, s.subject, s.value, s.source, s.event_id, s.run_id, s.emitted_at, s.kind, s.depth, NULL::bigint
                  FROM (
                    SELECT * FROM pgsig_private.signal a WHERE a.lane = ANY (p_lanes) AND a.xid >= pg_snapshot_xmax(p_s1)
                    UNION ALL
                    SELECT * FROM pgsig_private.signal b WHERE b.lane = ANY (p_lanes) AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p_s1)))
                  ) s
                 WHERE pg_visible_in_snapshot(s.xid, p_s2)
                   AND (p_regex IS NULL OR s.key ~ p_regex) AND (p_namespace IS NULL OR s.namespace = p_namespace)
                   AND (p_subject IS NULL OR s.subject = p_subject) AND (p_source IS NULL OR s.source = p_source)
                 ORDER BY s.id + 0 LIMIT p_most;
            RETURN;
        END IF;
        SELECT min(w.first) - 1 INTO v_done FROM (
            SELECT min(a.id + 0) AS first FROM pgsig_private.signal a WHERE a.lane = ANY (p_lanes) AND a.xid >= pg_snapshot_xmax(p_s1)
            UNION ALL
            SELECT min(b.id + 0) FROM pgsig_private.signal b WHERE b.lane = ANY (p_lanes) AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(p_s1)))) w;
    END IF;
    SELECT max(s.id) INTO v_head FROM pgsig_private.signal s;
    FOR step IN 1 .. v_steps LOOP
        EXIT WHEN v_count >= p_most OR v_done >= coalesce(v_head, 0);
        RETURN QUERY
            SELECT s.id, s.namespace, s.key, s.subject, s.value, s.source, s.event_id, s.run_id, s.emitted_at, s.kind, s.depth, NULL::bigint
              FROM pgsig_private.signal s
             WHERE s.id > v_done AND s.id <= v_done + v_stride AND s.lane + 0 = ANY (p_lanes)
               AND pg_visible_in_snapshot(s.xid, p_s2) AND NOT pg_visible_in_snapshot(s.xid, p_s1)
               AND (p_regex IS NULL OR s.key ~ p_regex) AND (p_namespace IS NULL OR s.namespace = p_namespace)
               AND (p_subject IS NULL OR s.subject = p_subject) AND (p_source IS NULL OR s.source = p_source)
             ORDER BY s.id LIMIT p_most - v_count;
        GET DIAGNOSTICS v_rows = ROW_COUNT;
        v_count := v_count + v_rows;
        v_done := v_done + v_stride;
    END LOOP;
    IF v_count < p_most AND v_done < coalesce(v_head, 0) THEN
        reached := v_done;
        RETURN NEXT;
    END IF;
END $$;
