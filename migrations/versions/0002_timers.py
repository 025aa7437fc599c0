"""Timers: when an instance of a rule wants to be looked at though nothing came.

Why: debounce, windows, absence and the end of a `within` depend on time. The pure core says when it wants to look again; that is a
row here, one for each instance of a rule, and falling due it becomes a signal like any other. So a decision never reads a clock, and
what time did is in the log, to be explained and replayed.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE pgsig_private.timer (
            rule_id bigint      NOT NULL,
            subject text        NOT NULL,
            due_at  timestamptz NOT NULL,
            PRIMARY KEY (rule_id, subject)
        ) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
        CREATE INDEX timer_due ON pgsig_private.timer (due_at);
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE pgsig_private.timer")
