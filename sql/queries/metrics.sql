-- How large, how old, how far behind, and what holds things up. Used by pgsig/store/metrics.py. Nothing here reads a table from end to end.

-- name: metrics_tables
-- Every table, the log's partitions as one. rows and dead are the statistics' estimates.
SELECT t.name, count(*)::integer AS parts, sum(greatest(t.live, 0))::bigint AS rows, sum(t.dead)::bigint AS dead, sum(t.bytes)::bigint AS bytes,
       sum(t.index_bytes)::bigint AS index_bytes, max(t.vacuumed_at) AS vacuumed_at, max(t.analyzed_at) AS analyzed_at
  FROM (SELECT CASE WHEN c.relname ~ '^signals_\d{8}$' THEN 'signals' ELSE c.relname END AS name, s.n_live_tup AS live, s.n_dead_tup AS dead,
               pg_table_size(c.oid) AS bytes, pg_indexes_size(c.oid) AS index_bytes,
               greatest(s.last_autovacuum, s.last_vacuum) AS vacuumed_at, greatest(s.last_autoanalyze, s.last_analyze) AS analyzed_at
          FROM pg_class c JOIN pg_stat_user_tables s ON s.relid = c.oid
         WHERE c.relnamespace = 'pgsig_private'::regnamespace AND c.relkind = 'r' AND c.relname <> 'schema_version') t
 GROUP BY t.name ORDER BY sum(t.bytes + t.index_bytes) DESC, t.name

-- name: metrics_oldest
-- The time of the first row of each table that grows: one look at the beginning of an index each.
SELECT name, at FROM (VALUES
    ('signals',     (SELECT s.emitted_at FROM pgsig_private.signal s ORDER BY s.id LIMIT 1)),
    ('kept_signal', (SELECT k.emitted_at FROM pgsig_private.kept_signal k ORDER BY k.id LIMIT 1)),
    ('outcome',     (SELECT o.recorded_at FROM pgsig_private.outcome o ORDER BY o.signal_id LIMIT 1)),
    ('action',      (SELECT a.recorded_at FROM pgsig_private.action a ORDER BY a.id LIMIT 1)),
    ('run',         (SELECT r.queued_at FROM pgsig_private.run r ORDER BY r.id LIMIT 1)),
    ('log',         (SELECT l.at FROM pgsig_private.log l ORDER BY l.run_id LIMIT 1)),
    ('reload',      (SELECT l.requested_at FROM pgsig_private.reload l ORDER BY l.id LIMIT 1)),
    ('event',       (SELECT e.seen_at FROM pgsig_private.event e ORDER BY e.signal_id LIMIT 1)),
    ('process',     (SELECT p.started_at FROM pgsig_private.process p ORDER BY p.id LIMIT 1)),
    ('tick',        (SELECT min(k.due_at) FROM pgsig_private.trigger g, LATERAL (
                        SELECT t.due_at FROM pgsig_private.tick t WHERE t.trigger_id = g.id ORDER BY t.due_at LIMIT 1) k))
) v(name, at)

-- name: metrics_horizon
-- Who keeps dead rows from being removed in this database, the oldest first: everything that may still want to see them, by name.
SELECT h.kind, h.name, h.detail, h.since, extract(epoch FROM clock_timestamp() - h.since)::float8 AS seconds, h.transactions
  FROM (
    SELECT 'session' AS kind, coalesce(nullif(a.application_name, ''), a.usename::text, a.backend_type) AS name,
           concat_ws(', ', 'pid ' || a.pid, a.usename, host(a.client_addr), a.state) AS detail, a.xact_start AS since,
           greatest(age(a.backend_xmin), age(a.backend_xid))::bigint AS transactions
      FROM pg_stat_activity a
     WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) AND a.pid <> pg_backend_pid()
       AND (a.datname = current_database()) AND a.backend_type <> 'walsender'
    UNION ALL
    SELECT 'prepared transaction', p.gid, concat_ws(', ', 'owner ' || p.owner, 'PREPARE TRANSACTION'), p.prepared, age(p.transaction)::bigint
      FROM pg_prepared_xacts p WHERE p.database = current_database()
    UNION ALL
    SELECT 'replication slot', s.slot_name::text, concat_ws(', ', s.slot_type, CASE WHEN s.active THEN 'active' ELSE 'nobody reads it' END), NULL,
           greatest(age(s.xmin), age(s.catalog_xmin))::bigint
      FROM pg_replication_slots s WHERE s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL
    UNION ALL
    SELECT 'standby', coalesce(nullif(r.application_name, ''), 'pid ' || r.pid), concat_ws(', ', host(r.client_addr), 'hot_standby_feedback'), NULL,
           age(r.backend_xmin)::bigint
      FROM pg_stat_replication r WHERE r.backend_xmin IS NOT NULL
  ) h
 ORDER BY h.transactions DESC NULLS LAST, h.since LIMIT 20

-- name: metrics_server
-- Single numbers. may_look: whether this login sees what other sessions do.
SELECT clock_timestamp() AS now, pg_notification_queue_usage()::float8 AS queue, pg_database_size(current_database())::bigint AS bytes,
       (SELECT age(d.datfrozenxid)::bigint FROM pg_database d WHERE d.datname = current_database()) AS frozen_age,
       current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on' AS autovacuum,
       pg_has_role('pg_read_all_stats', 'USAGE') AS may_look,
       (SELECT last_value FROM pgsig_private.signal_id) AS signals, (SELECT last_value FROM pgsig_private.action_id) AS actions,
       (SELECT last_value FROM pgsig_private.run_id) AS runs, (SELECT shift FROM pgsig_private.origin LIMIT 1) AS shift

-- name: metrics_runs
-- Runs that have not ended, by state.
SELECT s.state, count(r.id)::integer AS runs
  FROM unnest(ARRAY['queued', 'starting', 'running', 'retrying']) WITH ORDINALITY s(state, place)
  LEFT JOIN pgsig_private.run r ON r.state = s.state AND r.state IN ('queued', 'starting', 'running', 'retrying')
 GROUP BY s.state, s.place ORDER BY s.place

-- name: metrics_processes
SELECT r.role, count(p.id)::integer AS alive
  FROM unnest(ARRAY['worker', 'runner', 'clock', 'web']) WITH ORDINALITY r(role, place)
  LEFT JOIN pgsig_private.process p ON p.role = r.role AND p.ended_at IS NULL AND p.lease_until > clock_timestamp()
 GROUP BY r.role, r.place ORDER BY r.place

-- name: metrics_days
-- What goes after how many days.
SELECT s.name, (s.value #>> '{}')::float8 AS days, s.about FROM pgsig_private.setting s WHERE right(s.name, 5) = '_days' ORDER BY s.name
