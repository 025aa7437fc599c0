"""Tables that rows only come to are vacuumed and analyzed in time.

Why: a partition of the log had no storage parameters, and those of actions, outcomes, events and logs spoke of dead rows alone. By the
defaults such a table is vacuumed when a fifth has come since the last time, and analyzed when a tenth has: 10 and 5 million rows of 50
million, which until then no scan of an index alone could pass over, and of which the planner knew nothing. `prepare_days` in
`sql/api/25_keep.sql` gives the same to the partitions to come, and says why they are frozen at once. Nobody waits for the lock of these.

Revision ID: 0017
Revises: 0016
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = ("action", "outcome", "event", "log")
SOON = {"autovacuum_vacuum_insert_scale_factor": 0.02, "autovacuum_analyze_scale_factor": 0.02}


def upgrade() -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE pgsig_private.{table} SET ({_written(SOON)})")
    of_each_partition(f"SET ({_written({**SOON, 'autovacuum_freeze_min_age': 0})})")


def downgrade() -> None:
    of_each_partition(f"RESET ({', '.join([*SOON, 'autovacuum_freeze_min_age'])})")
    for table in TABLES:
        op.execute(f"ALTER TABLE pgsig_private.{table} RESET ({', '.join(SOON)})")


def of_each_partition(change: str) -> None:
    """Also of one that is detached and not dropped: it may be put back."""
    found = op.get_bind().exec_driver_sql(
        "SELECT relname FROM pg_class"
        " WHERE relnamespace = 'pgsig_private'::regnamespace AND relkind = 'r' AND relname ~ '^signals_[0-9]{8}$'"
    )
    for name in found.scalars().all():
        op.execute(f"ALTER TABLE pgsig_private.{name} {change}")


def _written(settings: dict[str, float]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())
