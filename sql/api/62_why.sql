-- WHY: the whole answer for an operator and a subject, as a document and as text; what pgsig.why, the command, the API and the page show.

-- What has become of a run, in a few words.
CREATE OR REPLACE FUNCTION pgsig_private.run_words(p_run pgsig_private.run) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN p_run.id IS NULL THEN '' ELSE format(', run %s is %s', p_run.id, p_run.state) || coalesce(': ' || p_run.reason, '') END
$$;

-- What keeps a run from being claimed though its turn has come: its key, its pool, or runners that lack a label or are not there. NULL: nothing does.
CREATE OR REPLACE FUNCTION pgsig_private.why_not_claimed(p_run pgsig_private.run) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_alive integer;
    v_most  integer;
BEGIN
    IF p_run.blocked THEN
        SELECT count(*) INTO v_alive FROM pgsig_private.run o WHERE o.limit_key = p_run.limit_key AND o.state IN ('starting', 'running');
        RETURN format('run %s waits for its concurrency key "%s": %s of %s are alive', p_run.id,
                      regexp_replace(p_run.limit_key, '^[^/]*/', ''), v_alive, p_run.limit_most);
    ELSIF p_run.state NOT IN ('queued', 'retrying') OR p_run.claimable_at IS NULL OR p_run.claimable_at > clock_timestamp() THEN
        RETURN NULL;
    ELSIF NOT EXISTS (SELECT FROM pgsig_private.process p WHERE p.role = 'runner' AND p.ended_at IS NULL AND p.lease_until > clock_timestamp()
                         AND p_run.pool = ANY (p.pools)) THEN
        RETURN format('run %s is %s, and no living runner serves the pool %s', p_run.id, p_run.state, p_run.pool);
    ELSIF NOT EXISTS (SELECT FROM pgsig_private.process p WHERE p.role = 'runner' AND p.ended_at IS NULL AND p.lease_until > clock_timestamp()
                         AND p_run.pool = ANY (p.pools) AND p_run.labels <@ p.labels) THEN
        RETURN format('run %s is %s, and no living runner of the pool %s has the label%s %s', p_run.id, p_run.state, p_run.pool,
                      CASE WHEN cardinality(p_run.labels) > 1 THEN 's' ELSE '' END, array_to_string(p_run.labels, ', '));
    END IF;
    SELECT p.most INTO v_most FROM pgsig_private.pool p WHERE p.name = p_run.pool;
    IF v_most IS NOT NULL THEN
        SELECT count(*) INTO v_alive FROM pgsig_private.run o WHERE o.pool = p_run.pool AND o.state IN ('starting', 'running');
        IF v_alive >= v_most THEN
            RETURN format('run %s waits for the limit of the pool %s: %s of %s are alive', p_run.id, p_run.pool, v_alive, v_most);
        END IF;
    END IF;
    -- Of the runners that may have it, how many runs they hold and how many they have room for; NULL where one has room left.
    SELECT sum(held.runs), sum(p.capacity) INTO v_alive, v_most
      FROM pgsig_private.process p
     CROSS JOIN LATERAL (SELECT count(*) AS runs FROM pgsig_private.run o WHERE o.runner_id = p.id AND o.state IN ('starting', 'running')) held
     WHERE p.role = 'runner' AND p.ended_at IS NULL AND p.lease_until > clock_timestamp() AND p_run.pool = ANY (p.pools) AND p_run.labels <@ p.labels
    HAVING bool_and(held.runs >= p.capacity);
    IF v_alive IS NOT NULL THEN
        RETURN format('run %s waits for a runner with room: %s of %s are alive on those that may have it', p_run.id, v_alive, v_most);
    END IF;
    RETURN NULL;
END $$;

-- Why a run that was ordered has not begun: {verdict, sentence}; NULL where it has.
CREATE OR REPLACE FUNCTION pgsig_private.why_queued(p_run pgsig_private.run) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_before pgsig_private.run;
    v_why    text;
BEGIN
    IF p_run.id IS NULL OR p_run.state NOT IN ('queued', 'retrying') THEN
        RETURN NULL;
    END IF;
    v_why := pgsig_private.why_not_claimed(p_run);
    IF v_why LIKE '%no living runner%' THEN
        RETURN jsonb_build_object('verdict', 'no_runner', 'sentence', 'no_runner: ' || v_why);
    ELSIF v_why IS NOT NULL THEN
        RETURN jsonb_build_object('verdict', 'queued', 'sentence', 'queued: ' || v_why);
    END IF;
    SELECT * INTO v_before FROM pgsig_private.run b
     WHERE b.operator_id = p_run.operator_id AND b.subject = p_run.subject AND b.id < p_run.id AND b.state IN ('queued', 'starting', 'running', 'retrying')
     ORDER BY b.id DESC LIMIT 1;
    IF v_before.id IS NOT NULL AND p_run.claimable_at IS NULL THEN
        RETURN jsonb_build_object('verdict', 'queued', 'sentence', format('queued: run %s waits behind run %s, which is %s', p_run.id, v_before.id, v_before.state));
    ELSIF p_run.state = 'retrying' THEN
        RETURN jsonb_build_object('verdict', 'queued', 'sentence', format('queued: run %s tries again at %s%s', p_run.id,
            pgsig_private.moment_text(p_run.claimable_at), coalesce(', its last attempt ended: ' || p_run.reason, '')));
    END IF;
    RETURN jsonb_build_object('verdict', 'queued', 'sentence', format('queued: run %s waits for a free place in the pool %s', p_run.id, p_run.pool));
END $$;

-- One rule's verdict: {verdict, sentence}. p_tree: its numbered tree, p_shown: the same explained. The first that holds: the operator is paused;
-- the rule holds a part of what it needs; something came after its last action and was not used; its last action; nothing ever came.
CREATE OR REPLACE FUNCTION pgsig_private.verdict(
    p_rule pgsig_private.rule, p_paused text, p_instance text, p_tree jsonb, p_shown jsonb, p_state jsonb, p_seen jsonb, p_last pgsig_private.action
) RETURNS jsonb LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_seen record;
    v_run  pgsig_private.run;
    v_word text;
    v_text text;
    v_due  timestamptz;
BEGIN
    IF p_paused IS NOT NULL THEN
        RETURN jsonb_build_object('verdict', 'paused', 'sentence', CASE WHEN p_paused = 'drop' THEN 'paused (drop): what comes is dropped until it is resumed'
            ELSE (SELECT format('paused (%s): %s held until it is resumed', p_paused, CASE count(*) WHEN 1 THEN '1 signal is' ELSE count(*) || ' signals are' END) FROM (SELECT FROM pgsig_private.outcome o WHERE o.rule_id = p_rule.id AND o.outcome = 'held' LIMIT 1000) h) END);
    END IF;
    IF jsonb_path_exists(p_state->'pending', '$.*[*]') THEN
        v_due := (SELECT t.due_at FROM pgsig_private.timer t WHERE t.rule_id = p_rule.id AND t.subject = p_instance);
        IF p_tree->>'form' = 'debounce' AND pgsig_private.found(p_tree->'parts'->0, p_state) IS NOT NULL THEN
            RETURN jsonb_build_object('verdict', 'debounced', 'sentence', format('debounced: it acts at %s if nothing more comes', pgsig_private.moment_text(v_due)));
        END IF;
        v_text := (SELECT string_agg(c->>'text' || coalesce(' ' || (c->'children'->0->>'text'), ''), '; ' ORDER BY n)
                     FROM jsonb_array_elements(p_shown->'children') WITH ORDINALITY h(c, n) WHERE NOT (c->'met')::boolean);
        RETURN jsonb_build_object('verdict', 'waiting', 'sentence', format('waiting (%s of %s)', pgsig_private.number_text(p_shown->'have'),
            pgsig_private.number_text(p_shown->'need')) || coalesce(' for ' || v_text, ''));
    END IF;
    SELECT n.tree->>'text' AS wanted, s.value->>'because' AS because, s.value->>'id' AS id, s.value->>'value' AS value, s.value->>'text' AS told INTO v_seen
      FROM jsonb_each(p_seen) s, jsonb_path_query(p_tree, 'strict $.** ? (exists (@.leaf) && exists (@.i))') n(tree)
     WHERE s.key = n.tree->>'i' AND (s.value->>'id')::bigint > coalesce(p_last.cause_id, 0) AND s.value->>'because' NOT IN ('fits', 'consumed', 'superseded')
       -- below `not` a level that does not hold is what is wanted
       AND NOT EXISTS (SELECT FROM jsonb_path_query(p_tree, 'strict $.** ? (@.form == "not")') k, pgsig_private.numbers_below(k) i WHERE i = s.key)
     ORDER BY (s.value->>'id')::bigint DESC LIMIT 1;
    IF v_seen.id IS NOT NULL THEN
        v_word := CASE v_seen.because WHEN 'false' THEN 'predicate_false' WHEN 'type' THEN 'predicate_type_error' WHEN 'waits' THEN 'not_evaluated'
                  WHEN 'expired' THEN 'window_expired' WHEN 'late' THEN 'late' WHEN 'quarantined' THEN 'quarantined' WHEN 'unchanged' THEN 'unchanged'
                  ELSE 'not_for_it' END;
        RETURN jsonb_build_object('verdict', v_word, 'sentence', format('%s: signal %s was %s, needed is %s', v_word, v_seen.id, v_seen.value, v_seen.wanted)
            || regexp_replace(v_seen.told, '^.* UTC[^:]*: ', '; '));
    ELSIF p_last.id IS NULL THEN
        RETURN jsonb_build_object('verdict', 'never_matched', 'sentence', format('never_matched: nothing has come since the rule was made in version %s', p_rule.added_in));
    END IF;
    SELECT * INTO v_run FROM pgsig_private.run r WHERE r.id = p_last.run_id;
    v_text := format('action %s by signals %s', p_last.id, array_to_string(p_last.evidence[1:5], ', '));
    v_word := CASE WHEN p_last.result NOT IN ('recorded', 'queued') THEN p_last.result
                   ELSE CASE p_last.action WHEN 'STOP' THEN 'stopped' WHEN 'RELOAD' THEN 'reloaded' ELSE 'started' END END;
    RETURN coalesce(CASE WHEN v_word IN ('started', 'merged') THEN pgsig_private.why_queued(v_run) END,
        jsonb_build_object('verdict', v_word, 'sentence', format('%s: %s', v_word, v_text) || CASE p_last.result
            WHEN 'already_running' THEN ' found it running already' WHEN 'already_stopped' THEN ' found nothing to stop' WHEN 'not_running' THEN ' found nothing to reload'
            WHEN 'skipped' THEN ' found it busy, or its queue full' WHEN 'merged' THEN ' joined a run that waited'
            WHEN 'outranked' THEN ' gave way to another rule' WHEN 'shadow' THEN format(' would have been %s', p_last.action)
            WHEN 'limited' THEN format(' was above the limit of %s', coalesce(p_rule.options->>'max', 'the rule')) ELSE '' END || pgsig_private.run_words(v_run)));
END $$;

CREATE OR REPLACE FUNCTION pgsig_private.why_rule(p_rule pgsig_private.rule, p_namespace text, p_path text, p_paused text, p_subject text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_instance text := CASE WHEN p_rule."by" = 'none' THEN '' ELSE p_subject END;
    v_tree     jsonb := (SELECT n.tree FROM pgsig_private.numbered(p_rule.condition, p_path, 0) n);
    v_own      jsonb := coalesce((SELECT s.body FROM pgsig_private.rule_state s WHERE s.rule_id = p_rule.id AND s.subject = v_instance), '{}');
    v_shared   jsonb := coalesce((SELECT s.body->'levels' FROM pgsig_private.rule_state s WHERE s.rule_id = p_rule.id AND s.subject = ''), '{}');
    v_state    jsonb;
    v_seen     jsonb;
    v_shown    jsonb;
    v_missing  jsonb;
    v_verdict  jsonb;
    v_last     pgsig_private.action;
BEGIN
    v_state := jsonb_build_object('pending', coalesce(v_own->'pending', '{}'), 'seen', coalesce(v_own->'seen', '{}'), 'clock', coalesce(v_own->'clock', '0'),
        'levels', v_shared || coalesce((SELECT jsonb_object_agg(k, l) FROM jsonb_each(v_own->'levels') o(k, l)
                                         WHERE NOT v_shared ? k OR (v_shared->k->>0)::bigint < (l->>0)::bigint), '{}'));
    SELECT coalesce(jsonb_object_agg(l.leaf->>'i', l.seen), '{}') INTO v_seen FROM (
        SELECT n AS leaf, pgsig_private.last_seen(n, p_rule, p_namespace, v_instance, v_state) AS seen
          FROM jsonb_path_query(v_tree, 'strict $.** ? (exists (@.leaf) && exists (@.i))') n LIMIT 50) l WHERE l.seen IS NOT NULL;
    SELECT * INTO v_last FROM pgsig_private.action a WHERE a.rule_id = p_rule.id AND a.subject = v_instance ORDER BY a.cause_id DESC, a.nth DESC LIMIT 1;
    v_shown := pgsig_private.explain(v_tree, v_state, v_seen);
    v_verdict := pgsig_private.verdict(p_rule, p_paused, v_instance, v_tree, v_shown, v_state, v_seen, v_last);
    IF p_paused IS NULL AND v_verdict->>'verdict' NOT IN ('debounced', 'not_evaluated') THEN
        v_missing := pgsig_private.emit_lines(pgsig_private.missing(v_tree, v_state, jsonb_build_object('by', p_rule."by", 'instance', v_instance,
            'subject', CASE WHEN p_rule."by" = 'subject' THEN v_instance ELSE '' END, 'now', extract(epoch FROM clock_timestamp()))), p_namespace);
    END IF;
    RETURN v_verdict || jsonb_build_object('id', p_rule.id, 'rule', p_rule.name, 'action', p_rule.action, 'by', p_rule."by", 'condition', p_rule.condition,
        'waiting', v_shown, 'missing', coalesce(v_missing, '[]'),
        'last', CASE WHEN v_last.id IS NOT NULL THEN jsonb_build_object('id', v_last.id, 'action', v_last.action, 'result', v_last.result,
                     'recorded_at', v_last.recorded_at, 'evidence', v_last.evidence, 'run_id', v_last.run_id) END);
END $$;

CREATE OR REPLACE FUNCTION pgsig_private.why_text(p jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(E'\n',
        format('%s%s: wanted %s, seen %s', p->>'operator', coalesce(' for ' || nullif(p->>'subject', ''), ''), p->>'desired', p->>'observed'),
        '  ' || (p->>'sentence'),
        (SELECT string_agg(concat_ws(E'\n',
            format('  %s → %s when', r->>'rule', r->>'action'),
            pgsig_private.render(r->'waiting', '    '),
            '    ' || nullif(r->>'sentence', p->>'sentence'),
            CASE WHEN r->'missing' <> '[]' THEN '    what would make it happen:' END,
            (SELECT string_agg(format(E'      %s%s\n        SQL   %s\n        CLI   %s\n        curl  %s', m->>'needs',
                               CASE WHEN (m->>'times')::integer > 1 THEN format(', %s times', m->>'times') ELSE '' END, m->>'sql', m->>'cli', m->>'curl'), E'\n' ORDER BY k)
               FROM jsonb_array_elements(r->'missing') WITH ORDINALITY h(m, k)),
            '    last: ' || CASE WHEN r->'last' = 'null' THEN 'never' ELSE format('action %s at %s, %s, by signals %s', r->'last'->>'id', pgsig_private.moment_text((r->'last'->>'recorded_at')::timestamptz),
                               r->'last'->>'result', (SELECT string_agg(e, ', ') FROM jsonb_array_elements_text(r->'last'->'evidence') e)) END), E'\n' ORDER BY n)
           FROM jsonb_array_elements(p->'rules') WITH ORDINALITY h(r, n)))
$$;

CREATE OR REPLACE FUNCTION pgsig_private.why(p_operator text, p_subject text, p_namespace text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_operator pgsig_private.operator;
    v_instance pgsig_private.instance;
    v_rules    jsonb;
    v_newest   pgsig_private.action;
    v_run      pgsig_private.run;
    v_verdict  jsonb;
    v_answer   jsonb;
BEGIN
    SELECT o.* INTO v_operator FROM pgsig_private.targets(p_namespace, p_operator, false) t JOIN pgsig_private.operator o ON o.id = t.operator_id;
    IF v_operator.id IS NULL THEN
        PERFORM pgsig_private.refuse(ARRAY[format('PS201 /operator: there is no operator "%s" in namespace "%s" (pgsig ps lists them)',
            left(p_operator, 130), left(p_namespace, 63))]);
    END IF;
    SELECT * INTO v_instance FROM pgsig_private.instance i WHERE i.operator_id = v_operator.id AND i.subject = p_subject;
    SELECT coalesce(jsonb_agg(pgsig_private.why_rule(r, p_namespace, p_operator, v_operator.paused, p_subject) ORDER BY r.ordinal), '[]') INTO v_rules
      FROM pgsig_private.rule r WHERE r.operator_id = v_operator.id AND r.removed_in IS NULL;
    -- An order by hand has the word if nothing was ordered since.
    SELECT * INTO v_newest FROM pgsig_private.action a
     WHERE a.operator_id = v_operator.id AND a.subject = p_subject AND a.rule_id = 0 AND a.action <> 'NONE' ORDER BY a.id DESC LIMIT 1;
    SELECT * INTO v_run FROM pgsig_private.run r WHERE r.id = v_newest.run_id;
    IF v_operator.paused IS NULL AND v_newest.id > ALL (SELECT coalesce((r->'last'->>'id')::bigint, 0) FROM jsonb_array_elements(v_rules) r) THEN
        v_verdict := coalesce(pgsig_private.why_queued(v_run), jsonb_build_object('verdict', 'by_hand', 'sentence',
            format('by_hand: action %s, %s, %s, %s', v_newest.id, v_newest.action, v_newest.result, v_newest.explanation->>'text') || pgsig_private.run_words(v_run)));
    ELSE
        v_verdict := coalesce((SELECT jsonb_build_object('verdict', r->'verdict', 'sentence', r->'sentence') FROM jsonb_array_elements(v_rules) WITH ORDINALITY h(r, n)
                                ORDER BY (r->>'verdict' = 'waiting') DESC, (r->'last'->>'id')::bigint DESC NULLS LAST, n LIMIT 1),
            jsonb_build_object('verdict', 'no_rules', 'sentence', 'no_rules: it runs when somebody starts it'));
    END IF;
    v_answer := v_verdict || jsonb_build_object('operator', p_operator, 'subject', p_subject, 'namespace', p_namespace, 'paused', v_operator.paused,
        'desired', coalesce(v_instance.desired, 'stopped'), 'observed', coalesce(v_instance.observed, 'never_run'), 'generation', coalesce(v_instance.generation, 0),
        'run_id', v_instance.run_id, 'rules', v_rules);
    RETURN v_answer || jsonb_build_object('text', pgsig_private.why_text(v_answer));
END $$;

CREATE OR REPLACE FUNCTION pgsig.why(operator text, subject text DEFAULT '', namespace text DEFAULT 'default') RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pgsig_private.why(operator, subject, namespace) ->> 'text'
$$;
COMMENT ON FUNCTION pgsig.why IS
    'Why workflow.operator did or did not act for a subject: each rule with what it has, what it needs, what came last, a verdict, and what would make it happen.';
