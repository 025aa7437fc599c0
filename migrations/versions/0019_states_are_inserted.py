"""What a rule remembers of an instance is inserted anew when it changes, and what was there is deleted.

Why: it was updated in place. While a snapshot is held somewhere (a dump, a long report) no version of a row can be removed, and who looks
for the one in force reads all of them: after an hour of signals for one instance, hundreds of thousands. Now each version has a number that
grows, and the one in force is the last: it is met first, however many are behind it. That nothing is remembered any more is a version, too,
with no body, for the same reason; housekeeping removes it a minute later. `rule_state` shows what it did.

Revision ID: 0019
Revises: 0018
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig_private.rule_state RENAME TO state;
        CREATE SEQUENCE pgsig_private.state_seq;
        ALTER TABLE pgsig_private.state
            ADD COLUMN seq bigint NOT NULL DEFAULT nextval('pgsig_private.state_seq'),
            ADD COLUMN changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            ALTER COLUMN body DROP NOT NULL,
            DROP CONSTRAINT rule_state_pkey,
            ADD CONSTRAINT state_pkey PRIMARY KEY (rule_id, subject, seq),
            RESET (fillfactor);
        CREATE INDEX state_forgotten ON pgsig_private.state (changed_at) WHERE body IS NULL;
        CREATE VIEW pgsig_private.rule_state WITH (security_invoker = true) AS
            SELECT s.rule_id, s.subject, s.body FROM pgsig_private.state s WHERE s.body IS NOT NULL
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP VIEW pgsig_private.rule_state CASCADE;
        DELETE FROM pgsig_private.state WHERE body IS NULL;
        DROP INDEX pgsig_private.state_forgotten;
        ALTER TABLE pgsig_private.state
            DROP CONSTRAINT state_pkey, DROP COLUMN seq, DROP COLUMN changed_at, ALTER COLUMN body SET NOT NULL,
            ADD CONSTRAINT rule_state_pkey PRIMARY KEY (rule_id, subject), SET (fillfactor = 60);
        DROP SEQUENCE pgsig_private.state_seq;
        ALTER TABLE pgsig_private.state RENAME TO rule_state
        """
    )
