"""Timelines: that the end of the log was lost is known.

Why: a replica that is promoted, or a recovery to a point in time, goes on without the last transactions, and would give away again what
they had given away: positions, runs, epochs, transaction ids. Postgres begins a timeline then. `timeline` has one row for each that was
noticed, so that it is known when another one is there (`sql/api/16_timeline.sql`). Its id, 0 for the first and a time in microseconds for
others, is where epochs go on; until `quiet_until`, null as long as no runner has said how long its lease is, nothing is granted; `border`
is a transaction id before the split.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE pgsig_private.timeline (
            id          bigint PRIMARY KEY CHECK (id >= 0),
            number      integer,
            border      xid8,
            since       timestamptz NOT NULL DEFAULT clock_timestamp(),
            quiet_until timestamptz
        );
        DO $$
        DECLARE
            v_number integer;
        BEGIN
            BEGIN
                v_number := ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer;
            EXCEPTION WHEN feature_not_supported OR insufficient_privilege THEN
                NULL;
            END;
            INSERT INTO pgsig_private.timeline (id, number, since, quiet_until) VALUES (0, v_number, '-infinity', '-infinity');
        END $$;
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE pgsig_private.timeline CASCADE")
