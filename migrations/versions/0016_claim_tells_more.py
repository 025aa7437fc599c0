"""A claim tells its runner that somebody else was at runs that were in line.

Why: without, a runner that got nothing, or less than it had room for, cannot tell an empty queue from one that others were at. The
function gets a parameter; with the one of before beside it, calls would not know which is meant. `sql/api` makes the new one, which
answers calls of both.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.claim(bigint, text[], integer, text[], text)")


def downgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.claim(bigint, text[], integer, text[], text, boolean)")
