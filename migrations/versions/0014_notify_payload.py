"""A notification says whether runs were queued or something is ordered of runs that somebody has.

Why: a runner asked after each new run what it was to stop or reload, a journey to the database in which it did not start that run. Its
function gets a parameter; with the one of before beside it, calls would not know which is meant. `sql/api` makes the new one.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.notify(text)")


def downgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.notify(text, text)")
