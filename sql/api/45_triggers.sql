-- TRIGGERS: due times become signals, each once, whichever clock process comes first; what people do with a trigger; backfills.
--
-- When a trigger is due, Python computes (pgsig/condition): it knows crons, zones and changes of clocks. What is settled, this file decides: a
-- trigger's place, greatest(created_at, last_due), moves by compare-and-set, so of several clocks that come with the same due time one moves it.

-- The time of triggers. A function of its own, so that tests can let years pass.
CREATE OR REPLACE FUNCTION pgsig_private.trigger_now() RETURNS timestamptz
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT clock_timestamp()
$$;

-- What a tick says of parameters.
CREATE OR REPLACE FUNCTION pgsig_private.with_params(p_params jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_params IS NULL THEN '{}' ELSE jsonb_build_object('params', p_params) END
$$;

-- Settle due times of many triggers: [{trigger, since, until, ticks: [due], gap: {first, last, times, why, by, reason}}], in one statement of
-- the caller, so that nobody who falls asleep holds a lock. What others have settled meanwhile is left alone. p_ahead: also before it is due, to
-- skip it. Returns for each trigger that is in force its place now and how many ticks were written here; and the time of triggers.
CREATE OR REPLACE FUNCTION pgsig_private.settle_triggers(p_asked jsonb, p_ahead boolean DEFAULT false)
RETURNS TABLE (trigger_id bigint, since timestamptz, fired integer, now timestamptz)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now timestamptz;
BEGIN
    -- In one order, as everywhere. The statement after this one sees what those who held the locks have left.
    PERFORM FROM pgsig_private.trigger t
      WHERE t.id IN (SELECT a.trigger FROM jsonb_to_recordset(p_asked) a(trigger bigint)) ORDER BY t.id FOR UPDATE;
    v_now := pgsig_private.trigger_now();
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT a.*, t.*, t.paused IS NULL AND a.since = t.place AND (a.until <= v_now OR p_ahead) AS mine
          FROM jsonb_to_recordset(p_asked) a(trigger bigint, since timestamptz, until timestamptz, ticks timestamptz[], gap jsonb)
          -- Each by its key, whatever the planner believes: it knows neither how many are asked for, nor a table that has just grown.
          CROSS JOIN LATERAL (
              SELECT t.name, t.spec->'params' AS params, w.namespace, 'tick.' || w.name || '.' || o.name AS key, t.paused,
                     greatest(t.created_at, t.last_due) AS place
                FROM pgsig_private.trigger t
                JOIN pgsig_private.operator o ON o.id = t.operator_id AND o.removed_at IS NULL
                JOIN pgsig_private.workflow w ON w.id = o.workflow_id
               WHERE t.id = a.trigger AND t.removed_at IS NULL OFFSET 0) t
    ), numbered AS MATERIALIZED (
        SELECT o.*, nextval('pgsig_private.signal_id') AS signal_id
          FROM (SELECT a.trigger, a.namespace, a.key, a.name, a.params, d.due FROM asked a, unnest(a.ticks) d(due) WHERE a.mine ORDER BY d.due, a.trigger) o
    ), ticked AS (
        INSERT INTO pgsig_private.tick AS t (trigger_id, due_at, signal_id) SELECT n.trigger, n.due, n.signal_id FROM numbered n
        ON CONFLICT DO NOTHING
        RETURNING t.trigger_id, t.signal_id
    ), emitted AS (
        INSERT INTO pgsig.signals (kind, id, namespace, key, value, source)
        SELECT 'tick', n.signal_id, n.namespace, n.key,
               jsonb_build_object('trigger', n.name, 'due', n.due) || pgsig_private.with_params(n.params), 'trigger:' || n.name
          FROM numbered n WHERE n.signal_id IN (SELECT t.signal_id FROM ticked t)
    ), left_out AS (
        INSERT INTO pgsig_private.gap (trigger_id, first_due, last_due, times, why, by_whom, reason)
        SELECT a.trigger, g.first, g.last, g.times, g.why, coalesce(g.by, session_user), coalesce(g.reason, '')
          FROM asked a, jsonb_to_record(a.gap) g(first timestamptz, last timestamptz, times integer, why text, by text, reason text)
         WHERE a.mine AND a.gap IS NOT NULL AND jsonb_typeof(a.gap) = 'object'
        ON CONFLICT DO NOTHING
    ), moved AS (
        UPDATE pgsig_private.trigger t SET last_due = a.until FROM asked a WHERE a.mine AND t.id = a.trigger
    )
    SELECT a.trigger, CASE WHEN a.mine THEN a.until ELSE a.place END,
           coalesce(f.ticks, 0), v_now
      FROM asked a LEFT JOIN (SELECT t.trigger_id AS trigger, count(*)::integer AS ticks FROM ticked t GROUP BY t.trigger_id) f ON f.trigger = a.trigger;
END $$;

-- ── by hand ──

-- The trigger that a person means: by its name or the beginning of it; without a name the only one there is.
CREATE OR REPLACE FUNCTION pgsig_private.find_trigger(p_namespace text, p_operator text, p_name text) RETURNS pgsig_private.trigger
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_found pgsig_private.trigger[];
    v_names text;
BEGIN
    IF NOT EXISTS (SELECT FROM pgsig_private.targets(p_namespace, p_operator, false)) THEN
        PERFORM pgsig_private.refuse(ARRAY[format('PS201 /operator: there is no operator "%s" in namespace "%s" (name it workflow.operator; pgsig ps lists them)',
            left(p_operator, 130), left(p_namespace, 63))]);
    END IF;
    SELECT array_agg(t ORDER BY t.name) FILTER (WHERE p_name IS NULL OR p_name = '' OR starts_with(t.name, p_name)), string_agg(t.name, ', ' ORDER BY t.name)
      INTO v_found, v_names
      FROM pgsig_private.targets(p_namespace, p_operator, false) o
      JOIN pgsig_private.trigger t ON t.operator_id = o.operator_id AND t.removed_at IS NULL;
    IF cardinality(v_found) = 1 THEN
        RETURN v_found[1];
    END IF;
    PERFORM pgsig_private.refuse(ARRAY[format('PS207 /trigger: %s (%s)',
        CASE WHEN v_names IS NULL THEN format('%s has no trigger', p_operator)
             WHEN v_found IS NULL THEN format('%s has no trigger "%s"', p_operator, left(p_name, 60))
             ELSE format('%s has several triggers', p_operator) || CASE WHEN coalesce(p_name, '') = '' THEN '' ELSE ' that begin so' END END,
        CASE WHEN v_names IS NULL THEN 'give it a start by cron, every, calendar or at' ELSE 'name one of ' || v_names END)]);
    RETURN NULL;
END $$;

-- What a person did with a trigger is a signal, like everything: manual.workflow.operator. Rules may wait for it, no order comes of it by itself.
CREATE OR REPLACE FUNCTION pgsig_private.note_trigger(p_trigger bigint, p_word text, p_more jsonb, p_reason text, p_source text) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO pgsig.signals (kind, namespace, key, value, source)
    SELECT 'manual', w.namespace, 'manual.' || w.name || '.' || o.name,
           jsonb_build_object('action', p_word, 'trigger', t.name, 'reason', coalesce(p_reason, '')) || p_more, coalesce(p_source, session_user)
      FROM pgsig_private.trigger t
      JOIN pgsig_private.operator o ON o.id = t.operator_id
      JOIN pgsig_private.workflow w ON w.id = o.workflow_id
     WHERE t.id = p_trigger
    RETURNING id
$$;

CREATE OR REPLACE FUNCTION pgsig.fire(
    operator  text,
    trigger   text  DEFAULT NULL,
    params    jsonb DEFAULT NULL,
    reason    text  DEFAULT '',
    namespace text  DEFAULT 'default',
    source    text  DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_trigger  pgsig_private.trigger := pgsig_private.find_trigger(fire.namespace, fire.operator, fire.trigger);
    v_problems text[];
    v_id       bigint;
BEGIN
    IF jsonb_typeof(fire.params) <> 'object' THEN
        PERFORM pgsig_private.refuse(ARRAY['PS203 /params: params is a JSON object']);
    END IF;
    v_problems := ARRAY(SELECT pgsig_private.param_problems(o.spec, fire.params) FROM pgsig_private.operator o WHERE o.id = v_trigger.operator_id);
    IF v_problems <> '{}' THEN
        PERFORM pgsig_private.refuse(v_problems);
    END IF;
    INSERT INTO pgsig.signals AS s (kind, namespace, key, value, source)
    SELECT 'tick', fire.namespace, 'tick.' || fire.operator,
           jsonb_build_object('trigger', v_trigger.name, 'due', pgsig_private.trigger_now(), 'by', coalesce(fire.source, session_user),
                              'reason', coalesce(fire.reason, '')) || pgsig_private.with_params(coalesce(fire.params, v_trigger.spec->'params')),
           'trigger:' || v_trigger.name
    RETURNING s.id INTO v_id;
    RETURN v_id;
END $$;
COMMENT ON FUNCTION pgsig.fire IS
    'Let a trigger of workflow.operator tick now, by hand and beside its due times. trigger: its name or the beginning of it; not needed where there is one. Returns the position of the tick.';

CREATE OR REPLACE FUNCTION pgsig.pause_trigger(
    operator  text,
    trigger   text DEFAULT NULL,
    mode      text DEFAULT 'hold',
    reason    text DEFAULT '',
    namespace text DEFAULT 'default',
    source    text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_trigger pgsig_private.trigger := pgsig_private.find_trigger(pause_trigger.namespace, pause_trigger.operator, pause_trigger.trigger);
BEGIN
    IF pause_trigger.mode NOT IN ('hold', 'collapse', 'drop') THEN
        PERFORM pgsig_private.refuse(ARRAY[format('PS204 /mode: "%s" is not a way to pause (use hold, collapse or drop)', left(pause_trigger.mode, 60))]);
    END IF;
    UPDATE pgsig_private.trigger t SET paused = pause_trigger.mode, paused_at = coalesce(t.paused_at, pgsig_private.trigger_now()) WHERE t.id = v_trigger.id;
    PERFORM pgsig_private.notify('pgsig_definitions');
    RETURN pgsig_private.note_trigger(v_trigger.id, 'PAUSE_TRIGGER', jsonb_build_object('mode', pause_trigger.mode), pause_trigger.reason, pause_trigger.source);
END $$;
COMMENT ON FUNCTION pgsig.pause_trigger IS
    'Pause one trigger of workflow.operator. Due times until its resume: hold fires them all then, collapse the latest, drop none. Returns the position of the manual signal.';

-- ── backfills ──

-- Begin to feed due times that have passed to the rules, at most p_most on the way at once.
CREATE OR REPLACE FUNCTION pgsig_private.begin_backfill(
    p_trigger bigint, p_dues timestamptz[], p_most integer, p_reason text, p_source text
) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id bigint;
BEGIN
    INSERT INTO pgsig_private.backfill AS b (trigger_id, first_due, last_due, times, most, by_whom, reason)
    SELECT p_trigger, min(d), max(d), count(*), p_most, coalesce(p_source, session_user), coalesce(p_reason, '') FROM unnest(p_dues) d
    RETURNING b.id INTO v_id;
    INSERT INTO pgsig_private.backfill_time (backfill_id, due_at) SELECT v_id, d FROM unnest(p_dues) d;
    PERFORM pgsig_private.note_trigger(p_trigger, 'BACKFILL', jsonb_build_object('backfill', v_id, 'times', cardinality(p_dues), 'most', p_most), p_reason, p_source);
    PERFORM pgsig_private.notify('pgsig_definitions');
    RETURN v_id;
END $$;

-- Feed every backfill up to its bound. A time is on the way until its tick was evaluated and no run that came of it is alive. Whoever looks at the
-- same time passes over what another one has in hand. Returns how many backfills go on.
CREATE OR REPLACE FUNCTION pgsig_private.feed_backfills() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_fill   pgsig_private.backfill;
    v_going  integer;
BEGIN
    FOR v_fill IN SELECT b.* FROM pgsig_private.backfill b WHERE b.state = 'running' ORDER BY b.id FOR UPDATE SKIP LOCKED LOOP
        UPDATE pgsig_private.backfill_time t SET ended = true
          FROM pgsig_private.signal s
         WHERE t.backfill_id = v_fill.id AND NOT t.ended AND s.id = t.signal_id AND pgsig_private.is_evaluated(s)
           AND NOT EXISTS (
               SELECT FROM pgsig_private.fate o
                 JOIN pgsig_private.action a ON a.id = o.action_id
                 JOIN pgsig_private.run r ON r.action_id = a.id OR r.id = a.run_id
                WHERE o.signal_id = t.signal_id AND r.state IN ('queued', 'starting', 'running', 'retrying'));
        SELECT count(*) INTO v_going FROM pgsig_private.backfill_time t WHERE t.backfill_id = v_fill.id AND NOT t.ended AND t.signal_id IS NOT NULL;
        WITH next AS (
            SELECT t.due_at, nextval('pgsig_private.signal_id') AS id FROM (
                SELECT t.due_at FROM pgsig_private.backfill_time t WHERE t.backfill_id = v_fill.id AND NOT t.ended AND t.signal_id IS NULL
                 ORDER BY t.due_at LIMIT greatest(v_fill.most - v_going, 0)) t
        ), taken AS (
            UPDATE pgsig_private.backfill_time t SET signal_id = next.id FROM next WHERE t.backfill_id = v_fill.id AND t.due_at = next.due_at
        ), ticked AS (
            INSERT INTO pgsig_private.tick (trigger_id, due_at, signal_id) SELECT v_fill.trigger_id, due_at, id FROM next ON CONFLICT DO NOTHING
        )
        INSERT INTO pgsig.signals (kind, id, namespace, key, value, source)
        SELECT 'tick', next.id, w.namespace, 'tick.' || w.name || '.' || o.name,
               jsonb_build_object('trigger', t.name, 'due', next.due_at, 'backfill', v_fill.id, 'by', v_fill.by_whom, 'reason', v_fill.reason)
               || pgsig_private.with_params(t.spec->'params'), 'trigger:' || t.name
          FROM next
          JOIN pgsig_private.trigger t ON t.id = v_fill.trigger_id
          JOIN pgsig_private.operator o ON o.id = t.operator_id
          JOIN pgsig_private.workflow w ON w.id = o.workflow_id
         ORDER BY next.id;
        -- A trigger that is gone has no rule any more that would hear of it.
        UPDATE pgsig_private.backfill b
           SET state = CASE WHEN t.removed_at IS NULL THEN 'done' ELSE 'cancelled' END, ended_at = clock_timestamp()
          FROM pgsig_private.trigger t
         WHERE b.id = v_fill.id AND t.id = b.trigger_id
           AND (t.removed_at IS NOT NULL OR NOT EXISTS (SELECT FROM pgsig_private.backfill_time x WHERE x.backfill_id = b.id AND NOT x.ended));
    END LOOP;
    RETURN (SELECT count(*) FROM pgsig_private.backfill b WHERE b.state = 'running');
END $$;

CREATE OR REPLACE FUNCTION pgsig.cancel_backfill(backfill bigint, reason text DEFAULT '', source text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_trigger bigint;
BEGIN
    UPDATE pgsig_private.backfill b SET state = 'cancelled', ended_at = clock_timestamp()
     WHERE b.id = cancel_backfill.backfill AND b.state = 'running' RETURNING b.trigger_id INTO v_trigger;
    IF v_trigger IS NULL THEN
        PERFORM pgsig_private.refuse(ARRAY[format('PS208 /backfill: no backfill %s is running (pgsig backfill list shows them)', cancel_backfill.backfill)]);
    END IF;
    RETURN pgsig_private.note_trigger(v_trigger, 'CANCEL_BACKFILL', jsonb_build_object('backfill', cancel_backfill.backfill),
                                      cancel_backfill.reason, cancel_backfill.source);
END $$;
COMMENT ON FUNCTION pgsig.cancel_backfill IS
    'Let no further due time of a backfill become a tick; runs that came of it go on. Returns the position of the manual signal.';

-- ── to read ──

CREATE OR REPLACE VIEW pgsig.triggers WITH (security_invoker = true) AS
SELECT t.id, w.namespace, w.name AS workflow, o.name AS operator, t.name AS trigger, t.spec, t.last_due, t.paused, t.paused_at,
       greatest(t.created_at, t.last_due) AS since, t.operator_id
  FROM pgsig_private.trigger t
  JOIN pgsig_private.operator o ON o.id = t.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
 WHERE t.removed_at IS NULL AND o.removed_at IS NULL AND w.removed_at IS NULL;
COMMENT ON VIEW pgsig.triggers IS 'Periodic triggers in force.';
COMMENT ON COLUMN pgsig.triggers.since IS 'due times up to here are settled: each became a tick, or was left out for a reason';
COMMENT ON COLUMN pgsig.triggers.paused IS 'hold, collapse or drop while it is paused';

CREATE OR REPLACE VIEW pgsig.backfills WITH (security_invoker = true) AS
SELECT b.id, w.namespace, w.name AS workflow, o.name AS operator, t.name AS trigger, b.state, b.times, b.most, n.begun, n.ended, n.failed,
       b.first_due, b.last_due, b.by_whom, b.reason, b.created_at, b.ended_at, t.operator_id
  FROM pgsig_private.backfill b
  JOIN pgsig_private.trigger t ON t.id = b.trigger_id
  JOIN pgsig_private.operator o ON o.id = t.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
  JOIN LATERAL (
    SELECT count(x.signal_id) AS begun, count(*) FILTER (WHERE x.ended) AS ended,
           count(*) FILTER (WHERE x.ended AND EXISTS (
               SELECT FROM pgsig_private.fate k JOIN pgsig_private.action a ON a.id = k.action_id
                 JOIN pgsig_private.run r ON r.action_id = a.id OR r.id = a.run_id
                WHERE k.signal_id = x.signal_id AND r.state IN ('failed', 'lost'))) AS failed
      FROM pgsig_private.backfill_time x WHERE x.backfill_id = b.id
  ) n ON true;
COMMENT ON VIEW pgsig.backfills IS 'Backfills and how far they are.';
COMMENT ON COLUMN pgsig.backfills.most IS 'so many of its times are on the way at once';
COMMENT ON COLUMN pgsig.backfills.begun IS 'times that became ticks';
COMMENT ON COLUMN pgsig.backfills.ended IS 'times whose runs have ended, or of which none came';
