-- EFFECTS: what an order by hand came to, in words; what the command, the API and the page say after it.

-- An action's effect as a sentence that begins with its result.
CREATE OR REPLACE FUNCTION pgsig_private.effect_text(p_action pgsig_private.action) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_run    pgsig_private.run;
    v_before pgsig_private.run;
    v_others bigint;
    v_spec   jsonb := (SELECT v.spec FROM pgsig_private.operator_version v WHERE v.operator_id = p_action.operator_id AND v.version = p_action.version);
BEGIN
    SELECT * INTO v_run FROM pgsig_private.run r WHERE r.id = p_action.run_id;
    -- What was there before it, and lives.
    SELECT * INTO v_before FROM pgsig_private.run b
     WHERE b.operator_id = p_action.operator_id AND b.subject = p_action.subject AND b.id < coalesce(v_run.id, b.id + 1)
       AND b.state IN ('queued', 'starting', 'running', 'retrying') ORDER BY b.state = 'queued', b.id DESC LIMIT 1;
    SELECT count(*) INTO v_others FROM pgsig_private.run r WHERE r.action_id = p_action.id AND r.id <> v_run.id AND r.operator_id = p_action.operator_id;
    RETURN CASE
        WHEN p_action.result = 'recorded' AND p_action.action = 'STOP' THEN 'recorded: what lives is asked to end'
        WHEN p_action.result = 'recorded' AND p_action.action = 'RELOAD' THEN format('recorded: run %s is asked to reload', v_run.id)
        WHEN p_action.result = 'recorded' AND v_run.id IS NOT NULL THEN
            format('recorded: run %s', v_run.id) || CASE WHEN v_others > 0 THEN format(' and %s beside it', v_others) ELSE '' END
            || coalesce('; ' || regexp_replace(pgsig_private.why_not_claimed(v_run), '^run \d+', 'it'), '')
        WHEN p_action.result = 'already_running' THEN format('already_running: run %s', v_run.id)
        WHEN p_action.result = 'already_stopped' THEN 'already_stopped: nothing lives'
        WHEN p_action.result = 'queued' AND v_before.id IS NOT NULL THEN format('queued behind run %s (%s): run %s', v_before.id, v_before.state, v_run.id)
        WHEN p_action.result = 'queued' THEN format('queued: run %s', v_run.id)
        WHEN p_action.result = 'merged' THEN format('merged: run %s, which waits', v_run.id)
        WHEN p_action.result = 'skipped' AND v_spec->>'on_busy' = 'skip' AND v_before.id IS NOT NULL THEN
            format('skipped: run %s (%s) is not over', v_before.id, v_before.state)
        WHEN p_action.result = 'skipped' THEN format('skipped: its queue is full%s', coalesce(format(', run %s is %s', v_before.id, v_before.state), ''))
        WHEN p_action.result = 'not_running' AND p_action.action = 'RESTART' THEN 'not_running: the run that failed to reload ends already'
        WHEN p_action.result = 'not_running' THEN 'not_running: nothing lives that could reload'
        ELSE p_action.result END;
END $$;

-- What signals order and came to: {evaluated, actions: [{id, workflow, operator, subject, action, result, run_id, text}]}. NULL: there is no such signal.
CREATE OR REPLACE FUNCTION pgsig_private.effects(p_signal bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object('evaluated', pgsig_private.is_evaluated(s), 'actions', coalesce((
        SELECT jsonb_agg(jsonb_build_object('id', a.id, 'workflow', w.name, 'operator', o.name, 'subject', a.subject, 'action', a.action,
                         'result', a.result, 'run_id', a.run_id, 'text', pgsig_private.effect_text(a)) ORDER BY a.id)
          FROM (SELECT * FROM pgsig_private.action a WHERE a.cause_id = s.id AND a.rule_id = 0 ORDER BY a.id LIMIT 200) a
          JOIN pgsig_private.operator o ON o.id = a.operator_id JOIN pgsig_private.workflow w ON w.id = o.workflow_id), '[]'))
      FROM pgsig_private.signal s WHERE s.id = p_signal
$$;
