-- What a replay reads. Used by pgsig/store/replaying.py, in one transaction that only reads: everything is seen as of its first statement.

-- name: replay_patience
-- Somebody may look at a page of the output for a while before the next one is asked for.
SELECT set_config('idle_in_transaction_session_timeout', '10min', true)

-- name: replay_range
-- The positions of a range, by time or by position, and how the log looks from here. The last position is fixed by the snapshot.
SELECT min(s.id) AS first, max(s.id) AS last, min(s.emitted_at) AS begins, count(*) AS signals
  FROM pgsig_private.signal s
 WHERE s.namespace = %(namespace)s
   AND (%(since)s::timestamptz IS NULL OR s.emitted_at >= %(since)s::timestamptz)
   AND s.id >= coalesce(%(from)s::bigint, 0) AND s.id <= coalesce(%(to)s::bigint, 9223372036854775807)

-- name: replay_since
-- The moment that lies so many seconds back, by the database's clock.
SELECT clock_timestamp() - make_interval(secs => %(seconds)s::double precision) AS since

-- name: replay_signals
-- A page of the log, by position.
SELECT s.id, s.namespace, s.key, s.subject, s.value::text, s.source, s.emitted_at, s.xid::text, s.depth, s.run_id, s.event_id
  FROM pgsig_private.signal s
 WHERE s.namespace = %(namespace)s AND s.id > %(after)s AND s.id <= %(last)s
   AND (%(since)s::timestamptz IS NULL OR s.emitted_at >= %(since)s::timestamptz)
 ORDER BY s.id
 LIMIT %(limit)s

-- name: replay_actions
-- What a workflow's operators did because of these signals.
SELECT a.id, a.cause_id, o.name AS operator, a.subject, coalesce(r.name, 'manual') AS rule, a.action, a.result, a.nth, a.run_id, a.version
  FROM pgsig_private.action a
  JOIN pgsig_private.operator o ON o.id = a.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id AND w.namespace = %(namespace)s AND w.name = %(workflow)s
  LEFT JOIN pgsig_private.rule r ON r.id = a.rule_id
 WHERE a.cause_id = ANY (%(causes)s::bigint[])
 ORDER BY a.id

-- name: replay_alive
-- The runs of a workflow that were alive at a moment.
SELECT r.id, o.name AS operator, r.subject, r.generation,
       CASE WHEN r.started_at <= %(at)s THEN 'running' WHEN r.claimed_at <= %(at)s THEN 'starting' ELSE 'queued' END AS state
  FROM pgsig_private.run r
  JOIN pgsig_private.operator o ON o.id = r.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id AND w.namespace = %(namespace)s AND w.name = %(workflow)s
 WHERE r.queued_at < %(at)s AND (r.ended_at IS NULL OR r.ended_at >= %(at)s)
 ORDER BY r.id
