"""Nobody rings into a queue of notifications that is about to be full.

Why: one session anywhere in the cluster that listens in a transaction without an end keeps everybody's notifications, and with a full queue
each commit that has one fails. An emitter would be refused for the sake of a convenience; the polls find its signal all the same.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig.signals ALTER COLUMN emitted_at SET DEFAULT CASE
            WHEN current_setting('pgsig.bell', true) = 'off' THEN clock_timestamp()
            WHEN pg_try_advisory_xact_lock_shared(1885827945, 1000) THEN clock_timestamp()
            WHEN pg_notification_queue_usage() >= 0.9 THEN clock_timestamp()
            WHEN pg_notify('pgsig_signals', '') IS NOT NULL THEN clock_timestamp()
            ELSE clock_timestamp() END
        """
    )


def downgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig.signals ALTER COLUMN emitted_at SET DEFAULT CASE
            WHEN current_setting('pgsig.bell', true) = 'off' THEN clock_timestamp()
            WHEN pg_try_advisory_xact_lock_shared(1885827945, 1000) THEN clock_timestamp()
            WHEN pg_notify('pgsig_signals', '') IS NOT NULL THEN clock_timestamp()
            ELSE clock_timestamp() END
        """
    )
