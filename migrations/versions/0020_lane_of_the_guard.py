"""A signal has no lane until its guard gives it one.

Why: to call the guard is most of what emitting one signal costs beyond its insert. `pgsig.emit` looks at plain signals itself and gives
them their lane, and the guard (`before_signal` in sql/api/10_emit.sql) is called only where there is none. So the lane has no default any
more. Who only emits may not give it, as before. Only metadata changes, no row.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE pgsig.signals ALTER COLUMN lane DROP DEFAULT")


def downgrade() -> None:
    op.execute(
        """
        DROP TRIGGER IF EXISTS before_signal ON pgsig.signals;
        ALTER TABLE pgsig.signals ALTER COLUMN lane SET DEFAULT (hashtextextended('default', 0) & 3)::smallint
        """
    )
