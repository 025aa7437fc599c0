-- JOBS: claim, report, lease. A runner holds a lease; each grant of a run carries an epoch, and a report with an old epoch changes nothing.
-- Every function that changes a run locks its instance first, then the run, last a limit's key. All times are the database's.

-- Say "look now", unless the server's queue of notifications is about to be full, because some session of this cluster listens in a transaction
-- that does not end: with a full one, every commit that has a NOTIFY in it fails. Then the polls find what there is.
CREATE OR REPLACE FUNCTION pgsig_private.notify(p_channel text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_notification_queue_usage() < 0.9 THEN
        PERFORM pg_notify(p_channel, '');
    END IF;
END $$;

-- The published state machine. Illegal moves are impossible, whoever tries.
CREATE OR REPLACE FUNCTION pgsig_private.check_move() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'queued' THEN
            RAISE EXCEPTION 'a run begins as queued, not as %', NEW.state USING ERRCODE = 'PS310';
        END IF;
    ELSIF NOT (CASE OLD.state
        WHEN 'queued'   THEN NEW.state IN ('starting', 'stopped')
        WHEN 'starting' THEN NEW.state IN ('running', 'retrying', 'succeeded', 'failed', 'stopped', 'lost')
        WHEN 'running'  THEN NEW.state IN ('retrying', 'succeeded', 'failed', 'stopped', 'lost')
        WHEN 'retrying' THEN NEW.state IN ('starting', 'stopped', 'failed')
        ELSE false END) THEN
        RAISE EXCEPTION 'run % cannot move from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'PS310', HINT = 'queued > starting > running > succeeded, failed, stopped or lost; retrying goes back to starting';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER check_first BEFORE INSERT ON pgsig_private.run
    FOR EACH ROW EXECUTE FUNCTION pgsig_private.check_move();
CREATE OR REPLACE TRIGGER check_move BEFORE UPDATE ON pgsig_private.run
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION pgsig_private.check_move();

-- After runs of an instance have ended: let the next ones go. The instance is locked by the caller.
CREATE OR REPLACE FUNCTION pgsig_private.release_next(p_operator bigint, p_subject text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_next record;
    v_busy integer;
BEGIN
    SELECT count(*) INTO v_busy FROM pgsig_private.run r
     WHERE r.operator_id = p_operator AND r.subject = p_subject
       AND (r.state IN ('starting', 'running', 'retrying') OR (r.state = 'queued' AND (r.claimable_at IS NOT NULL OR r.blocked)));
    FOR v_next IN
        SELECT r.id, r.slots FROM pgsig_private.run r
         WHERE r.operator_id = p_operator AND r.subject = p_subject AND r.state = 'queued' AND r.claimable_at IS NULL AND NOT r.blocked
         ORDER BY r.id
    LOOP
        EXIT WHEN v_busy >= v_next.slots;
        UPDATE pgsig_private.run SET claimable_at = clock_timestamp() WHERE id = v_next.id;
        v_busy := v_busy + 1;
        PERFORM pgsig_private.notify('pgsig_runs');
    END LOOP;
END $$;

-- After a run has ended: let the next ones of its instance go, and say what is to be seen now. The instance is locked by the caller. What was
-- before is not looked through: an operator may have a hundred thousand runs, and the last one that ended is this one.
CREATE OR REPLACE FUNCTION pgsig_private.settle(p_ended bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_ended pgsig_private.run;
    v_seen  record;
BEGIN
    SELECT * INTO v_ended FROM pgsig_private.run r WHERE r.id = p_ended;
    PERFORM pgsig_private.release_next(v_ended.operator_id, v_ended.subject);
    -- Seen is the newest run that is alive, else the newest that waits, else the one that has ended right now.
    SELECT r.id, r.state INTO v_seen FROM pgsig_private.run r
     WHERE r.operator_id = v_ended.operator_id AND r.subject = v_ended.subject AND r.state IN ('queued', 'starting', 'running', 'retrying')
     ORDER BY r.state = 'queued', r.id DESC LIMIT 1;
    IF NOT FOUND THEN
        SELECT v_ended.id, v_ended.state INTO v_seen;
    END IF;
    UPDATE pgsig_private.instance i
       SET observed = v_seen.state, run_id = v_seen.id, changed_at = clock_timestamp(),
           desired = CASE WHEN v_seen.state IN ('succeeded', 'stopped') THEN 'stopped' ELSE i.desired END
     WHERE i.operator_id = v_ended.operator_id AND i.subject = v_ended.subject;
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
CREATE OR REPLACE FUNCTION pgsig_private.claim(p_runner bigint, p_pools text[], p_capacity integer, p_labels text[] DEFAULT '{}')
RETURNS TABLE (
    id bigint, epoch bigint, attempt integer, generation bigint, namespace text, workflow text, operator text, subject text, kind text,
    spec jsonb, params jsonb, cause jsonb, action text, depth smallint, handover_of bigint, checkpoint jsonb, failures smallint, handle text
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
    v_line  pgsig_private.timeline := pgsig_private.note_timeline();
BEGIN
    IF NOT EXISTS (SELECT FROM pgsig_private.process p WHERE p.id = p_runner AND p.ended_at IS NULL AND p.lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'runner % holds no lease', p_runner USING ERRCODE = 'PS301', HINT = 'renew it, or join again';
    END IF;
    -- What the lost end of the log had granted may still be executed.
    IF coalesce(v_line.quiet_until > clock_timestamp(), true) THEN
        RETURN;
    END IF;
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
    v_next := ARRAY(
        SELECT r.id FROM pgsig_private.run r
         WHERE r.pool = ANY (v_open) AND r.state IN ('queued', 'retrying') AND r.claimable_at <= clock_timestamp() AND r.labels <@ p_labels
         ORDER BY r.priority DESC, r.claimable_at, r.id LIMIT p_capacity);
    -- The plain ones, one of an instance and without a limit that they could meet, take a statement for all.
    v_plain := ARRAY(
        SELECT min(r.id) FROM pgsig_private.run r WHERE r.id = ANY (v_next)
         GROUP BY r.operator_id, r.subject HAVING count(*) = 1 AND count(r.limit_key) = 0 AND NOT v_free ? min(r.pool));
    v_plain := ARRAY(
        SELECT r.id FROM pgsig_private.run r JOIN pgsig_private.instance i ON i.operator_id = r.operator_id AND i.subject = r.subject
         WHERE r.id = ANY (v_plain) FOR UPDATE OF i SKIP LOCKED);
    v_plain := ARRAY(
        SELECT r.id FROM pgsig_private.run r
         WHERE r.id = ANY (v_plain) AND r.state IN ('queued', 'retrying') AND r.claimable_at IS NOT NULL FOR UPDATE SKIP LOCKED);
    WITH taken AS (
        UPDATE pgsig_private.run r
           SET state = 'starting', runner_id = p_runner, slot = free.slot, epoch = greatest(r.epoch + 1, v_line.id), claimed_at = clock_timestamp(),
               claimable_at = NULL, started_at = CASE WHEN r.handle IS NOT NULL THEN r.started_at END, ready_at = NULL
          FROM unnest(v_plain) plain(id)
          JOIN pgsig_private.run q ON q.id = plain.id
         CROSS JOIN LATERAL (
               SELECT min(free.slot)::smallint AS slot FROM generate_series(0, q.slots - 1) free(slot)
                WHERE NOT EXISTS (SELECT FROM pgsig_private.run o WHERE o.operator_id = q.operator_id AND o.subject = q.subject
                                     AND o.slot = free.slot AND o.id <> q.id AND o.state IN ('starting', 'running', 'retrying'))) free
         WHERE r.id = plain.id AND free.slot IS NOT NULL
        RETURNING r.id, r.operator_id, r.subject
    ), seen AS (
        UPDATE pgsig_private.instance i SET observed = 'starting', run_id = t.id, changed_at = clock_timestamp()
          FROM taken t WHERE i.operator_id = t.operator_id AND i.subject = t.subject
    )
    SELECT coalesce(array_agg(t.id), '{}') INTO v_taken FROM taken t;
    UPDATE pgsig_private.run r SET claimable_at = NULL  -- the place they were promised is taken again: they wait for the next that frees one
     WHERE r.id = ANY (v_plain) AND r.state = 'queued' AND v_plain <> v_taken;
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
               claimable_at = NULL, started_at = CASE WHEN r.handle IS NOT NULL THEN r.started_at END, ready_at = NULL
         WHERE r.id = v_run.id;
        UPDATE pgsig_private.instance i SET observed = 'starting', run_id = v_run.id, changed_at = clock_timestamp()
         WHERE i.operator_id = v_run.operator_id AND i.subject = v_run.subject;
        v_taken := v_taken || v_run.id;
        IF v_free ? v_run.pool THEN
            v_free := jsonb_set(v_free, ARRAY[v_run.pool], to_jsonb((v_free->>v_run.pool)::integer - 1));
        END IF;
    END LOOP;
    IF v_again THEN  -- a lock was held for a moment: look again soon
        PERFORM pgsig_private.notify('pgsig_runs');
    END IF;
    IF v_taken = '{}' THEN
        RETURN;
    END IF;
    PERFORM pgsig_private.emit_states(v_taken, 'starting');
    RETURN QUERY
        SELECT r.id, r.epoch, r.attempt, r.generation, w.namespace, w.name, o.name, r.subject, v.kind, v.spec,
               CASE WHEN v.spec ? 'params_from' THEN r.params || pgsig_private.params_from(v.spec->'params_from', r.evidence) ELSE r.params END,
               CASE WHEN r.evidence = '{}' THEN '[]' ELSE coalesce(pgsig_private.signals_as_json(r.evidence), '[]') END, a.action, r.depth, r.handover_of,
               CASE v.kind WHEN 'streaming' THEN pgsig_private.last_checkpoint(r) ELSE r.checkpoint END, r.failures, r.handle
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

-- The signals behind an action, as a job gets to see them.
CREATE OR REPLACE FUNCTION pgsig_private.signals_as_json(p_ids bigint[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_agg(jsonb_build_object('id', s.id, 'key', s.key, 'subject', s.subject, 'value', s.value, 'source', s.source,
                                        'emitted_at', s.emitted_at, 'run_id', s.run_id) ORDER BY s.id)
      FROM pgsig_private.remembered s WHERE s.id = ANY (p_ids)
$$;

-- What became of runs that were granted, many reports in one transaction, in the order given:
-- [{run, epoch, state, delay, exit_code, reason, charged, failures, handle, cpu_seconds, memory_peak}].
-- 'stale': the grant is no longer its own, and nothing was changed.
-- retrying carries the delay until the next attempt, in seconds. A run that was asked to stop does not retry. An attempt that is not charged (its
-- runner shut down, or it never began) goes on under its number: nothing of the job's doing has failed. handle: the engine's name of the job,
-- while there is one that another runner could take over; until one has, it is alive without anybody to stop it, and has begun when it began.
-- Instances are locked first and in one order, as everywhere, then the runs; keys whose runs have ended are looked after last, in one order too.
-- A statement serves all runs at once: what a runner has to tell in a moment is told at the price of little more than one.
CREATE OR REPLACE FUNCTION pgsig_private.report_many(p_reports jsonb) RETURNS TABLE (place integer, answer text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    v_runs  bigint[] := ARRAY(SELECT DISTINCT n.run FROM jsonb_to_recordset(p_reports) AS n(run bigint) ORDER BY 1);
    v_rest  jsonb := p_reports;
    v_wave  jsonb;
    v_part  jsonb;
    v_moved jsonb := '[]';  -- what has changed: the columns of the run as they were right then, and the report's place
    v_one   record;
BEGIN
    PERFORM FROM pgsig_private.instance i
      WHERE (i.operator_id, i.subject) IN (SELECT r.operator_id, r.subject FROM pgsig_private.run r WHERE r.id = ANY (v_runs))
      ORDER BY i.operator_id, i.subject FOR UPDATE;
    PERFORM FROM pgsig_private.run r WHERE r.id = ANY (v_runs) ORDER BY r.id FOR UPDATE;
    -- Of each run one report at a time: the first wave has everybody's first.
    SELECT jsonb_agg(n.report || jsonb_build_object('place', n.place - 1)) INTO v_rest
      FROM jsonb_array_elements(p_reports) WITH ORDINALITY n(report, place);
    WHILE v_rest IS NOT NULL LOOP
        SELECT jsonb_agg(n.report) FILTER (WHERE n.nth = 1), jsonb_agg(n.report) FILTER (WHERE n.nth > 1) INTO v_wave, v_rest
          FROM (SELECT e.report, row_number() OVER (PARTITION BY e.report->'run' ORDER BY e.ordinality) AS nth
                  FROM jsonb_array_elements(v_rest) WITH ORDINALITY e(report, ordinality)) n;
        WITH told AS MATERIALIZED (
            SELECT x.*, r.state AS was, r.id IS NOT NULL AND r.epoch = x.epoch AND r.state IN ('starting', 'running') AS good,
                   CASE WHEN x.state = 'retrying' AND r.desired = 'stop' AND x.handle IS NULL THEN 'stopped' ELSE x.state END AS becomes
              FROM jsonb_to_recordset(v_wave) AS x(
                   place integer, run bigint, epoch bigint, state text, delay double precision, exit_code integer, reason text, charged boolean,
                   failures integer, handle text, cpu_seconds double precision, memory_peak bigint)
              LEFT JOIN pgsig_private.run r ON r.id = x.run
        ), moved AS (
            UPDATE pgsig_private.run r
               SET state = t.becomes,
                   exit_code = t.exit_code,
                   reason = t.reason,
                   handle = t.handle,
                   failures = coalesce(t.failures, r.failures),
                   -- Of all attempts together: what the run has cost.
                   cpu_seconds = CASE WHEN t.cpu_seconds IS NULL THEN r.cpu_seconds ELSE coalesce(r.cpu_seconds, 0) + t.cpu_seconds END,
                   memory_peak = greatest(r.memory_peak, t.memory_peak),
                   started_at = CASE WHEN t.becomes <> 'running' OR r.handle = t.handle THEN r.started_at ELSE clock_timestamp() END,
                   ended_at = CASE WHEN t.becomes IN ('succeeded', 'failed', 'stopped', 'lost') THEN clock_timestamp() END,
                   -- A new attempt is a new grant: whoever held the old one is fenced off from here on.
                   epoch = CASE WHEN t.becomes IN ('retrying', 'lost') THEN r.epoch + 1 ELSE r.epoch END,
                   attempt = CASE WHEN t.becomes = 'retrying' AND coalesce(t.charged, true) THEN r.attempt + 1 ELSE r.attempt END,
                   claimable_at = CASE WHEN t.becomes = 'retrying' THEN clock_timestamp() + make_interval(secs => coalesce(t.delay, 0)) END
              FROM told t
             WHERE r.id = t.run AND t.good AND t.becomes <> t.was
            RETURNING t.place, r.id, r.operator_id, r.subject, r.state, r.attempt, r.generation, r.exit_code, r.reason, r.depth, r.pool, r.limit_key
        )
        SELECT (SELECT coalesce(jsonb_agg(to_jsonb(m)), '[]') FROM moved m),
               (SELECT jsonb_agg(jsonb_build_object('place', t.place, 'answer', CASE WHEN t.good THEN 'ok' ELSE 'stale' END)) FROM told t)
          INTO v_part, v_wave;
        v_moved := v_moved || v_part;
        RETURN QUERY SELECT a.place, a.answer FROM jsonb_to_recordset(v_wave) AS a(place integer, answer text);
    END LOOP;
    IF v_moved = '[]' THEN
        RETURN;
    END IF;
    PERFORM pgsig_private.end_reloads(ARRAY(
        SELECT m.id FROM jsonb_to_recordset(v_moved) AS m(id bigint, state text) WHERE m.state NOT IN ('running', 'retrying')));
    -- Handed over, but nobody is left to acknowledge it: the next attempt gets it again.
    UPDATE pgsig_private.reload l SET state = 'pending', delivered_at = NULL
     WHERE l.state = 'delivered'
       AND l.run_id = ANY (ARRAY(SELECT m.id FROM jsonb_to_recordset(v_moved) AS m(id bigint, state text) WHERE m.state = 'retrying'));
    FOR v_one IN
        SELECT DISTINCT m.operator_id, m.subject FROM jsonb_to_recordset(v_moved) AS m(operator_id bigint, subject text, state text)
         WHERE m.state <> 'running' AND EXISTS (
               SELECT FROM pgsig_private.run q WHERE q.operator_id = m.operator_id AND q.subject = m.subject
                  AND q.state = 'queued' AND q.claimable_at IS NULL AND NOT q.blocked)
    LOOP
        PERFORM pgsig_private.release_next(v_one.operator_id, v_one.subject);
    END LOOP;
    -- Seen is the newest run that is alive, else the newest that waits, else the one that has ended right now.
    UPDATE pgsig_private.instance i
       SET observed = seen.state, run_id = seen.id, changed_at = clock_timestamp(),
           desired = CASE WHEN seen.state IN ('succeeded', 'stopped') THEN 'stopped' ELSE i.desired END
      FROM (SELECT DISTINCT ON (m.operator_id, m.subject) m.operator_id, m.subject, m.id, m.state
              FROM jsonb_to_recordset(v_moved) AS m(place integer, operator_id bigint, subject text, id bigint, state text)
             ORDER BY m.operator_id, m.subject, m.place DESC) last
      CROSS JOIN LATERAL (
            SELECT o.id, o.state FROM (
                (SELECT r.id, r.state, r.state = 'queued' AS waits FROM pgsig_private.run r
                  WHERE r.operator_id = last.operator_id AND r.subject = last.subject AND r.state IN ('queued', 'starting', 'running', 'retrying'))
                UNION ALL SELECT last.id, last.state, NULL WHERE last.state IN ('succeeded', 'failed', 'stopped', 'lost')
            ) o ORDER BY o.waits NULLS LAST, o.id DESC LIMIT 1) seen
     WHERE i.operator_id = last.operator_id AND i.subject = last.subject;
    INSERT INTO pgsig.signals (kind, namespace, key, subject, value, source, run_id, depth)
    SELECT 'state', w.namespace, 'run.' || w.name || '.' || o.name || '.' || m.state, m.subject,
           coalesce(r.result, jsonb_strip_nulls(jsonb_build_object(
               'run', m.id, 'attempt', m.attempt, 'generation', m.generation, 'exit_code', m.exit_code, 'reason', m.reason))),
           'pgsig', m.id, m.depth
      FROM jsonb_to_recordset(v_moved) AS m(
           place integer, id bigint, operator_id bigint, subject text, state text, attempt integer, generation bigint, exit_code integer, reason text,
           depth smallint)
      JOIN pgsig_private.run r ON r.id = m.id
      JOIN pgsig_private.operator o ON o.id = m.operator_id
      JOIN pgsig_private.workflow w ON w.id = o.workflow_id
     ORDER BY m.place;
    IF EXISTS (SELECT FROM jsonb_to_recordset(v_moved) AS m(state text, pool text)
                WHERE m.state = 'retrying' OR (m.state <> 'running' AND EXISTS (SELECT FROM pgsig_private.pool p WHERE p.name = m.pool))) THEN
        PERFORM pgsig_private.notify('pgsig_runs');
    END IF;
    FOR v_one IN
        SELECT DISTINCT m.limit_key FROM jsonb_to_recordset(v_moved) AS m(state text, limit_key text)
         WHERE m.limit_key IS NOT NULL AND m.state <> 'running' ORDER BY 1
    LOOP
        PERFORM pg_advisory_xact_lock(1885827947, hashtext(v_one.limit_key));
        PERFORM pgsig_private.unblock(v_one.limit_key);
    END LOOP;
END $$;

-- One report. See report_many.
CREATE OR REPLACE FUNCTION pgsig_private.report(
    p_run bigint, p_epoch bigint, p_state text, p_delay interval DEFAULT NULL, p_exit_code integer DEFAULT NULL,
    p_reason text DEFAULT NULL, p_charged boolean DEFAULT true, p_failures integer DEFAULT NULL, p_handle text DEFAULT NULL,
    p_cpu_seconds double precision DEFAULT NULL, p_memory_peak bigint DEFAULT NULL
) RETURNS text LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.answer FROM pgsig_private.report_many(jsonb_build_array(jsonb_build_object(
        'run', p_run, 'epoch', p_epoch, 'state', p_state, 'delay', extract(epoch FROM p_delay), 'exit_code', p_exit_code, 'reason', p_reason,
        'charged', p_charged, 'failures', p_failures, 'handle', p_handle, 'cpu_seconds', p_cpu_seconds, 'memory_peak', p_memory_peak))) m
$$;

-- A run says that it serves. The one it takes over from is asked to stop only now.
CREATE OR REPLACE FUNCTION pgsig_private.ready(p_run bigint, p_epoch bigint) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_run pgsig_private.run;
BEGIN
    SELECT * INTO v_run FROM pgsig_private.run r WHERE r.id = p_run;
    PERFORM FROM pgsig_private.instance i WHERE i.operator_id = v_run.operator_id AND i.subject = v_run.subject FOR UPDATE;
    SELECT * INTO v_run FROM pgsig_private.run r WHERE r.id = p_run FOR UPDATE;
    IF v_run.id IS NULL OR v_run.epoch <> p_epoch OR v_run.state <> 'running' THEN
        RETURN 'stale';
    END IF;
    IF v_run.ready_at IS NOT NULL THEN
        RETURN 'ok';
    END IF;
    UPDATE pgsig_private.run r SET ready_at = clock_timestamp() WHERE r.id = p_run;
    IF v_run.handover_of IS NOT NULL THEN
        PERFORM pgsig_private.record(jsonb_build_object('stops', jsonb_build_array(v_run.handover_of)));
    END IF;
    PERFORM pgsig_private.emit_states(ARRAY[p_run], 'ready');
    RETURN 'ok';
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

-- A reload was delivered, acknowledged or has failed. A failed one falls back to RESTART, as an order like any other but that it is about this
-- run: where a STOP or another RESTART came first, nothing is begun. So replicas that fail the same RELOAD are restarted once.
CREATE OR REPLACE FUNCTION pgsig_private.report_reload(p_reload bigint, p_epoch bigint, p_state text, p_reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_run pgsig_private.run;
BEGIN
    SELECT r.* INTO v_run FROM pgsig_private.run r JOIN pgsig_private.reload l ON l.run_id = r.id WHERE l.id = p_reload;
    IF v_run.id IS NULL OR v_run.epoch <> p_epoch THEN
        RETURN 'stale';
    END IF;
    UPDATE pgsig_private.reload l
       SET state = p_state, reason = p_reason,
           delivered_at = CASE WHEN p_state = 'delivered' THEN clock_timestamp() ELSE l.delivered_at END,
           ended_at = CASE WHEN p_state IN ('acknowledged', 'failed') THEN clock_timestamp() END
     WHERE l.id = p_reload AND l.state IN ('pending', 'delivered');
    IF NOT FOUND THEN
        RETURN 'stale';
    END IF;
    IF p_state = 'failed' AND v_run.desired = 'run' THEN
        INSERT INTO pgsig.signals (kind, namespace, key, subject, value, source, run_id, depth)
        SELECT 'manual', w.namespace, 'manual.' || w.name || '.' || o.name, v_run.subject,
               jsonb_build_object('action', 'RESTART', 'run', v_run.id, 'params', '{}'::jsonb, 'reason', 'reload failed: ' || coalesce(p_reason, 'no reason given')),
               'pgsig', v_run.id, v_run.depth
          FROM pgsig_private.operator o JOIN pgsig_private.workflow w ON w.id = o.workflow_id WHERE o.id = v_run.operator_id;
    END IF;
    RETURN 'ok';
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
    IF NOT pg_try_advisory_xact_lock(1885827945, 1002) THEN
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
