-- What a runner says to the database. The functions behind it are in sql/api/40_claim.sql and 42_report.sql.
-- JSON that came from outside leaves the database as text: a value that Postgres keeps and Python cannot read must
-- spoil one run, not the whole answer.

-- name: join
-- A process begins: it gets an id, and a lease.
SELECT pgsig_private.join_processes(%(role)s, %(name)s, %(host)s, %(pid)s, %(version)s, %(pools)s::text[], %(capacity)s,
                                    make_interval(secs => %(lease)s), %(labels)s::text[])

-- name: renew
-- Still there. False: it was declared dead.
SELECT pgsig_private.renew(%(process)s, make_interval(secs => %(lease)s), %(detail)s::jsonb)

-- name: leave
-- A process ends, or is known to have ended. What it still holds is found by the next reap.
UPDATE pgsig_private.process SET ended_at = clock_timestamp() WHERE id = %(process)s AND ended_at IS NULL

-- name: neighbours
-- The runners that say they live on this machine since this boot: whoever shares it can see whether that is so.
SELECT id, pid, detail::text FROM pgsig_private.process
 WHERE role = 'runner' AND ended_at IS NULL AND id <> %(process)s AND detail->>'machine' = %(machine)s

-- name: gone_neighbours
-- The runners of this machine, since this boot, that ended or were declared dead, and have not joined anew. Whether they know it is another question.
-- In a query of its own: what is volatile is asked for each row otherwise.
SELECT id, pid, detail::text FROM pgsig_private.process WHERE id = ANY ((SELECT pgsig_private.gone_runners(%(machine)s))::bigint[])

-- name: claim
-- Runs for the free places of a runner, each with a new epoch.
SELECT id, epoch, attempt, generation, namespace, workflow, operator, subject, kind, spec::text, params::text, cause::text, action, depth, handover_of,
       checkpoint::text, failures, handle, ran_for, since, gone
  FROM pgsig_private.claim(%(runner)s, %(pools)s, %(capacity)s, %(labels)s, %(machine)s, true)

-- name: held
-- What the database believes that a runner holds.
SELECT r.id AS run_id, r.epoch, r.attempt, v.kind, v.spec::text, r.desired, r.failures, r.handle, r.ready_at IS NOT NULL AS ready
  FROM pgsig_private.run r
  JOIN pgsig_private.operator_version v ON v.operator_id = r.operator_id AND v.version = r.version
 WHERE r.runner_id = %(runner)s AND r.state IN ('starting', 'running')

-- name: orders
-- What to stop, and what to reload with which signals.
SELECT run_id, epoch, stop, reload_id, cause::text FROM pgsig_private.orders(%(runner)s)

-- name: report
-- What became of runs, in one transaction, and an answer for each. 'stale': its grant is over, nothing was changed.
SELECT answer FROM pgsig_private.report_many(%(reports)s::jsonb) ORDER BY place

-- name: ready
-- The run serves.
SELECT pgsig_private.ready(%(run)s, %(epoch)s)

-- name: report_reload
-- A reload was delivered, acknowledged or has failed.
SELECT pgsig_private.report_reload(%(reload)s, %(epoch)s, %(state)s, %(reason)s)

-- name: reap
-- The runs of runners that are dead. quiet: seconds after the server's start in which nobody is declared dead.
SELECT run_id, epoch, attempt, kind, spec::text, desired, failures, handle FROM pgsig_private.reap(make_interval(secs => %(quiet)s))

-- name: emit
-- Signals of a job, already stamped with its run; none where its grant is over. It is valid until this transaction ends: a report, which
-- would end it, waits.
WITH held AS MATERIALIZED (
    SELECT FROM pgsig_private.run WHERE id = %(run)s AND epoch = %(epoch)s AND state IN ('starting', 'running') FOR SHARE
)
SELECT e.id FROM held CROSS JOIN LATERAL pgsig.emit_many(%(signals)s::jsonb, %(namespace)s) e(id)

-- name: emit_one
-- The same for a single one, which needs no list.
WITH held AS MATERIALIZED (
    SELECT FROM pgsig_private.run WHERE id = %(run)s::bigint AND epoch = %(epoch)s::bigint AND state IN ('starting', 'running') FOR SHARE
)
SELECT pgsig.emit(%(key)s, %(value)s::jsonb, %(subject)s, %(namespace)s, %(source)s, %(event_id)s, %(run)s::bigint) FROM held

-- name: note_progress
UPDATE pgsig_private.run SET progress = %(value)s::jsonb
 WHERE id = %(run)s AND epoch = %(epoch)s AND state IN ('starting', 'running')

-- name: note_result
UPDATE pgsig_private.run SET result = %(value)s::jsonb
 WHERE id = %(run)s AND epoch = %(epoch)s AND state IN ('starting', 'running')

-- name: note_checkpoint
UPDATE pgsig_private.run SET checkpoint = %(value)s::jsonb
 WHERE id = %(run)s AND epoch = %(epoch)s AND state IN ('starting', 'running')

-- name: signals_after
-- The signals of a namespace that became visible after a snapshot, in the order of the log. Like pgsig_private.take, without its lock:
-- s1 is what was read before; s2, where a page was not the last of its window, is the window's end. One statement, so that
-- pgsig_private.here() is the very snapshot that it reads with. A cursor of another timeline begins its window anew; s1 is null for one that
-- is not known here. missed: some that it should have come by were dropped. reached: see pgsig_private.hear.
WITH span AS MATERIALIZED (
    SELECT CASE WHEN here.same THEN %(s1)s::pg_snapshot ELSE pgsig_private.carried_over(%(s1)s::pg_snapshot, %(timeline)s) END AS s1,
           coalesce(CASE WHEN here.same THEN %(s2)s::pg_snapshot END, pgsig_private.here()) AS s2,
           CASE WHEN here.same THEN %(last)s::bigint ELSE 0 END AS last, here.timeline,
           pgsig_private.lane_of(%(namespace)s) AS lane
      FROM (SELECT max(t.id) AS timeline, max(t.id) = %(timeline)s::bigint AS same FROM pgsig_private.timeline t) here
), late AS MATERIALIZED (
    SELECT pgsig_private.missed(span.s1, span.s2, span.last, %(namespace)s, %(pattern)s) AS missed FROM span
)
SELECT span.s1::text, span.s2::text, span.timeline, late.missed,
       f.id, f.key, f.subject, f.value::text, f.source, f.emitted_at, f.run_id, f.reached
  FROM span CROSS JOIN late LEFT JOIN LATERAL pgsig_private.hear(ARRAY[span.lane], span.s1, span.s2, span.last, %(most)s, %(pattern)s, %(namespace)s) f
    ON span.s1 IS NOT NULL
 ORDER BY f.id

-- name: cursor_begin
-- Where a listener begins anew: now, or with what is left.
SELECT CASE %(place)s::text WHEN 'here' THEN pgsig_private.cursor_here() ELSE pgsig_private.cursor_oldest(%(namespace)s) END AS cursor

-- name: log_size
-- What is kept of a run's output: bytes.
SELECT coalesce(sum(octet_length(text)), 0)::bigint FROM pgsig_private.log WHERE run_id = %(run)s AND seq > 0

-- name: log_add
-- Append to a run's output, as long as the grant is valid.
INSERT INTO pgsig_private.log (run_id, seq, attempt, text)
SELECT r.id, coalesce((SELECT max(l.seq) FROM pgsig_private.log l WHERE l.run_id = r.id), 0) + 1, r.attempt, %(text)s
  FROM pgsig_private.run r WHERE r.id = %(run)s AND r.epoch = %(epoch)s

-- name: log_trim
-- Drop the oldest output beyond a limit in bytes. Row 0 says how much is gone in all.
WITH old AS (
    SELECT t.seq FROM (
        SELECT l.seq, sum(octet_length(l.text)) OVER (ORDER BY l.seq DESC) AS size
          FROM pgsig_private.log l WHERE l.run_id = %(run)s AND l.seq > 0
    ) t WHERE t.size > %(limit)s
), gone AS (
    DELETE FROM pgsig_private.log l USING old WHERE l.run_id = %(run)s AND l.seq = old.seq RETURNING octet_length(l.text) AS size
)
INSERT INTO pgsig_private.log AS k (run_id, seq, attempt, text)
SELECT %(run)s, 0, 1, format(E'[pgsig: %%s bytes of earlier output were dropped]\n', sum(gone.size))
  FROM gone HAVING count(*) > 0
ON CONFLICT (run_id, seq) DO UPDATE SET text = format(
    E'[pgsig: %%s bytes of earlier output were dropped]\n',
    substring(k.text FROM '\d+')::bigint + substring(excluded.text FROM '\d+')::bigint)
