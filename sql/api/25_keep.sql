-- KEEP: what is there ahead of time, what goes when, and what has to stay.
--
-- The log goes by whole partitions, without a row being deleted and without an emitter ever waiting. What grows beside it goes row by row, by
-- primary key, in small batches (sql/queries/housekeeping.sql). How old a row is, is read off the milestones: each says how far every counter
-- was at a time. Whoever does the housekeeping holds the advisory lock 1001; pgsig/store/housekeeping.py has the order of steps.

-- Signals by position, whether their partition is still there or not.
CREATE OR REPLACE VIEW pgsig_private.remembered AS
SELECT s.* FROM pgsig.signals s
UNION ALL
SELECT k.* FROM pgsig_private.kept_signal k WHERE NOT EXISTS (SELECT FROM pgsig.signals s WHERE s.id = k.id);

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
        EXECUTE format('CREATE TABLE pgsig_private.%I (LIKE pgsig.signals INCLUDING ALL) WITH (autovacuum_vacuum_insert_scale_factor = 0.02,
            autovacuum_analyze_scale_factor = 0.02, autovacuum_freeze_min_age = 0)', v_name);
        EXECUTE format('ALTER TABLE pgsig.signals ATTACH PARTITION pgsig_private.%I FOR VALUES FROM (%L) TO (%L)', v_name, v_from, v_until);
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

-- The last look at a partition before it is detached. True if it may be: nobody is writing into it, every lane has passed it, what is needed of
-- it was copied. From the detach on nobody reads it: what came into it then would be passed over by whoever looks before it is put back.
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
        EXECUTE format('DROP TABLE pgsig_private.%I', p_partition);
        RETURN true;
    END IF;
    EXECUTE format('SELECT date_trunc(''second'', max(emitted_at)) + interval ''1 second'' FROM pgsig_private.%I', p_partition) INTO v_end;
    EXECUTE format('ALTER TABLE pgsig.signals ATTACH PARTITION pgsig_private.%I FOR VALUES FROM (%L) TO (%L)',
        p_partition, substring(p_partition FROM '\d{8}$') || ' 00:00+00', v_end);
    RETURN false;
END $$;
