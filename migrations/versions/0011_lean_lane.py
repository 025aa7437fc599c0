"""The lane of a signal is set by the guard of the log, not generated; a shorter bell.

Why: the expression of a generated column is read from text, planned and set up anew by each statement, like a CHECK: a quarter of the
processor time of `INSERT INTO pgsig.signals`. The guard (`before_signal` in sql/api/10_emit.sql), compiled once a session, looks whether
the lane is the namespace's and sets it where it is not; nearly always it is, since the default is the lane of the default namespace. The
bell's default names its clock once instead of five times: each name is looked up and set up by each statement too. Only metadata changes,
no row.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig.signals ALTER COLUMN lane DROP EXPRESSION;
        ALTER TABLE pgsig.signals
            ALTER COLUMN lane SET DEFAULT (hashtextextended('default', 0) & 3)::smallint,
            ALTER COLUMN emitted_at SET DEFAULT CASE WHEN CASE
                WHEN current_setting('pgsig.bell', true) = 'off' THEN true
                WHEN pg_try_advisory_xact_lock_shared(1885827945, 1000) THEN true
                WHEN pg_notification_queue_usage() >= 0.9 THEN true
                ELSE pg_notify('pgsig_signals', '') IS NOT NULL END IS NOT NULL THEN clock_timestamp() END;
        """
    )
