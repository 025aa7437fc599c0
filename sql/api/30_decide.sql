-- DECIDE and RECORD: the database's half of a worker's transaction. What a rule means is decided in Python, without I/O (pgsig/decide); here are
-- the facts that a decision needs, and the one call that writes everything that it led to.

-- The instances that are about to be acted on, locked in one order by whoever acts, with what is alive of each.
CREATE OR REPLACE FUNCTION pgsig_private.lock_instances(p_operators bigint[], p_subjects text[])
RETURNS TABLE (operator_id bigint, subject text, desired text, generation bigint, runs jsonb)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_locked bigint;
BEGIN
    IF cardinality(p_operators) = 1 THEN  -- mostly it is one: in two statements instead of three
        LOOP
            PERFORM FROM pgsig_private.instance i WHERE i.operator_id = p_operators[1] AND i.subject = p_subjects[1] FOR UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO pgsig_private.instance AS i (operator_id, subject) VALUES (p_operators[1], p_subjects[1]) ON CONFLICT DO NOTHING
            RETURNING i.operator_id, i.subject, i.desired, i.generation, '[]'::jsonb INTO operator_id, subject, desired, generation, runs;
            IF FOUND THEN  -- so nothing of it can be alive
                RETURN NEXT;
                RETURN;
            END IF;
        END LOOP;
    ELSE
        LOOP
            INSERT INTO pgsig_private.instance AS i (operator_id, subject)
            SELECT a.o, a.s FROM unnest(p_operators, p_subjects) a(o, s)
             WHERE NOT EXISTS (SELECT FROM pgsig_private.instance k WHERE k.operator_id = a.o AND k.subject = a.s)
             ORDER BY a.o, a.s
            ON CONFLICT DO NOTHING;
            -- Locked first and read in a statement of its own: the runs must be as they are once the lock is held.
            PERFORM FROM pgsig_private.instance i JOIN unnest(p_operators, p_subjects) a(o, s) ON i.operator_id = a.o AND i.subject = a.s
              ORDER BY i.operator_id, i.subject FOR UPDATE OF i;
            GET DIAGNOSTICS v_locked = ROW_COUNT;
            EXIT WHEN v_locked >= cardinality(p_operators);
            -- One was forgotten meanwhile: it had not been acted on for long.
        END LOOP;
    END IF;
    RETURN QUERY
        SELECT i.operator_id, i.subject, i.desired, i.generation, coalesce((
                   SELECT jsonb_agg(jsonb_build_array(r.id, r.state, r.desired = 'stop', r.generation, r.handover_of) ORDER BY r.id)
                     FROM pgsig_private.run r
                    WHERE r.operator_id = i.operator_id AND r.subject = i.subject
                      AND r.state IN ('queued', 'starting', 'running', 'retrying')), '[]')
          FROM pgsig_private.instance i JOIN unnest(p_operators, p_subjects) a(o, s) ON i.operator_id = a.o AND i.subject = a.s;
END $$;

-- A state of a run becomes a signal in the transaction that makes it so. Its ring says which: where no rule asks for it, nobody need hurry. Nothing
-- in it is to be looked at: a job's result was, by its runner.
CREATE OR REPLACE FUNCTION pgsig_private.emit_states(p_runs bigint[], p_state text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgsig_private.signal (emitted_at, kind, namespace, lane, key, subject, value, source, run_id, depth)
    SELECT pgsig_private.ring(p_state), 'state', w.namespace, w.lane,
           'run.' || w.name || '.' || o.name || '.' || p_state, r.subject,
           coalesce(r.result, jsonb_strip_nulls(jsonb_build_object(
               'run', r.id, 'attempt', r.attempt, 'generation', r.generation, 'exit_code', r.exit_code, 'reason', r.reason))),
           'pgsig', r.id, r.depth
      FROM pgsig_private.run r
      JOIN pgsig_private.operator o ON o.id = r.operator_id
      JOIN pgsig_private.workflow w ON w.id = o.workflow_id
     WHERE r.id = ANY (p_runs)
     ORDER BY r.id;
END $$;

-- What was to be reloaded with is nobody's any more: these runs have ended.
CREATE OR REPLACE FUNCTION pgsig_private.end_reloads(p_runs bigint[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    UPDATE pgsig_private.reload l SET state = 'failed', ended_at = clock_timestamp(), reason = 'the run ended'
     WHERE l.run_id = ANY (p_runs) AND l.state IN ('pending', 'delivered')
$$;

-- How signals ended for instances of rules: what stands by itself, and what is said by the action that its cause completed.
CREATE OR REPLACE VIEW pgsig_private.fate WITH (security_invoker = true) AS
SELECT o.signal_id, o.rule_id, o.subject, o.outcome, o.action_id, o.detail, o.recorded_at FROM pgsig_private.outcome o
UNION ALL
SELECT a.cause_id, a.rule_id, a.subject, 'consumed', a.id, NULL, a.recorded_at FROM pgsig_private.action a WHERE a.consumed;

-- The workflows that were applied, paused or resumed after revisions of lanes; after -1 all that there are. Nearly always few, by index: the
-- planner expects a third of them.
CREATE OR REPLACE FUNCTION pgsig_private.changed_workflows(p_lanes integer[], p_revisions bigint[])
RETURNS TABLE (id bigint, namespace text, name text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
    SELECT w.id, w.namespace, w.name
      FROM unnest(p_lanes, p_revisions) AS known(lane, revision)
      JOIN pgsig_private.workflow w ON w.lane = known.lane AND w.revision > known.revision
$$;

-- Write what a batch of signals led to: one statement a table, a few microseconds a row.
-- The arrays after the document are columns: the actions that one signal caused by itself, about which there is nothing more to tell. They are most of
-- all, and arrays cost a fifth of JSON. In the document actions, runs, stops, merges, reloads, instances, released, pauses, outcomes, states and
-- timers are arrays of objects; each may be missing.
CREATE OR REPLACE FUNCTION pgsig_private.record(
    p jsonb, p_ids bigint[] DEFAULT '{}', p_operators bigint[] DEFAULT '{}', p_rules bigint[] DEFAULT '{}', p_subjects text[] DEFAULT '{}',
    p_actions text[] DEFAULT '{}', p_results text[] DEFAULT '{}', p_versions integer[] DEFAULT '{}', p_causes bigint[] DEFAULT '{}',
    p_depths smallint[] DEFAULT '{}', p_runs bigint[] DEFAULT '{}', p_consumed boolean[] DEFAULT '{}'
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_gone bigint[];
BEGIN
    IF p ? 'released' THEN  -- before the outcomes: a signal that was held gets its real one now
        DELETE FROM pgsig_private.outcome o
         USING jsonb_to_recordset(p->'released') AS n(signal_id bigint, rule_id bigint)
         WHERE o.signal_id = n.signal_id AND o.rule_id = n.rule_id AND o.outcome = 'held';
    END IF;
    IF cardinality(p_ids) > 0 THEN
        INSERT INTO pgsig_private.action (id, operator_id, rule_id, subject, action, result, version, cause_id, depth, run_id, consumed, evidence)
        SELECT n.*, ARRAY[n.cause]
          FROM unnest(p_ids, p_operators, p_rules, p_subjects, p_actions, p_results, p_versions, p_causes, p_depths, p_runs, p_consumed)
               AS n(id, operator, rule, subject, action, result, version, cause, depth, run, consumed);
    END IF;
    IF p ? 'actions' THEN
        INSERT INTO pgsig_private.action
            (id, operator_id, rule_id, subject, action, result, version, cause_id, nth, depth, evidence, explanation, run_id, consumed)
        SELECT id, operator_id, rule_id, subject, action, result, version, cause_id, nth, depth,
               ARRAY(SELECT jsonb_array_elements_text(evidence)::bigint), explanation, run_id, coalesce(consumed, false)
          FROM jsonb_to_recordset(p->'actions') AS a(
               id bigint, operator_id bigint, rule_id bigint, subject text, action text, result text, version integer,
               cause_id bigint, nth smallint, depth smallint, evidence jsonb, explanation jsonb, run_id bigint, consumed boolean);
    END IF;
    IF p ? 'runs' THEN
        INSERT INTO pgsig_private.run
            (id, operator_id, subject, generation, version, action_id, depth, pool, priority, slots, handover_of, params, labels, limit_key, limit_most,
             evidence, claimable_at)
        SELECT id, operator_id, subject, generation, version, action_id, depth, pool, priority, slots, handover_of, params, coalesce(labels, '{}'),
               limit_key, limit_most, ARRAY(SELECT jsonb_array_elements_text(evidence)::bigint), CASE WHEN claimable THEN clock_timestamp() END
          FROM jsonb_to_recordset(p->'runs') AS r(
               id bigint, operator_id bigint, subject text, generation bigint, version integer, action_id bigint, depth smallint,
               pool text, priority smallint, slots smallint, handover_of bigint, params jsonb, labels text[], limit_key text, limit_most integer,
               evidence jsonb, claimable boolean);
    END IF;
    IF p ? 'stops' THEN
        -- After the new runs: one of this very batch may be among them. What has not begun, or waits for its next attempt, ends here and
        -- now, unless a job of it is alive without a runner; the rest is for its runner to stop.
        WITH ordered AS (
            SELECT r.id FROM pgsig_private.run r
             WHERE r.id IN (SELECT jsonb_array_elements_text(p->'stops')::bigint) ORDER BY r.id FOR UPDATE
        ), gone AS (
            UPDATE pgsig_private.run r SET state = 'stopped', desired = 'stop', ended_at = clock_timestamp(), claimable_at = NULL, blocked = false
              FROM ordered WHERE r.id = ordered.id AND r.state IN ('queued', 'retrying') AND r.handle IS NULL RETURNING r.id
        ), asked AS (
            UPDATE pgsig_private.run r SET desired = 'stop'
              FROM ordered WHERE r.id = ordered.id AND (r.state IN ('starting', 'running') OR r.state = 'retrying' AND r.handle IS NOT NULL)
        )
        SELECT array_agg(id) INTO v_gone FROM gone;
    END IF;
    IF p ? 'merges' THEN
        WITH merged AS (
            SELECT (x.row->>'run_id')::bigint AS run_id, x.row->'evidence' AS evidence, coalesce(x.row->'params', '{}') AS params, x.n
              FROM jsonb_array_elements(p->'merges') WITH ORDINALITY x("row", n)
        )
        UPDATE pgsig_private.run r
           SET evidence = r.evidence || ARRAY(SELECT e::bigint FROM merged m, jsonb_array_elements_text(m.evidence) e WHERE m.run_id = r.id ORDER BY m.n),
               params = r.params || coalesce((SELECT jsonb_object_agg(e.key, e.value ORDER BY m.n) FROM merged m, jsonb_each(m.params) e WHERE m.run_id = r.id), '{}')
         WHERE r.id IN (SELECT m.run_id FROM merged m) AND r.state = 'queued';
    END IF;
    IF p ? 'reloads' THEN
        INSERT INTO pgsig_private.reload (run_id, action_id, evidence)
        SELECT run_id, action_id, ARRAY(SELECT jsonb_array_elements_text(evidence)::bigint)
          FROM jsonb_to_recordset(p->'reloads') AS r(run_id bigint, action_id bigint, evidence jsonb);
    END IF;
    IF p ? 'instances' THEN
        UPDATE pgsig_private.instance i
           SET desired = n.desired, generation = n.generation, changed_at = clock_timestamp(), run_id = coalesce(n.run_id, i.run_id),
               observed = CASE WHEN n.run_id IS NOT NULL AND i.observed NOT IN ('starting', 'running', 'retrying') THEN 'queued' ELSE i.observed END
          FROM jsonb_to_recordset(p->'instances') AS n(operator_id bigint, subject text, desired text, generation bigint, run_id bigint)
         WHERE i.operator_id = n.operator_id AND i.subject = n.subject;
    END IF;
    IF p ? 'pauses' THEN
        UPDATE pgsig_private.operator o SET paused = n.mode
          FROM jsonb_to_recordset(p->'pauses') AS n(operator_id bigint, mode text) WHERE o.id = n.operator_id;
        UPDATE pgsig_private.lane l SET revision = l.revision + 1
         WHERE l.lane IN (SELECT w.lane
                            FROM jsonb_to_recordset(p->'pauses') AS n(operator_id bigint)
                            JOIN pgsig_private.operator o ON o.id = n.operator_id
                            JOIN pgsig_private.workflow w ON w.id = o.workflow_id);
        UPDATE pgsig_private.workflow w SET revision = l.revision FROM pgsig_private.lane l
         WHERE l.lane = w.lane
           AND w.id IN (SELECT o.workflow_id FROM jsonb_to_recordset(p->'pauses') AS n(operator_id bigint)
                          JOIN pgsig_private.operator o ON o.id = n.operator_id);
    END IF;
    IF p ? 'outcomes' THEN
        INSERT INTO pgsig_private.outcome (signal_id, rule_id, subject, outcome, action_id, detail)
        SELECT signal_id, rule_id, subject, outcome, action_id, detail
          FROM jsonb_to_recordset(p->'outcomes') AS o(
               signal_id bigint, rule_id bigint, subject text, outcome text, action_id bigint, detail text);
    END IF;
    IF p ? 'states' THEN
        -- The last version is the one in force: it is met first, and the one before is deleted by its whole key, whatever is still there of others.
        WITH new AS MATERIALIZED (
            SELECT n.rule_id, n.subject, n.body, last.seq
              FROM jsonb_to_recordset(p->'states') AS n(rule_id bigint, subject text, body jsonb)
              LEFT JOIN LATERAL (SELECT s.seq FROM pgsig_private.state s
                                  WHERE s.rule_id = n.rule_id AND s.subject = n.subject ORDER BY s.seq DESC LIMIT 1) last ON true
        ), gone AS (
            DELETE FROM pgsig_private.state s USING new WHERE s.rule_id = new.rule_id AND s.subject = new.subject AND s.seq = new.seq
        )
        INSERT INTO pgsig_private.state (rule_id, subject, body)
        SELECT new.rule_id, new.subject, new.body FROM new WHERE new.body IS NOT NULL OR new.seq IS NOT NULL;
    END IF;
    IF p ? 'timers' THEN
        DELETE FROM pgsig_private.timer t
         USING jsonb_to_recordset(p->'timers') AS n(rule_id bigint, subject text, due double precision)
         WHERE t.rule_id = n.rule_id AND t.subject = n.subject AND n.due IS NULL;
        INSERT INTO pgsig_private.timer AS t (rule_id, subject, due_at)
        SELECT rule_id, subject, to_timestamp(due)
          FROM jsonb_to_recordset(p->'timers') AS n(rule_id bigint, subject text, due double precision) WHERE due IS NOT NULL
        ON CONFLICT (rule_id, subject) DO UPDATE SET due_at = excluded.due_at WHERE t.due_at <> excluded.due_at;
    END IF;
    IF v_gone IS NOT NULL THEN
        PERFORM pgsig_private.settle(last.id) FROM (
            SELECT max(r.id) AS id FROM pgsig_private.run r WHERE r.id = ANY (v_gone) GROUP BY r.operator_id, r.subject) last;
        PERFORM pgsig_private.end_reloads(v_gone);
        PERFORM pgsig_private.emit_states(v_gone, 'stopped');
    END IF;
    IF p ?| ARRAY['stops', 'reloads'] THEN
        PERFORM pgsig_private.notify('pgsig_runs');
    ELSIF p ? 'runs' THEN  -- who hears this need not ask what is ordered of the runs that it has
        PERFORM pgsig_private.notify('pgsig_runs', 'queued');
    END IF;
END $$;

-- Timers that fell due become signals, once: whichever worker is first. Returns the seconds until the next one, NULL for none.
CREATE OR REPLACE FUNCTION pgsig_private.fire_timers() RETURNS double precision
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_next double precision := (SELECT extract(epoch FROM min(t.due_at) - clock_timestamp()) FROM pgsig_private.timer t);
BEGIN
    IF v_next IS NULL OR v_next > 0 THEN
        RETURN v_next;
    END IF;
    WITH due AS (
        SELECT t.rule_id, t.subject FROM pgsig_private.timer t
         WHERE t.due_at <= clock_timestamp() ORDER BY t.due_at LIMIT 500 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM pgsig_private.timer t USING due WHERE t.rule_id = due.rule_id AND t.subject = due.subject
        RETURNING t.rule_id, t.subject, t.due_at
    )
    INSERT INTO pgsig.signals (kind, namespace, key, subject, value, source)
    SELECT 'timer', w.namespace, 'timer.' || w.name || '.' || o.name, gone.subject,
           jsonb_build_object('rule', gone.rule_id, 'name', r.name, 'due', gone.due_at), 'pgsig'
      FROM gone
      JOIN pgsig_private.rule r ON r.id = gone.rule_id AND r.removed_in IS NULL
      JOIN pgsig_private.operator o ON o.id = r.operator_id
      JOIN pgsig_private.workflow w ON w.id = o.workflow_id
     ORDER BY gone.due_at;
    RETURN (SELECT greatest(extract(epoch FROM min(t.due_at) - clock_timestamp()), 0) FROM pgsig_private.timer t);
END $$;

-- Rules that an apply took away: what they still waited with has expired, and nothing of them is left to fall due.
CREATE OR REPLACE FUNCTION pgsig_private.forget_rules(p_rules bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO pgsig_private.outcome (signal_id, rule_id, subject, outcome, detail)
    SELECT DISTINCT held.id::text::bigint, s.rule_id, s.subject, 'expired', 'the rule was changed or removed'
      FROM pgsig_private.rule_state s,
           LATERAL (
               SELECT jsonb_path_query(s.body, '$.pending.*[*][0]') AS id UNION ALL
               SELECT jsonb_path_query(s.body, '$.levels.*[0]') UNION ALL
               SELECT jsonb_path_query(s.body, '$.armed.*[0]')
           ) held
     WHERE s.rule_id = ANY (p_rules)
       -- What a level still remembers may have been consumed.
       AND NOT EXISTS (SELECT FROM pgsig_private.action a
                        WHERE a.rule_id = s.rule_id AND a.subject = s.subject AND a.cause_id = held.id::text::bigint AND a.consumed)
    ON CONFLICT DO NOTHING;
    UPDATE pgsig_private.outcome o SET outcome = 'expired', detail = 'the rule was changed or removed'
     WHERE o.rule_id = ANY (p_rules) AND o.outcome = 'held';
    DELETE FROM pgsig_private.state s WHERE s.rule_id = ANY (p_rules);
    DELETE FROM pgsig_private.timer t WHERE t.rule_id = ANY (p_rules);
END $$;

-- A condition of the user's own: a function (signal jsonb, state jsonb) → (state jsonb, met boolean), named schema.function. What goes wrong in it
-- is told in `problem`, so that it spoils one signal for one rule and not the batch.
CREATE OR REPLACE FUNCTION pgsig_private.ask_function(p_name text, p_signal jsonb, p_state jsonb, OUT state jsonb, OUT met boolean, OUT problem text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_function regprocedure := to_regprocedure(p_name || '(jsonb, jsonb)');
BEGIN
    IF v_function IS NULL THEN
        problem := 'there is no function ' || p_name || '(jsonb, jsonb)';
        RETURN;
    END IF;
    EXECUTE format('SELECT f.state, f.met FROM %s($1, $2) AS f(state, met)', v_function::regproc) INTO state, met USING p_signal, p_state;
    met := coalesce(met, false);
EXCEPTION WHEN OTHERS THEN
    state := NULL;
    met := NULL;
    problem := SQLSTATE || ' ' || SQLERRM;
END $$;
