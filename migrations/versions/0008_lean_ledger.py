"""What a signal leads to, in fewer rows and bytes.

Why: most signals meet a rule of one term, and then all was written twice: an action that names the signal as its cause, and an outcome that
names the action; and the action told in words what its rule says anyway. Now `consumed` of the action says that its cause was used up
by it, and stands for the outcome; `told` of the rule holds the words, which the views put together with the evidence. `pgsig_private.fate`
shows both kinds of outcomes. The index on outcomes by action had no reader.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig_private.action ADD COLUMN consumed boolean NOT NULL DEFAULT false;
        ALTER TABLE pgsig_private.rule ADD COLUMN told jsonb;
        DROP INDEX pgsig_private.outcome_action;
        DROP FUNCTION IF EXISTS pgsig_private.record(jsonb);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP VIEW IF EXISTS pgsig.backfills, pgsig.outcomes, pgsig.actions, pgsig_private.fate;
        DROP FUNCTION IF EXISTS pgsig_private.record;
        INSERT INTO pgsig_private.outcome (signal_id, rule_id, subject, outcome, action_id, recorded_at)
        SELECT a.cause_id, a.rule_id, a.subject, 'consumed', a.id, a.recorded_at FROM pgsig_private.action a WHERE a.consumed;
        UPDATE pgsig_private.action a SET explanation = r.told || jsonb_build_object('evidence', a.evidence)
          FROM pgsig_private.rule r WHERE r.id = a.rule_id AND a.explanation IS NULL;
        ALTER TABLE pgsig_private.rule DROP COLUMN told;
        ALTER TABLE pgsig_private.action DROP COLUMN consumed;
        CREATE INDEX outcome_action ON pgsig_private.outcome (action_id) WHERE action_id IS NOT NULL;
        """
    )
