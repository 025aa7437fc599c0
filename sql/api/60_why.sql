-- WHY, first half: where a rule stands. Its condition (canonical JSON) and what it remembers (the body of its state) become a tree in which every
-- node says what it has and what it needs. The same is done in Python by pgsig/decide/explain.py, for what is recorded with an action;
-- tests/store/test_why.py lets both explain random conditions over random signals and finds no difference.

CREATE OR REPLACE FUNCTION pgsig_private.seconds(p_length jsonb) RETURNS double precision
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN jsonb_typeof(p_length) = 'number' THEN (p_length #>> '{}')::float8 ELSE (
        SELECT sum(m[1]::float8 * CASE m[2] WHEN 'ms' THEN 0.001 WHEN 's' THEN 1 WHEN 'm' THEN 60 WHEN 'h' THEN 3600 WHEN 'd' THEN 86400 ELSE 604800 END)
          FROM regexp_matches(p_length #>> '{}', '(\d+(?:\.\d+)?)(ms|[smhdw])', 'g') m) END
$$;

CREATE OR REPLACE FUNCTION pgsig_private.length_text(p_length jsonb) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(string_agg(n || unit, '' ORDER BY size DESC), '0s') FROM (
        SELECT unit, size, mod(round(pgsig_private.seconds(p_length) * 1000)::bigint, above) / size AS n
          FROM (VALUES ('d', 86400000::bigint, 9223372036854775807), ('h', 3600000, 86400000), ('m', 60000, 3600000), ('s', 1000, 60000),
                       ('ms', 1, 1000)) u(unit, size, above)) parts WHERE n > 0
$$;

CREATE OR REPLACE FUNCTION pgsig_private.number_text(p_number jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT trim_scale((p_number #>> '{}')::float8::numeric)::text
$$;

CREATE OR REPLACE FUNCTION pgsig_private.moment_text(p_moment timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_char(p_moment AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
$$;

-- A leaf in words, close to how it was written.
CREATE OR REPLACE FUNCTION pgsig_private.leaf_text(p jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN p ? 'absent' THEN format('no %s for %s', p->>'absent', pgsig_private.length_text(p->'for')) || coalesce(' after ' || (p->>'after'), '')
        WHEN p ? 'signal' THEN concat_ws(' ', p->>'signal', '= ' || (p->'eq')::text, 'where ' || (p->>'where'), 'from ' || (p->>'source'),
            'about ' || (p->>'subject'),
            CASE WHEN (p->'latest')::boolean THEN '(latest)' WHEN (p->'changed')::boolean THEN '(changed)' WHEN (p->'sticky')::boolean THEN '(sticky)' END,
            CASE WHEN (p->>'count')::integer > 1 THEN '× ' || (p->>'count') END, 'with different ' || (p->>'distinct'),
            'until ' || (p->'sum'->>'of') || ' adds up to ' || pgsig_private.number_text(p->'sum'->'reaches'))
        ELSE concat_ws(' ', (SELECT f || ' ' || (p->>f) FROM unnest('{cron,every,calendar,at,times,trigger}'::text[]) f WHERE p ? f LIMIT 1), p->>'tz') END
$$;

-- A condition with its leaves numbered in reading order, every wrapper a node of its own, and its words.
-- {form, text, need, label?} and for a group `parts`; for a leaf `i`, its number, and `leaf`, how it was written.
CREATE OR REPLACE FUNCTION pgsig_private.numbered(p jsonb, p_path text, p_next integer, OUT tree jsonb, OUT next integer)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_form  text := (SELECT f FROM unnest('{signal,all,any,seq,at_least,not,absent,cron,every,calendar,at,times,trigger}'::text[]) f WHERE p ? f LIMIT 1);
    v_within text := coalesce(' within ' || pgsig_private.length_text(p->'within'), '');
    v_parts jsonb := '[]';
    v_part  jsonb;
    v_need  integer;
BEGIN
    next := p_next;
    IF v_form IN ('signal', 'absent', 'cron', 'every', 'calendar', 'at', 'times', 'trigger') THEN
        tree := jsonb_build_object('form', CASE WHEN v_form IN ('signal', 'absent') THEN v_form ELSE 'tick' END, 'i', next, 'leaf', p,
            'key', coalesce(p->>'signal', p->>'absent', 'tick.' || p_path), 'text', pgsig_private.leaf_text(p),
            'need', coalesce(p->'sum'->'reaches', p->'count', '1'));
        next := next + CASE WHEN v_form = 'absent' AND p ? 'after' THEN 2 ELSE 1 END;
    ELSE
        FOR v_part IN SELECT jsonb_array_elements(CASE v_form WHEN 'not' THEN jsonb_build_array(p->'not') WHEN 'at_least' THEN p->'of' ELSE p->v_form END) LOOP
            SELECT v_parts || jsonb_build_array(n.tree), n.next INTO v_parts, next FROM pgsig_private.numbered(v_part, p_path, next) n;
        END LOOP;
        v_need := CASE v_form WHEN 'any' THEN 1 WHEN 'at_least' THEN (p->>'at_least')::integer ELSE jsonb_array_length(v_parts) END;
        tree := jsonb_build_object('form', v_form, 'parts', v_parts, 'need', v_need, 'text', CASE v_form WHEN 'not' THEN 'not' WHEN 'all' THEN 'all of'
            WHEN 'any' THEN 'any of' WHEN 'seq' THEN 'in this order' ELSE format('at least %s of', v_need) END || v_within);
    END IF;
    IF p ? 'label' THEN
        tree := tree || jsonb_build_object('label', p->'label');
    END IF;
    IF v_form = 'signal' AND p ? 'within' THEN
        tree := jsonb_build_object('form', 'all', 'parts', jsonb_build_array(tree), 'need', 1, 'text', 'all of' || v_within);
    END IF;
    IF p ? 'window' THEN
        tree := jsonb_build_object('form', 'window', 'parts', jsonb_build_array(tree), 'need', 1,
            'length', pgsig_private.seconds(p->'window'), 'zone', coalesce(p->>'tz', 'UTC'),
            'text', format('in one window of %s %s', pgsig_private.length_text(p->'window'), coalesce(p->>'tz', 'UTC'))
                    || coalesce(', ' || pgsig_private.length_text(p->'lateness') || ' late at most', ''));
    END IF;
    IF p ? 'debounce' THEN
        tree := jsonb_build_object('form', 'debounce', 'parts', jsonb_build_array(tree), 'need', 1,
            'quiet', pgsig_private.seconds(p->'debounce'), 'most', pgsig_private.seconds(p->'max_wait'),
            'text', format('quiet for %s', pgsig_private.length_text(p->'debounce'))
                    || coalesce(', ' || pgsig_private.length_text(p->'max_wait') || ' at most', ''));
    END IF;
END $$;

-- Begin of the calendar window that holds a moment: see pgsig/condition/calendar.py. A midnight that comes twice is the first of the two.
CREATE OR REPLACE FUNCTION pgsig_private.window_begin(p_at double precision, p_length double precision, p_zone text) RETURNS double precision
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_local    timestamp := date_trunc(CASE p_length WHEN 604800 THEN 'week' ELSE 'day' END, to_timestamp(p_at) AT TIME ZONE p_zone);
    v_midnight timestamptz := v_local AT TIME ZONE p_zone;
BEGIN
    IF (v_midnight - interval '1 hour') AT TIME ZONE p_zone = v_local THEN
        v_midnight := v_midnight - interval '1 hour';
    END IF;
    RETURN extract(epoch FROM v_midnight)::float8
         + CASE WHEN p_length < 86400 THEN floor((p_at - extract(epoch FROM v_midnight)::float8) / p_length) * p_length ELSE 0 END;
END $$;

CREATE OR REPLACE FUNCTION pgsig_private.numbers_below(p_tree jsonb) RETURNS SETOF text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_path_query(p_tree, 'strict $.** ? (exists (@.leaf) && exists (@.i)).i') #>> '{}'
$$;

-- The signals that make a node true, NULL where it is not true: see pgsig/decide/find.py. p_state: {pending, levels, clock}; an entry of it
-- is [id, at, depth, ok, x?]. Only signals later than p_after count.
CREATE OR REPLACE FUNCTION pgsig_private.found(p_tree jsonb, p_state jsonb, p_after bigint DEFAULT 0) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_form  text := p_tree->>'form';
    v_held  jsonb;
    v_came  bigint[];
    v_all   bigint[] := '{}';
    v_count integer := 0;
    v_total double precision := 0;
    v_after bigint := p_after;
    v_item  record;
BEGIN
    IF p_tree ? 'i' THEN
        IF (p_tree->'leaf'->'sticky')::boolean THEN
            RETURN CASE WHEN (p_state->'levels'->(p_tree->>'i')->3)::boolean THEN v_all END;
        END IF;
        v_held := jsonb_path_query_array(coalesce(p_state->'pending'->(p_tree->>'i'), '[]'), 'strict $[*] ? (@[0] > $after && @[3] == true)',
                                         jsonb_build_object('after', p_after));
        IF p_tree->'leaf' ? 'sum' THEN
            FOR v_item IN SELECT (e->>0)::bigint AS id, (e->>4)::float8 AS x FROM jsonb_array_elements(v_held) WITH ORDINALITY h(e, n) ORDER BY n LOOP
                v_all := v_all || v_item.id;
                v_total := v_total + v_item.x;
                IF v_total >= (p_tree->'need')::float8 THEN
                    RETURN v_all;
                END IF;
            END LOOP;
            RETURN NULL;
        END IF;
        IF p_tree->'leaf' ? 'distinct' THEN  -- the first of each value, in order of the last of each
            SELECT array_agg(first ORDER BY last) INTO v_all
              FROM (SELECT min((e->>0)::bigint) AS first, max(n) AS last FROM jsonb_array_elements(v_held) WITH ORDINALITY h(e, n) GROUP BY e->4) d;
        ELSE
            SELECT array_agg((e->>0)::bigint ORDER BY n) INTO v_all FROM jsonb_array_elements(v_held) WITH ORDINALITY h(e, n);
        END IF;
        RETURN CASE WHEN cardinality(v_all) >= (p_tree->'need')::integer THEN v_all[1:(p_tree->'need')::integer] END;
    ELSIF v_form = 'not' THEN
        RETURN CASE WHEN pgsig_private.found(p_tree->'parts'->0, p_state, p_after) IS NULL THEN v_all END;
    ELSIF v_form = 'debounce' THEN
        SELECT array_agg(id), least(max(at) + (p_tree->>'quiet')::float8, min(at) + (p_tree->>'most')::float8) INTO v_all, v_total
          FROM (SELECT (e->>0)::bigint AS id, (e->>1)::float8 AS at
                  FROM pgsig_private.numbers_below(p_tree) i, jsonb_array_elements(coalesce(p_state->'pending'->i, '[]')) e
                 WHERE (e->3)::boolean AND (e->>0)::bigint > p_after) came;
        RETURN CASE WHEN (p_state->>'clock')::float8 >= v_total
                     AND pgsig_private.found(p_tree->'parts'->0, p_state, p_after) IS NOT NULL THEN v_all END;
    ELSIF v_form = 'window' THEN
        FOR v_item IN
            SELECT begin, jsonb_object_agg(i, held) AS pending FROM (
                SELECT pgsig_private.window_begin((e->>1)::float8, (p_tree->>'length')::float8, p_tree->>'zone') AS begin, i, jsonb_agg(e ORDER BY n) AS held
                  FROM pgsig_private.numbers_below(p_tree) i,
                       jsonb_array_elements(coalesce(p_state->'pending'->i, '[]')) WITH ORDINALITY h(e, n) GROUP BY 1, 2) w
             GROUP BY begin ORDER BY begin
        LOOP
            v_came := pgsig_private.found(p_tree->'parts'->0, jsonb_set(p_state, '{pending}', v_item.pending), p_after);
            EXIT WHEN v_came IS NOT NULL;
        END LOOP;
        RETURN v_came;
    ELSIF v_form IN ('all', 'seq') THEN
        FOR v_item IN SELECT e FROM jsonb_array_elements(p_tree->'parts') WITH ORDINALITY h(e, n) ORDER BY n LOOP
            v_came := pgsig_private.found(v_item.e, p_state, v_after);
            IF v_came IS NULL THEN
                RETURN NULL;
            END IF;
            v_all := v_all || v_came;
            IF v_form = 'seq' THEN
                v_after := greatest(v_after, (SELECT max(id) FROM unnest(v_came) id));
            END IF;
        END LOOP;
        RETURN v_all;
    END IF;
    -- any, at_least: those that were complete first
    FOR v_item IN
        SELECT f.ids FROM jsonb_array_elements(p_tree->'parts') WITH ORDINALITY h(e, n), LATERAL (SELECT pgsig_private.found(e, p_state, p_after) AS ids) f
         WHERE f.ids IS NOT NULL ORDER BY coalesce((SELECT max(id) FROM unnest(f.ids) id), 0), n LIMIT (p_tree->'need')::integer
    LOOP
        v_all := v_all || v_item.ids;
        v_count := v_count + 1;
    END LOOP;
    RETURN CASE WHEN v_count = (p_tree->'need')::integer THEN v_all END;
END $$;

-- Each node of a numbered tree as {text, met, have, need, evidence or children, label?, seen?}. p_seen: by number, what was last seen.
CREATE OR REPLACE FUNCTION pgsig_private.explain(p_tree jsonb, p_state jsonb, p_seen jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_held  jsonb := coalesce(p_state->'pending'->(p_tree->>'i'), '[]');
    v_have  double precision := 0;
    v_met   boolean;
    v_child jsonb;
    v_below jsonb := '[]';
    v_more  jsonb := jsonb_strip_nulls(jsonb_build_object('label', p_tree->'label', 'seen', p_seen->(p_tree->>'i')));
BEGIN
    IF p_tree ? 'i' THEN
        IF (p_tree->'leaf'->'sticky')::boolean THEN
            v_child := p_state->'levels'->(p_tree->>'i');
            v_held := CASE WHEN v_child IS NULL THEN '[]' ELSE jsonb_build_array(v_child) END;
        END IF;
        IF p_tree->'leaf' ? 'sum' THEN
            FOR v_child IN SELECT e FROM jsonb_array_elements(v_held) WITH ORDINALITY h(e, n) ORDER BY n LOOP
                v_have := v_have + (v_child->>4)::float8;
            END LOOP;
        ELSIF p_tree->'leaf' ? 'distinct' THEN
            v_have := (SELECT count(DISTINCT e->4) FROM jsonb_array_elements(v_held) e);
        ELSE
            v_have := (SELECT count(*) FROM jsonb_array_elements(v_held) e WHERE (e->3)::boolean);
        END IF;
        RETURN v_more || jsonb_build_object('text', p_tree->'text', 'met', v_have >= (p_tree->'need')::float8, 'have', v_have, 'need', p_tree->'need',
                                            'evidence', jsonb_path_query_array(v_held, '$[*][0]'));
    END IF;
    v_met := pgsig_private.found(p_tree, p_state) IS NOT NULL;
    FOR v_child IN SELECT pgsig_private.explain(e, p_state, p_seen) FROM jsonb_array_elements(p_tree->'parts') WITH ORDINALITY h(e, n) ORDER BY n LOOP
        v_below := v_below || jsonb_build_array(v_child);
        v_have := v_have + (v_child->'met')::boolean::integer;
    END LOOP;
    RETURN v_more || jsonb_build_object('text', p_tree->'text', 'met', v_met, 'need', p_tree->'need', 'children', v_below,
        'have', CASE WHEN p_tree->>'form' = 'not' THEN v_met::integer::float8 ELSE v_have END);
END $$;

-- An explained tree as lines of text, one a node: ✓ met, … partly there, ✗ nothing yet.
CREATE OR REPLACE FUNCTION pgsig_private.render(p_tree jsonb, p_indent text DEFAULT '') RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_ids text := (SELECT string_agg(e #>> '{}', ', ' ORDER BY n) FROM jsonb_array_elements(p_tree->'evidence') WITH ORDINALITY h(e, n) WHERE n <= 5);
BEGIN
    RETURN p_indent || CASE WHEN (p_tree->'met')::boolean THEN '✓' WHEN (p_tree->'have')::float8 <> 0 THEN '…' ELSE '✗' END || ' ' || (p_tree->>'text')
        || CASE WHEN p_tree ? 'children' OR (p_tree->'need')::float8 > 1
                THEN format('  %s of %s', pgsig_private.number_text(p_tree->'have'), pgsig_private.number_text(p_tree->'need')) ELSE '' END
        || coalesce('  signals ' || v_ids, '') || coalesce('  (' || (p_tree->>'label') || ')', '')
        || coalesce(E'\n' || p_indent || '    ' || (p_tree->'seen'->>'text'), '')
        || coalesce((SELECT string_agg(E'\n' || pgsig_private.render(e, p_indent || '  '), '' ORDER BY n)
                       FROM jsonb_array_elements(p_tree->'children') WITH ORDINALITY h(e, n)), '');
END $$;
