"""Pauses, and options of rules.

Why: an operator that is paused keeps its signals for the resume, collapses them or drops them (rule 8 of the design). It is paused and
resumed by a signal, at a place of the log, so the mode stands with the operator and workers read it with the definitions. What is held
is an outcome that ends at the resume; the index finds it then. A rule's options are its limit (`max`, `then`) and `shadow`.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig_private.operator ADD COLUMN paused text CHECK (paused IN ('hold', 'collapse', 'drop'));
        ALTER TABLE pgsig_private.rule ADD COLUMN options jsonb NOT NULL DEFAULT '{}';
        CREATE INDEX action_by_hand ON pgsig_private.action (operator_id, subject, id) WHERE rule_id = 0;
        CREATE INDEX outcome_held ON pgsig_private.outcome (rule_id, signal_id) WHERE outcome = 'held';
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP INDEX pgsig_private.outcome_held;
        DROP INDEX pgsig_private.action_by_hand;
        ALTER TABLE pgsig_private.rule DROP COLUMN options;
        ALTER TABLE pgsig_private.operator DROP COLUMN paused;
        """
    )
