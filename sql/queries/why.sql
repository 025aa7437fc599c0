-- WHY: what stands behind `pgsig why`, the API's and the pages' answer. The work is done in sql/api/60_why.sql and its neighbours.
-- Used by pgsig/store/explain.py.

-- name: why
SELECT pgsig_private.why(%(operator)s, %(subject)s, %(namespace)s) AS why

-- name: why_signal_rules
-- The leaves of rules in force, in the signal's namespace, that name its key, each with what keeps the signal from counting there; and the
-- instances that wait with it. Its key's first segment is looked for in the text of a condition first: that is cheap.
SELECT r.id AS rule_id, w.name AS workflow, o.name AS operator, o.paused, r.name AS rule, r.action, r.by, l.leaf->>'text' AS text, s.id AS signal,
       pgsig_private.why_not(s, l.leaf, r) AS because,
       coalesce((SELECT array_agg(h.subject ORDER BY h.subject) FROM (
           SELECT x.subject FROM pgsig_private.rule_state x
            WHERE x.rule_id = r.id AND (s.subject = '' OR r.by <> 'subject' OR x.subject IN (s.subject, ''))
              AND (jsonb_path_exists(x.body, '$.pending.*[*][0] ? (@ == $id)', jsonb_build_object('id', s.id))
                   OR jsonb_path_exists(x.body, '$.levels.*[0] ? (@ == $id)', jsonb_build_object('id', s.id))
                   OR jsonb_path_exists(x.body, '$.armed.*[0] ? (@ == $id)', jsonb_build_object('id', s.id))) LIMIT 20) h), '{}') AS waiting
  FROM pgsig_private.signal s
  JOIN pgsig_private.workflow w ON w.namespace = s.namespace AND w.removed_at IS NULL
  JOIN pgsig_private.operator o ON o.workflow_id = w.id AND o.removed_at IS NULL
  JOIN pgsig_private.rule r ON r.operator_id = o.id AND r.removed_in IS NULL
   AND (strpos(r.condition::text, split_part(s.key, '.', 1)) > 0 OR strpos(r.condition::text, '*') > 0 OR s.kind = 'tick')
 CROSS JOIN LATERAL pgsig_private.numbered(r.condition, w.name || '.' || o.name, 0) n
 CROSS JOIN LATERAL jsonb_path_query(n.tree, 'strict $.** ? (exists (@.leaf) && exists (@.i))') l(leaf)
 WHERE s.id = %(id)s AND (pgsig_private.key_fits(l.leaf->>'key', s.key) OR pgsig_private.key_fits(l.leaf->'leaf'->>'after', s.key))
 ORDER BY o.id, r.ordinal, (l.leaf->>'i')::integer LIMIT 200

-- name: why_signal_outcomes
SELECT x.rule_id, x.subject, x.outcome, x.action_id, x.detail FROM pgsig_private.fate x WHERE x.signal_id = %(id)s ORDER BY x.rule_id, x.subject LIMIT 500

-- name: why_signal_evaluated
SELECT pgsig_private.is_evaluated(s) AS evaluated FROM pgsig_private.signal s WHERE s.id = %(id)s

-- name: why_keys
-- The keys that rules of a signal's namespace name.
SELECT DISTINCT k.key #>> '{}' AS key FROM (
    SELECT jsonb_path_query(r.condition, p.path) AS key
      FROM pgsig_private.rule r
      JOIN pgsig_private.operator o ON o.id = r.operator_id AND o.removed_at IS NULL
      JOIN pgsig_private.workflow w ON w.id = o.workflow_id AND w.removed_at IS NULL
     CROSS JOIN (VALUES ('strict $.** ? (exists (@.signal)).signal'::jsonpath), ('strict $.** ? (exists (@.absent)).absent'), ('strict $.** ? (exists (@.after)).after')) p(path)
     WHERE r.removed_in IS NULL AND w.namespace = %(namespace)s LIMIT 5000
) k WHERE jsonb_typeof(k.key) = 'string'
