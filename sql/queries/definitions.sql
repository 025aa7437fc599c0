-- Definitions: applying a workflow, and reading what is in force. Used by pgsig/store/definitions.py.

-- name: lock_lane
-- Nothing of this namespace is being decided from here to the end of the transaction. Returns the lane.
SELECT lane, pg_advisory_xact_lock(1885827945, lane)
  FROM (SELECT pgsig_private.lane_of(%(namespace)s)::integer AS lane) l

-- name: workflow_now
-- What is applied of a workflow, whether or not it was removed since.
SELECT w.id, w.version, v.digest, w.removed_at IS NOT NULL AS removed
  FROM pgsig_private.workflow w
  JOIN pgsig_private.workflow_version v ON v.workflow_id = w.id AND v.version = w.version
 WHERE w.namespace = %(namespace)s AND w.name = %(workflow)s

-- name: workflow_operators
-- Every operator that a workflow ever had, with the rules in force.
SELECT o.id, o.name, o.kind, o.spec, o.removed_at IS NOT NULL AS removed,
       coalesce((SELECT jsonb_agg(jsonb_build_object('id', r.id, 'name', r.name, 'action', r.action, 'ordinal', r.ordinal,
                                                     'condition', r.condition, 'by', r.by, 'digest', r.digest, 'options', r.options)
                                  ORDER BY r.ordinal)
                   FROM pgsig_private.rule r WHERE r.operator_id = o.id AND r.removed_in IS NULL), '[]') AS rules
  FROM pgsig_private.operator o
 WHERE o.workflow_id = %(workflow)s
 ORDER BY o.name

-- name: save_workflow
INSERT INTO pgsig_private.workflow (namespace, name, version) VALUES (%(namespace)s, %(workflow)s, %(version)s)
ON CONFLICT (namespace, name) DO UPDATE SET version = excluded.version, removed_at = NULL
RETURNING id

-- name: save_version
INSERT INTO pgsig_private.workflow_version (workflow_id, version, definition, digest)
VALUES (%(workflow)s, %(version)s, %(definition)s::jsonb, %(digest)s)

-- name: save_operators
-- All operators of a definition: [{name, kind, spec}]. Returns their ids by name.
WITH saved AS (
    INSERT INTO pgsig_private.operator AS o (workflow_id, name, kind, spec)
    SELECT %(workflow)s, n.name, n.kind, n.spec
      FROM jsonb_to_recordset(%(operators)s::jsonb) AS n(name text, kind text, spec jsonb)
    ON CONFLICT (workflow_id, name) DO UPDATE SET kind = excluded.kind, spec = excluded.spec, removed_at = NULL
    RETURNING o.id, o.name, o.kind, o.spec
), noted AS (
    INSERT INTO pgsig_private.operator_version (operator_id, version, kind, spec)
    SELECT s.id, %(version)s, s.kind, s.spec FROM saved s
)
SELECT name, id FROM saved

-- name: save_rules
-- New rules: [{operator_id, name, action, ordinal, condition, by, digest, options, told}]. They see what commits from now on.
INSERT INTO pgsig_private.rule (operator_id, name, action, ordinal, condition, by, digest, options, told, since, added_in)
SELECT n.operator_id, n.name, n.action, n.ordinal, n.condition, n.by, n.digest, n.options, n.told, pgsig_private.here(), %(version)s
  FROM jsonb_to_recordset(%(rules)s::jsonb)
       AS n(operator_id bigint, name text, action text, ordinal smallint, condition jsonb, by text, digest text,
         options jsonb, told jsonb)

-- name: keep_rules
-- Rules that say what they said: only their place may be another.
UPDATE pgsig_private.rule r SET name = n.name, ordinal = n.ordinal
  FROM jsonb_to_recordset(%(rules)s::jsonb) AS n(id bigint, name text, ordinal smallint)
 WHERE r.id = n.id AND (r.name, r.ordinal) IS DISTINCT FROM (n.name, n.ordinal)

-- name: remove_rules
-- What they still waited with expires.
WITH gone AS (
    UPDATE pgsig_private.rule r SET removed_in = %(version)s WHERE r.id = ANY (%(rules)s::bigint[]) RETURNING r.id
)
SELECT pgsig_private.forget_rules(array_agg(gone.id)) FROM gone

-- name: save_triggers
-- Triggers: [{operator_id, name, spec}]. One that comes back counts from now; one that stayed keeps its last due time.
INSERT INTO pgsig_private.trigger AS t (operator_id, name, spec)
SELECT n.operator_id, n.name, n.spec FROM jsonb_to_recordset(%(triggers)s::jsonb) AS n(operator_id bigint, name text, spec jsonb)
ON CONFLICT (operator_id, name) DO UPDATE SET removed_at = NULL, created_at = clock_timestamp() WHERE t.removed_at IS NOT NULL

-- name: remove_triggers
-- Whatever triggers a workflow has beside these: [{operator_id, name}].
UPDATE pgsig_private.trigger t SET removed_at = clock_timestamp()
  FROM pgsig_private.operator o
 WHERE o.id = t.operator_id AND o.workflow_id = %(workflow)s AND t.removed_at IS NULL
   AND NOT EXISTS (SELECT FROM jsonb_to_recordset(%(triggers)s::jsonb) AS n(operator_id bigint, name text)
                    WHERE n.operator_id = t.operator_id AND n.name = t.name)

-- name: remove_operators
UPDATE pgsig_private.operator o SET removed_at = clock_timestamp() WHERE o.id = ANY (%(operators)s::bigint[]) AND o.removed_at IS NULL

-- name: stop_operators
-- Ask every live run of these operators to stop, as an action would: the instances are locked first.
WITH alive AS (
    SELECT array_agg(r.operator_id ORDER BY r.operator_id, r.subject) AS operators, array_agg(r.subject ORDER BY r.operator_id, r.subject) AS subjects
      FROM (SELECT DISTINCT operator_id, subject FROM pgsig_private.run
             WHERE operator_id = ANY (%(operators)s::bigint[]) AND state IN ('queued', 'starting', 'running', 'retrying')) r
), locked AS MATERIALIZED (
    SELECT l.operator_id, l.subject, l.generation, l.runs FROM alive a, pgsig_private.lock_instances(a.operators, a.subjects) l
     WHERE a.operators IS NOT NULL
), orders AS (
    SELECT jsonb_build_object(
               'stops', jsonb_path_query_array(jsonb_agg(l.runs), '$[*][*][0]'),
               'instances', jsonb_agg(jsonb_build_object('operator_id', l.operator_id, 'subject', l.subject, 'desired', 'stopped',
                                                         'generation', l.generation))) AS orders,
           sum(jsonb_array_length(l.runs))::integer AS runs
      FROM locked l
)
SELECT o.runs, pgsig_private.record(o.orders) FROM orders o WHERE o.runs > 0

-- name: autostart
-- The START of operators that begin with their first apply, as a manual signal from pgsig itself.
INSERT INTO pgsig.signals (kind, namespace, key, value, source)
SELECT 'manual', %(namespace)s, 'manual.' || %(workflow)s || '.' || n,
       jsonb_build_object('action', 'START', 'params', '{}'::jsonb, 'reason', 'autostart'), 'pgsig'
  FROM unnest(%(operators)s::text[]) n

-- name: announce_definitions
WITH moved AS (
    UPDATE pgsig_private.lane SET revision = revision + 1 WHERE lane = %(lane)s RETURNING lane, revision
), noted AS (
    UPDATE pgsig_private.workflow w SET revision = moved.revision FROM moved
     WHERE w.lane = moved.lane AND w.namespace = %(namespace)s AND w.name = %(workflow)s
)
SELECT pgsig_private.notify('pgsig_definitions')

-- name: changed_workflows
SELECT id, namespace, name FROM pgsig_private.changed_workflows(%(lanes)s, %(revisions)s)

-- name: catalog
-- The operators in force of some workflows, with their rules.
SELECT o.id, w.namespace, w.name AS workflow, o.name, o.kind, w.version, o.spec, o.paused, r.rules
  FROM pgsig_private.workflow w
  JOIN pgsig_private.operator o ON o.workflow_id = w.id
 CROSS JOIN LATERAL (
       SELECT coalesce(jsonb_agg(jsonb_build_array(r.id, r.name, r.action, r.ordinal, r.condition, r.by, r.since::text, r.options, r.told IS NOT NULL)
                                 ORDER BY r.ordinal, r.id), '[]') AS rules
         FROM pgsig_private.rule r WHERE r.operator_id = o.id AND r.removed_in IS NULL) r
 WHERE w.id = ANY (%(workflows)s::bigint[]) AND o.removed_at IS NULL AND w.removed_at IS NULL
 ORDER BY o.id

-- name: catalog_revisions
SELECT lane, revision FROM pgsig_private.lane

-- name: try_path
-- Whether Postgres can read a SQL/JSON path.
SELECT %(path)s::jsonpath::text

-- name: try_function
-- What a SQL function is to Postgres: none of this name, none with these arguments, one with another answer, or good.
SELECT CASE WHEN found.named = 0 THEN 'unknown' WHEN found.taking = 0 THEN 'arguments' WHEN found.good = 0 THEN 'answer' ELSE 'good' END
  FROM (SELECT count(*) AS named,
               count(*) FILTER (WHERE takes) AS taking,
               count(*) FILTER (WHERE takes AND answers) AS good
          FROM (SELECT p.prokind = 'f' AND oidvectortypes(p.proargtypes) = 'jsonb, jsonb' AS takes,
                       (SELECT string_agg(a.name || ' ' || a.type::regtype::text, ', ' ORDER BY a.number)
                          FROM unnest(p.proargnames, p.proallargtypes, p.proargmodes) WITH ORDINALITY AS a(name, type, mode, number)
                         WHERE a.mode IN ('o', 'b', 't')) ~ '^state jsonb, met boolean(,|$)' AS answers
                  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                 WHERE n.nspname = split_part(%(name)s, '.', 1) AND p.proname = split_part(%(name)s, '.', 2)) f) found

-- name: try_predicate
-- Whether a SQL/JSON path answers true or false: over an object without members anything else is an error.
SELECT jsonb_path_match('{}', %(path)s::jsonpath)
