"""Storage over time: where the log comes from, what may go when, and what has to stay.

Why: transaction ids are a cluster's own. A dump that is restored elsewhere brings the log's ids and the cursors' snapshots along, and they
mean nothing there: `origin` is how that is noticed. Its row says which transaction wrote it, and only where the row has never been copied
row by row is that still so by the row's own header; a physical copy (a replica, a base backup, pg_upgrade) keeps both. `shift` is what is
added to this cluster's transaction ids, so that they go on where those of the cluster before ended.
What grows beside the log gets an age at which it may go. Ages are read off `milestone`, which notes each hour how far every counter was,
so that rows go by their primary keys and nothing needs an index on time. Signals that something still needs when their partition goes are
copied into `kept_signal`. `event` alone has no counter of its own, so it gets an index on the position of its signal.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE pgsig_private.origin (
            xid   xid8   NOT NULL DEFAULT pg_current_xact_id(),
            log   oid    NOT NULL DEFAULT 'pgsig.signals'::regclass::oid,
            shift bigint NOT NULL DEFAULT 0 CHECK (shift >= 0),
            since timestamptz NOT NULL DEFAULT clock_timestamp()
        );
        -- A database that was restored before it could say so: its cursors are ahead of this cluster. It is no original.
        INSERT INTO pgsig_private.origin (xid)
        SELECT CASE WHEN pg_snapshot_xmax(pg_current_snapshot()) < max(pg_snapshot_xmax(c.s1)) THEN '0'::xid8 ELSE pg_current_xact_id() END
          FROM pgsig_private.cursor c;

        CREATE TABLE pgsig_private.milestone (
            at         timestamptz PRIMARY KEY DEFAULT clock_timestamp(),
            signal_id  bigint NOT NULL,
            action_id  bigint NOT NULL,
            run_id     bigint NOT NULL,
            process_id bigint NOT NULL,
            reload_id  bigint NOT NULL
        );

        CREATE TABLE pgsig_private.kept_signal (LIKE pgsig.signals, PRIMARY KEY (id));

        CREATE INDEX event_signal ON pgsig_private.event (signal_id);

        DELETE FROM pgsig_private.setting WHERE name = 'system_id';
        INSERT INTO pgsig_private.setting (name, value, about) VALUES
            ('outcome_days',   '28',   'days for which outcomes are kept; null: for ever'),
            ('action_days',    '90',   'days for which actions are kept, and as long as their runs are; null: for ever'),
            ('run_days',       '90',   'days for which a run is kept after its end; the last one of an operator stays; null: for ever'),
            ('log_days',       '28',   'days for which the log of a run is kept after its end, and no longer than the run; null: for ever'),
            ('reload_days',    '28',   'days for which reloads are kept after their end; null: for ever'),
            ('tick_days',      '28',   'days for which the ticks of triggers are kept; null: for ever'),
            ('event_days',     '28',   'days within which an event id is known again; after that it is a new fact; null: for ever'),
            ('process_days',   '7',    'days for which processes are kept after their end; null: for ever');

        -- Few rows and many updates, or many rows of which the oldest go: the defaults would wait for a fifth of the table to be dead.
        ALTER TABLE pgsig_private.process SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
        ALTER TABLE pgsig_private.cursor SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000,
                                              autovacuum_analyze_scale_factor = 0.2);
        ALTER TABLE pgsig_private.outcome SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);
        ALTER TABLE pgsig_private.action SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);
        ALTER TABLE pgsig_private.event SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);
        ALTER TABLE pgsig_private.log SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000);
        ALTER TABLE pgsig_private.tick SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
        ALTER TABLE pgsig_private.reload SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
        ALTER TABLE pgsig_private.trigger SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

        -- It has become a part of what housekeeping does, see sql/api/25_keep.sql.
        DROP FUNCTION IF EXISTS pgsig_private.maintain();
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP VIEW IF EXISTS pgsig_private.remembered CASCADE;
        DROP TABLE pgsig_private.origin, pgsig_private.milestone, pgsig_private.kept_signal CASCADE;
        DROP INDEX pgsig_private.event_signal;
        DROP FUNCTION IF EXISTS pgsig_private.maintain();
        DELETE FROM pgsig_private.setting WHERE name IN
            ('outcome_days', 'action_days', 'run_days', 'log_days', 'reload_days', 'tick_days', 'event_days', 'process_days');
        INSERT INTO pgsig_private.setting (name, value, about)
        VALUES ('system_id', 'null', 'cluster that the transaction ids in the log belong to');
        """
    )
    for table in ("process", "cursor", "outcome", "action", "event", "log", "tick", "reload", "trigger"):
        op.execute(
            f"ALTER TABLE pgsig_private.{table} RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold)"
        )
