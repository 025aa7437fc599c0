"""Alembic's entry: runs on the connection that it is handed, or on DATABASE_URL from the command line."""

from alembic import context
from sqlalchemy import Connection

TABLE = {"version_table": "schema_version", "version_table_schema": "pgsig_private"}


def run(connection: Connection) -> None:
    # The version table lives in the schema that the first migration's tables live in, so it has to exist before.
    connection.exec_driver_sql("CREATE SCHEMA IF NOT EXISTS pgsig_private")
    context.configure(connection=connection, transactional_ddl=True, **TABLE)
    with context.begin_transaction():
        context.run_migrations()


handed = context.config.attributes.get("connection")
if handed is not None:
    run(handed)
else:
    from pgsig.store.database import Database

    with Database.from_env().engine.begin() as opened:
        run(opened)
