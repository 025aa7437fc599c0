"""Runs that ended badly are found by an index of their own.

Why: a list of failed runs looked through windows of all runs until a tenth of a second was over: among ten million that ended well it
came back empty, page after page. The index has an entry only for a run that failed, was stopped or was lost: one that ends well costs
nothing.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX run_failed ON pgsig_private.run (id) WHERE state IN ('failed', 'stopped', 'lost')")


def downgrade() -> None:
    op.execute("DROP INDEX pgsig_private.run_failed")
