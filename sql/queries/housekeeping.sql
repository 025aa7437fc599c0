-- Housekeeping: what is created ahead and what goes. Used by pgsig/store/housekeeping.py; sql/api/25_keep.sql says what stays.
--
-- Each prune_* looks at no more than %(limit)s rows behind %(after)s, by an index, and deletes those that may go. It answers how many went,
-- the last one that it looked at, and whether there may be more behind it. So a statement is short whatever the table's size, locks nothing
-- but rows that nobody changes any more, and never comes back to rows that stay.

-- name: try_housekeeping
-- The lease: the session that has it does the work, and gives it up by ending.
SELECT pg_try_advisory_lock(1885827945, 1001)

-- name: end_housekeeping
SELECT pg_advisory_unlock(1885827945, 1001)

-- name: foreign_origin
-- What speaks against working on this database, null for nothing.
SELECT pgsig_private.foreign_origin()

-- name: row_by_row
-- Whatever the planner believes of how many rows a step will look at: they are few, and each is found by its key.
SELECT set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false)

-- name: prepare_days
SELECT pgsig_private.prepare_days()

-- name: old_partitions
-- Those that may go, and those that an interrupted turn left half gone.
SELECT p.name, p.state FROM pgsig_private.partitions() p
 WHERE p.state <> 'attached' OR (p.old AND pgsig_private.passed(p.name))

-- name: close_partition
SELECT pgsig_private.close_partition(%(name)s)

-- name: drop_detached
SELECT pgsig_private.drop_detached(%(name)s)

-- name: prune_cursors
-- Old rows of cursors: the newest hundred of each lane stay, to look at.
WITH looked AS MATERIALIZED (
    SELECT o.lane, o.seq FROM pgsig_private.lane l, LATERAL (
        SELECT c.lane, c.seq FROM pgsig_private.cursor c
         WHERE c.lane = l.lane AND c.seq < (SELECT max(k.seq) FROM pgsig_private.cursor k WHERE k.lane = l.lane) - 100
         ORDER BY c.seq LIMIT %(limit)s) o
     LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.cursor c USING looked WHERE c.lane = looked.lane AND c.seq = looked.seq RETURNING 1
)
SELECT (SELECT count(*) FROM gone), %(after)s::bigint, (SELECT count(*) FROM gone) >= %(limit)s

-- name: prune_outcomes
WITH looked AS MATERIALIZED (
    SELECT o.signal_id, o.rule_id, o.subject, o.outcome FROM pgsig_private.outcome o
     WHERE o.signal_id > %(after)s AND o.signal_id <= (pgsig_private.milestone_of('outcome_days')).signal_id
     ORDER BY o.signal_id LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.outcome o USING looked l
     WHERE o.signal_id = l.signal_id AND o.rule_id = l.rule_id AND o.subject = l.subject AND o.outcome <> 'held' RETURNING 1
)
-- A position whose outcomes were cut in two is looked at again.
SELECT (SELECT count(*) FROM gone), CASE WHEN count(*) < %(limit)s THEN max(signal_id) ELSE greatest(max(signal_id) - 1, %(after)s::bigint + 1) END,
       count(*) >= %(limit)s FROM looked

-- name: prune_runs
-- Runs that ended long ago, with their logs. The last one of an instance stays, and the one whose checkpoint the next would go on from;
-- of an instance with a subject, which is often seen once and never again, both go together.
WITH looked AS MATERIALIZED (
    SELECT r.id FROM pgsig_private.run r WHERE r.id > %(after)s AND r.id <= (pgsig_private.milestone_of('run_days')).run_id ORDER BY r.id LIMIT %(limit)s
), old AS MATERIALIZED (
    SELECT r.id, r.operator_id, r.subject, i.run_id IS NOT DISTINCT FROM r.id AS last, i.desired
      FROM looked JOIN pgsig_private.run r ON r.id = looked.id
      LEFT JOIN pgsig_private.instance i ON i.operator_id = r.operator_id AND i.subject = r.subject
     WHERE r.ended_at < pgsig_private.gone_before('run_days')
       AND NOT EXISTS (SELECT FROM pgsig_private.run h WHERE h.operator_id = r.operator_id AND h.subject = r.subject AND h.handover_of = r.id
                          AND h.state IN ('queued', 'starting', 'running', 'retrying'))
       AND (r.checkpoint IS NULL OR EXISTS (SELECT FROM pgsig_private.run n WHERE n.operator_id = r.operator_id AND n.subject = r.subject
                                               AND n.checkpoint IS NOT NULL AND n.id > r.id))
), idle AS (
    SELECT i.operator_id, i.subject FROM pgsig_private.instance i JOIN old ON old.last AND i.operator_id = old.operator_id AND i.subject = old.subject
     WHERE i.subject <> '' AND i.desired = 'stopped' AND i.run_id = old.id
       AND NOT EXISTS (SELECT FROM pgsig_private.run r WHERE r.operator_id = i.operator_id AND r.subject = i.subject
                          AND r.state IN ('queued', 'starting', 'running', 'retrying'))
       FOR UPDATE OF i SKIP LOCKED
), forgotten AS (
    DELETE FROM pgsig_private.instance i USING idle WHERE i.operator_id = idle.operator_id AND i.subject = idle.subject
    RETURNING i.operator_id, i.subject
), going AS MATERIALIZED (
    SELECT old.id FROM old
     WHERE NOT old.last OR EXISTS (SELECT FROM forgotten f WHERE f.operator_id = old.operator_id AND f.subject = old.subject)
), logs AS (
    DELETE FROM pgsig_private.log l USING going WHERE l.run_id = going.id
), gone AS (
    DELETE FROM pgsig_private.run r USING going WHERE r.id = going.id RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(id), count(*) >= %(limit)s FROM looked

-- name: prune_logs
WITH looked AS MATERIALIZED (
    SELECT r.id, r.ended_at FROM pgsig_private.run r
     WHERE r.id > %(after)s AND r.id <= (pgsig_private.milestone_of('log_days')).run_id ORDER BY r.id LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.log l USING looked WHERE l.run_id = looked.id AND looked.ended_at < pgsig_private.gone_before('log_days') RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(id), count(*) >= %(limit)s FROM looked

-- name: prune_actions
-- Those of runs that are kept stay, and the last order by hand for an instance: it says why the instance is as it is.
WITH looked AS MATERIALIZED (
    SELECT a.id, a.run_id, a.rule_id, a.operator_id, a.subject FROM pgsig_private.action a
     WHERE a.id > %(after)s AND a.id <= (pgsig_private.milestone_of('action_days')).action_id ORDER BY a.id LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.action a USING looked l
     WHERE a.id = l.id
       AND NOT EXISTS (SELECT FROM pgsig_private.run r WHERE r.id = l.run_id)
       AND NOT EXISTS (SELECT FROM pgsig_private.run r WHERE r.action_id = l.id)
       AND (l.rule_id <> 0 OR EXISTS (SELECT FROM pgsig_private.action n WHERE n.rule_id = 0 AND n.operator_id = l.operator_id
                                         AND n.subject = l.subject AND n.id > l.id))
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(id), count(*) >= %(limit)s FROM looked

-- name: prune_reloads
WITH looked AS MATERIALIZED (
    SELECT l.id, l.ended_at FROM pgsig_private.reload l
     WHERE l.id > %(after)s AND l.id <= (pgsig_private.milestone_of('reload_days')).reload_id ORDER BY l.id LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.reload l USING looked WHERE l.id = looked.id AND looked.ended_at < pgsig_private.gone_before('reload_days') RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(id), count(*) >= %(limit)s FROM looked

-- name: prune_processes
WITH looked AS MATERIALIZED (
    SELECT p.id, p.ended_at FROM pgsig_private.process p
     WHERE p.id > %(after)s AND p.id <= (pgsig_private.milestone_of('process_days')).process_id ORDER BY p.id LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.process p USING looked
     WHERE p.id = looked.id AND looked.ended_at < pgsig_private.gone_before('process_days')
       AND NOT EXISTS (SELECT FROM pgsig_private.run r WHERE r.runner_id = p.id AND r.state IN ('starting', 'running'))
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(id), count(*) >= %(limit)s FROM looked

-- name: prune_events
-- After that, an event id is a new fact.
WITH looked AS MATERIALIZED (
    SELECT e.namespace, e.source, e.event_id, e.signal_id FROM pgsig_private.event e
     WHERE e.signal_id > %(after)s AND e.signal_id <= (pgsig_private.milestone_of('event_days')).signal_id ORDER BY e.signal_id LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.event e USING looked l
     WHERE e.namespace = l.namespace AND e.source = l.source AND e.event_id = l.event_id RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(signal_id), count(*) >= %(limit)s FROM looked

-- name: prune_ticks
-- A clock asks for what comes after the last due time, which stands with the trigger.
WITH looked AS MATERIALIZED (
    SELECT k.trigger_id, k.due_at
      FROM pgsig_private.trigger g, LATERAL (
           SELECT t.trigger_id, t.due_at FROM pgsig_private.tick t
            WHERE t.trigger_id = g.id AND t.due_at < pgsig_private.gone_before('tick_days') ORDER BY t.due_at LIMIT %(limit)s) k
     LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.tick t USING looked l WHERE t.trigger_id = l.trigger_id AND t.due_at = l.due_at RETURNING 1
)
SELECT (SELECT count(*) FROM gone), %(after)s::bigint, (SELECT count(*) FROM gone) >= %(limit)s

-- name: prune_kept
-- Signals that were kept beyond their partition, and that nothing needs any more.
WITH needed AS MATERIALIZED (
    SELECT pgsig_private.needed_signals() AS id
), looked AS MATERIALIZED (
    SELECT k.id FROM pgsig_private.kept_signal k WHERE k.id > %(after)s ORDER BY k.id LIMIT %(limit)s
), gone AS (
    DELETE FROM pgsig_private.kept_signal k USING looked WHERE k.id = looked.id AND k.id NOT IN (SELECT id FROM needed) RETURNING 1
)
SELECT (SELECT count(*) FROM gone), max(id), count(*) >= %(limit)s FROM looked

-- name: prune_forgotten
-- That a rule remembers nothing of an instance any more. For a minute it stands before what may be left of earlier versions.
WITH gone AS (
    DELETE FROM pgsig_private.state s USING (
        SELECT o.rule_id, o.subject, o.seq FROM pgsig_private.state o
         WHERE o.body IS NULL AND o.changed_at < clock_timestamp() - interval '1 minute' ORDER BY o.changed_at LIMIT %(limit)s) o
     WHERE s.rule_id = o.rule_id AND s.subject = o.subject AND s.seq = o.seq RETURNING 1
)
SELECT (SELECT count(*) FROM gone), %(after)s::bigint, (SELECT count(*) FROM gone) >= %(limit)s

-- name: prune_milestones
WITH longest AS (
    SELECT max((s.value #>> '{}')::double precision) AS days FROM pgsig_private.setting s WHERE right(s.name, 5) = '_days'
), gone AS (
    DELETE FROM pgsig_private.milestone m USING longest WHERE m.at < clock_timestamp() - (longest.days * 2 + 7) * interval '24 hours' RETURNING 1
)
SELECT (SELECT count(*) FROM gone), %(after)s::bigint, false

-- name: prune_gaps
-- Times that were left out go with the ticks of those days. There are few, and by no index: nothing waits for it.
WITH gone AS (
    DELETE FROM pgsig_private.gap g WHERE (g.trigger_id, g.last_due) IN (
        SELECT o.trigger_id, o.last_due FROM pgsig_private.gap o WHERE o.recorded_at < pgsig_private.gone_before('tick_days') LIMIT %(limit)s)
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), %(after)s::bigint, (SELECT count(*) FROM gone) >= %(limit)s

-- name: prune_backfills
-- One at a time: its times go with it.
WITH gone AS (
    DELETE FROM pgsig_private.backfill b WHERE b.id = (
        SELECT o.id FROM pgsig_private.backfill o WHERE o.ended_at < pgsig_private.gone_before('tick_days') ORDER BY o.id LIMIT 1)
    RETURNING 1
)
SELECT (SELECT count(*) FROM gone), %(after)s::bigint, EXISTS (SELECT FROM gone)
