-- CLAIM: what a runner gets. It holds a lease and is granted runs, each with an epoch, as far as limits allow; and it is told what to do for
-- those that it holds. Every function that changes a run locks its instance first, then the run, last a limit's key. All times are the database's.

-- Say "look now", unless the server's queue of notifications is about to be full, because some session of this cluster listens in a transaction
-- that does not end: with a full one, every commit that has a NOTIFY in it fails. Then the polls find what there is.
CREATE OR REPLACE FUNCTION pgsig_private.notify(p_channel text, p_payload text DEFAULT '') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_notification_queue_usage() < 0.9 THEN
        PERFORM pg_notify(p_channel, p_payload);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION pgsig_private.join_processes(
    p_role text, p_name text, p_host text, p_pid integer, p_version text, p_pools text[], p_capacity integer, p_ttl interval,
    p_labels text[] DEFAULT '{}'
) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id bigint;
BEGIN
    PERFORM pgsig_private.note_timeline(CASE p_role WHEN 'runner' THEN p_ttl END);
    INSERT INTO pgsig_private.process (role, name, host, pid, version, pools, capacity, labels, lease_until)
    VALUES (p_role, p_name, p_host, p_pid, p_version, p_pools, p_capacity, p_labels, clock_timestamp() + p_ttl) RETURNING id INTO v_id;
    RETURN v_id;
END $$;

-- False: somebody has declared this process dead. It must stop what it holds, and join anew.
CREATE OR REPLACE FUNCTION pgsig_private.renew(p_process bigint, p_ttl interval, p_detail jsonb DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_role text;
BEGIN
    UPDATE pgsig_private.process SET lease_until = clock_timestamp() + p_ttl, detail = coalesce(p_detail, detail)
     WHERE id = p_process AND ended_at IS NULL RETURNING role INTO v_role;
    PERFORM pgsig_private.note_timeline(CASE v_role WHEN 'runner' THEN p_ttl END);
    RETURN v_role IS NOT NULL;
END $$;

-- Processes whose lease ran out are dead from here on; the runs that they held are returned for whoever decides what becomes of them.
-- None is declared dead within the first seconds of a server's life, or of a timeline's: after a restart, or a failover, the owners shall
-- renew first, instead of losing everything at once. Who has said that it ended, or was seen to be gone, has no need of that.
CREATE OR REPLACE FUNCTION pgsig_private.reap(p_quiet interval)
RETURNS TABLE (run_id bigint, epoch bigint, attempt integer, kind text, spec jsonb, desired text, failures smallint, handle text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_key text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1885827945, 1007) THEN
        RETURN;
    END IF;
    IF clock_timestamp() - greatest(pg_postmaster_start_time(), (SELECT max(t.since) FROM pgsig_private.timeline t)) >= p_quiet THEN
        UPDATE pgsig_private.process p SET ended_at = clock_timestamp() WHERE p.ended_at IS NULL AND p.lease_until < clock_timestamp();
    END IF;
    -- A run that was put back into line may have been stopped before anybody took it: its place goes to the next.
    FOR v_key IN SELECT DISTINCT r.limit_key FROM pgsig_private.run r WHERE r.blocked ORDER BY 1 LOOP
        IF pg_try_advisory_xact_lock(1885827947, hashtext(v_key)) THEN
            PERFORM pgsig_private.unblock(v_key);
        END IF;
    END LOOP;
    RETURN QUERY
        SELECT r.id, r.epoch, r.attempt, v.kind, v.spec, r.desired, r.failures, r.handle
          FROM pgsig_private.run r
          JOIN pgsig_private.process p ON p.id = r.runner_id
          JOIN pgsig_private.operator_version v ON v.operator_id = r.operator_id AND v.version = r.version
         WHERE r.state IN ('starting', 'running') AND p.ended_at IS NOT NULL
         ORDER BY r.operator_id, r.subject, r.id LIMIT 1000;
END $$;

-- The runners of a machine that ended or were declared dead within a day, and have not joined anew, as of now: whose runs a statement has just taken
-- are among them. It is volatile for that: the statement's own snapshot is older.
CREATE OR REPLACE FUNCTION pgsig_private.gone_runners(p_machine text) RETURNS bigint[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN ARRAY(
        SELECT p.id FROM pgsig_private.process p
         WHERE p.role = 'runner' AND p.ended_at > clock_timestamp() - interval '1 day' AND p.detail->>'machine' = p_machine
           AND p.detail->>'mark' <> ALL (ARRAY(
               SELECT a.detail->>'mark' FROM pgsig_private.process a WHERE a.role = 'runner' AND a.ended_at IS NULL AND a.detail ? 'mark')));
END $$;

-- LIMITS. A run may carry a key; of all runs with that key, whoever they belong to, at most limit_most are alive. Who counts or
-- changes that number holds the key's lock until it commits. A claim only tries for it: it holds other locks already.
-- Put back into line as many of the runs that wait for this key as may be alive now, the most urgent first. The key's lock is held by the caller.
CREATE OR REPLACE FUNCTION pgsig_private.unblock(p_key text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_alive integer;
BEGIN
    SELECT count(*) INTO v_alive FROM pgsig_private.run r WHERE r.limit_key = p_key AND r.state IN ('starting', 'running');
    UPDATE pgsig_private.run r SET blocked = false, claimable_at = clock_timestamp()
      FROM (SELECT b.id, b.limit_most, row_number() OVER (ORDER BY b.priority DESC, b.id) AS place
              FROM pgsig_private.run b WHERE b.limit_key = p_key AND b.blocked) next
     WHERE r.id = next.id AND r.blocked AND v_alive + next.place <= next.limit_most;
    IF FOUND THEN
        PERFORM pgsig_private.notify('pgsig_runs');
    END IF;
END $$;

-- How many runs of a pool may be alive at once, whatever its runners have room for. NULL: as many as they have.
CREATE OR REPLACE FUNCTION pgsig.limit_pool(pool text, most integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF limit_pool.pool !~ '^[a-z][a-z0-9_-]{0,62}$' OR limit_pool.pool IS NULL THEN
        RAISE EXCEPTION '"%" is not the name of a pool', limit_pool.pool USING ERRCODE = 'PS206', HINT = 'a lower-case letter, then up to 62 of a-z 0-9 _ -';
    ELSIF limit_pool.most < 0 THEN
        RAISE EXCEPTION 'a pool cannot be limited to %', limit_pool.most USING ERRCODE = 'PS206', HINT = '0 or more; NULL for no limit';
    ELSIF limit_pool.most IS NULL THEN
        DELETE FROM pgsig_private.pool p WHERE p.name = limit_pool.pool;
    ELSE
        INSERT INTO pgsig_private.pool AS p (name, most) VALUES (limit_pool.pool, limit_pool.most)
        ON CONFLICT (name) DO UPDATE SET most = excluded.most, changed_at = clock_timestamp();
    END IF;
    PERFORM pgsig_private.notify('pgsig_runs');
END $$;
COMMENT ON FUNCTION pgsig.limit_pool IS 'Limit how many runs of a pool are alive at once; NULL for no limit. What is alive goes on.';

-- Runs for a runner: of its pools, with no label that it lacks, the most urgent first, each with a new epoch.
-- ran_for: for how many seconds a job that waits to be taken over has been running. since: where the log was. gone: of p_machine, see gone_runners.
-- p_tell: a last row, which is no run (id is NULL), tells that some that were in line could not be had just now: somebody else was at them.
CREATE OR REPLACE FUNCTION pgsig_private.claim(
    p_runner bigint, p_pools text[], p_capacity integer, p_labels text[] DEFAULT '{}', p_machine text DEFAULT NULL, p_tell boolean DEFAULT false
)
RETURNS TABLE (
    id bigint, epoch bigint, attempt integer, generation bigint, namespace text, workflow text, operator text, subject text, kind text,
    spec jsonb, params jsonb, cause jsonb, action text, depth smallint, handover_of bigint, checkpoint jsonb, failures smallint, handle text,
    ran_for double precision, since text, gone bigint[]
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_run   record;
    v_pool  record;
    v_next  bigint[];
    v_plain bigint[];
    v_slot  smallint;
    v_alive integer;
    v_taken bigint[] := '{}';
    v_open  text[] := p_pools;
    v_free  jsonb := '{}';  -- of each limited pool, how many more runs it may have
    v_again boolean := false;
    v_lease boolean;
    v_limits boolean;
    v_others boolean;  -- not all are plain
    v_fill  boolean := false;  -- some get parameters from their signals
    v_since text;
    v_gone  bigint[];
    v_line  pgsig_private.timeline := pgsig_private.note_timeline();
BEGIN
    SELECT EXISTS (SELECT FROM pgsig_private.process p WHERE p.id = p_runner AND p.ended_at IS NULL AND p.lease_until > clock_timestamp()),
           EXISTS (SELECT FROM pgsig_private.pool p WHERE p.name = ANY (p_pools))
      INTO v_lease, v_limits;
    IF NOT v_lease THEN
        RAISE EXCEPTION 'runner % holds no lease', p_runner USING ERRCODE = 'PS301', HINT = 'renew it, or join again';
    END IF;
    -- What the lost end of the log had granted may still be executed.
    IF coalesce(v_line.quiet_until > clock_timestamp(), true) THEN
        RETURN;
    END IF;
    IF v_limits THEN
        FOR v_pool IN SELECT p.name, p.most FROM pgsig_private.pool p WHERE p.name = ANY (p_pools) ORDER BY p.name LOOP
            IF pg_try_advisory_xact_lock(1885827946, hashtext('pool ' || v_pool.name)) THEN
                SELECT v_pool.most - count(*) INTO v_alive FROM pgsig_private.run r
                 WHERE r.pool = v_pool.name AND r.state IN ('starting', 'running');
                v_free := v_free || jsonb_build_object(v_pool.name, v_alive);
            ELSE
                v_alive := 0;
                v_again := true;
            END IF;
            IF v_alive <= 0 THEN
                v_open := array_remove(v_open, v_pool.name);
            END IF;
        END LOOP;
    END IF;
    -- The plain ones, one of an instance and without a limit that they could meet, take a statement for all. Pool by pool: of "pool = ANY" with pools
    -- that the planner does not know, all that are due would be read and sorted by each claim.
    SELECT coalesce(array_agg(n.id), '{}'), coalesce(array_agg(n.id) FILTER (WHERE n.alone AND n.limit_key IS NULL AND NOT v_free ? n.pool), '{}')
      INTO v_next, v_plain
      FROM (SELECT w.id, w.pool, w.limit_key, count(*) OVER (PARTITION BY w.operator_id, w.subject) = 1 AS alone
              FROM (SELECT d.id, d.operator_id, d.subject, d.pool, d.limit_key FROM (SELECT DISTINCT unnest(v_open) AS name) o CROSS JOIN LATERAL (
                           SELECT r.id, r.operator_id, r.subject, r.pool, r.limit_key, r.priority, r.claimable_at FROM pgsig_private.run r
                            WHERE r.pool = o.name AND r.state IN ('queued', 'retrying') AND r.claimable_at <= clock_timestamp() AND r.labels <@ p_labels
                            ORDER BY r.priority DESC, r.claimable_at, r.id LIMIT p_capacity) d
                     ORDER BY d.priority DESC, d.claimable_at, d.id LIMIT p_capacity) w) n;
    v_others := cardinality(v_next) > cardinality(v_plain);
    IF v_plain <> '{}' THEN
        -- The instance is locked first, then the run. Who is there already goes on, and announces it when done.
        v_plain := ARRAY(
            SELECT r.id FROM pgsig_private.run r JOIN pgsig_private.instance i ON i.operator_id = r.operator_id AND i.subject = r.subject
             WHERE r.id = ANY (v_plain) AND r.state IN ('queued', 'retrying') AND r.claimable_at IS NOT NULL FOR UPDATE OF i, r SKIP LOCKED);
        WITH taken AS (
            UPDATE pgsig_private.run r
               SET state = 'starting', runner_id = p_runner, slot = free.slot, epoch = greatest(r.epoch + 1, v_line.id), claimed_at = clock_timestamp(),
                   claimable_at = NULL, started_at = CASE WHEN r.handle IS NOT NULL THEN r.started_at END,
                   ready_at = CASE WHEN r.handle IS NOT NULL THEN r.ready_at END
              FROM unnest(v_plain) plain(id)
              JOIN pgsig_private.run q ON q.id = plain.id
             CROSS JOIN LATERAL (
                   SELECT min(free.slot)::smallint AS slot FROM generate_series(0, q.slots - 1) free(slot)
                    WHERE NOT EXISTS (SELECT FROM pgsig_private.run o WHERE o.operator_id = q.operator_id AND o.subject = q.subject
                                         AND o.slot = free.slot AND o.id <> q.id AND o.state IN ('starting', 'running', 'retrying'))) free
             WHERE r.id = plain.id AND free.slot IS NOT NULL
            RETURNING r.id, r.operator_id, r.subject, r.version
        ), seen AS (
            UPDATE pgsig_private.instance i SET observed = 'starting', run_id = t.id, changed_at = clock_timestamp()
              FROM taken t WHERE i.operator_id = t.operator_id AND i.subject = t.subject
        )
        SELECT coalesce(array_agg(t.id), '{}'), coalesce(bool_or(v.spec ? 'params_from'), false)
          INTO v_taken, v_fill
          FROM taken t JOIN pgsig_private.operator_version v ON v.operator_id = t.operator_id AND v.version = t.version;
        IF cardinality(v_taken) < cardinality(v_plain) THEN  -- the place they were promised is taken again: they wait for the next that frees one
            UPDATE pgsig_private.run r SET claimable_at = NULL WHERE r.id = ANY (v_plain) AND r.state = 'queued';
        END IF;
    END IF;
    IF v_others THEN
        v_fill := true;
        FOR v_run IN
            SELECT r.id, r.operator_id, r.subject, r.slots, r.pool, r.limit_key, r.limit_most FROM pgsig_private.run r
             WHERE r.id = ANY (v_next)
               AND EXISTS (SELECT FROM pgsig_private.run o WHERE o.id = ANY (v_next) AND o.operator_id = r.operator_id AND o.subject = r.subject
                           HAVING count(*) > 1 OR r.limit_key IS NOT NULL OR v_free ? r.pool)
             ORDER BY r.priority DESC, r.claimable_at, r.id
        LOOP
            CONTINUE WHEN (v_free->>v_run.pool)::integer <= 0;
            -- Somebody at work on this instance will announce it when done; waiting here could meet a second claimer head on.
            PERFORM FROM pgsig_private.instance i
              WHERE i.operator_id = v_run.operator_id AND i.subject = v_run.subject FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
            PERFORM FROM pgsig_private.run r
              WHERE r.id = v_run.id AND r.state IN ('queued', 'retrying') AND r.claimable_at IS NOT NULL FOR UPDATE SKIP LOCKED;
            CONTINUE WHEN NOT FOUND;
            SELECT min(free.slot) INTO v_slot FROM generate_series(0, v_run.slots - 1) free(slot)
             WHERE NOT EXISTS (SELECT FROM pgsig_private.run o WHERE o.operator_id = v_run.operator_id AND o.subject = v_run.subject
                                  AND o.slot = free.slot AND o.id <> v_run.id AND o.state IN ('starting', 'running', 'retrying'));
            IF v_slot IS NULL THEN  -- the place it was promised is taken again: wait for the next that frees one
                UPDATE pgsig_private.run r SET claimable_at = NULL WHERE r.id = v_run.id AND r.state = 'queued';
                CONTINUE;
            END IF;
            IF v_run.limit_key LIKE '%{params.%' THEN
                v_run.limit_key := pgsig_private.filled_key(v_run.id);
                UPDATE pgsig_private.run r SET limit_key = v_run.limit_key WHERE r.id = v_run.id;
            END IF;
            IF v_run.limit_key IS NOT NULL THEN
                IF NOT pg_try_advisory_xact_lock(1885827947, hashtext(v_run.limit_key)) THEN
                    v_again := true;
                    CONTINUE;
                END IF;
                SELECT count(*) INTO v_alive FROM pgsig_private.run o WHERE o.limit_key = v_run.limit_key AND o.state IN ('starting', 'running');
                IF v_alive >= v_run.limit_most THEN
                    UPDATE pgsig_private.run r SET blocked = true, claimable_at = NULL WHERE r.id = v_run.id;
                    CONTINUE;
                END IF;
            END IF;
            UPDATE pgsig_private.run r
               SET state = 'starting', runner_id = p_runner, slot = v_slot, epoch = greatest(r.epoch + 1, v_line.id), claimed_at = clock_timestamp(),
                   claimable_at = NULL, started_at = CASE WHEN r.handle IS NOT NULL THEN r.started_at END,
                   ready_at = CASE WHEN r.handle IS NOT NULL THEN r.ready_at END
             WHERE r.id = v_run.id;
            UPDATE pgsig_private.instance i SET observed = 'starting', run_id = v_run.id, changed_at = clock_timestamp()
             WHERE i.operator_id = v_run.operator_id AND i.subject = v_run.subject;
            v_taken := v_taken || v_run.id;
            IF v_free ? v_run.pool THEN
                v_free := jsonb_set(v_free, ARRAY[v_run.pool], to_jsonb((v_free->>v_run.pool)::integer - 1));
            END IF;
        END LOOP;
    END IF;
    IF v_again THEN  -- a lock was held for a moment: look again soon
        PERFORM pgsig_private.notify('pgsig_runs');
    END IF;
    IF p_tell AND cardinality(v_taken) < cardinality(v_next) THEN
        RETURN NEXT;
    END IF;
    IF v_taken = '{}' THEN
        RETURN;
    END IF;
    IF v_fill THEN  -- kept, so that whoever looks at the run sees what its job got
        UPDATE pgsig_private.run r SET params = r.params || pgsig_private.params_from(v.spec->'params_from', r.evidence)
          FROM pgsig_private.operator_version v
         WHERE r.id = ANY (v_taken) AND v.operator_id = r.operator_id AND v.version = r.version AND v.spec ? 'params_from';
    END IF;
    PERFORM pgsig_private.emit_states(v_taken, 'starting');
    v_since := pgsig_private.cursor_here();
    v_gone := pgsig_private.gone_runners(p_machine);  -- after the taking: whose runs were taken is among them
    RETURN QUERY
        SELECT r.id, r.epoch, r.attempt, r.generation, w.namespace, w.name, o.name, r.subject, v.kind, v.spec, r.params,
               CASE WHEN r.evidence = '{}' THEN '[]' ELSE coalesce(pgsig_private.signals_as_json(r.evidence), '[]') END, a.action, r.depth, r.handover_of,
               CASE v.kind WHEN 'streaming' THEN pgsig_private.last_checkpoint(r) ELSE r.checkpoint END, r.failures, r.handle,
               CASE WHEN r.handle IS NOT NULL THEN extract(epoch FROM clock_timestamp() - r.started_at)::double precision END, v_since, v_gone
          FROM pgsig_private.run r
          JOIN pgsig_private.operator o ON o.id = r.operator_id
          JOIN pgsig_private.workflow w ON w.id = o.workflow_id
          JOIN pgsig_private.operator_version v ON v.operator_id = r.operator_id AND v.version = r.version
          LEFT JOIN pgsig_private.action a ON a.id = r.action_id
         WHERE r.id = ANY (v_taken) ORDER BY r.id;
END $$;

-- Where a streaming run goes on: at its own checkpoint, at that of the one it takes over from, or at the newest of an earlier generation.
CREATE OR REPLACE FUNCTION pgsig_private.last_checkpoint(p_run pgsig_private.run) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(p_run.checkpoint,
        (SELECT h.checkpoint FROM pgsig_private.run h WHERE h.id = p_run.handover_of),
        (SELECT c.checkpoint FROM pgsig_private.run c
          WHERE c.operator_id = p_run.operator_id AND c.subject = p_run.subject AND c.checkpoint IS NOT NULL AND c.id < p_run.id
          ORDER BY c.id DESC LIMIT 1))
$$;

-- Parameters that come from the signals behind a run: each path's value in the newest of them that has it.
CREATE OR REPLACE FUNCTION pgsig_private.params_from(p_paths jsonb, p_evidence bigint[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(p.name, f.found), '{}')
      FROM jsonb_each_text(p_paths) p(name, path)
      CROSS JOIN LATERAL (
          SELECT jsonb_path_query_first(s.value, p.path::jsonpath, silent => true) AS found, s.id
            FROM pgsig_private.remembered s WHERE s.id = ANY (p_evidence)
      ) f
     WHERE f.found IS NOT NULL AND f.id = (
          SELECT max(n.id) FROM pgsig_private.remembered n
           WHERE n.id = ANY (p_evidence) AND jsonb_path_query_first(n.value, p.path::jsonpath, silent => true) IS NOT NULL)
$$;

-- The key of a run's limit with what only its signals tell put in; it is asked for when the run is claimed: until then signals may be merged.
CREATE OR REPLACE FUNCTION pgsig_private.filled_key(p_run bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_run  pgsig_private.run;
    v_from jsonb;
    v_name text;
BEGIN
    SELECT * INTO v_run FROM pgsig_private.run r WHERE r.id = p_run;
    SELECT v.spec->'params_from' INTO v_from FROM pgsig_private.operator_version v WHERE v.operator_id = v_run.operator_id AND v.version = v_run.version;
    v_run.params := v_run.params || coalesce(pgsig_private.params_from(v_from, v_run.evidence), '{}');
    FOR v_name IN SELECT k FROM jsonb_object_keys(coalesce(v_from, '{}')) k LOOP
        v_run.limit_key := replace(v_run.limit_key, '{params.' || v_name || '}', coalesce(
            CASE jsonb_typeof(v_run.params->v_name) WHEN 'string' THEN v_run.params->>v_name ELSE (v_run.params->v_name)::text END, ''));
    END LOOP;
    RETURN v_run.limit_key;
END $$;

-- The signals behind an action, as a job gets to see them. Nearly always all of them are in the log itself; to look elsewhere too takes twice as long.
CREATE OR REPLACE FUNCTION pgsig_private.signals_as_json(p_ids bigint[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_found jsonb := (
        SELECT jsonb_agg(jsonb_build_object('id', s.id, 'key', s.key, 'subject', s.subject, 'value', s.value, 'source', s.source,
                                            'emitted_at', s.emitted_at, 'run_id', s.run_id) ORDER BY s.id)
          FROM pgsig_private.signal s WHERE s.id = ANY (p_ids));
BEGIN
    IF jsonb_array_length(v_found) = cardinality(p_ids) THEN
        RETURN v_found;
    END IF;
    RETURN (
        SELECT jsonb_agg(jsonb_build_object('id', s.id, 'key', s.key, 'subject', s.subject, 'value', s.value, 'source', s.source,
                                            'emitted_at', s.emitted_at, 'run_id', s.run_id) ORDER BY s.id)
          FROM pgsig_private.remembered s WHERE s.id = ANY (p_ids));
END $$;

-- What a runner has to do for the runs that it holds: stop them, or hand them signals to reload with.
CREATE OR REPLACE FUNCTION pgsig_private.orders(p_runner bigint)
RETURNS TABLE (run_id bigint, epoch bigint, stop boolean, reload_id bigint, cause jsonb)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.id, r.epoch, true, NULL::bigint, NULL::jsonb FROM pgsig_private.run r
     WHERE r.runner_id = p_runner AND r.state IN ('starting', 'running') AND r.desired = 'stop'
    UNION ALL
    SELECT r.id, r.epoch, false, l.id, coalesce(pgsig_private.signals_as_json(l.evidence), '[]')
      FROM pgsig_private.run r JOIN pgsig_private.reload l ON l.run_id = r.id AND l.state = 'pending'
     WHERE r.runner_id = p_runner AND r.state = 'running' AND r.desired = 'run'
     ORDER BY 1, 4
$$;
