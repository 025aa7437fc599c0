-- REPORT: what becomes of a run. It moves from state to state as its runner reports, and each move is a signal. A report with the epoch of an older
-- grant changes nothing. Instance, run and a limit's key are locked in this order, as in 40_claim.sql.

-- What a run may be, and the published state machine: whoever tries. CHECKs and the WHEN of a trigger would be read from text, planned and set up anew
-- by each statement that touches a run, which takes several times as long as this.
CREATE OR REPLACE FUNCTION pgsig_private.check_run() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.state <> 'queued' THEN
            RAISE EXCEPTION 'a run begins as queued, not as %', NEW.state USING ERRCODE = 'PS310';
        END IF;
    ELSIF OLD.state <> NEW.state AND NOT (CASE OLD.state
        WHEN 'queued'   THEN NEW.state = ANY ('{starting,stopped}')
        WHEN 'starting' THEN NEW.state = ANY ('{running,retrying,succeeded,failed,stopped,lost}')
        WHEN 'running'  THEN NEW.state = ANY ('{retrying,succeeded,failed,stopped,lost}')
        WHEN 'retrying' THEN NEW.state = ANY ('{starting,stopped,failed}')
        ELSE false END) THEN
        RAISE EXCEPTION 'run % cannot move from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'PS310', HINT = 'queued > starting > running > succeeded, failed, stopped or lost; retrying goes back to starting';
    END IF;
    IF ((NEW.ended_at IS NOT NULL) = (NEW.state = ANY ('{succeeded,failed,stopped,lost}'))
        AND (NEW.state <> ALL ('{starting,running}') OR NEW.runner_id IS NOT NULL AND NEW.slot IS NOT NULL)
        AND (NEW.limit_key IS NULL) = (NEW.limit_most IS NULL) AND coalesce(NEW.limit_most, 1) > 0
        AND (NOT NEW.blocked OR NEW.limit_key IS NOT NULL AND NEW.claimable_at IS NULL)
        AND NEW.desired = ANY ('{run,stop}')) IS NOT TRUE
    THEN
        RAISE EXCEPTION 'run % cannot be so: %', NEW.id, NEW USING ERRCODE = 'check_violation',
            HINT = 'it has ended_at if its state is final, a runner and a slot if it starts or runs, limit_key and limit_most together and above 0, '
                   'waits for its key only if it has one and is not claimable, and its desired is run or stop';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER check_run BEFORE INSERT OR UPDATE ON pgsig_private.run
    FOR EACH ROW EXECUTE FUNCTION pgsig_private.check_run();

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

-- What became of runs that were granted, many reports in one transaction, in the order given:
-- [{run, epoch, state, delay, exit_code, reason, charged, failures, handle, cpu_seconds, memory_peak, ago}].
-- 'stale': the grant is no longer its own, and nothing was changed.
-- retrying carries the delay until the next attempt, in seconds. A run that was asked to stop does not retry. An attempt that is not charged (its
-- runner shut down, or it never began) goes on under its number: nothing of the job's doing has failed. handle: the engine's name of the job,
-- while there is one that another runner could take over; until one has, it is alive without anybody to stop it, and has begun when it began.
-- ago: for how many seconds it has been so. That a short job began is told together with its end.
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
                   failures integer, handle text, cpu_seconds double precision, memory_peak bigint, ago double precision)
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
                   started_at = CASE WHEN t.becomes <> 'running' OR r.handle = t.handle THEN r.started_at
                                     ELSE greatest(r.claimed_at, clock_timestamp() - make_interval(secs => coalesce(t.ago, 0))) END,
                   ready_at = CASE WHEN t.becomes <> 'running' OR r.handle = t.handle THEN r.ready_at END,
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
    INSERT INTO pgsig_private.signal (kind, namespace, lane, key, subject, value, source, run_id, depth)
    SELECT 'state', w.namespace, w.lane,
           'run.' || w.name || '.' || o.name || '.' || m.state, m.subject,
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

-- A reload was delivered, acknowledged or has failed. A failed one falls back to RESTART, as an order like any other but that it is about this
-- run: where a STOP or another RESTART came first, nothing is begun. So replicas that fail the same RELOAD are restarted once. What was to be
-- reloaded with is the cause of what begins instead.
CREATE OR REPLACE FUNCTION pgsig_private.report_reload(p_reload bigint, p_epoch bigint, p_state text, p_reason text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_run      pgsig_private.run;
    v_evidence bigint[];
BEGIN
    SELECT r.* INTO v_run FROM pgsig_private.run r JOIN pgsig_private.reload l ON l.run_id = r.id WHERE l.id = p_reload;
    IF v_run.id IS NULL OR v_run.epoch <> p_epoch THEN
        RETURN 'stale';
    END IF;
    UPDATE pgsig_private.reload l
       SET state = p_state, reason = p_reason,
           delivered_at = CASE WHEN p_state = 'delivered' THEN clock_timestamp() ELSE l.delivered_at END,
           ended_at = CASE WHEN p_state IN ('acknowledged', 'failed') THEN clock_timestamp() END
     WHERE l.id = p_reload AND l.state IN ('pending', 'delivered') RETURNING l.evidence INTO v_evidence;
    IF NOT FOUND THEN
        RETURN 'stale';
    END IF;
    IF p_state = 'failed' AND v_run.desired = 'run' THEN
        INSERT INTO pgsig.signals (kind, namespace, key, subject, value, source, run_id, depth)
        SELECT 'manual', w.namespace, 'manual.' || w.name || '.' || o.name, v_run.subject,
               jsonb_build_object('action', 'RESTART', 'run', v_run.id, 'evidence', v_evidence, 'params', '{}'::jsonb,
                                  'reason', 'reload failed: ' || coalesce(p_reason, 'no reason given')),
               'pgsig', v_run.id, v_run.depth
          FROM pgsig_private.operator o JOIN pgsig_private.workflow w ON w.id = o.workflow_id WHERE o.id = v_run.operator_id;
    END IF;
    RETURN 'ok';
END $$;
