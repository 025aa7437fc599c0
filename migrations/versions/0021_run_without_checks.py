"""Runs without CHECKs: their trigger looks at the same.

Why: each statement that inserts or updates one row reads every CHECK of its table from text, plans it and sets it up, and throws that away
at its end (see 0009). Six of them were a tenth of the instructions of a claim, and each state of a run paid for them again. The trigger
that keeps the state machine (`check_run` in sql/api/42_report.sql) is compiled once a session. The lists of words of actions, outcomes and
instances stay CHECKs, as constants, whose stored text is shorter. Rows that are there were checked: they are not read again.

Revision ID: 0021
Revises: 0020
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        DROP TRIGGER IF EXISTS check_first ON pgsig_private.run;
        DROP TRIGGER IF EXISTS check_move ON pgsig_private.run;
        DROP FUNCTION IF EXISTS pgsig_private.check_move();
        ALTER TABLE pgsig_private.run
            DROP CONSTRAINT state_is_known, DROP CONSTRAINT ended_if_final, DROP CONSTRAINT granted_to_a_runner,
            DROP CONSTRAINT run_desired_check, DROP CONSTRAINT limit_is_whole, DROP CONSTRAINT blocked_by_its_key;
        ALTER TABLE pgsig_private.action DROP CONSTRAINT action_action_check,
            ADD CONSTRAINT action_is_known CHECK (action = ANY ('{START,STOP,RESTART,RELOAD,NONE}'::text[])) NOT VALID;
        ALTER TABLE pgsig_private.outcome DROP CONSTRAINT outcome_outcome_check,
            ADD CONSTRAINT outcome_is_known CHECK (
                outcome = ANY ('{consumed,superseded,expired,late,duplicate,held,quarantined}'::text[])) NOT VALID;
        ALTER TABLE pgsig_private.instance DROP CONSTRAINT instance_desired_check,
            ADD CONSTRAINT desired_is_known CHECK (desired = ANY ('{running,stopped}'::text[])) NOT VALID
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TRIGGER IF EXISTS check_run ON pgsig_private.run;
        DROP FUNCTION IF EXISTS pgsig_private.check_run();
        ALTER TABLE pgsig_private.run
            ADD CONSTRAINT state_is_known CHECK (state IN
                ('queued', 'starting', 'running', 'retrying', 'succeeded', 'failed', 'stopped', 'lost')) NOT VALID,
            ADD CONSTRAINT ended_if_final CHECK
                ((ended_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'stopped', 'lost'))) NOT VALID,
            ADD CONSTRAINT granted_to_a_runner CHECK
                (state NOT IN ('starting', 'running') OR (runner_id IS NOT NULL AND slot IS NOT NULL)) NOT VALID,
            ADD CONSTRAINT run_desired_check CHECK (desired IN ('run', 'stop')) NOT VALID,
            ADD CONSTRAINT limit_is_whole CHECK ((limit_key IS NULL) = (limit_most IS NULL) AND limit_most > 0) NOT VALID,
            ADD CONSTRAINT blocked_by_its_key CHECK (NOT blocked OR (limit_key IS NOT NULL AND claimable_at IS NULL)) NOT VALID;
        ALTER TABLE pgsig_private.action DROP CONSTRAINT action_is_known,
            ADD CONSTRAINT action_action_check CHECK (action IN ('START', 'STOP', 'RESTART', 'RELOAD', 'NONE')) NOT VALID;
        ALTER TABLE pgsig_private.outcome DROP CONSTRAINT outcome_is_known,
            ADD CONSTRAINT outcome_outcome_check CHECK (
                outcome IN ('consumed', 'superseded', 'expired', 'late', 'duplicate', 'held', 'quarantined')) NOT VALID;
        ALTER TABLE pgsig_private.instance DROP CONSTRAINT desired_is_known,
            ADD CONSTRAINT instance_desired_check CHECK (desired IN ('running', 'stopped')) NOT VALID
        """
    )
