"""The log without CHECKs and without a trigger for each statement.

Why: an insert of one row reads every CHECK of its table from text, plans it and sets it up, and throws that away at its end: two thirds of
the processor time of `INSERT INTO pgsig.signals` went into that. The guard is a row trigger now (`before_signal` in sql/api/10_emit.sql),
compiled once a session, and names all problems of a row at once instead of the first. The bell was a statement trigger, with a search path
to set and to reset; in the default of a column that nobody may give it is part of the statement's plan.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        DROP TRIGGER IF EXISTS ring ON pgsig.signals;
        DROP TRIGGER IF EXISTS before_signal ON pgsig.signals;
        DROP FUNCTION IF EXISTS pgsig_private.ring();

        ALTER TABLE pgsig.signals
            DROP CONSTRAINT "PS101_key_is_dotted_lower_case_no_wildcard_200_bytes",
            DROP CONSTRAINT "PS102_key_prefix_run_tick_manual_timer_is_reserved",
            DROP CONSTRAINT "PS103_value_is_at_most_256_kib",
            DROP CONSTRAINT "PS104_namespace_is_lower_case_63_bytes",
            DROP CONSTRAINT "PS105_subject_is_at_most_200_bytes",
            DROP CONSTRAINT "PS106_source_is_at_most_200_bytes",
            DROP CONSTRAINT "PS107_event_id_is_1_to_200_bytes",
            DROP CONSTRAINT kind_is_known,
            ALTER COLUMN emitted_at SET DEFAULT CASE
                WHEN current_setting('pgsig.bell', true) = 'off' THEN clock_timestamp()
                WHEN pg_try_advisory_xact_lock_shared(1885827945, 1000) THEN clock_timestamp()
                WHEN pg_notify('pgsig_signals', '') IS NOT NULL THEN clock_timestamp()
                ELSE clock_timestamp() END;
        """
    )
