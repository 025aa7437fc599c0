-- KEEP: what is there ahead of time, what goes when, and what has to stay.
--
-- The log goes by whole partitions, without a row being deleted and without an emitter ever waiting. What grows beside it goes row by row, by
-- primary key, in small batches (sql/queries/housekeeping.sql). How old a row is, is read off the milestones: each says how far every counter
-- was at a time. Whoever does the housekeeping holds the advisory lock 1001; pgsig/store/housekeeping.py has the order of steps.

-- Signals by position, whether their partition is still there or not.
CREATE OR REPLACE VIEW pgsig_private.remembered AS
SELECT s.* FROM pgsig_private.signal s
UNION ALL
SELECT k.* FROM pgsig_private.kept_signal k WHERE NOT EXISTS (SELECT FROM pgsig_private.signal s WHERE s.id = k.id);

-- The moment until which a setting lets things go; NULL for never.
CREATE OR REPLACE FUNCTION pgsig_private.gone_before(p_setting text) RETURNS timestamptz
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT clock_timestamp() - (s.value #>> '{}')::double precision * interval '24 hours' FROM pgsig_private.setting s WHERE s.name = p_setting
$$;

-- How far the counters were by then: what lies behind is at least as old as the setting says. NULL where that is not known.
CREATE OR REPLACE FUNCTION pgsig_private.milestone_of(p_setting text) RETURNS pgsig_private.milestone
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT m FROM pgsig_private.milestone m WHERE m.at <= pgsig_private.gone_before(p_setting) ORDER BY m.at DESC LIMIT 1
$$;

-- Partitions for the days to come, and a milestone each hour.
CREATE OR REPLACE FUNCTION pgsig_private.prepare_days() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_span  interval;
    v_grid  double precision;
    v_from  timestamptz;
    v_until timestamptz;
    v_name  text;
BEGIN
    PERFORM pg_advisory_xact_lock(1885827945, 1004);
    -- Partitions end at multiples of partition_days since the epoch, in UTC. A new one begins where the last one ends, whatever the setting was then.
    SELECT value::text::integer * interval '24 hours', value::text::integer * 86400 INTO v_span, v_grid
      FROM pgsig_private.setting WHERE name = 'partition_days';
    SELECT greatest(max(p.ends), to_timestamp(floor(extract(epoch FROM clock_timestamp()) / v_grid) * v_grid)) INTO v_from
      FROM pgsig_private.partitions() p WHERE p.state = 'attached';
    WHILE v_from < clock_timestamp() + 2 * v_span LOOP
        v_until := to_timestamp((floor(extract(epoch FROM v_from) / v_grid) + 1) * v_grid);
        v_name := 'signals_' || to_char(v_from AT TIME ZONE 'UTC', 'YYYYMMDD');
        -- LIKE and ATTACH: CREATE … PARTITION OF would lock out every emitter for a moment. Storage parameters come by neither.
        -- Rows only come here. By the defaults, vacuum would wait for a fifth of the table to have come since the last, and analyze for a tenth:
        -- 10 and 5 million of 50 million, at the end that everybody reads. At a fiftieth both are seldom behind, and cheap: vacuum looks at the
        -- pages that came, and at no index. No row changes until all go at once, so it is frozen when it is first looked at, for 1 % more WAL: else
        -- each would be read once more to freeze it, with 200 million transactions all of them in one go.
        EXECUTE format('CREATE TABLE pgsig_private.%I (LIKE pgsig_private.signal INCLUDING ALL) WITH (autovacuum_vacuum_insert_scale_factor = 0.02,
            autovacuum_analyze_scale_factor = 0.02, autovacuum_freeze_min_age = 0)', v_name);
        EXECUTE format('ALTER TABLE pgsig_private.signal ATTACH PARTITION pgsig_private.%I FOR VALUES FROM (%L) TO (%L)', v_name, v_from, v_until);
        v_from := v_until;
    END LOOP;
    IF NOT EXISTS (SELECT FROM pgsig_private.milestone m WHERE m.at > clock_timestamp() - interval '1 hour') THEN
        INSERT INTO pgsig_private.milestone (signal_id, action_id, run_id, process_id, reload_id)
        SELECT (SELECT last_value FROM pgsig_private.signal_id), (SELECT last_value FROM pgsig_private.action_id),
               (SELECT last_value FROM pgsig_private.run_id), (SELECT last_value FROM pgsig_private.process_id_seq),
               (SELECT last_value FROM pgsig_private.reload_id_seq);
    END IF;
END $$;

-- The partitions of the log, oldest first, with the end of each. state: attached; detaching, where a detach was interrupted and has to be
-- finished before any other; detached, where the table was not dropped any more.
CREATE OR REPLACE FUNCTION pgsig_private.partitions() RETURNS TABLE (name text, state text, ends timestamptz, old boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.name, p.state, p.ends, coalesce(p.ends < pgsig_private.gone_before('retention_days'), false)
      FROM (SELECT c.relname::text AS name,
                   CASE WHEN i.inhrelid IS NULL THEN 'detached' WHEN i.inhdetachpending THEN 'detaching' ELSE 'attached' END AS state,
                   coalesce(
                       substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''([^'']+)''\)$')::timestamptz,
                       (substring(c.relname FROM '\d{8}$') || ' 00:00+00')::timestamptz + interval '24 hours'
                           * (SELECT value::text::integer FROM pgsig_private.setting WHERE name = 'partition_days')) AS ends
              FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
             WHERE c.relnamespace = 'pgsig_private'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^signals_\d{8}$') p
     ORDER BY p.state <> 'detaching', p.name
$$;

-- True when every lane has passed all signals of a partition. Each lane by itself: one in which nothing happens has an old cursor.
CREATE OR REPLACE FUNCTION pgsig_private.passed(p_partition text) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_found boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (
        SELECT FROM pgsig_private.lane l,
               LATERAL (SELECT c.s1 FROM pgsig_private.cursor c WHERE c.lane = l.lane ORDER BY c.seq DESC LIMIT 1) c
         WHERE EXISTS (SELECT FROM pgsig_private.%1$I a WHERE a.lane = l.lane AND a.xid >= pg_snapshot_xmax(c.s1))
            OR EXISTS (SELECT FROM pgsig_private.%1$I b WHERE b.lane = l.lane AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(c.s1)))))',
        p_partition) INTO v_found;
    RETURN NOT v_found;
END $$;

-- Positions that something still needs: what live runs and open reloads act upon, what rules wait with or remember, what waits for a resume.
CREATE OR REPLACE FUNCTION pgsig_private.needed_signals() RETURNS SETOF bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT unnest(r.evidence) FROM pgsig_private.run r WHERE r.state IN ('queued', 'starting', 'running', 'retrying')
    UNION
    SELECT unnest(l.evidence) FROM pgsig_private.reload l WHERE l.state IN ('pending', 'delivered')
    UNION
    SELECT o.signal_id FROM pgsig_private.outcome o WHERE o.outcome = 'held'
    UNION
    SELECT id::text::bigint FROM pgsig_private.rule_state s, LATERAL (
        SELECT jsonb_path_query(s.body, '$.pending.*[*][0]') AS id UNION ALL
        SELECT jsonb_path_query(s.body, '$.levels.*[0]') UNION ALL
        SELECT jsonb_path_query(s.body, '$.armed.*[0]')
    ) held
$$;

-- Copy what is still needed of a partition that is about to go. What is needed later was needed already, or is new.
CREATE OR REPLACE FUNCTION pgsig_private.carry_over(p_partition text) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_copied bigint;
BEGIN
    EXECUTE format('INSERT INTO pgsig_private.kept_signal
        SELECT s.* FROM pgsig_private.%I s WHERE s.id = ANY (ARRAY(SELECT pgsig_private.needed_signals())) ON CONFLICT DO NOTHING', p_partition);
    GET DIAGNOSTICS v_copied = ROW_COUNT;
    RETURN v_copied;
END $$;

-- Remember which signals go with a partition, for listeners that have not heard them (`missed` below). Of a key that comes at most 200 times
-- in it, each transaction with the last position that it has; of any other only that there are some, up to the last transaction of their
-- lane. By index: of a partition of any size it reads some thousand rows.
CREATE OR REPLACE FUNCTION pgsig_private.note_dropped(p_partition text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    v_most      CONSTANT integer := 200;
    v_keys      CONSTANT integer := 2000;   -- in one partition; with more of them, or
    v_rows      CONSTANT integer := 20000;  -- transactions, from one or in all, they are not told apart any more
    v_table     text := format('pgsig_private.%I', p_partition);
    v_namespace text := '';
    v_key       text := '';
    v_lane      smallint;
    v_many      boolean;
    v_noted     bigint;
    v_sum       bigint := 0;  -- transactions that were noted
BEGIN
    FOR i IN 0 .. v_keys LOOP
        EXECUTE 'SELECT s.namespace, s.key, s.lane FROM ' || v_table || ' s WHERE (s.namespace, s.key) > ($1, $2)
                  ORDER BY s.namespace, s.key LIMIT 1' INTO v_namespace, v_key, v_lane USING v_namespace, v_key;
        EXIT WHEN v_key IS NULL;
        IF i = v_keys THEN
            EXECUTE 'INSERT INTO pgsig_private.dropped (xid, lane, others)
                     SELECT l.xid, l.lane, pgsig_private.here() FROM (
                         SELECT n.lane, (SELECT max(s.xid) FROM ' || v_table || ' s WHERE s.lane = n.lane) AS xid FROM pgsig_private.lane n) l
                      WHERE l.xid IS NOT NULL ON CONFLICT DO NOTHING';
            EXIT;
        END IF;
        v_many := v_sum >= v_rows;
        IF NOT v_many THEN
            EXECUTE 'SELECT EXISTS (SELECT FROM ' || v_table || ' s WHERE s.namespace = $1 AND s.key = $2 OFFSET $3)'
               INTO v_many USING v_namespace, v_key, v_most;
        END IF;
        IF v_many THEN
            EXECUTE 'INSERT INTO pgsig_private.dropped (xid, lane, namespace, key, others)
                     SELECT (SELECT max(s.xid) FROM ' || v_table || ' s WHERE s.lane = $1), $1, $2, $3, pgsig_private.here()
                     ON CONFLICT (xid, lane, namespace, key) DO UPDATE SET others = excluded.others' USING v_lane, v_namespace, v_key;
        ELSE
            EXECUTE 'INSERT INTO pgsig_private.dropped (xid, lane, namespace, key, id)
                     SELECT s.xid, $1, $2, $3, max(s.id) FROM ' || v_table || ' s WHERE s.namespace = $2 AND s.key = $3 GROUP BY s.xid
                     ON CONFLICT (xid, lane, namespace, key) DO UPDATE SET id = greatest(dropped.id, excluded.id)'
              USING v_lane, v_namespace, v_key;
            GET DIAGNOSTICS v_noted = ROW_COUNT;
            v_sum := v_sum + v_noted;
        END IF;
    END LOOP;
    WITH beyond AS (
        DELETE FROM pgsig_private.dropped d
         WHERE d.xid <= (SELECT n.xid FROM pgsig_private.dropped n ORDER BY n.xid DESC OFFSET v_rows LIMIT 1) RETURNING d.lane, d.xid
    )
    INSERT INTO pgsig_private.dropped (xid, lane, others) SELECT max(b.xid), b.lane, pgsig_private.here() FROM beyond b GROUP BY b.lane;
    -- What says that there are others stands for all before it.
    DELETE FROM pgsig_private.dropped WHERE ctid = ANY (ARRAY(
        SELECT n.ctid FROM (
            SELECT d.ctid, d.xid, max(d.xid) FILTER (WHERE d.others IS NOT NULL) OVER (PARTITION BY d.lane, d.namespace, d.key) AS of_key,
                   max(d.xid) FILTER (WHERE d.others IS NOT NULL AND d.key = '') OVER (PARTITION BY d.lane) AS of_any
              FROM pgsig_private.dropped d) n
         WHERE n.xid < n.of_key OR n.xid < n.of_any));
END $$;

-- Whether a listener has missed signals that were dropped. Its cursor has seen what p_s1 sees, and of what p_s2 sees, positions up to p_done.
-- p_namespace and p_regex: what it wants to hear; what else a filter may name was not remembered. Ask in the statement that reads the log, or
-- later: what that one could not find any more was noted before.
CREATE OR REPLACE FUNCTION pgsig_private.missed(p_s1 pg_snapshot, p_s2 pg_snapshot, p_done bigint, p_namespace text, p_regex text)
RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pgsig_private.dropped d
         WHERE d.xid >= pg_snapshot_xmin(p_s1)  -- by index; who keeps listening is ahead of all of them
           AND (p_namespace IS NULL OR d.namespace = p_namespace
                OR d.namespace = '' AND d.lane = pgsig_private.lane_of(p_namespace))
           AND (p_regex IS NULL OR d.key = '' OR d.key ~ p_regex)
           AND CASE WHEN d.others IS NULL
                    THEN NOT (pg_visible_in_snapshot(d.xid, p_s1) OR p_s2 IS NOT NULL AND pg_visible_in_snapshot(d.xid, p_s2) AND d.id <= p_done)
                    ELSE d.xid >= pg_snapshot_xmax(p_s1)
                         -- Not what was open when they were dropped: a forgotten transaction would be in each cursor.
                         OR EXISTS (SELECT FROM pg_snapshot_xip(p_s1) x WHERE x <= d.xid AND pg_visible_in_snapshot(x, d.others)) END)
$$;

-- The cursor of a reader that begins with what is left: transactions that began after any of which signals were dropped.
CREATE OR REPLACE FUNCTION pgsig_private.cursor_oldest(p_namespace text DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT b.border || ':' || b.border || ':' || CASE t.id WHEN 0 THEN '' ELSE '@' || t.id END
      FROM (SELECT max(t.id) AS id FROM pgsig_private.timeline t) t, (
           SELECT coalesce(max(d.xid)::text::bigint, 0) + 1 AS border FROM pgsig_private.dropped d
            WHERE p_namespace IS NULL OR d.lane = pgsig_private.lane_of(p_namespace)) b
$$;

-- The last look at a partition before it is detached. True if it may be: nobody is writing into it, every lane has passed it, what is needed of
-- it was copied, what goes with it was noted. From the detach on nobody reads it. What came into it then would be passed over by whoever looks
-- before it is put back, and what is missing has to be known by then.
CREATE OR REPLACE FUNCTION pgsig_private.close_partition(p_partition text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- First who writes, then what there is: a transaction is seen before its locks are gone.
    IF EXISTS (SELECT FROM pg_locks l
                WHERE l.relation = format('pgsig_private.%I', p_partition)::regclass AND l.mode = 'RowExclusiveLock'
                  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) THEN
        RETURN false;
    END IF;
    IF NOT pgsig_private.passed(p_partition) THEN
        RETURN false;
    END IF;
    PERFORM pgsig_private.carry_over(p_partition);
    PERFORM pgsig_private.note_dropped(p_partition);
    RETURN true;
END $$;

-- Drop a partition that is detached, unless there are signals in it that a lane has not passed: then it is put back. Nothing can come into it
-- any more, so what is found now is the truth. True if it was dropped.
CREATE OR REPLACE FUNCTION pgsig_private.drop_detached(p_partition text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_end timestamptz;
BEGIN
    IF pgsig_private.passed(p_partition) THEN
        PERFORM pgsig_private.note_dropped(p_partition);  -- a version that did not note it may have detached it
        EXECUTE format('DROP TABLE pgsig_private.%I', p_partition);
        RETURN true;
    END IF;
    EXECUTE format('SELECT date_trunc(''second'', max(emitted_at)) + interval ''1 second'' FROM pgsig_private.%I', p_partition) INTO v_end;
    EXECUTE format('ALTER TABLE pgsig_private.signal ATTACH PARTITION pgsig_private.%I FOR VALUES FROM (%L) TO (%L)',
        p_partition, substring(p_partition FROM '\d{8}$') || ' 00:00+00', v_end);
    RETURN false;
END $$;
