"""A take locks what a signal that comes alone leads to, and a claim tells all that its runner asks.

Why: around both functions stood a query that did so, planned anew or set up anew at each call, which took as long as the function did.
Both get parameters and columns; with those of before beside them, calls would not know which is meant. `sql/api` makes the new ones.

Revision ID: 0015
Revises: 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.take(integer)")
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.claim(bigint, text[], integer, text[])")


def downgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.take(integer, text[], bigint[], integer, text, smallint)")
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.claim(bigint, text[], integer, text[], text)")
