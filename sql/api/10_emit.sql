-- EMIT: how a signal gets into the log.
--
-- Three doors lead here, all inside the caller's own transaction: INSERT INTO pgsig.signals (COPY; MERGE from Postgres 17 on), pgsig.emit,
-- pgsig.emit_many. The log itself, pgsig_private.signal, is nobody's but pgsig's: what stands in it was looked at, and its lane says so. It has no
-- trigger and no CHECK, since each statement reads, plans and sets up anew what a table has of them, were it only the WHEN of a trigger that is not
-- called; a function is compiled once a session. So pgsig.signals is a view, to read and to insert into: its trigger guards each row and names
-- every problem of it at once, emit_many those of every row. emit looks for itself whether a signal is what nearly all are: to call what guards any
-- other takes longer than emit itself does beyond its insert.
--
-- The doorbell is in the default of emitted_at, and the view's trigger does as that one does. A worker that sleeps holds the bell's exclusive lock.
-- Failing to share it means that somebody sleeps: only then is a NOTIFY worth its price, which is a database-wide lock held until after the commit's
-- fsync. Getting it means that every worker is awake and that none can fall asleep before this transaction ends. SET LOCAL pgsig.bell = 'off' is for
-- transactions that PREPARE: those may not notify.
--
-- Advisory locks use class 1885827945 ('pgsi'); objects 0..3 are the lanes, and 1000 the bell, 1001 who keeps house, 1002 shared by workers that are
-- awake, 1003 who migrates, 1004 who makes partitions, 1005 the worker on duty, 1006 who notes a timeline, 1007 who looks for the dead.

-- Wait for a lock of the session, up to so many seconds. False: it was not had. A statement that waits has a snapshot, and nothing that others delete
-- or update meanwhile can be vacuumed, in the whole database; so it must come to an end. An error that is caught here is not in the server's log.
CREATE OR REPLACE FUNCTION pgsig_private.stand_in_line(p_class integer, p_object integer, p_seconds double precision) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('lock_timeout', ceil(p_seconds * 1000)::text || 'ms', true);
    PERFORM pg_advisory_lock(p_class, p_object);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    -- It may have been granted at the very moment at which the time was over: then this session has it.
    RETURN EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype = 'advisory' AND l.granted
                      AND l.classid::bigint = p_class AND l.objid::bigint = p_object AND l.objsubid = 2);
END $$;

-- Here, in insert_signal and in emit everything is named with its schema, operators too: that costs nothing, and a search_path set by a function is
-- set at each call. So no BETWEEN, IN, CAST or IS DISTINCT FROM, whose operators cannot be named. A test holds them against hostile names.

-- A namespace is on one of four lanes, for ever. Written so that it becomes part of the statement that calls it.
CREATE OR REPLACE FUNCTION pgsig_private.lane_of(namespace text) RETURNS smallint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT pg_catalog.int2(pg_catalog.hashtextextended(namespace, 0) OPERATOR(pg_catalog.&) 3)
$$;

-- The lane of a signal that may be, by all rules; what may not be is refused. The rules of signal_problems as one expression: naming what is wrong
-- costs as much as the insert, and is seldom needed.
CREATE OR REPLACE FUNCTION pgsig_private.lane_of(
    kind text, key text, value jsonb, subject text, namespace text, source text, event_id text DEFAULT NULL
) RETURNS smallint LANGUAGE plpgsql AS $$
BEGIN
    IF (lane_of.key OPERATOR(pg_catalog.~) '^[a-z0-9_:-]+(\.[a-z0-9_:-]+)*$'
        AND (lane_of.kind OPERATOR(pg_catalog.=) 'user'
             AND pg_catalog.split_part(lane_of.key, '.', 1) OPERATOR(pg_catalog.<>) ALL ('{run,tick,manual,timer}')
             OR lane_of.kind OPERATOR(pg_catalog.=) ANY ('{state,tick,manual,timer}'))
        AND pg_catalog.octet_length(lane_of.namespace) OPERATOR(pg_catalog.<=) 63 -- {0,62} would be five times as slow
        AND lane_of.namespace OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_-]*$'
        AND pg_catalog.pg_column_size(lane_of.value) OPERATOR(pg_catalog.<=) 262144
        AND pg_catalog.octet_length(lane_of.key) OPERATOR(pg_catalog.<=) 200
        AND pg_catalog.octet_length(lane_of.subject) OPERATOR(pg_catalog.<=) 200
        AND pg_catalog.octet_length(lane_of.source) OPERATOR(pg_catalog.<=) 200
        AND (lane_of.event_id IS NULL OR pg_catalog.octet_length(lane_of.event_id) OPERATOR(pg_catalog.>=) 1
                                     AND pg_catalog.octet_length(lane_of.event_id) OPERATOR(pg_catalog.<=) 200)) IS NOT TRUE
    THEN
        PERFORM pgsig_private.refuse_signal(lane_of.kind, lane_of.key, lane_of.value, lane_of.subject, lane_of.namespace, lane_of.source,
                                            lane_of.event_id);
    END IF;
    RETURN pgsig_private.lane_of(lane_of.namespace);
END $$;

-- INSERT INTO pgsig.signals. What may not be is refused, whoever says it; lane and transaction are never what somebody says. Who may name position,
-- time, kind and depth, as nobody may who only emits, is taken at his word: to load what was, for instance. The transaction that RETURNING tells is
-- the view's own default: to ask the table for it would take longer.
CREATE OR REPLACE FUNCTION pgsig_private.insert_signal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    -- What nearly every signal is, in as few calls as can be: each is set up anew in each transaction, which costs more than to make it.
    IF NEW.namespace OPERATOR(pg_catalog.=) 'default'
       AND NEW.kind OPERATOR(pg_catalog.=) 'user'
       AND NEW.key OPERATOR(pg_catalog.~) '^[a-z0-9_:-]+(\.[a-z0-9_:-]+)*$'
       AND pg_catalog.split_part(NEW.key, '.', 1) OPERATOR(pg_catalog.<>) ALL ('{run,tick,manual,timer}')
       AND pg_catalog.octet_length(NEW.key OPERATOR(pg_catalog.||) NEW.subject OPERATOR(pg_catalog.||) NEW.source) OPERATOR(pg_catalog.<=) 200
       AND pg_catalog.pg_column_size(NEW.value) OPERATOR(pg_catalog.<=) 262144
       AND NEW.event_id IS NULL AND NEW.run_id IS NULL AND NEW.id IS NULL AND NEW.emitted_at IS NULL
    THEN
        NEW.id := pg_catalog.nextval('pgsig_private.signal_id');
        NEW.emitted_at := CASE WHEN pg_catalog.current_setting('pgsig.bell', true) OPERATOR(pg_catalog.=) 'off'
                                 OR pg_catalog.pg_try_advisory_xact_lock_shared(1885827945, 1000)
                               THEN pg_catalog.clock_timestamp() ELSE pgsig_private.ring('') END;
        NEW.lane := pgsig_private.lane_of('default'); -- a constant
        INSERT INTO pgsig_private.signal (id, lane, key, subject, value, source, emitted_at, depth)
        VALUES (NEW.id, NEW.lane, NEW.key, NEW.subject, NEW.value, NEW.source, NEW.emitted_at, NEW.depth);
        RETURN NEW;
    END IF;
    IF NEW.id IS NULL THEN
        NEW.id := pg_catalog.nextval('pgsig_private.signal_id');
    END IF;
    IF NEW.emitted_at IS NULL THEN
        NEW.emitted_at := pgsig_private.ring('');
    END IF;
    NEW.lane := pgsig_private.lane_of(NEW.kind, NEW.key, NEW.value, NEW.subject, NEW.namespace, NEW.source, NEW.event_id);
    IF NEW.event_id IS NOT NULL OR NEW.run_id IS NOT NULL THEN
        IF NEW.kind OPERATOR(pg_catalog.=) 'user' AND NEW.run_id IS NOT NULL THEN
            NEW.depth := pgsig_private.depth_of_run(NEW.run_id);
        END IF;
        IF NEW.event_id IS NOT NULL AND NOT pgsig_private.is_first(
            NEW.namespace, NEW.source, NEW.event_id, NEW.id, NEW.key, NEW.subject, NEW.value)
        THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO pgsig_private.signal (id, namespace, lane, key, subject, value, source, event_id, run_id, emitted_at, kind, depth)
    VALUES (NEW.id, NEW.namespace, NEW.lane, NEW.key, NEW.subject, NEW.value, NEW.source, NEW.event_id, NEW.run_id, NEW.emitted_at, NEW.kind,
            NEW.depth);
    RETURN NEW;
END $$;

-- No trigger of a view can be told to stay on with session_replication_role = replica: what is inserted here then is stored nowhere. To look for
-- that, in the default of a column, would take 3 % of an insert.
CREATE OR REPLACE TRIGGER insert_signal INSTEAD OF INSERT ON pgsig.signals FOR EACH ROW EXECUTE FUNCTION pgsig_private.insert_signal();

-- The time of a signal, and a ring that says what it is. Otherwise as the default of emitted_at, which rings without a word.
CREATE OR REPLACE FUNCTION pgsig_private.ring(p_what text) RETURNS timestamptz
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('pgsig.bell', true) IS DISTINCT FROM 'off' AND NOT pg_try_advisory_xact_lock_shared(1885827945, 1000) THEN
        PERFORM pgsig_private.notify('pgsig_signals', p_what);
    END IF;
    RETURN clock_timestamp();
END $$;

-- A signal sent by a run inherits the run's place in the causal chain.
CREATE OR REPLACE FUNCTION pgsig_private.depth_of_run(p_run bigint) RETURNS smallint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_depth smallint;
BEGIN
    SELECT r.depth INTO v_depth FROM pgsig_private.run r WHERE r.id = p_run;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run_id % is not a run', p_run
            USING ERRCODE = 'PS108', HINT = 'leave run_id out, or take it from the run that emits';
    END IF;
    RETURN v_depth;
END $$;

-- A signal with an event id is stored once. By index: a session that was there when the table was empty may keep the plan of that time.
CREATE OR REPLACE FUNCTION pgsig_private.is_first(
    p_namespace text, p_source text, p_event_id text, p_signal bigint, p_key text, p_subject text, p_value jsonb
) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    v_digest bytea := sha256(convert_to(p_key || E'\n' || p_subject || E'\n' || p_value::text, 'UTF8'));
    v_first  pgsig_private.event;
BEGIN
    INSERT INTO pgsig_private.event (namespace, source, event_id, signal_id, digest)
    VALUES (p_namespace, p_source, p_event_id, p_signal, v_digest)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN true;
    END IF;
    SELECT * INTO v_first FROM pgsig_private.event e
     WHERE e.namespace = p_namespace AND e.source = p_source AND e.event_id = p_event_id;
    IF v_first.digest IS DISTINCT FROM v_digest THEN
        RAISE EXCEPTION 'event id "%" of source "%" was used before with another key, subject or value', p_event_id, p_source
            USING ERRCODE = 'PS109', HINT = 'use a new event id for a new fact',
                  DETAIL = format('first stored as signal %s', v_first.signal_id);
    END IF;
    RETURN false;
END $$;

-- Everything wrong with one signal, as lines of "code where: message (fix)".
CREATE OR REPLACE FUNCTION pgsig_private.signal_problems(
    key text, value jsonb, subject text, namespace text, source text, event_id text, place text DEFAULT ''
) RETURNS SETOF text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    -- One line each: what is quoted of the caller's text must not begin another.
    SELECT regexp_replace(format('%s %s/%s: %s (%s)', p.code, place, p.field, p.message, p.fix), '[[:cntrl:]]', ' ', 'g')
      FROM (VALUES
        ('PS101', 'key', 'a key is needed', 'for instance model.trained', key IS NULL OR key = ''),
        ('PS101', 'key', format('a key that is emitted has no wildcard: "%s"', left(key, 60)),
            'name one key; wildcards belong into conditions', key LIKE '%*%'),
        ('PS101', 'key', format('"%s" is not a key', left(key, 60)),
            'lower-case letters, digits, _ : - in segments joined by dots',
            key <> '' AND key NOT LIKE '%*%' AND key !~ '^[a-z0-9_:-]+(\.[a-z0-9_:-]+)*$'),
        ('PS101', 'key', format('a key has at most 200 bytes, this one %s', octet_length(key)),
            'put the detail into subject or value', octet_length(key) > 200),
        ('PS102', 'key', 'keys that begin with run, tick, manual or timer are written by pgsig alone',
            'choose another first segment', key ~ '^(run|tick|manual|timer)(\.|$)'),
        ('PS103', 'value', format('a value has at most 256 KiB, this one %s KiB', pg_column_size(value) / 1024),
            'store the data elsewhere and emit where it is', pg_column_size(value) > 262144),
        ('PS104', 'namespace', format('"%s" is not a namespace', left(namespace, 60)),
            'a lower-case letter, then up to 62 of a-z 0-9 _ -', namespace IS NULL OR namespace !~ '^[a-z][a-z0-9_-]{0,62}$'),
        ('PS105', 'subject', format('a subject has at most 200 bytes, this one %s', octet_length(subject)),
            'use a short id', octet_length(subject) > 200),
        ('PS106', 'source', format('a source has at most 200 bytes, this one %s', octet_length(source)),
            'use a short name', octet_length(source) > 200),
        ('PS107', 'event_id', 'an event id has 1 to 200 bytes', 'leave it out, or hash it',
            octet_length(event_id) NOT BETWEEN 1 AND 200)
      ) AS p(code, field, message, fix, wrong)
     WHERE p.wrong
$$;

CREATE OR REPLACE FUNCTION pgsig_private.refuse(problems text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '%', (SELECT string_agg(regexp_replace(p, '[[:cntrl:]]', ' ', 'g'), E'\n' ORDER BY n)
                            FROM unnest(problems) WITH ORDINALITY u(p, n))
        USING ERRCODE = left(problems[1], 5), HINT = 'nothing was stored';
END $$;

-- What pgsig itself writes bears the prefixes that are its own. What is NULL and may not be is refused by the table.
CREATE OR REPLACE FUNCTION pgsig_private.refuse_signal(
    kind text, key text, value jsonb, subject text, namespace text, source text, event_id text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_problems text[] := ARRAY(SELECT p FROM pgsig_private.signal_problems(key, value, subject, namespace, source, event_id) p
                                WHERE kind = 'user' OR p NOT LIKE 'PS102 %');
BEGIN
    IF kind NOT IN ('user', 'state', 'tick', 'manual', 'timer') THEN
        RAISE EXCEPTION '"%" is not a kind of signal', left(kind, 60) USING ERRCODE = 'check_violation', HINT = 'leave kind out';
    END IF;
    IF v_problems <> '{}' THEN
        PERFORM pgsig_private.refuse(v_problems);
    END IF;
END $$;

-- The collation is named because the caller's decides otherwise: session_user brings that of names, which no index here has, and each repetition
-- would read the whole table.
CREATE OR REPLACE FUNCTION pgsig_private.first_position(p_namespace text, p_source text, p_event_id text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT e.signal_id FROM pgsig_private.event e
     WHERE e.namespace = p_namespace COLLATE "default" AND e.source = p_source COLLATE "default" AND e.event_id = p_event_id COLLATE "default"
$$;

CREATE OR REPLACE FUNCTION pgsig.emit(
    key       text,
    value     jsonb  DEFAULT 'null',
    subject   text   DEFAULT '',
    namespace text   DEFAULT 'default',
    source    text   DEFAULT NULL,
    event_id  text   DEFAULT NULL,
    run_id    bigint DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    v_id    pg_catalog.int8;
    v_lane  pg_catalog.int2;
    v_depth pg_catalog.int2;
BEGIN
    -- As in insert_signal: what nearly every signal is, in as few calls as can be. session_user has 63 bytes at most.
    IF emit.namespace OPERATOR(pg_catalog.=) 'default'
       AND emit.key OPERATOR(pg_catalog.~) '^[a-z0-9_:-]+(\.[a-z0-9_:-]+)*$'
       AND pg_catalog.split_part(emit.key, '.', 1) OPERATOR(pg_catalog.<>) ALL ('{run,tick,manual,timer}')
       AND pg_catalog.octet_length(emit.key OPERATOR(pg_catalog.||) emit.subject) OPERATOR(pg_catalog.<=) 200
       AND pg_catalog.pg_column_size(emit.value) OPERATOR(pg_catalog.<=) 262144
       AND emit.source IS NULL AND emit.event_id IS NULL AND emit.run_id IS NULL
    THEN
        v_id := pg_catalog.nextval('pgsig_private.signal_id'); -- RETURNING takes longer; and so does the default of emitted_at, which names more
        INSERT INTO pgsig_private.signal (id, lane, key, subject, value, source, emitted_at)
        VALUES (v_id, pgsig_private.lane_of('default'), emit.key, emit.subject, emit.value,
                session_user,
                CASE WHEN pg_catalog.current_setting('pgsig.bell', true) OPERATOR(pg_catalog.=) 'off'
                       OR pg_catalog.pg_try_advisory_xact_lock_shared(1885827945, 1000)
                     THEN pg_catalog.clock_timestamp() ELSE pgsig_private.ring('') END);
        RETURN v_id;
    END IF;
    -- Any other as insert_signal does it.
    emit.subject := coalesce(emit.subject, '');
    emit.value := coalesce(emit.value, 'null');
    emit.source := coalesce(emit.source, session_user);
    v_lane := pgsig_private.lane_of('user', emit.key, emit.value, emit.subject, emit.namespace, emit.source, emit.event_id);
    v_depth := CASE WHEN emit.run_id IS NULL THEN 0 ELSE pgsig_private.depth_of_run(emit.run_id) END;
    v_id := pg_catalog.nextval('pgsig_private.signal_id');
    IF emit.event_id IS NOT NULL AND NOT pgsig_private.is_first(
        emit.namespace, emit.source, emit.event_id, v_id, emit.key, emit.subject, emit.value)
    THEN
        RETURN pgsig_private.first_position(emit.namespace, emit.source, emit.event_id);
    END IF;
    INSERT INTO pgsig_private.signal (id, namespace, lane, key, subject, value, source, event_id, run_id, depth)
    VALUES (v_id, emit.namespace, v_lane, emit.key, emit.subject, emit.value, emit.source, emit.event_id, emit.run_id, v_depth);
    RETURN v_id;
END $$;
COMMENT ON FUNCTION pgsig.emit IS
    'Emit one signal in the caller''s transaction. Returns its position; with an event_id that was seen before, the first position.';

CREATE OR REPLACE FUNCTION pgsig.emit_many(signals jsonb, namespace text DEFAULT 'default') RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_problems text[];
    v_stored   bigint[];
    v_next     integer := 1;
    v_item     record;
BEGIN
    IF jsonb_typeof(signals) IS DISTINCT FROM 'array' THEN
        PERFORM pgsig_private.refuse(ARRAY['PS110 : signals is a JSON array of objects']);
    END IF;
    SELECT array_agg(p ORDER BY s.place) INTO v_problems
      FROM (SELECT i.place, i.item, jsonb_typeof(i.item) = 'object' AS is_object
              FROM jsonb_array_elements(signals) WITH ORDINALITY i(item, place)) s,
           LATERAL (
               SELECT format('PS110 /%s: a signal is an object with a key', s.place - 1) AS p WHERE NOT s.is_object
               UNION ALL
               SELECT format('PS111 /%s/%s: unknown field (use key, value, subject, namespace, source, event_id, run_id)',
                             s.place - 1, left(f, 60))
                 FROM jsonb_object_keys(CASE WHEN s.is_object THEN s.item ELSE '{}' END) f
                WHERE f NOT IN ('key', 'value', 'subject', 'namespace', 'source', 'event_id', 'run_id')
               UNION ALL
               SELECT pgsig_private.signal_problems(
                          s.item->>'key', s.item->'value', s.item->>'subject',
                          coalesce(s.item->>'namespace', emit_many.namespace), s.item->>'source', s.item->>'event_id',
                          format('/%s', s.place - 1))
                -- As in emit: naming what is wrong is dear, and seldom needed.
                WHERE s.is_object AND (
                    s.item->>'key' ~ '^[a-z0-9_:-]+(\.[a-z0-9_:-]+)*$' AND octet_length(s.item->>'key') <= 200
                    AND s.item->>'key' !~ '^(run|tick|manual|timer)(\.|$)'
                    AND coalesce(s.item->>'namespace', emit_many.namespace) ~ '^[a-z][a-z0-9_-]{0,62}$'
                    AND pg_column_size(coalesce(s.item->'value', 'null')) <= 262144
                    AND octet_length(coalesce(s.item->>'subject', '')) <= 200 AND octet_length(coalesce(s.item->>'source', '')) <= 200
                    AND coalesce(octet_length(s.item->>'event_id') BETWEEN 1 AND 200, true)) IS NOT TRUE
           ) q;
    IF v_problems IS NOT NULL THEN
        PERFORM pgsig_private.refuse(v_problems);
    END IF;
    -- All was looked at: it goes into the log as it is, in the order in which it was given. A source is compared by the collation of the column.
    WITH given AS MATERIALIZED (
        SELECT nextval('pgsig_private.signal_id') AS id, g.*, CASE WHEN g.run_id IS NULL THEN 0 ELSE pgsig_private.depth_of_run(g.run_id) END AS depth
          FROM (SELECT coalesce(i.item->>'namespace', emit_many.namespace) AS namespace, i.item->>'key' AS key,
                       coalesce(i.item->>'subject', '') AS subject, coalesce(i.item->'value', 'null') AS value,
                       coalesce(i.item->>'source', session_user) COLLATE "default" AS source,
                       i.item->>'event_id' AS event_id, (i.item->>'run_id')::bigint AS run_id
                  FROM jsonb_array_elements(signals) WITH ORDINALITY i(item, place) ORDER BY i.place) g
    ), stored AS (
        INSERT INTO pgsig_private.signal AS s (id, namespace, lane, key, subject, value, source, event_id, run_id, depth)
        SELECT g.id, g.namespace, pgsig_private.lane_of(g.namespace), g.key, g.subject, g.value, g.source, g.event_id, g.run_id, g.depth
          FROM given g
         WHERE g.event_id IS NULL OR pgsig_private.is_first(g.namespace, g.source, g.event_id, g.id, g.key, g.subject, g.value)
        RETURNING s.id
    )
    SELECT coalesce(array_agg(s.id ORDER BY s.id), '{}') INTO v_stored FROM stored s;
    IF cardinality(v_stored) = jsonb_array_length(signals) THEN
        RETURN QUERY SELECT u.id FROM unnest(v_stored) WITH ORDINALITY u(id, n) ORDER BY u.n;
        RETURN;
    END IF;
    -- Some are repetitions, of something earlier in the array or of what is known, and answer with its position. The look is a statement of its own,
    -- so that it sees what others have committed meanwhile.
    FOR v_item IN SELECT i.item->>'event_id' IS NULL AS plain,
                         pgsig_private.first_position(coalesce(i.item->>'namespace', emit_many.namespace),
                                                      coalesce(i.item->>'source', session_user), i.item->>'event_id') AS id
                    FROM jsonb_array_elements(signals) WITH ORDINALITY i(item, place) ORDER BY i.place LOOP
        IF v_item.plain OR v_item.id = v_stored[v_next] THEN
            v_item.id := v_stored[v_next];
            v_next := v_next + 1;
        END IF;
        RETURN NEXT v_item.id;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgsig.emit_many IS
    'Emit a JSON array of {key, value, subject, namespace, source, event_id}. All or none; every problem is named. Returns the positions in order.';

-- Write an order by hand for every operator that a target names. An order is a signal like any other: the worker that takes it does what a rule
-- would have done. Returns the position of the last one.
CREATE OR REPLACE FUNCTION pgsig_private.order_by_hand(
    p_namespace text, p_target text, p_whole boolean, p_subject text, p_value jsonb, p_source text, p_problems text[]
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id       bigint;
    v_problems text[] := p_problems;
BEGIN
    IF NOT EXISTS (SELECT FROM pgsig_private.targets(p_namespace, p_target, p_whole)) THEN
        v_problems := v_problems || format('PS201 /operator: there is no operator "%s" in namespace "%s" (name it workflow.operator%s; pgsig ps lists them)',
            left(p_target, 130), left(p_namespace, 63), CASE WHEN p_whole THEN ', or a whole workflow' ELSE '' END);
    END IF;
    IF v_problems <> '{}' THEN
        PERFORM pgsig_private.refuse(v_problems);
    END IF;
    FOR v_id IN
        INSERT INTO pgsig.signals AS s (kind, namespace, key, subject, value, source)
        SELECT 'manual', p_namespace, 'manual.' || t.path, coalesce(p_subject, ''), p_value, coalesce(p_source, session_user)
          FROM pgsig_private.targets(p_namespace, p_target, p_whole) t ORDER BY t.path
        RETURNING s.id
    LOOP END LOOP;
    RETURN v_id;
END $$;

-- The operators in force that a name stands for: workflow.operator, or with p_whole also a workflow.
CREATE OR REPLACE FUNCTION pgsig_private.targets(p_namespace text, p_target text, p_whole boolean) RETURNS TABLE (operator_id bigint, path text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT o.id, w.name || '.' || o.name
      FROM pgsig_private.operator o JOIN pgsig_private.workflow w ON w.id = o.workflow_id
     WHERE w.namespace = p_namespace AND o.removed_at IS NULL AND w.removed_at IS NULL
       AND (w.name || '.' || o.name = p_target OR (p_whole AND w.name = p_target))
$$;

-- What is wrong with parameters that a person gives, by what an operator says that it takes (pgsig/definition/accepts.py has the same words).
CREATE OR REPLACE FUNCTION pgsig_private.param_problems(p_spec jsonb, p_params jsonb) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('PS210 /params/%s: %s (the operator says what it takes: accepts)', left(name, 60), said) FROM (
        SELECT p.name, CASE
            WHEN r.rule IS NULL THEN format('there is no parameter "%s": it takes %s', left(p.name, 60),
                coalesce((SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(p_spec->'accepts') k), 'none'))
            WHEN CASE r.rule->>'type' WHEN 'text' THEN v.kind <> 'string' WHEN 'flag' THEN v.kind <> 'boolean' WHEN 'list' THEN v.kind <> 'array'
                                      WHEN 'object' THEN v.kind <> 'object' WHEN 'number' THEN v.kind <> 'number'
                                      WHEN 'integer' THEN v.kind <> 'number' OR v.number <> trunc(v.number) END
                THEN format('is to be %s %s', CASE WHEN r.rule->>'type' IN ('integer', 'object') THEN 'an' ELSE 'a' END, r.rule->>'type')
            WHEN r.rule ? 'one_of' AND NOT r.rule->'one_of' @> jsonb_build_array(p.value) THEN 'is not one of those that are taken'
            WHEN v.number < (r.rule->>'least')::numeric THEN 'is at least ' || (r.rule->>'least')
            WHEN v.number > (r.rule->>'most')::numeric THEN 'is at most ' || (r.rule->>'most') END AS said
          FROM jsonb_each(p_params) p(name, value)
          CROSS JOIN LATERAL (SELECT jsonb_typeof(p.value) AS kind, CASE WHEN jsonb_typeof(p.value) = 'number' THEN p.value::numeric END AS number) v
          CROSS JOIN LATERAL (SELECT p_spec->'accepts'->p.name AS rule) r
         UNION ALL
        SELECT k.name, 'is needed' FROM jsonb_each(p_spec->'accepts') k(name, rule)
         WHERE (k.rule->'required')::boolean AND NOT coalesce(p_spec->'params', '{}') || p_params ? k.name
    ) found
     WHERE said IS NOT NULL AND p_spec ? 'accepts' ORDER BY 1
$$;

CREATE OR REPLACE FUNCTION pgsig.act(
    operator  text,
    action    text,
    subject   text  DEFAULT '',
    params    jsonb DEFAULT '{}',
    reason    text  DEFAULT '',
    namespace text  DEFAULT 'default',
    source    text  DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_problems text[] := '{}';
BEGIN
    IF upper(act.action) NOT IN ('START', 'STOP', 'RESTART', 'RELOAD') THEN
        v_problems := v_problems || format('PS202 /action: "%s" is not an action (use START, STOP, RESTART or RELOAD)', left(act.action, 60));
    END IF;
    IF jsonb_typeof(act.params) IS DISTINCT FROM 'object' THEN
        v_problems := v_problems || 'PS203 /params: params is a JSON object'::text;
    ELSIF upper(act.action) IN ('START', 'RESTART') THEN
        v_problems := v_problems || ARRAY(SELECT pgsig_private.param_problems(o.spec, act.params)
                                            FROM pgsig_private.targets(act.namespace, act.operator, false) t JOIN pgsig_private.operator o ON o.id = t.operator_id);
    END IF;
    RETURN pgsig_private.order_by_hand(act.namespace, act.operator, false, act.subject,
        jsonb_build_object('action', upper(act.action), 'params', act.params, 'reason', act.reason), act.source, v_problems);
END $$;
COMMENT ON FUNCTION pgsig.act IS
    'Order START, STOP, RESTART or RELOAD of workflow.operator by hand. Returns the position of the manual signal.';

CREATE OR REPLACE FUNCTION pgsig.pause(
    target    text,
    mode      text DEFAULT 'hold',
    reason    text DEFAULT '',
    namespace text DEFAULT 'default',
    source    text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_problems text[] := '{}';
BEGIN
    IF pause.mode NOT IN ('hold', 'collapse', 'drop') THEN
        v_problems := v_problems || format('PS204 /mode: "%s" is not a way to pause (use hold, collapse or drop)', left(pause.mode, 60));
    END IF;
    RETURN pgsig_private.order_by_hand(pause.namespace, pause.target, true, '',
        jsonb_build_object('action', 'PAUSE', 'mode', pause.mode, 'reason', pause.reason), pause.source, v_problems);
END $$;
COMMENT ON FUNCTION pgsig.pause IS
    'Pause the rules of workflow.operator, or of a whole workflow, from this signal on. hold: evaluate what came meanwhile at the resume; collapse: only the newest of it; drop: nothing.';

CREATE OR REPLACE FUNCTION pgsig.resume(
    target text, reason text DEFAULT '', namespace text DEFAULT 'default', source text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN pgsig_private.order_by_hand(resume.namespace, resume.target, true, '',
        jsonb_build_object('action', 'RESUME', 'reason', resume.reason), resume.source, '{}');
END $$;
COMMENT ON FUNCTION pgsig.resume IS 'End a pause: what was held is evaluated in its order, before anything that comes after this signal.';
