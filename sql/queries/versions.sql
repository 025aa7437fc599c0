-- Versions of workflows, and what an apply would meet. Used by pgsig/store/versions.py.

-- name: versions
-- The versions of a workflow, newest first.
SELECT v.version, v.applied_at, v.applied_by, v.definition, v.digest, v.version = w.version AND w.removed_at IS NULL AS in_force
  FROM pgsig_private.workflow_version v
  JOIN pgsig_private.workflow w ON w.id = v.workflow_id
 WHERE w.namespace = %(namespace)s AND w.name = %(workflow)s AND v.version < coalesce(%(before)s::integer, 2147483647)
 ORDER BY v.version DESC LIMIT %(limit)s

-- name: version
-- One version of a workflow, by default the newest.
SELECT v.version, v.definition, w.version AS newest
  FROM pgsig_private.workflow_version v
  JOIN pgsig_private.workflow w ON w.id = v.workflow_id
 WHERE w.namespace = %(namespace)s AND w.name = %(workflow)s AND v.version = coalesce(%(version)s::integer, w.version)

-- name: waiting_signals
-- How many signals each rule in force waits with or holds for its resume, and how many levels it remembers. Rules with none are left out.
WITH rules AS (
    SELECT r.id FROM pgsig_private.rule r
      JOIN pgsig_private.operator o ON o.id = r.operator_id
      JOIN pgsig_private.workflow w ON w.id = o.workflow_id
     WHERE w.namespace = %(namespace)s AND w.name = %(workflow)s AND r.removed_in IS NULL
), found AS (
    SELECT s.rule_id, s.subject, p.id::text::bigint AS signal_id, false AS level
      FROM pgsig_private.rule_state s JOIN rules ON rules.id = s.rule_id,
           LATERAL (SELECT jsonb_path_query(s.body, '$.pending.*[*][0]') AS id UNION SELECT jsonb_path_query(s.body, '$.armed.*[0]')) p
    UNION ALL
    SELECT s.rule_id, s.subject, l.id::text::bigint, true
      FROM pgsig_private.rule_state s JOIN rules ON rules.id = s.rule_id, LATERAL jsonb_path_query(s.body, '$.levels.*[0]') l(id)
    UNION ALL
    SELECT o.rule_id, o.subject, o.signal_id, false
      FROM pgsig_private.outcome o JOIN rules ON rules.id = o.rule_id WHERE o.outcome = 'held'
)
SELECT rule_id, count(DISTINCT (signal_id, subject)) FILTER (WHERE NOT level) AS waiting,
       count(DISTINCT (signal_id, subject)) FILTER (WHERE level) AS levels
  FROM found GROUP BY rule_id

-- name: runs_in_flight
-- How many runs of each operator of a workflow live or wait.
SELECT o.name AS operator, count(*) FILTER (WHERE r.state <> 'queued') AS live, count(*) FILTER (WHERE r.state = 'queued') AS queued
  FROM pgsig_private.run r
  JOIN pgsig_private.operator o ON o.id = r.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
 WHERE w.namespace = %(namespace)s AND w.name = %(workflow)s AND r.state IN ('queued', 'starting', 'running', 'retrying')
 GROUP BY o.name
