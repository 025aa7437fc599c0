-- The path of a signal through a worker: five statements, most batches need three of them. What each does is told in sql/api.

-- name: take
-- Signals that no worker has evaluated, at most %(limit)s; locks their lanes until the end of the transaction.
SELECT lane, revision, id, namespace, key, subject, value, source, emitted_at, xid, depth, run_id, event_id
  FROM pgsig_private.take(%(limit)s)

-- name: ask
-- What Postgres says of a value: the truth of a predicate, or the text that a path finds. A predicate that cannot be decided is null.
SELECT q.n,
       CASE WHEN q.predicate THEN jsonb_path_match(q.value::jsonb, q.path::jsonpath, '{}', true) END,
       CASE WHEN NOT q.predicate THEN jsonb_path_query_first(q.value::jsonb, q.path::jsonpath, '{}', true) #>> '{}' END
  FROM unnest(%(numbers)s::int[], %(values)s::text[], %(paths)s::text[], %(predicates)s::bool[]) AS q(n, value, path, predicate)

-- name: load_states
-- What rules remember: single instances, and every instance of some rules.
SELECT s.rule_id, s.subject, s.body
  FROM pgsig_private.rule_state s
  JOIN unnest(%(rules)s::bigint[], %(subjects)s::text[]) AS n(rule_id, subject) ON s.rule_id = n.rule_id AND s.subject = n.subject
UNION
SELECT s.rule_id, s.subject, s.body FROM pgsig_private.rule_state s WHERE s.rule_id = ANY (%(whole)s::bigint[])

-- name: held_signals
-- The signals that wait for the resume of operators, each with the rule that it waits at.
SELECT o.rule_id, s.id, s.namespace, s.key, s.subject, s.value::text, s.source, s.emitted_at, s.xid::text, s.depth, s.run_id, s.event_id
  FROM pgsig_private.outcome o
  JOIN pgsig_private.rule r ON r.id = o.rule_id AND r.operator_id = ANY (%(operators)s::bigint[])
  JOIN pgsig.signals s ON s.id = o.signal_id
 WHERE o.outcome = 'held'
 ORDER BY s.id

-- name: ask_function
-- What a user's own condition says of a signal, and what it remembers from here on.
SELECT state, met, problem FROM pgsig_private.ask_function(%(name)s, %(signal)s::jsonb, %(state)s::jsonb)

-- name: live_subjects
-- The instances of operators that have a run which has not ended.
SELECT DISTINCT r.operator_id, r.subject FROM pgsig_private.run r
 WHERE r.operator_id = ANY (%(operators)s::bigint[]) AND r.state IN ('queued', 'starting', 'running', 'retrying')

-- name: lock_instances
-- Lock what is about to be acted on and tell what is alive of it.
SELECT operator_id, subject, desired, generation, runs FROM pgsig_private.lock_instances(%(operators)s::bigint[], %(subjects)s::text[])

-- name: reserve_ids
-- Ids for the actions, and as many for runs, of one batch. Unused ones are gaps, which mean nothing.
SELECT nextval('pgsig_private.action_id'), nextval('pgsig_private.run_id') FROM generate_series(1, %(count)s)

-- name: record
-- Write everything that a batch led to.
SELECT pgsig_private.record(%(document)s::jsonb)

-- name: fire_timers
-- Turn timers that fell due into signals; seconds until the next one, null for none.
SELECT pgsig_private.fire_timers()

-- name: depth_limit
SELECT value::text::integer FROM pgsig_private.setting WHERE name = 'depth_limit'

-- name: maintain
-- Partitions ahead, old cursor rows; answers with the partitions that may be dropped.
SELECT * FROM pgsig_private.maintain()

-- name: why_rules
-- The rules of an operator with what they remember for a subject, and for none.
SELECT r.id, r.name, r.action, r.condition, r.by, w.name || '.' || o.name AS path, s.subject, s.body
  FROM pgsig_private.rule r
  JOIN pgsig_private.operator o ON o.id = r.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
  LEFT JOIN pgsig_private.rule_state s ON s.rule_id = r.id AND s.subject IN (%(subject)s, '')
 WHERE w.namespace = %(namespace)s AND w.name || '.' || o.name = %(operator)s AND o.removed_at IS NULL AND r.removed_in IS NULL
 ORDER BY r.ordinal

-- name: why_last_actions
-- The newest action of each rule of an operator and subject, and the newest by hand (rule 0).
SELECT l.* FROM pgsig_private.operator o
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
  JOIN pgsig_private.rule r ON r.operator_id = o.id AND r.removed_in IS NULL
  JOIN LATERAL (
    SELECT a.rule_id, a.id, a.action, a.result, a.recorded_at, a.evidence, a.run_id FROM pgsig_private.action a
     WHERE a.rule_id = r.id AND a.subject = %(subject)s ORDER BY a.cause_id DESC, a.nth DESC LIMIT 1) l ON true
 WHERE w.namespace = %(namespace)s AND w.name || '.' || o.name = %(operator)s
UNION ALL
SELECT l.* FROM pgsig_private.operator o
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
  JOIN LATERAL (
    SELECT a.rule_id, a.id, a.action, a.result, a.recorded_at, a.evidence, a.run_id FROM pgsig_private.action a
     WHERE a.operator_id = o.id AND a.subject = %(subject)s AND a.rule_id = 0 ORDER BY a.id DESC LIMIT 1) l ON true
 WHERE w.namespace = %(namespace)s AND w.name || '.' || o.name = %(operator)s

-- name: why_instance
SELECT i.desired, i.observed, i.generation, i.run_id FROM pgsig.operators i
 WHERE i.namespace = %(namespace)s AND i.workflow || '.' || i.operator = %(operator)s AND i.subject = %(subject)s
