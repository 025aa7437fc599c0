-- READING: what the HTTP API and the pages show. All of it is bounded: by a primary key, by an index range with a LIMIT, or by a window of
-- positions that the caller moves on. Nothing counts a big table. Lists are newest first; the caller reads one forwards by
-- exchanging DESC for ASC, which is why the word stands only where the order of a list is meant.

-- name: read_only
-- First statement of every reading transaction: a slow page must never become a slow database.
SELECT set_config('transaction_read_only', 'on', true), set_config('statement_timeout', '3000', true)

-- name: namespaces
-- Namespaces that have signals, by one index look-up for each.
WITH RECURSIVE found AS (
    (SELECT namespace FROM pgsig.signals ORDER BY namespace LIMIT 1)
    UNION ALL
    SELECT (SELECT s.namespace FROM pgsig.signals s WHERE s.namespace > f.namespace ORDER BY s.namespace LIMIT 1)
      FROM found f WHERE f.namespace IS NOT NULL
)
SELECT namespace FROM found WHERE namespace IS NOT NULL LIMIT 1000

-- name: signals_of_key
-- Signals of one exact key: a range of the index (namespace, key, id) for each namespace.
-- The sum keeps a page of large values to a few megabytes.
SELECT * FROM (
    SELECT p.*, sum(octet_length(p.value)) OVER (ORDER BY p.id DESC) - octet_length(p.value) AS before,
           count(*) OVER () AS many FROM (
        SELECT s.* FROM unnest(%(namespaces)s::text[]) n(name), LATERAL (
            SELECT s.id, s.namespace, s.key, s.subject, left(s.value::text, %(chars)s) AS value, s.source, s.event_id, s.run_id,
                   s.emitted_at, s.kind, s.depth
              FROM pgsig.signals s
             WHERE s.namespace = n.name AND s.key = %(key)s AND s.id > %(above)s AND s.id < %(below)s
             ORDER BY s.id DESC LIMIT %(limit)s
        ) s ORDER BY s.id DESC LIMIT %(limit)s
    ) p
) page WHERE before < 4194304 ORDER BY id DESC

-- name: signals_window
-- Signals of a window of positions that satisfy every filter given. The window bounds the work when few do.
SELECT * FROM (
    SELECT p.*, sum(octet_length(p.value)) OVER (ORDER BY p.id DESC) - octet_length(p.value) AS before,
           count(*) OVER () AS many FROM (
        SELECT s.id, s.namespace, s.key, s.subject, left(s.value::text, %(chars)s) AS value, s.source, s.event_id, s.run_id,
               s.emitted_at, s.kind, s.depth
          FROM pgsig.signals s
         WHERE s.id > %(above)s AND s.id < %(below)s
           AND (%(regex)s::text IS NULL OR s.key ~ %(regex)s) AND (%(subject)s::text IS NULL OR s.subject = %(subject)s)
           AND (%(source)s::text IS NULL OR s.source = %(source)s) AND (%(namespace)s::text IS NULL OR s.namespace = %(namespace)s)
         ORDER BY s.id DESC LIMIT %(limit)s
    ) p
) page WHERE before < 4194304 ORDER BY id DESC

-- name: signal_bounds
-- Where the log begins and ends: two index look-ups in each partition.
SELECT coalesce(min(id), 1) AS oldest, coalesce(max(id), 0) AS newest FROM pgsig.signals

-- name: signal
SELECT s.id, s.namespace, s.key, s.subject, s.value::text AS value, s.source, s.event_id, s.run_id, s.emitted_at, s.kind, s.depth
  FROM pgsig_private.remembered s WHERE s.id = %(id)s

-- name: signal_pretty
-- A value over several lines, laid out here: decoding it would round its numbers.
SELECT left(jsonb_pretty(s.value), 65536) AS text, octet_length(s.value::text) AS bytes FROM pgsig_private.remembered s WHERE s.id = %(id)s

-- name: signals_by_id
-- The signals behind an action or a run, with the beginning of their values.
SELECT s.id, s.namespace, s.key, s.subject, left(s.value::text, %(chars)s) AS value, s.source, s.event_id, s.run_id, s.emitted_at, s.kind, s.depth
  FROM pgsig_private.remembered s WHERE s.id = ANY (%(ids)s::bigint[]) ORDER BY s.id LIMIT 200

-- name: signals_of_run
-- What a run emitted, newest first, looked for between the signal that caused it and as far as the window goes.
SELECT s.id, s.namespace, s.key, s.subject, left(s.value::text, %(chars)s) AS value, s.source, s.event_id, s.run_id, s.emitted_at, s.kind, s.depth
  FROM pgsig.signals s WHERE s.id > %(above)s AND s.id < %(below)s AND s.run_id = %(run)s AND s.kind = 'user' ORDER BY s.id DESC LIMIT 50

-- name: by_index
-- For the rest of the transaction. One transaction that wrote much of the log makes the planner think that any other did so too.
SELECT set_config('enable_seqscan', 'off', true)

-- name: cursor_here
SELECT pgsig_private.here()::text AS s1, max(t.id) AS timeline FROM pgsig_private.timeline t

-- name: cursor_oldest
SELECT split_part(o.cursor, '@', 1) AS s1, coalesce(nullif(split_part(o.cursor, '@', 2), '')::bigint, 0) AS timeline
  FROM pgsig_private.cursor_oldest(%(namespace)s) o(cursor)

-- name: missed
-- Whether signals were dropped that a cursor has not seen. To be asked after the log was read.
SELECT pgsig_private.missed(%(s1)s::pg_snapshot, %(s2)s::pg_snapshot, %(done)s, %(namespace)s, %(regex)s) AS missed

-- name: go_on
-- What a cursor means here and now. One of another timeline begins its window anew; s1 is null for one that is not known here.
SELECT (CASE WHEN here.same THEN %(s1)s::pg_snapshot ELSE pgsig_private.carried_over(%(s1)s::pg_snapshot, %(timeline)s) END)::text AS s1,
       coalesce(CASE WHEN here.same THEN nullif(%(s2)s, '') END, pgsig_private.here()::text) AS s2,
       CASE WHEN here.same THEN %(done)s::bigint ELSE 0 END AS done, here.timeline
  FROM (SELECT max(t.id) AS timeline, max(t.id) = %(timeline)s::bigint AS same FROM pgsig_private.timeline t) here

-- name: signals_between
-- What became visible between two snapshots, in order of position: late commits are in it. See pgsig_private.hear.
SELECT s.id, s.namespace, s.key, s.subject, left(s.value::text, %(chars)s) AS value, s.source, s.event_id, s.run_id, s.emitted_at, s.kind, s.depth,
       s.reached
  FROM pgsig_private.hear('{0,1,2,3}', %(s1)s::pg_snapshot, %(s2)s::pg_snapshot, %(done)s, %(limit)s,
                          %(regex)s, %(namespace)s, %(subject)s, %(source)s) s

-- name: keys_between
-- Which keys the live pages let pulse: what became visible between two snapshots, at most 500 signals of it.
SELECT DISTINCT s.key FROM (
    SELECT s.key FROM (
        SELECT a.key, a.xid FROM pgsig.signals a WHERE a.lane = ANY ('{0,1,2,3}') AND a.xid >= pg_snapshot_xmax(%(s1)s::pg_snapshot)
        UNION ALL
        SELECT b.key, b.xid FROM pgsig.signals b WHERE b.lane = ANY ('{0,1,2,3}') AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(%(s1)s::pg_snapshot)))
    ) s WHERE pg_visible_in_snapshot(s.xid, %(s2)s::pg_snapshot) LIMIT 500
) s

-- name: heads
-- The newest position of everything that grows: one look-up in an index each.
SELECT pgsig_private.here()::text AS snapshot,
       coalesce((SELECT max(id) FROM pgsig.signals), 0) AS signals,
       coalesce((SELECT max(id) FROM pgsig_private.action), 0) AS actions,
       coalesce((SELECT max(id) FROM pgsig_private.run), 0) AS runs,
       coalesce((SELECT max(version) FROM pgsig_private.workflow), 0) + coalesce((SELECT max(id) FROM pgsig_private.rule), 0) AS definitions

-- name: log_heads
SELECT l.run_id, max(l.seq) AS seq FROM pgsig_private.log l WHERE l.run_id = ANY (%(runs)s::bigint[]) GROUP BY l.run_id

-- name: outcomes_of_signal
SELECT x.workflow, x.operator, x.rule, x.subject, x.outcome, x.action_id, x.detail, x.recorded_at
  FROM pgsig.outcomes x WHERE x.signal_id = %(id)s ORDER BY x.workflow, x.operator, x.rule, x.subject LIMIT 500

-- name: actions_of_signal
-- Actions that a signal completed, and those that it was one of several causes of.
SELECT a.* FROM pgsig.actions a
 WHERE a.id IN (SELECT x.id FROM pgsig_private.action x WHERE x.cause_id = %(id)s
                UNION SELECT o.action_id FROM pgsig_private.outcome o WHERE o.signal_id = %(id)s AND o.action_id IS NOT NULL)
 ORDER BY a.id LIMIT 200

-- name: workflows
SELECT w.namespace, w.name AS workflow, w.version, v.applied_at, v.applied_by, v.digest,
       (SELECT count(*) FROM pgsig_private.operator o WHERE o.workflow_id = w.id AND o.removed_at IS NULL) AS operators
  FROM pgsig_private.workflow w
  LEFT JOIN pgsig_private.workflow_version v ON v.workflow_id = w.id AND v.version = w.version
 WHERE w.removed_at IS NULL ORDER BY w.namespace, w.name

-- name: operators
-- One row for each operator with up to 100 of its instances taken together, its newest run that ended, what is queued, and the newest that
-- failed and is tried again.
SELECT o.id AS operator_id, w.namespace, w.name AS workflow, o.name AS operator, o.kind, w.version, o.spec, o.paused,
       coalesce(i.instances, '[]') AS instances, ended.id AS last_run, ended.state AS last_state, ended.ended_at AS last_ended_at,
       ended.exit_code AS last_exit_code, ended.reason AS last_reason,
       (SELECT count(*) FROM (SELECT FROM pgsig_private.run q WHERE q.operator_id = o.id AND q.state = 'queued' LIMIT 1000) queued) AS queued,
       (SELECT jsonb_build_object('id', q.id, 'attempt', q.attempt, 'reason', q.reason, 'at', q.claimable_at) FROM pgsig_private.run q
         WHERE q.operator_id = o.id AND q.state = 'retrying' ORDER BY q.id DESC LIMIT 1) AS again
  FROM pgsig_private.operator o
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
  LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_object('subject', k.subject, 'desired', k.desired, 'observed', k.observed, 'generation', k.generation,
                                        'run_id', k.run_id, 'changed_at', k.changed_at) ORDER BY k.subject) AS instances
      FROM (SELECT * FROM pgsig_private.instance k WHERE k.operator_id = o.id ORDER BY k.subject LIMIT 100) k
  ) i ON true
  LEFT JOIN LATERAL (
    -- As rows: with "operator_id = o.id" the planner may walk the primary key from its end, past every run of everybody where there is none.
    SELECT r.* FROM pgsig_private.run r
     WHERE (r.operator_id, r.id) BETWEEN (o.id, 0) AND (o.id, 9223372036854775807) AND r.ended_at IS NOT NULL
     ORDER BY r.operator_id DESC, r.id DESC LIMIT 1
  ) ended ON true
 WHERE o.removed_at IS NULL AND w.removed_at IS NULL
   AND (%(namespace)s::text IS NULL OR w.namespace = %(namespace)s) AND (%(workflow)s::text IS NULL OR w.name = %(workflow)s)
   AND (%(operator)s::text IS NULL OR o.name = %(operator)s)
 ORDER BY w.namespace, w.name, o.id LIMIT 500

-- name: operator_ids
-- Which operators a filter of runs or actions means; removed ones too, their history stays.
SELECT o.id FROM pgsig_private.operator o JOIN pgsig_private.workflow w ON w.id = o.workflow_id
 WHERE (%(namespace)s::text IS NULL OR w.namespace = %(namespace)s) AND (%(workflow)s::text IS NULL OR w.name = %(workflow)s)
   AND (%(operator)s::text IS NULL OR o.name = %(operator)s)

-- name: rules
SELECT r.id, r.operator_id, w.namespace, w.name AS workflow, o.name AS operator, r.name, r.action, r.ordinal, r.condition, r.by, r.added_in
  FROM pgsig_private.rule r
  JOIN pgsig_private.operator o ON o.id = r.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
 WHERE r.removed_in IS NULL AND o.removed_at IS NULL AND w.removed_at IS NULL
   AND (%(operators)s::bigint[] IS NULL OR r.operator_id = ANY (%(operators)s)) ORDER BY r.operator_id, r.ordinal LIMIT 2000

-- name: rule_states
-- How many instances of each rule hold something that is still waited with; stops counting at 1000.
SELECT r.id AS rule_id, n.waiting
  FROM unnest(%(rules)s::bigint[]) r(id),
       LATERAL (SELECT count(*) AS waiting FROM (SELECT FROM pgsig_private.rule_state s WHERE s.rule_id = r.id LIMIT 1000) s) n

-- name: emitted_keys
-- What each operator's runs emitted of late: the edges from operators back to signals in the drawing.
SELECT DISTINCT r.operator_id, s.key
  FROM (SELECT key, run_id FROM pgsig.signals WHERE id > %(above)s AND run_id IS NOT NULL AND kind = 'user' ORDER BY id DESC LIMIT 5000) s
  JOIN pgsig_private.run r ON r.id = s.run_id
 ORDER BY r.operator_id, s.key LIMIT 500

-- name: runs
-- Runs of a window of ids that satisfy every filter given.
SELECT r.* FROM pgsig.runs r
 WHERE r.id > %(above)s AND r.id < %(below)s AND (%(states)s::text[] IS NULL OR r.state = ANY (%(states)s))
   AND (%(subject)s::text IS NULL OR r.subject = %(subject)s) AND (%(namespace)s::text IS NULL OR r.namespace = %(namespace)s)
 ORDER BY r.id DESC LIMIT %(limit)s

-- name: runs_of_operators
-- The same for few operators: a range of the index (operator_id, id) for each. As rows, here and below: with "operator_id = o.id" the planner
-- may walk the primary key, past every run of everybody where the operator has few.
SELECT r.* FROM unnest(%(operators)s::bigint[]) o(id), LATERAL (
    SELECT r.* FROM pgsig.runs r
     WHERE (r.operator_id, r.id) > (o.id, %(above)s) AND (r.operator_id, r.id) < (o.id, %(below)s)
       AND (%(states)s::text[] IS NULL OR r.state = ANY (%(states)s)) AND (%(subject)s::text IS NULL OR r.subject = %(subject)s)
     ORDER BY r.operator_id DESC, r.id DESC LIMIT %(limit)s
) r ORDER BY r.id DESC LIMIT %(limit)s

-- name: runs_failed
-- Runs that ended badly, by the index of those: they may be few and far between. A page of them first: the planner thinks that they are fewer
-- than they are, and would join and sort them all.
SELECT r.* FROM pgsig.runs r
 WHERE r.id = ANY (ARRAY(
           SELECT q.id FROM pgsig_private.run q
            WHERE q.id > %(above)s AND q.id < %(below)s AND q.state IN ('failed', 'stopped', 'lost') AND q.state = ANY (%(states)s)
              AND (cardinality(%(operators)s::bigint[]) = 0 OR q.operator_id = ANY (%(operators)s))
              AND (%(subject)s::text IS NULL OR q.subject = %(subject)s)
              AND (%(namespace)s::text IS NULL OR q.operator_id = ANY (ARRAY(
                      SELECT o.id FROM pgsig_private.operator o JOIN pgsig_private.workflow w ON w.id = o.workflow_id
                       WHERE w.namespace = %(namespace)s)))
            ORDER BY q.id DESC LIMIT %(limit)s))
 ORDER BY r.id DESC

-- name: runs_open
-- Runs that have not ended, however long ago they were recorded: a service may be the oldest run of all. By the indexes of those that a runner
-- has, and of those that wait.
WITH open AS MATERIALIZED (
    SELECT q.id, q.operator_id, q.subject FROM pgsig_private.run q
     WHERE q.state IN ('starting', 'running', 'retrying') AND q.state = ANY (%(states)s)
    UNION ALL
    SELECT q.id, q.operator_id, q.subject FROM pgsig_private.run q WHERE q.state = 'queued' AND 'queued' = ANY (%(states)s)
)
SELECT r.* FROM pgsig.runs r
 WHERE r.id = ANY (ARRAY(
           SELECT o.id FROM open o WHERE o.id > %(above)s AND o.id < %(below)s AND (%(subject)s::text IS NULL OR o.subject = %(subject)s)
              AND (cardinality(%(operators)s::bigint[]) = 0 OR o.operator_id = ANY (%(operators)s))))
   AND (%(namespace)s::text IS NULL OR r.namespace = %(namespace)s)
 ORDER BY r.id DESC LIMIT %(limit)s

-- name: few_queued
-- Whether so few runs wait that all of them may be looked at.
SELECT count(*) < %(most)s AS few FROM (SELECT FROM pgsig_private.run r WHERE r.state = 'queued' LIMIT %(most)s) q

-- name: run_bounds
SELECT coalesce(min(id), 1) AS oldest, coalesce(max(id), 0) AS newest FROM pgsig_private.run

-- name: run
SELECT r.*, p.name AS runner, p.host AS runner_host FROM pgsig.runs r LEFT JOIN pgsig_private.process p ON p.id = r.runner_id WHERE r.id = %(id)s

-- name: run_states
-- The state signals of a run, for its timeline, in a window of positions after the signal that caused it.
SELECT s.id, s.key, s.emitted_at, s.value FROM pgsig.signals s
 WHERE s.id > %(above)s AND s.id < %(below)s AND s.run_id = %(run)s AND s.kind = 'state' ORDER BY s.id LIMIT 200

-- name: run_reloads
SELECT l.id, l.action_id, l.state, l.requested_at, l.delivered_at, l.ended_at, l.reason FROM pgsig_private.reload l
 WHERE l.run_id = %(id)s ORDER BY l.id DESC LIMIT 50

-- name: actions
SELECT a.* FROM pgsig.actions a
 WHERE a.id > %(above)s AND a.id < %(below)s AND (%(actions)s::text[] IS NULL OR a.action = ANY (%(actions)s))
   AND (%(results)s::text[] IS NULL OR a.result = ANY (%(results)s))
   AND (%(subject)s::text IS NULL OR a.subject = %(subject)s) AND (%(namespace)s::text IS NULL OR a.namespace = %(namespace)s)
 ORDER BY a.id DESC LIMIT %(limit)s

-- name: actions_of_operators
SELECT a.* FROM unnest(%(operators)s::bigint[]) o(id), LATERAL (
    SELECT a.* FROM pgsig.actions a
     WHERE (a.operator_id, a.id) > (o.id, %(above)s) AND (a.operator_id, a.id) < (o.id, %(below)s)
       AND (%(actions)s::text[] IS NULL OR a.action = ANY (%(actions)s)) AND (%(results)s::text[] IS NULL OR a.result = ANY (%(results)s))
       AND (%(subject)s::text IS NULL OR a.subject = %(subject)s)
     ORDER BY a.operator_id DESC, a.id DESC LIMIT %(limit)s
) a ORDER BY a.id DESC LIMIT %(limit)s

-- name: action_bounds
SELECT coalesce(min(id), 1) AS oldest, coalesce(max(id), 0) AS newest FROM pgsig_private.action

-- name: action
SELECT a.* FROM pgsig.actions a WHERE a.id = %(id)s

-- name: log_after
-- A run's log forwards from a position. A row is what the runner wrote at a time: not a line.
SELECT l.seq, l.attempt, l.at, l.text FROM pgsig_private.log l WHERE l.run_id = %(id)s AND l.seq > %(after)s ORDER BY l.seq LIMIT %(limit)s

-- name: log_before
-- A run's log backwards: its end, or what stands before a position.
SELECT l.seq, l.attempt, l.at, l.text FROM pgsig_private.log l WHERE l.run_id = %(id)s AND l.seq < %(before)s ORDER BY l.seq DESC LIMIT %(limit)s

-- name: processes
SELECT p.id, p.role, p.name, p.host, p.pid, p.version, p.pools, p.labels, p.capacity, p.detail, p.started_at, p.lease_until, p.ended_at,
       p.ended_at IS NULL AND p.lease_until > clock_timestamp() AS alive,
       CASE WHEN p.role = 'runner' THEN (SELECT count(*) FROM pgsig_private.run r
            WHERE r.runner_id = p.id AND r.state IN ('starting', 'running')) END AS busy
  FROM (
    (SELECT * FROM pgsig_private.process WHERE ended_at IS NULL ORDER BY role, id LIMIT 200)
    UNION ALL
    (SELECT * FROM pgsig_private.process WHERE ended_at IS NOT NULL ORDER BY id DESC LIMIT 20)
  ) p ORDER BY p.ended_at IS NOT NULL, p.role, p.id DESC

-- name: lag
SELECT l.lane, l.waiting, l.oldest_at, l.seconds FROM pgsig.lag l ORDER BY l.lane

-- name: signal_problems
-- Everything wrong with an array of signals, for a door that has found something wrong itself and wants to name all of it.
SELECT p FROM jsonb_array_elements(%(signals)s::jsonb) WITH ORDINALITY i(item, place),
    LATERAL pgsig_private.signal_problems(i.item->>'key', i.item->'value', i.item->>'subject',
        coalesce(i.item->>'namespace', %(namespace)s), i.item->>'source', i.item->>'event_id', format('/%%s', i.place - 1)) p
 ORDER BY i.place

-- name: emit_with_defaults
-- An array of signals as it came, so that no number loses a digit on the way; what a signal leaves out is taken from the defaults.
-- Positions come back in the order given.
SELECT e.id FROM pgsig.emit_many(
    (SELECT jsonb_agg(%(defaults)s::jsonb || i.item ORDER BY i.place) FROM jsonb_array_elements(%(signals)s::jsonb) WITH ORDINALITY i(item, place)),
    %(namespace)s) WITH ORDINALITY e(id, place) ORDER BY e.place

-- name: written_here
-- Which of these signals this transaction wrote: the others are repetitions, answered with their first position.
SELECT s.id FROM pgsig.signals s WHERE s.id = ANY (%(ids)s::bigint[]) AND s.xid = pgsig_private.own_xid()

-- name: act
SELECT pgsig.act(%(operator)s, %(action)s, %(subject)s, %(params)s::jsonb, %(reason)s, %(namespace)s, %(source)s) AS id

-- name: effects
-- What an order by hand came to.
SELECT pgsig_private.effects(%(signal)s) AS effects

-- name: pools
-- Every pool that has a limit, a living runner or a run that is not over: its limit, what is alive and what waits in it, and who serves it.
WITH waits AS (
    SELECT pool, count(*) FILTER (WHERE state IN ('starting', 'running')) AS alive,
           count(*) FILTER (WHERE state IN ('queued', 'retrying')) AS queued, count(*) FILTER (WHERE blocked) AS blocked
      FROM pgsig_private.run WHERE state IN ('queued', 'starting', 'running', 'retrying') GROUP BY pool
), serves AS (
    SELECT pool, count(*) FILTER (WHERE lives) AS runners, sum(capacity) FILTER (WHERE lives) AS capacity
      FROM (SELECT unnest(pools) AS pool, capacity, lease_until > clock_timestamp() AS lives
              FROM pgsig_private.process WHERE role = 'runner' AND ended_at IS NULL) u GROUP BY pool
)
SELECT name, p.most AS limit, coalesce(w.alive, 0) AS alive, coalesce(w.queued, 0) AS queued, coalesce(w.blocked, 0) AS blocked,
       coalesce(s.runners, 0) AS runners, coalesce(s.capacity, 0) AS capacity
  FROM (SELECT pool AS name FROM waits UNION SELECT pool FROM serves UNION SELECT p.name FROM pgsig_private.pool p) n
  LEFT JOIN pgsig_private.pool p USING (name)
  LEFT JOIN waits w ON w.pool = name
  LEFT JOIN serves s ON s.pool = name
 ORDER BY name LIMIT 1000

-- name: limit_pool
SELECT pgsig.limit_pool(%(pool)s, %(most)s)

-- name: newest_run
-- The run of an operator that a log is wanted of: the newest that has begun, else the newest.
SELECT r.id FROM pgsig.runs r
 WHERE r.namespace = %(namespace)s AND r.workflow = %(workflow)s AND r.operator = %(operator)s AND (%(subject)s::text IS NULL OR r.subject = %(subject)s)
 ORDER BY r.claimed_at IS NULL, r.id DESC LIMIT 1

-- name: next_run
-- The run of the same operator and subject that began after this one.
SELECT r.id FROM pgsig_private.run r JOIN pgsig_private.run b ON b.id = %(run)s AND r.operator_id = b.operator_id AND r.subject = b.subject
 WHERE r.id > b.id AND r.claimed_at IS NOT NULL ORDER BY r.id LIMIT 1

-- name: pause
SELECT pgsig.pause(%(target)s, %(mode)s, %(reason)s, %(namespace)s, %(source)s) AS id

-- name: resume
SELECT pgsig.resume(%(target)s, %(reason)s, %(namespace)s, %(source)s) AS id

-- name: held_counts
-- How many signals wait for the resume of each of some operators; stops counting at 1000.
SELECT o.id AS operator_id, n.held
  FROM unnest(%(operators)s::bigint[]) o(id),
       LATERAL (SELECT count(*) AS held FROM (
           SELECT DISTINCT x.signal_id FROM pgsig_private.rule r JOIN pgsig_private.outcome x ON x.rule_id = r.id AND x.outcome = 'held'
            WHERE r.operator_id = o.id AND r.removed_in IS NULL LIMIT 1000) x) n
