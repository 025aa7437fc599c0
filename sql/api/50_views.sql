-- What people and tools read. These names are public: columns are added, never renamed.

CREATE OR REPLACE VIEW pgsig.operators WITH (security_invoker = true) AS
SELECT w.namespace, w.name AS workflow, o.name AS operator, coalesce(i.subject, '') AS subject, o.kind,
       coalesce(i.desired, 'stopped') AS desired, coalesce(i.observed, 'never_run') AS observed,
       coalesce(i.generation, 0) AS generation, i.run_id, w.version, i.changed_at, o.id AS operator_id, o.paused
  FROM pgsig_private.operator o
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
  LEFT JOIN pgsig_private.instance i ON i.operator_id = o.id
 WHERE o.removed_at IS NULL AND w.removed_at IS NULL;
COMMENT ON VIEW pgsig.operators IS 'One row for each operator and each subject that it ever ran for: what is wanted, and what is.';
COMMENT ON COLUMN pgsig.operators.desired IS 'running or stopped: what the last action asked for';
COMMENT ON COLUMN pgsig.operators.observed IS 'state of the run that matters now, or never_run';
COMMENT ON COLUMN pgsig.operators.paused IS 'hold, collapse or drop while its rules are paused';
COMMENT ON COLUMN pgsig.operators.generation IS 'number of runs recorded so far for this operator and subject';

CREATE OR REPLACE VIEW pgsig.actions WITH (security_invoker = true) AS
SELECT a.id, w.namespace, w.name AS workflow, o.name AS operator, a.subject, a.action, a.result,
       coalesce(r.name, 'manual') AS rule, a.version, a.cause_id, a.evidence,
       coalesce(a.explanation, r.told || jsonb_build_object('evidence', a.evidence)) AS explanation, a.run_id, a.depth, a.recorded_at, a.operator_id
  FROM pgsig_private.action a
  JOIN pgsig_private.operator o ON o.id = a.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id
  LEFT JOIN pgsig_private.rule r ON r.id = a.rule_id;
COMMENT ON VIEW pgsig.actions IS 'Every decision, with the signals that led to it. Never updated: it is the audit log.';
COMMENT ON COLUMN pgsig.actions.result IS 'its effect in one word: recorded, already_running, already_stopped, queued, merged, skipped, not_running, outranked';
COMMENT ON COLUMN pgsig.actions.cause_id IS 'the signal that completed the condition';
COMMENT ON COLUMN pgsig.actions.evidence IS 'all signals that the condition consumed, the cause among them';

CREATE OR REPLACE VIEW pgsig.runs WITH (security_invoker = true) AS
SELECT r.id, w.namespace, w.name AS workflow, o.name AS operator, r.subject, o.kind, r.state, r.desired, r.attempt, r.generation, r.epoch, r.version,
       r.action_id, r.queued_at, r.claimed_at, r.started_at, r.ready_at, r.ended_at, r.exit_code, r.reason, r.result, r.progress,
       r.params, r.evidence, r.runner_id, r.pool, r.depth, r.operator_id,
       r.cpu_seconds, r.memory_peak, r.labels, r.failures, r.limit_key, r.limit_most, r.blocked
  FROM pgsig_private.run r
  JOIN pgsig_private.operator o ON o.id = r.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id;
COMMENT ON VIEW pgsig.runs IS 'Executions of operators, with their attempts.';
COMMENT ON COLUMN pgsig.runs.state IS 'queued, starting, running, retrying, succeeded, failed, stopped or lost';
COMMENT ON COLUMN pgsig.runs.cpu_seconds IS 'processor time of all its attempts, with all that they started';
COMMENT ON COLUMN pgsig.runs.memory_peak IS 'the most memory that an attempt had at once, in bytes';
COMMENT ON COLUMN pgsig.runs.labels IS 'what a runner must have to take it';
COMMENT ON COLUMN pgsig.runs.failures IS 'ends in a row that were too soon after their start';
COMMENT ON COLUMN pgsig.runs.limit_key IS 'of all runs with this key at most limit_most are alive at once; blocked: it waits for one of them to end';
COMMENT ON COLUMN pgsig.runs.epoch IS 'fencing token: grows with each grant to a runner';

CREATE OR REPLACE VIEW pgsig.outcomes WITH (security_invoker = true) AS
SELECT x.signal_id, w.namespace, w.name AS workflow, o.name AS operator, r.name AS rule, x.subject, x.outcome, x.action_id, x.detail, x.recorded_at
  FROM pgsig_private.fate x
  JOIN pgsig_private.rule r ON r.id = x.rule_id
  JOIN pgsig_private.operator o ON o.id = r.operator_id
  JOIN pgsig_private.workflow w ON w.id = o.workflow_id;
COMMENT ON VIEW pgsig.outcomes IS 'How each signal ended for each rule that was interested. A signal that is still waited with has no row yet.';
COMMENT ON COLUMN pgsig.outcomes.outcome IS 'consumed, superseded, expired, late, duplicate, held or quarantined';

-- What lies behind a lane's cursor, at most 10000 of it. By index, whatever the planner thinks: one transaction that wrote much of the log makes
-- it believe that any other did so too, and then it would read the whole log to find nothing. In the middle of a large window its rest is
-- counted by position, as take reads it: by transaction all that is evaluated of it would be met first. "+ 0" as there.
CREATE OR REPLACE FUNCTION pgsig_private.behind(p_lane smallint, p_s1 pg_snapshot, p_s2 pg_snapshot, p_last_id bigint, OUT waiting bigint, OUT oldest_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
    SELECT count(*), min(emitted_at) FROM (
        SELECT w.emitted_at FROM pgsig.signals w
         WHERE p_s2 IS NOT NULL AND w.id > p_last_id AND w.lane + 0 = p_lane
           AND pg_visible_in_snapshot(w.xid, p_s2) AND NOT pg_visible_in_snapshot(w.xid, p_s1)
        UNION ALL
        SELECT a.emitted_at FROM pgsig.signals a WHERE a.lane = p_lane AND a.xid >= pg_snapshot_xmax(coalesce(p_s2, p_s1))
        UNION ALL
        SELECT b.emitted_at FROM pgsig.signals b WHERE b.lane = p_lane AND b.xid = ANY (ARRAY(SELECT pg_snapshot_xip(coalesce(p_s2, p_s1))))
        LIMIT 10000
    ) bounded
$$;

CREATE OR REPLACE VIEW pgsig.lag WITH (security_invoker = true) AS
SELECT l.lane, n.waiting, n.oldest_at, coalesce(extract(epoch FROM clock_timestamp() - n.oldest_at), 0)::float8 AS seconds
  FROM pgsig_private.lane l
  JOIN LATERAL (SELECT * FROM pgsig_private.cursor c WHERE c.lane = l.lane ORDER BY c.seq DESC LIMIT 1) c ON true
 CROSS JOIN LATERAL pgsig_private.behind(l.lane, c.s1, c.s2, c.last_id) n;
COMMENT ON VIEW pgsig.lag IS 'Signals that no worker has evaluated yet, by lane. waiting stops counting at 10000.';

COMMENT ON TABLE pgsig_private.signal IS 'The log itself. What is in it was looked at: pgsig.signals, the view of it, is where others insert.';
COMMENT ON VIEW pgsig.signals IS 'The log of facts. INSERT (key, value) or call pgsig.emit; rows are never updated. Only namespace, key, subject, value, source, event_id and run_id are yours to give.';
COMMENT ON COLUMN pgsig.signals.id IS 'position in the log; gaps mean nothing';
COMMENT ON COLUMN pgsig.signals.key IS 'what happened: dotted lower-case segments, for instance model.trained';
COMMENT ON COLUMN pgsig.signals.subject IS 'which entity it happened to; empty: none';
COMMENT ON COLUMN pgsig.signals.value IS 'any JSON up to 256 KiB';
COMMENT ON COLUMN pgsig.signals.source IS 'who says so; by default the database user';
COMMENT ON COLUMN pgsig.signals.event_id IS 'your own id of the event: the same (namespace, source, event_id) is stored once';
COMMENT ON COLUMN pgsig.signals.run_id IS 'the run that emitted it';
COMMENT ON COLUMN pgsig.signals.emitted_at IS 'database time of the insert; getting it rings, if all workers sleep';
COMMENT ON COLUMN pgsig.signals.kind IS 'user, or what pgsig itself wrote: state, tick, manual, timer';
COMMENT ON COLUMN pgsig.signals.depth IS 'length of the causal chain that led here; 0: from outside';
COMMENT ON COLUMN pgsig.signals.xid IS 'transaction that wrote it; with a snapshot it tells what was new to whom';
COMMENT ON COLUMN pgsig.signals.lane IS 'signals of a namespace share a lane and are evaluated in order';
