-- JOBS: claim, report, lease. A runner holds a lease; each grant of a run carries an epoch, and a report with an old epoch changes nothing.
-- Every function that changes a run locks its instance first, then the run. All times are the database's.

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

-- After a run of this instance ended: let the next ones go, and say what is to be seen now. The instance is locked by the caller.
CREATE OR REPLACE FUNCTION pgsig_private.settle(p_operator bigint, p_subject text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_next record;
    v_busy integer;
    v_seen record;
BEGIN
    SELECT count(*) INTO v_busy FROM pgsig_private.run r
     WHERE r.operator_id = p_operator AND r.subject = p_subject
       AND (r.state IN ('starting', 'running', 'retrying') OR (r.state = 'queued' AND r.claimable_at IS NOT NULL));
    FOR v_next IN
        SELECT r.id, r.slots FROM pgsig_private.run r
         WHERE r.operator_id = p_operator AND r.subject = p_subject AND r.state = 'queued' AND r.claimable_at IS NULL ORDER BY r.id
    LOOP
        EXIT WHEN v_busy >= v_next.slots;
        UPDATE pgsig_private.run SET claimable_at = clock_timestamp() WHERE id = v_next.id;
        v_busy := v_busy + 1;
        PERFORM pg_notify('pgsig_runs', '');
    END LOOP;
    -- Seen is the newest run that is alive, else the newest that waits, else how the last one ended.
    SELECT r.id, r.state INTO v_seen FROM pgsig_private.run r
     WHERE r.operator_id = p_operator AND r.subject = p_subject AND r.state IN ('queued', 'starting', 'running', 'retrying')
     ORDER BY r.state = 'queued', r.id DESC LIMIT 1;
    IF NOT FOUND THEN
        SELECT r.id, r.state INTO v_seen FROM pgsig_private.run r
         WHERE r.operator_id = p_operator AND r.subject = p_subject ORDER BY r.ended_at DESC NULLS LAST, r.id DESC LIMIT 1;
    END IF;
    UPDATE pgsig_private.instance i
       SET observed = v_seen.state, run_id = v_seen.id, changed_at = clock_timestamp(),
           desired = CASE WHEN v_seen.state IN ('succeeded', 'stopped') THEN 'stopped' ELSE i.desired END
     WHERE i.operator_id = p_operator AND i.subject = p_subject;
END $$;

CREATE OR REPLACE FUNCTION pgsig_private.join_processes(
    p_role text, p_name text, p_host text, p_pid integer, p_version text, p_pools text[], p_capacity integer, p_ttl interval
) RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgsig_private.process (role, name, host, pid, version, pools, capacity, lease_until)
    VALUES (p_role, p_name, p_host, p_pid, p_version, p_pools, p_capacity, clock_timestamp() + p_ttl) RETURNING id
$$;

-- False: somebody has declared this process dead. It must stop what it holds, and join anew.
CREATE OR REPLACE FUNCTION pgsig_private.renew(p_process bigint, p_ttl interval, p_detail jsonb DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE pgsig_private.process SET lease_until = clock_timestamp() + p_ttl, detail = coalesce(p_detail, detail)
     WHERE id = p_process AND ended_at IS NULL;
    RETURN FOUND;
END $$;

CREATE OR REPLACE FUNCTION pgsig_private.claim(p_runner bigint, p_pools text[], p_capacity integer)
RETURNS TABLE (
    id bigint, epoch bigint, attempt integer, generation bigint, namespace text, workflow text, operator text, subject text, kind text,
    spec jsonb, params jsonb, cause jsonb, action text, depth smallint, handover_of bigint, checkpoint jsonb
)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_run   record;
    v_slot  smallint;
    v_taken bigint[] := '{}';
BEGIN
    IF NOT EXISTS (SELECT FROM pgsig_private.process p WHERE p.id = p_runner AND p.ended_at IS NULL AND p.lease_until > clock_timestamp()) THEN
        RAISE EXCEPTION 'runner % holds no lease', p_runner USING ERRCODE = 'PS301', HINT = 'renew it, or join again';
    END IF;
    FOR v_run IN
        SELECT r.id, r.operator_id, r.subject, r.slots FROM pgsig_private.run r
         WHERE r.pool = ANY (p_pools) AND r.state IN ('queued', 'retrying') AND r.claimable_at <= clock_timestamp()
         ORDER BY r.priority DESC, r.claimable_at, r.id LIMIT p_capacity
    LOOP
        -- Somebody at work on this instance will announce it when done; waiting here could meet a second claimer head on.
        PERFORM FROM pgsig_private.instance i
          WHERE i.operator_id = v_run.operator_id AND i.subject = v_run.subject FOR UPDATE SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        PERFORM FROM pgsig_private.run r WHERE r.id = v_run.id AND r.state IN ('queued', 'retrying') AND r.claimable_at IS NOT NULL FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        SELECT min(free.slot) INTO v_slot FROM generate_series(0, v_run.slots - 1) free(slot)
         WHERE NOT EXISTS (SELECT FROM pgsig_private.run o WHERE o.operator_id = v_run.operator_id AND o.subject = v_run.subject
                              AND o.slot = free.slot AND o.id <> v_run.id AND o.state IN ('starting', 'running', 'retrying'));
        IF v_slot IS NULL THEN  -- the place it was promised is taken again: wait for the next that frees one
            UPDATE pgsig_private.run r SET claimable_at = NULL WHERE r.id = v_run.id AND r.state = 'queued';
            CONTINUE;
        END IF;
        UPDATE pgsig_private.run r
           SET state = 'starting', runner_id = p_runner, slot = v_slot, epoch = r.epoch + 1, claimed_at = clock_timestamp(),
               claimable_at = NULL, started_at = NULL, ready_at = NULL
         WHERE r.id = v_run.id;
        UPDATE pgsig_private.instance i SET observed = 'starting', run_id = v_run.id, changed_at = clock_timestamp()
         WHERE i.operator_id = v_run.operator_id AND i.subject = v_run.subject;
        v_taken := v_taken || v_run.id;
    END LOOP;
    IF v_taken = '{}' THEN
        RETURN;
    END IF;
    PERFORM pgsig_private.emit_states(v_taken, 'starting');
    RETURN QUERY
        SELECT r.id, r.epoch, r.attempt, r.generation, w.namespace, w.name, o.name, r.subject, v.kind, v.spec, r.params,
               coalesce(pgsig_private.signals_as_json(r.evidence), '[]'), a.action, r.depth, r.handover_of, r.checkpoint
          FROM pgsig_private.run r
          JOIN pgsig_private.operator o ON o.id = r.operator_id
          JOIN pgsig_private.workflow w ON w.id = o.workflow_id
          JOIN pgsig_private.operator_version v ON v.operator_id = r.operator_id AND v.version = r.version
          LEFT JOIN pgsig_private.action a ON a.id = r.action_id
         WHERE r.id = ANY (v_taken) ORDER BY r.id;
END $$;

-- The signals behind an action, as a job gets to see them.
CREATE OR REPLACE FUNCTION pgsig_private.signals_as_json(p_ids bigint[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_agg(jsonb_build_object('id', s.id, 'key', s.key, 'subject', s.subject, 'value', s.value, 'source', s.source,
                                        'emitted_at', s.emitted_at, 'run_id', s.run_id) ORDER BY s.id)
      FROM pgsig.signals s WHERE s.id = ANY (p_ids)
$$;

-- A runner says what became of a run it was granted. 'stale': the grant is no longer its own, and nothing was changed.
-- retrying carries the delay until the next attempt. A run that was asked to stop does not retry. An attempt that is not charged (its runner
-- shut down, or it never began) goes on under its number: nothing of the job's doing has failed.
CREATE OR REPLACE FUNCTION pgsig_private.report(
    p_run bigint, p_epoch bigint, p_state text, p_delay interval DEFAULT NULL, p_exit_code integer DEFAULT NULL,
    p_reason text DEFAULT NULL, p_result jsonb DEFAULT NULL, p_charged boolean DEFAULT true
) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_run   pgsig_private.run;
    v_state text := p_state;
BEGIN
    SELECT * INTO v_run FROM pgsig_private.run r WHERE r.id = p_run;
    PERFORM FROM pgsig_private.instance i WHERE i.operator_id = v_run.operator_id AND i.subject = v_run.subject FOR UPDATE;
    SELECT * INTO v_run FROM pgsig_private.run r WHERE r.id = p_run FOR UPDATE;
    IF v_run.id IS NULL OR v_run.epoch <> p_epoch OR v_run.state NOT IN ('starting', 'running') THEN
        RETURN 'stale';
    END IF;
    IF v_state = 'retrying' AND v_run.desired = 'stop' THEN
        v_state := 'stopped';
    END IF;
    IF v_state = v_run.state THEN
        RETURN 'ok';
    END IF;
    UPDATE pgsig_private.run r
       SET state = v_state,
           exit_code = p_exit_code,
           reason = p_reason,
           result = coalesce(p_result, r.result),
           started_at = CASE WHEN v_state = 'running' THEN clock_timestamp() ELSE r.started_at END,
           ended_at = CASE WHEN v_state IN ('succeeded', 'failed', 'stopped', 'lost') THEN clock_timestamp() END,
           -- A new attempt is a new grant: whoever held the old one is fenced off from here on.
           epoch = CASE WHEN v_state IN ('retrying', 'lost') THEN r.epoch + 1 ELSE r.epoch END,
           attempt = CASE WHEN v_state = 'retrying' AND p_charged THEN r.attempt + 1 ELSE r.attempt END,
           claimable_at = CASE WHEN v_state = 'retrying' THEN clock_timestamp() + coalesce(p_delay, interval '0') END
     WHERE r.id = p_run;
    UPDATE pgsig_private.reload l SET state = 'failed', ended_at = clock_timestamp(), reason = 'the run ended'
     WHERE l.run_id = p_run AND l.state IN ('pending', 'delivered') AND v_state IN ('succeeded', 'failed', 'stopped', 'lost');
    -- Handed over, but nobody is left to acknowledge it: the next attempt gets it again.
    UPDATE pgsig_private.reload l SET state = 'pending', delivered_at = NULL
     WHERE l.run_id = p_run AND l.state = 'delivered' AND v_state = 'retrying';
    PERFORM pgsig_private.settle(v_run.operator_id, v_run.subject);
    PERFORM pgsig_private.emit_states(ARRAY[p_run], v_state);
    IF v_state = 'retrying' THEN
        PERFORM pg_notify('pgsig_runs', '');
    END IF;
    RETURN 'ok';
END $$;

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
    -- One that waits for its next attempt has nobody to stop it: it ends here.
    UPDATE pgsig_private.run r SET desired = 'stop', state = 'stopped', ended_at = clock_timestamp(), claimable_at = NULL
     WHERE r.id = v_run.handover_of AND r.state IN ('queued', 'retrying');
    IF FOUND THEN
        PERFORM pgsig_private.settle(v_run.operator_id, v_run.subject);
        PERFORM pgsig_private.emit_states(ARRAY[v_run.handover_of], 'stopped');
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

-- A reload was delivered, acknowledged or has failed. A failed one falls back to RESTART, as an order like any other.
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
    IF p_state = 'failed' THEN
        INSERT INTO pgsig.signals (kind, namespace, key, subject, value, source, run_id, depth)
        SELECT 'manual', w.namespace, 'manual.' || w.name || '.' || o.name, v_run.subject,
               jsonb_build_object('action', 'RESTART', 'params', '{}'::jsonb, 'reason', 'reload failed: ' || coalesce(p_reason, 'no reason given')),
               'pgsig', v_run.id, v_run.depth
          FROM pgsig_private.operator o JOIN pgsig_private.workflow w ON w.id = o.workflow_id WHERE o.id = v_run.operator_id;
    END IF;
    RETURN 'ok';
END $$;

-- Processes whose lease ran out are dead from here on; the runs that they held are returned for whoever decides what becomes of them.
-- None is declared dead within the first seconds of a server's life: after a restart the owners shall renew first, instead of losing
-- everything at once. Who has said that it ended, or was seen to be gone, has no need of that.
CREATE OR REPLACE FUNCTION pgsig_private.reap(p_quiet interval)
RETURNS TABLE (run_id bigint, epoch bigint, attempt integer, kind text, spec jsonb, desired text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(1885827945, 1002) THEN
        RETURN;
    END IF;
    IF clock_timestamp() - pg_postmaster_start_time() >= p_quiet THEN
        UPDATE pgsig_private.process p SET ended_at = clock_timestamp() WHERE p.ended_at IS NULL AND p.lease_until < clock_timestamp();
    END IF;
    RETURN QUERY
        SELECT r.id, r.epoch, r.attempt, v.kind, v.spec, r.desired
          FROM pgsig_private.run r
          JOIN pgsig_private.process p ON p.id = r.runner_id
          JOIN pgsig_private.operator_version v ON v.operator_id = r.operator_id AND v.version = r.version
         WHERE r.state IN ('starting', 'running') AND p.ended_at IS NOT NULL
         ORDER BY r.operator_id, r.subject, r.id LIMIT 1000;
END $$;

-- A trigger fell due: its tick becomes a signal once, whichever clock process comes first. NULL: another one was faster.
CREATE OR REPLACE FUNCTION pgsig_private.fire(p_trigger bigint, p_due timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM pgsig_private.trigger t WHERE t.id = p_trigger AND t.removed_at IS NULL) THEN
        RETURN NULL;
    END IF;
    INSERT INTO pgsig_private.tick (trigger_id, due_at, signal_id)
    VALUES (p_trigger, p_due, nextval('pgsig_private.signal_id')) ON CONFLICT DO NOTHING
    RETURNING signal_id INTO v_id;
    IF v_id IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO pgsig.signals (kind, id, namespace, key, value, source)
    SELECT 'tick', v_id, w.namespace, 'tick.' || w.name || '.' || o.name,
           jsonb_build_object('trigger', t.name, 'due', p_due), 'trigger:' || t.name
      FROM pgsig_private.trigger t
      JOIN pgsig_private.operator o ON o.id = t.operator_id
      JOIN pgsig_private.workflow w ON w.id = o.workflow_id
     WHERE t.id = p_trigger;
    UPDATE pgsig_private.trigger t SET last_due = greatest(t.last_due, p_due) WHERE t.id = p_trigger;
    RETURN v_id;
END $$;
