"""Jobs at scale: replicas, labels, limits by key and by pool, and what a run leaves behind.

Why: a crash loop has to be counted where every runner can see it, so `failures` stands with the run and not in one runner's memory.
`labels` says what a runner must have; `limit_key` and `limit_most` say how many runs with the same key may be alive at once, whatever
operator they belong to. A run whose key is full is `blocked`: it leaves the line, so that it does not stand in the way of others, and
is put back when a run with its key ends. A pool's limit stands in a table of its own, because pools are shared by workflows. `handle` is an
engine's name for the job, by which another runner can take it over; `cpu_seconds` and `memory_peak` are what it used. A streaming
operator's checkpoint outlives its run: the next generation finds the newest by an index of its own.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig_private.run
            ADD COLUMN failures    smallint NOT NULL DEFAULT 0,
            ADD COLUMN labels      text[]   NOT NULL DEFAULT '{}',
            ADD COLUMN limit_key   text,
            ADD COLUMN limit_most  integer,
            ADD COLUMN blocked     boolean  NOT NULL DEFAULT false,
            ADD COLUMN handle      text,
            ADD COLUMN cpu_seconds double precision,
            ADD COLUMN memory_peak bigint,
            ADD CONSTRAINT limit_is_whole CHECK ((limit_key IS NULL) = (limit_most IS NULL) AND limit_most > 0),
            ADD CONSTRAINT blocked_by_its_key CHECK (NOT blocked OR (limit_key IS NOT NULL AND claimable_at IS NULL));
        -- How many runs with a key, or in a pool, are alive; and who waits for one of them to end.
        CREATE INDEX run_limit   ON pgsig_private.run (limit_key) WHERE limit_key IS NOT NULL AND state IN ('starting', 'running');
        CREATE INDEX run_blocked ON pgsig_private.run (limit_key, priority DESC, id) WHERE blocked;
        -- What the next generation of a streaming operator goes on from.
        CREATE INDEX run_checkpoint ON pgsig_private.run (operator_id, subject, id) WHERE checkpoint IS NOT NULL;
        CREATE INDEX run_pool    ON pgsig_private.run (pool) WHERE state IN ('starting', 'running');

        ALTER TABLE pgsig_private.process ADD COLUMN labels text[] NOT NULL DEFAULT '{}';

        CREATE TABLE pgsig_private.pool (
            name       text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
            most       integer NOT NULL CHECK (most >= 0),
            changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
        );

        -- Their parameters or columns have changed; sql/api makes them anew.
        DROP FUNCTION IF EXISTS pgsig_private.claim(bigint, text[], integer);
        DROP FUNCTION IF EXISTS pgsig_private.report(bigint, bigint, text, interval, integer, text, jsonb, boolean);
        DROP FUNCTION IF EXISTS pgsig_private.reap(interval);
        DROP FUNCTION IF EXISTS pgsig_private.join_processes(text, text, text, integer, text, text[], integer, interval);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP FUNCTION IF EXISTS pgsig_private.claim(bigint, text[], integer, text[]);
        DROP FUNCTION IF EXISTS pgsig_private.report_many(jsonb);
        DROP FUNCTION IF EXISTS pgsig_private.reap(interval);
        DROP FUNCTION IF EXISTS pgsig_private.join_processes(text, text, text, integer, text, text[], integer, interval, text[]);
        DROP TABLE pgsig_private.pool;
        ALTER TABLE pgsig_private.process DROP COLUMN labels;
        DROP INDEX pgsig_private.run_limit, pgsig_private.run_blocked, pgsig_private.run_pool, pgsig_private.run_checkpoint;
        ALTER TABLE pgsig_private.run
            DROP COLUMN failures, DROP COLUMN labels, DROP COLUMN limit_key, DROP COLUMN limit_most, DROP COLUMN blocked,
            DROP COLUMN handle, DROP COLUMN cpu_seconds, DROP COLUMN memory_peak;
        """
    )
