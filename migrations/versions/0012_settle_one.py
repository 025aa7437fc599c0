"""What is to be seen after an end is told of the run that ended, and not looked for among all that its instance ever had.

Why: a run that was stopped before anybody began it read and sorted every run of its operator: 0.2 s and 5,447 pages with 100,000 of them,
in the transaction of a worker. Whoever ends a run knows which. An index for the same would be one more to write at each end of a run.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.settle(bigint, text)")  # sql/api makes it anew


def downgrade() -> None:
    op.execute("DROP FUNCTION IF EXISTS pgsig_private.settle(bigint)")
