"""Whoever listens is told that retention dropped what it has not heard.

Why: a cursor that was kept for longer than the log got what was left, and nobody said that something was missing. `dropped` remembers of
each key which transactions' signals went with their partitions, so that a cursor is refused if it has not seen one of them, and only then:
it is mostly the listener to something rare that has an old cursor, and it has missed nothing. An empty namespace or key stands for any.
`others`, where it is not null: there may be more of it up to this transaction, of those that had ended by then, which are not listed. So it
stays small, however much was dropped.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE pgsig_private.dropped (
            xid       xid8     NOT NULL,
            lane      smallint NOT NULL,
            namespace text     NOT NULL DEFAULT '',
            key       text     NOT NULL DEFAULT '',
            id        bigint   NOT NULL DEFAULT 0,
            others    pg_snapshot,
            PRIMARY KEY (xid, lane, namespace, key)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE pgsig_private.dropped CASCADE")
