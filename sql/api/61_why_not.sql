-- WHY, second half: what came and was not used, what would be, and the verdict in one sentence. Everything is one look-up in an index or
-- bounded by a LIMIT. The verdicts are a closed list, pgsig.store.explain.Verdict explains each.

CREATE OR REPLACE FUNCTION pgsig_private.key_fits(p_pattern text, p_key text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN strpos(p_pattern, '*') = 0 THEN p_pattern = p_key
                ELSE p_key ~ ('^' || replace(replace(replace(regexp_replace(p_pattern, '\.\*\*$', '~'), '.', '[.]'), '*', '[^.]+'), '~', '([.][^.]+)*') || '$') END
$$;

CREATE OR REPLACE FUNCTION pgsig_private.is_evaluated(p_signal pgsig_private.signal) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_visible_in_snapshot(p_signal.xid, c.s1) OR coalesce(pg_visible_in_snapshot(p_signal.xid, c.s2) AND p_signal.id <= c.last_id, false)
      FROM pgsig_private.cursor c WHERE c.lane = p_signal.lane ORDER BY c.seq DESC LIMIT 1
$$;

-- What keeps a signal whose key a leaf names from counting there: older, source, subject, false, type, waits (for a worker), or fits.
CREATE OR REPLACE FUNCTION pgsig_private.why_not(p_signal pgsig_private.signal, p_leaf jsonb, p_rule pgsig_private.rule) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN pg_visible_in_snapshot(p_signal.xid, p_rule.since) THEN 'older'
        WHEN p_signal.kind = 'tick' AND NOT EXISTS (SELECT FROM pgsig_private.trigger t WHERE t.operator_id = p_rule.operator_id
                 AND t.spec = (p_leaf->'leaf') - 'label' AND p_signal.source = 'trigger:' || t.name) AND p_leaf->>'form' = 'tick' THEN 'source'
        WHEN p_signal.source <> p_leaf->'leaf'->>'source' THEN 'source'
        WHEN p_signal.subject <> p_leaf->'leaf'->>'subject' THEN 'subject'
        WHEN p_leaf->'leaf' ? 'where' AND jsonb_path_match(p_signal.value, (p_leaf->'leaf'->>'where')::jsonpath, '{}', true) IS NULL THEN 'type'
        WHEN NOT jsonb_path_match(p_signal.value, coalesce(p_leaf->'leaf'->>'where', '1 == 1')::jsonpath, '{}', true) THEN 'false'
        WHEN p_signal.value <> p_leaf->'leaf'->'eq' THEN
            CASE WHEN jsonb_typeof(p_signal.value) <> jsonb_typeof(p_leaf->'leaf'->'eq')
                  AND NOT 'null' IN (jsonb_typeof(p_signal.value), jsonb_typeof(p_leaf->'leaf'->'eq')) THEN 'type' ELSE 'false' END
        WHEN NOT pgsig_private.is_evaluated(p_signal) THEN 'waits'
        ELSE 'fits' END
$$;

-- The last signal that a leaf of a rule could have meant, for one instance, and what became of it: {id, at, key, subject, value, because, text}.
CREATE OR REPLACE FUNCTION pgsig_private.last_seen(p_leaf jsonb, p_rule pgsig_private.rule, p_namespace text, p_instance text, p_state jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id      bigint;
    v_signal  pgsig_private.signal;
    v_here    boolean;
    v_because text;
    v_ended   record;
    v_words   text;
    v_value   text;
BEGIN
    SELECT s.id, p_rule."by" = 'none' OR CASE p_rule."by" WHEN 'subject' THEN s.subject ELSE
               coalesce(jsonb_path_query_first(s.value, CASE WHEN p_rule."by" LIKE '$%' THEN p_rule."by" END::jsonpath, '{}', true) #>> '{}', '') END IN (p_instance, '') INTO v_id, v_here
      FROM (SELECT * FROM (SELECT * FROM pgsig_private.signal e WHERE strpos(p_leaf->>'key', '*') = 0 AND e.namespace = p_namespace AND e.key = p_leaf->>'key'
                            ORDER BY e.id DESC LIMIT 100) exact
            UNION ALL
            SELECT * FROM (SELECT * FROM pgsig_private.signal w WHERE strpos(p_leaf->>'key', '*') > 0 ORDER BY w.id DESC LIMIT 1000) wide
             WHERE wide.namespace = p_namespace AND pgsig_private.key_fits(p_leaf->>'key', wide.key)) s
     ORDER BY 2 DESC, s.id DESC LIMIT 1;
    IF v_id IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO v_signal FROM pgsig_private.signal s WHERE s.id = v_id;
    v_because := CASE WHEN v_here THEN pgsig_private.why_not(v_signal, p_leaf, p_rule) ELSE 'elsewhere' END;
    SELECT o.outcome, o.action_id, o.detail INTO v_ended FROM pgsig_private.fate o
     WHERE o.signal_id = v_signal.id AND o.rule_id = p_rule.id AND o.subject IN (p_instance, '') ORDER BY o.subject = p_instance DESC LIMIT 1;
    IF v_because = 'fits' AND v_ended.outcome IS NOT NULL THEN
        v_because := v_ended.outcome;
    ELSIF v_because = 'fits' AND (p_leaf->'leaf'->'changed')::boolean AND NOT jsonb_path_exists(
              coalesce(p_state->'pending'->(p_leaf->>'i'), '[]'), 'strict $[*] ? (@[0] == $id)', jsonb_build_object('id', v_signal.id)) THEN
        v_because := 'unchanged';
    END IF;
    v_words := CASE v_because
        WHEN 'older' THEN 'it came before the rule was made'
        WHEN 'source' THEN format('it is from %s', v_signal.source)
        WHEN 'subject' THEN format('it is about %s', coalesce(nullif(v_signal.subject, ''), 'nothing'))
        WHEN 'elsewhere' THEN format('it counts for %s only', coalesce(nullif(v_signal.subject, ''), 'another instance'))
        WHEN 'false' THEN 'it does not satisfy'
        WHEN 'type' THEN 'it cannot be compared, a text is not a number'
        WHEN 'waits' THEN 'no worker has evaluated it yet'
        WHEN 'unchanged' THEN 'the value was that before'
        WHEN 'fits' THEN 'it counts'
        WHEN 'held' THEN 'held until the operator is resumed'
        WHEN 'consumed' THEN format('used by action %s', v_ended.action_id)
        ELSE concat_ws(', ', v_because, v_ended.detail) END;
    v_value := left(v_signal.value::text, 100) || CASE WHEN length(v_signal.value::text) > 100 THEN '…' ELSE '' END;
    RETURN jsonb_build_object('id', v_signal.id, 'at', v_signal.emitted_at, 'key', v_signal.key, 'subject', v_signal.subject, 'because', v_because, 'words', v_words,
        'value', v_value, 'text', format('last seen: %s in signal %s at %s%s: %s', v_value, v_signal.id,
            pgsig_private.moment_text(v_signal.emitted_at), CASE WHEN strpos(p_leaf->>'key', '*') > 0 THEN ', ' || v_signal.key ELSE '' END, v_words));
END $$;

-- A value that satisfies a predicate, NULL where none can be told: comparisons of paths of names with literals, joined by &&.
CREATE OR REPLACE FUNCTION pgsig_private.example(p_where text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_value jsonb := 'null';
    v_part  text;
    v_found text[];
    v_leaf  jsonb;
    v_name  text;
BEGIN
    FOREACH v_part IN ARRAY string_to_array(p_where, '&&') LOOP
        v_found := regexp_match(v_part, '^\s*\(?\s*\$((?:\.[A-Za-z_][A-Za-z0-9_]*)*)\s*(==|>=|<=|>|<|!=)\s*(-?\d+(?:\.\d+)?|"[^"\\]*"|true|false|null)\s*\)?\s*$');
        IF v_found IS NULL THEN
            RETURN NULL;
        END IF;
        v_leaf := v_found[3]::jsonb;
        IF jsonb_typeof(v_leaf) = 'number' AND v_found[2] IN ('>', '<', '!=') THEN
            v_leaf := to_jsonb(v_found[3]::numeric + CASE v_found[2] WHEN '<' THEN -1 ELSE 1 END * (10::numeric ^ -scale(v_found[3]::numeric))::numeric(40, 20));
            v_leaf := to_jsonb(trim_scale((v_leaf #>> '{}')::numeric));
        ELSIF v_found[2] = '!=' THEN
            v_leaf := CASE WHEN v_leaf = 'null' THEN 'true'::jsonb ELSE 'null' END;
        END IF;
        FOR v_name IN SELECT n FROM string_to_table(ltrim(v_found[1], '.'), '.') WITH ORDINALITY t(n, place) WHERE n <> '' ORDER BY place DESC LOOP
            v_leaf := jsonb_build_object(v_name, v_leaf);
        END LOOP;
        v_value := CASE WHEN jsonb_typeof(v_value) = 'object' AND jsonb_typeof(v_leaf) = 'object' THEN v_value || v_leaf ELSE v_leaf END;
    END LOOP;
    RETURN v_value;
END $$;

-- The signals that an instance of a rule still needs, as [{key, value, subject, source?, times}] in the order in which to emit them; NULL where
-- that cannot be told. p_given: {by, instance, now}.
CREATE OR REPLACE FUNCTION pgsig_private.missing(p_tree jsonb, p_state jsonb, p_given jsonb, p_after bigint DEFAULT 0) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_form  text := p_tree->>'form';
    v_leaf  jsonb := p_tree->'leaf';
    v_list  jsonb := '[]';
    v_here  jsonb;
    v_after bigint := p_after;
    v_found bigint[] := pgsig_private.found(p_tree, p_state, p_after);
    v_value jsonb;
    v_times integer := 1;
    v_name  text;
    v_part  jsonb;
    v_rest  double precision;
BEGIN
    IF v_found IS NOT NULL THEN
        RETURN v_list;
    ELSIF v_form = 'signal' THEN
        IF v_leaf ? 'distinct' OR v_leaf ? 'met_by' OR strpos(p_tree->>'key', '*') > 0 OR p_tree->>'key' ~ '^(run|tick|manual|timer)(\.|$)'
           OR (v_leaf->>'subject' <> p_given->>'instance' AND p_given->>'by' = 'subject') OR p_given->>'instance' ~ '[[:cntrl:]]' THEN
            RETURN NULL;
        END IF;
        v_value := CASE WHEN v_leaf ? 'eq' THEN v_leaf->'eq' WHEN v_leaf ? 'where' THEN pgsig_private.example(v_leaf->>'where') ELSE 'null' END;
        IF v_leaf ? 'sum' THEN
            v_name := substring(v_leaf->'sum'->>'of' FROM '^\$\.([A-Za-z_][A-Za-z0-9_]*)$');
            IF v_name IS NULL OR v_leaf ? 'eq' OR v_leaf ? 'where' THEN
                RETURN NULL;
            END IF;
            v_rest := (v_leaf->'sum'->>'reaches')::float8 - (SELECT coalesce(sum((e->>4)::float8), 0)
                FROM jsonb_array_elements(coalesce(p_state->'pending'->(p_tree->>'i'), '[]')) e WHERE (e->>0)::bigint > p_after);
            -- Whole numbers: what is left over a sum of fractions is not exact.
            v_value := jsonb_build_object(v_name, CASE WHEN v_rest < (v_leaf->'sum'->>'reaches')::float8
                THEN least(ceil(v_rest), (v_leaf->'sum'->>'reaches')::float8) ELSE greatest(ceil(v_rest), (v_leaf->'sum'->>'reaches')::float8) END);
        END IF;
        IF p_given->>'by' LIKE '$%' AND p_given->>'instance' <> '' THEN
            v_name := substring(p_given->>'by' FROM '^\$\.([A-Za-z_][A-Za-z0-9_]*)$');
            IF v_name IS NULL OR jsonb_typeof(v_value) NOT IN ('object', 'null') OR (v_value ? v_name) OR v_leaf ? 'eq' THEN
                RETURN NULL;
            END IF;
            v_value := CASE WHEN jsonb_typeof(v_value) = 'null' THEN '{}' ELSE v_value END || jsonb_build_object(v_name, p_given->'instance');
        END IF;
        IF (v_leaf->'changed')::boolean AND p_state->'seen'->>format('%s:%s:%s', p_tree->>'i', p_tree->>'key', p_given->>'subject')
               = left(encode(sha256(convert_to(v_value::text, 'UTF8')), 'hex'), 16) THEN
            v_value := CASE WHEN NOT v_leaf ? 'eq' AND NOT v_leaf ? 'where' THEN 'true'::jsonb END;
        END IF;
        IF v_value IS NULL OR jsonb_path_match(v_value, coalesce(v_leaf->>'where', '1 == 1')::jsonpath, '{}', true) IS NOT TRUE THEN
            RETURN NULL;
        END IF;
        IF v_leaf ? 'count' THEN
            v_times := (v_leaf->>'count')::integer - (SELECT count(*) FROM jsonb_array_elements(coalesce(p_state->'pending'->(p_tree->>'i'), '[]')) e
                                                       WHERE (e->>0)::bigint > p_after AND (e->3)::boolean);
        END IF;
        RETURN jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('key', p_tree->'key', 'subject', coalesce(v_leaf->>'subject', p_given->>'subject'),
            'source', v_leaf->'source', 'times', v_times, 'needs', p_tree->'text')) || jsonb_build_object('value', v_value));
    ELSIF v_form IN ('all', 'seq') THEN
        FOR v_part IN SELECT e FROM jsonb_array_elements(p_tree->'parts') WITH ORDINALITY h(e, n) ORDER BY n LOOP
            v_here := pgsig_private.missing(v_part, p_state, p_given, v_after);
            IF v_here IS NULL THEN
                RETURN NULL;
            END IF;
            v_list := v_list || v_here;
            IF v_form = 'seq' THEN  -- after the first part that has to come, everything has to
                v_after := CASE WHEN v_here <> '[]' THEN 9223372036854775807
                                ELSE greatest(v_after, (SELECT max(id) FROM unnest(pgsig_private.found(v_part, p_state, v_after)) id)) END;
            END IF;
        END LOOP;
        RETURN v_list;
    ELSIF v_form IN ('any', 'at_least') THEN  -- those that need least
        FOR v_here IN
            SELECT m.list FROM jsonb_array_elements(p_tree->'parts') WITH ORDINALITY h(e, n), LATERAL (SELECT pgsig_private.missing(e, p_state, p_given, p_after) AS list) m
             WHERE m.list IS NOT NULL ORDER BY jsonb_array_length(m.list), n LIMIT (p_tree->'need')::integer
        LOOP
            v_list := v_list || v_here;
            v_times := v_times + 1;
        END LOOP;
        RETURN CASE WHEN v_times > (p_tree->'need')::integer THEN v_list END;
    ELSIF v_form = 'window' THEN  -- what is left of older windows does not count with what comes now
        v_name := pgsig_private.window_begin((p_given->>'now')::float8, (p_tree->>'length')::float8, p_tree->>'zone')::text;
        SELECT jsonb_object_agg(k, (SELECT coalesce(jsonb_agg(e), '[]') FROM jsonb_array_elements(v) e WHERE (e->>1)::float8 >= v_name::float8)) INTO v_here
          FROM jsonb_each(p_state->'pending') p(k, v);
        RETURN pgsig_private.missing(p_tree->'parts'->0, p_state || jsonb_build_object('pending', coalesce(v_here, '{}')), p_given, p_after);
    ELSIF v_form = 'not' AND p_tree->'parts'->0->>'form' = 'signal' AND p_tree->'parts'->0->'leaf' ? 'eq' THEN  -- another value ends the level
        v_value := CASE WHEN p_tree->'parts'->0->'leaf'->'eq' = 'null' THEN 'true' ELSE 'null' END;
        v_part := jsonb_set(p_tree->'parts'->0, '{leaf,eq}', v_value) || jsonb_build_object('text', 'not ' || (p_tree->'parts'->0->>'text'));
        RETURN pgsig_private.missing(v_part, p_state - 'levels', p_given, p_after);
    ELSIF v_form = 'debounce' THEN
        RETURN nullif(pgsig_private.missing(p_tree->'parts'->0, p_state, p_given, p_after), '[]');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION pgsig_private.shell(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT '''' || replace(p_text, '''', '''"''"''') || '''' $$;

-- The lines that emit what is missing: [{…, sql, cli, curl}].
CREATE OR REPLACE FUNCTION pgsig_private.emit_lines(p_missing jsonb, p_namespace text) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_agg(m || jsonb_build_object(
        'sql', format('SELECT pgsig.emit(%L, %L%s%s%s);', m->>'key', (m->'value')::text, ', subject => ' || quote_literal(nullif(m->>'subject', '')),
                      ', namespace => ' || quote_literal(nullif(p_namespace, 'default')), ', source => ' || quote_literal(m->>'source')),
        'cli', format('pgsig emit %s %s%s%s%s', m->>'key', pgsig_private.shell((m->'value')::text), ' --subject ' || pgsig_private.shell(nullif(m->>'subject', '')),
                      ' --namespace ' || nullif(p_namespace, 'default'), ' --source ' || pgsig_private.shell(m->>'source')),
        'curl', format('curl -H "Authorization: Bearer $PGSIG_API_TOKEN" --json %s $PGSIG_URL/api/v1/signals', pgsig_private.shell((jsonb_strip_nulls(
                      jsonb_build_object('key', m->'key', 'subject', nullif(m->>'subject', ''), 'source', m->'source', 'namespace', nullif(p_namespace, 'default')))
                      || jsonb_build_object('value', m->'value'))::text)))
        ORDER BY n)
      FROM jsonb_array_elements(p_missing) WITH ORDINALITY h(m, n)
$$;
