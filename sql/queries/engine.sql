-- The path of a signal through a worker: five statements, most batches need three of them. What each does is told in sql/api.

-- name: take
-- Signals that no worker has evaluated, at most %(limit)s; locks their lanes until the end of the transaction. Where one of them may lead to something,
-- and it is of one of %(keys)s, it locks what it leads to, too, and tells so in a last row. Keys LIKE %(idle)s lead to nothing.
-- %(lane)s: the only one to look at, or NULL.
SELECT id, namespace, key, subject, value, source, emitted_at, xid::bigint, depth, run_id, event_id, lane, revision, locked, action_ids, run_ids
  FROM pgsig_private.take(%(limit)s, %(keys)s, %(operators)s, %(count)s, %(idle)s, %(lane)s)

-- name: ask
-- What Postgres says of a value: the truth of a predicate, or the text that a path finds. A predicate that cannot be decided is null.
SELECT q.n,
       CASE WHEN q.predicate THEN jsonb_path_match(q.value::jsonb, q.path::jsonpath, '{}', true) END,
       CASE WHEN NOT q.predicate THEN jsonb_path_query_first(q.value::jsonb, q.path::jsonpath, '{}', true) #>> '{}' END
  FROM unnest(%(numbers)s::int[], %(values)s::text[], %(paths)s::text[], %(predicates)s::bool[]) AS q(n, value, path, predicate)

-- name: load_states
-- What rules remember: single instances, and every instance of some rules. Of an instance the last version is in force, and is met first.
SELECT n.rule_id, n.subject, s.body
  FROM unnest(%(rules)s::bigint[], %(subjects)s::text[]) AS n(rule_id, subject)
 CROSS JOIN LATERAL (SELECT l.body FROM pgsig_private.state l
                      WHERE l.rule_id = n.rule_id AND l.subject = n.subject ORDER BY l.seq DESC LIMIT 1) s
 WHERE s.body IS NOT NULL
UNION
SELECT s.rule_id, s.subject, s.body FROM pgsig_private.rule_state s WHERE s.rule_id = ANY (%(whole)s::bigint[])

-- name: held_signals
-- The signals that wait for the resume of operators, each with the rule that it waits at.
SELECT o.rule_id, s.id, s.namespace, s.key, s.subject, s.value::text, s.source, s.emitted_at, s.xid::text, s.depth, s.run_id, s.event_id
  FROM pgsig_private.outcome o
  JOIN pgsig_private.rule r ON r.id = o.rule_id AND r.operator_id = ANY (%(operators)s::bigint[])
  JOIN pgsig_private.remembered s ON s.id = o.signal_id
 WHERE o.outcome = 'held'
 ORDER BY s.id

-- name: ask_function
-- What a user's own condition says of a signal, and what it remembers from here on.
SELECT state, met, problem FROM pgsig_private.ask_function(%(name)s, %(signal)s::jsonb, %(state)s::jsonb)

-- name: live_subjects
-- The instances of operators that have a run which has not ended, and whether a runner holds one: a STOP ends the others at once.
SELECT r.operator_id, r.subject, bool_or(r.state IN ('starting', 'running')) FROM pgsig_private.run r
 WHERE r.operator_id = ANY (%(operators)s::bigint[]) AND r.state IN ('queued', 'starting', 'running', 'retrying')
 GROUP BY r.operator_id, r.subject

-- name: lock_instances
-- Lock what is about to be acted on and tell what is alive of it. With the first row come ids for %(count)s actions and as many runs: unused ones
-- are gaps, which mean nothing.
SELECT l.operator_id, l.subject, l.desired, l.generation, nullif(l.runs, '[]'),
       CASE WHEN l.ordinality = 1 THEN ARRAY(SELECT nextval('pgsig_private.action_id') FROM generate_series(1, %(count)s)) END,
       CASE WHEN l.ordinality = 1 THEN ARRAY(SELECT nextval('pgsig_private.run_id') FROM generate_series(1, %(count)s)) END
  FROM pgsig_private.lock_instances(%(operators)s::bigint[], %(subjects)s::text[]) WITH ORDINALITY l

-- name: record
-- Write everything that a batch led to.
SELECT pgsig_private.record(%(document)s::jsonb, %(ids)s::bigint[], %(operators)s::bigint[], %(rules)s::bigint[], %(subjects)s::text[], %(actions)s::text[],
           %(results)s::text[], %(versions)s::int[], %(causes)s::bigint[], %(depths)s::smallint[], %(runs)s::bigint[], %(consumed)s::boolean[])

-- name: fire_timers
-- Turn timers that fell due into signals; seconds until the next one, null for none.
SELECT pgsig_private.fire_timers()

-- name: depth_limit
SELECT value::text::integer FROM pgsig_private.setting WHERE name = 'depth_limit'

-- name: own_signals
-- What this transaction has emitted: for a dry run, which evaluates it itself.
SELECT s.id, s.namespace, s.key, s.subject, s.value::text, s.source, s.emitted_at, s.xid::text, s.depth, s.run_id, s.event_id
  FROM pgsig_private.signal s WHERE s.lane = ANY ('{0,1,2,3}') AND s.xid = pgsig_private.own_xid() ORDER BY s.id

-- name: short_lock
-- A dry run waits for nobody for long.
SELECT set_config('lock_timeout', '3s', true)

-- name: actions_by
-- What was recorded because of some signals, in words; new_run: the run that it made.
SELECT w.name AS workflow, o.name AS operator, a.subject, a.action, a.result, coalesce(r.name, 'manual') AS rule, pgsig_private.effect_text(a) AS text,
       (SELECT u.id FROM pgsig_private.run u WHERE u.id = a.run_id AND u.action_id = a.id) AS new_run
  FROM pgsig_private.action a
  JOIN pgsig_private.operator o ON o.id = a.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
  LEFT JOIN pgsig_private.rule r ON r.id = a.rule_id
 WHERE a.cause_id = ANY (%(causes)s::bigint[]) ORDER BY a.id
