-- Triggers: what the clock processes and people read and write. Used by pgsig/store/triggers.py, trigger_orders.py and backfills.py.

-- name: live_triggers
-- Every trigger in force that is not paused, with its place: due times up to there are settled. And the time of triggers.
SELECT t.id, t.spec, greatest(t.created_at, t.last_due) AS since
  FROM pgsig_private.trigger t JOIN pgsig_private.operator o ON o.id = t.operator_id
 WHERE t.removed_at IS NULL AND o.removed_at IS NULL AND t.paused IS NULL
 ORDER BY t.id

-- name: trigger_now
SELECT pgsig_private.trigger_now()

-- name: settle_triggers
-- Settle due times, in one statement: a clock that falls asleep holds nothing.
SELECT trigger_id, since, fired, now FROM pgsig_private.settle_triggers(%(asked)s::jsonb, %(ahead)s)

-- name: feed_backfills
SELECT pgsig_private.feed_backfills()

-- name: find_trigger
SELECT (f.t).id, (f.t).name, (f.t).spec, greatest((f.t).created_at, (f.t).last_due) AS since, (f.t).paused, pgsig_private.trigger_now() AS now
  FROM (SELECT pgsig_private.find_trigger(%(namespace)s, %(operator)s, %(trigger)s) AS t) f

-- name: lock_trigger
SELECT t.id, t.name, t.spec, greatest(t.created_at, t.last_due) AS since, t.paused, pgsig_private.trigger_now() AS now
  FROM pgsig_private.trigger t WHERE t.id = %(id)s FOR UPDATE

-- name: unpause_trigger
UPDATE pgsig_private.trigger t SET paused = NULL, paused_at = NULL WHERE t.id = %(id)s

-- name: note_trigger
SELECT pgsig_private.note_trigger(%(id)s, %(word)s, %(more)s::jsonb, %(reason)s, %(source)s) AS id

-- name: announce_triggers
SELECT pgsig_private.notify('pgsig_definitions')

-- name: fire_trigger
SELECT pgsig.fire(%(operator)s, %(trigger)s, %(params)s::jsonb, %(reason)s, %(namespace)s, %(source)s) AS id

-- name: pause_trigger
SELECT pgsig.pause_trigger(%(operator)s, %(trigger)s, %(mode)s, %(reason)s, %(namespace)s, %(source)s) AS id

-- name: begin_backfill
SELECT pgsig_private.begin_backfill(%(id)s, %(dues)s::timestamptz[], %(most)s, %(reason)s, %(source)s) AS id

-- name: cancel_backfill
SELECT pgsig.cancel_backfill(%(id)s, %(reason)s, %(source)s) AS id

-- name: ticked
-- Which of these due times became ticks: those that are known, and of those whose tick was pruned, what lies in the time of the trigger and in no gap.
SELECT d.due AS due_at FROM unnest(%(dues)s::timestamptz[]) d(due) JOIN pgsig_private.trigger t ON t.id = %(id)s
 WHERE EXISTS (SELECT FROM pgsig_private.tick k WHERE k.trigger_id = t.id AND k.due_at = d.due)
    OR (d.due > t.created_at AND d.due <= t.last_due
        AND NOT EXISTS (SELECT FROM pgsig_private.gap g WHERE g.trigger_id = t.id AND d.due BETWEEN g.first_due AND g.last_due))

-- name: triggers_in_force
SELECT t.* FROM pgsig.triggers t
 WHERE (%(namespace)s::text IS NULL OR t.namespace = %(namespace)s) AND (%(workflow)s::text IS NULL OR t.workflow = %(workflow)s)
   AND (%(operator)s::text IS NULL OR t.operator = %(operator)s)
   AND (%(operators)s::bigint[] IS NULL OR t.operator_id = ANY (%(operators)s))
 ORDER BY t.namespace, t.workflow, t.operator_id, t.trigger LIMIT 10000

-- name: gaps_of_triggers
-- The last due times that were left out, of each trigger.
SELECT g.* FROM unnest(%(triggers)s::bigint[]) t(id), LATERAL (
    SELECT g.* FROM pgsig_private.gap g WHERE g.trigger_id = t.id ORDER BY g.last_due DESC LIMIT %(limit)s
) g ORDER BY g.trigger_id, g.last_due DESC

-- name: last_ticks
-- The last due time of each trigger that became a tick, if it was not pruned.
SELECT k.trigger_id, k.due_at FROM unnest(%(triggers)s::bigint[]) t(id), LATERAL (
    SELECT k.trigger_id, k.due_at FROM pgsig_private.tick k WHERE k.trigger_id = t.id ORDER BY k.due_at DESC LIMIT 1
) k

-- name: backfills
SELECT b.* FROM pgsig.backfills b
 WHERE (%(namespace)s::text IS NULL OR b.namespace = %(namespace)s) AND (%(operators)s::bigint[] IS NULL OR b.operator_id = ANY (%(operators)s))
 ORDER BY b.id DESC LIMIT %(limit)s

-- name: backfill
SELECT b.* FROM pgsig.backfills b WHERE b.id = %(id)s

-- name: targets
-- The operators that a name stands for: one, or all of a workflow.
SELECT t.path FROM pgsig_private.targets(%(namespace)s, %(target)s, true) t ORDER BY t.path
