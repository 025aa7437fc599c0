-- What the command line reads beside sql/queries/reading.sql. Used by pgsig/cli and pgsig/store/checkup.py.

-- name: cli_operators
-- Operators with each subject that they ever ran for.
SELECT o.namespace, o.workflow, o.operator, o.subject, o.kind, o.desired, o.observed, o.generation, o.run_id, o.version, o.changed_at, o.paused
  FROM pgsig.operators o
 WHERE (%(workflow)s::text IS NULL OR o.workflow = %(workflow)s) AND (%(namespace)s::text IS NULL OR o.namespace = %(namespace)s)
 ORDER BY o.namespace, o.workflow, o.operator, o.subject LIMIT %(limit)s

-- name: check_server
-- What a check-up asks of the server itself.
SELECT current_setting('server_version_num')::integer AS number, split_part(current_setting('server_version'), ' ', 1) AS version,
       clock_timestamp() AS now, current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off' AS durable,
       current_user::text AS login

-- name: check_digest
SELECT value #>> '{}' AS digest FROM pgsig_private.setting WHERE name = 'sql_digest'

-- name: check_partitions
-- The day until which there are partitions of the log, whether that is more than a day ahead, and how many are half gone.
SELECT count(*) FILTER (WHERE state = 'attached')::integer AS partitions, max(ends) FILTER (WHERE state = 'attached') AS until,
       coalesce(max(ends) FILTER (WHERE state = 'attached') > clock_timestamp() + interval '1 day', false) AS enough,
       count(*) FILTER (WHERE state <> 'attached')::integer AS half_gone,
       count(*) FILTER (WHERE state = 'attached' AND old)::integer AS overdue
  FROM pgsig_private.partitions()

-- name: check_alive
-- Processes alive by role, and whether each role has anything to do.
SELECT r.role, count(p.id)::integer AS alive,
       CASE r.role WHEN 'clock' THEN EXISTS (SELECT FROM pgsig_private.trigger WHERE removed_at IS NULL)
                   WHEN 'web' THEN false
                   ELSE EXISTS (SELECT FROM pgsig_private.operator WHERE removed_at IS NULL) END AS needed
  FROM unnest(ARRAY['worker', 'runner', 'clock', 'web']) WITH ORDINALITY r(role, place)
  LEFT JOIN pgsig_private.process p ON p.role = r.role AND p.ended_at IS NULL AND p.lease_until > clock_timestamp()
 GROUP BY r.role, r.place ORDER BY r.place

-- name: check_pools
-- Runs that could start, in pools that no living runner serves.
SELECT r.pool, count(*)::integer AS runs FROM pgsig_private.run r
 WHERE r.state IN ('queued', 'retrying') AND r.claimable_at IS NOT NULL
   AND NOT EXISTS (SELECT FROM pgsig_private.process p WHERE p.role = 'runner' AND p.ended_at IS NULL
                      AND p.lease_until > clock_timestamp() AND r.pool = ANY (p.pools))
 GROUP BY r.pool ORDER BY r.pool LIMIT 20

-- name: check_roles
-- The group roles that are missing, and whether this login may do the work of worker, runner, clock and web.
SELECT coalesce(array_agg(n) FILTER (WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = n)), '{}')::text[] AS missing,
       has_table_privilege('pgsig_private.cursor', 'INSERT') AS may_serve
  FROM unnest(ARRAY['pgsig_emitter', 'pgsig_reader', 'pgsig_operator', 'pgsig_service']) n
