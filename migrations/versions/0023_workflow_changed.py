"""A workflow knows the revision of its lane at which it changed last.

Why: a worker that heard of a change read and compiled all definitions anew, of all workflows: with 100,000 rules that takes seconds, in
which the signals of its lane wait, for each apply and each pause. Now it asks what changed since the revisions that it knows, by index. A
workflow that is from before has revision 0, and whoever works has it. The table is small, and no emitter reads it.

Revision ID: 0023
Revises: 0022
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig_private.workflow
            ADD COLUMN lane smallint NOT NULL GENERATED ALWAYS AS ((hashtextextended(namespace, 0) & 3)::smallint) STORED,
            ADD COLUMN revision bigint NOT NULL DEFAULT 0;
        CREATE INDEX workflow_changed ON pgsig_private.workflow (lane, revision)
        """
    )


def downgrade() -> None:
    op.execute("ALTER TABLE pgsig_private.workflow DROP COLUMN lane, DROP COLUMN revision")
