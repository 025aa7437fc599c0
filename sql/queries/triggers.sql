-- Triggers: what the clock processes read and write. Used by pgsig/store/triggers.py.

-- name: live_triggers
-- Every trigger in force, and the time after which it is due: the last due time that was fired, or when it was applied.
SELECT t.id, t.spec, greatest(t.created_at, t.last_due) AS since
  FROM pgsig_private.trigger t JOIN pgsig_private.operator o ON o.id = t.operator_id
 WHERE t.removed_at IS NULL AND o.removed_at IS NULL
 ORDER BY t.id

-- name: fire_triggers
-- Fire many, in the order given: one order for all clocks, so that they cannot wait for each other in a circle.
-- Returns the position of each tick, NULL where another clock was faster.
SELECT pgsig_private.fire(f.trigger, f.due)
  FROM unnest(%(triggers)s::bigint[], %(dues)s::timestamptz[]) WITH ORDINALITY f(trigger, due, place)
 ORDER BY f.place
