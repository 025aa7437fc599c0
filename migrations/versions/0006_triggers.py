"""Triggers that are paused, due times that do not become ticks, backfills.

Why: `last_due` says up to where a trigger's due times are settled, and moves by compare-and-set: whoever was there first has decided, every
other clock finds it moved. So each due time is either a tick or lies in a `gap`, which says why (missed, paused, skipped by hand) and who
said so; none is in doubt. A paused trigger keeps its place, and what became due meanwhile is settled at its resume. A backfill is a list of
due times that are fed to the rules a few at a time, by whichever clock looks: which are on the way stands in the list, so a clock that
dies takes nothing with it.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE pgsig_private.trigger
            ADD COLUMN paused    text CHECK (paused IN ('hold', 'collapse', 'drop')),
            ADD COLUMN paused_at timestamptz,
            ADD CONSTRAINT paused_since CHECK ((paused IS NULL) = (paused_at IS NULL));

        CREATE TABLE pgsig_private.gap (
            trigger_id  bigint NOT NULL,
            first_due   timestamptz NOT NULL,
            last_due    timestamptz NOT NULL CHECK (last_due >= first_due),
            times       integer CHECK (times > 0),
            why         text NOT NULL CHECK (why IN ('missed', 'paused', 'skipped')),
            by_whom     text NOT NULL DEFAULT 'pgsig',
            reason      text NOT NULL DEFAULT '',
            recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (trigger_id, last_due)
        );

        CREATE TABLE pgsig_private.backfill (
            id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            trigger_id  bigint NOT NULL,
            first_due   timestamptz NOT NULL,
            last_due    timestamptz NOT NULL,
            times       integer NOT NULL CHECK (times > 0),
            most        integer NOT NULL CHECK (most > 0),
            state       text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'cancelled')),
            by_whom     text NOT NULL,
            reason      text NOT NULL DEFAULT '',
            created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
            ended_at    timestamptz,
            CHECK ((ended_at IS NULL) = (state = 'running'))
        );
        CREATE INDEX backfill_running ON pgsig_private.backfill (id) WHERE state = 'running';

        CREATE TABLE pgsig_private.backfill_time (
            backfill_id bigint NOT NULL REFERENCES pgsig_private.backfill ON DELETE CASCADE,
            due_at      timestamptz NOT NULL,
            signal_id   bigint,
            ended       boolean NOT NULL DEFAULT false CHECK (NOT ended OR signal_id IS NOT NULL),
            PRIMARY KEY (backfill_id, due_at)
        );
        CREATE INDEX backfill_ahead ON pgsig_private.backfill_time (backfill_id, due_at) WHERE NOT ended;

        -- A whole batch is settled at once instead.
        DROP FUNCTION IF EXISTS pgsig_private.fire(bigint, timestamptz);
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP VIEW IF EXISTS pgsig.triggers, pgsig.backfills;
        DROP FUNCTION IF EXISTS pgsig_private.settle_triggers(jsonb, boolean);
        DROP FUNCTION IF EXISTS pgsig_private.feed_backfills();
        DROP FUNCTION IF EXISTS pgsig.pause_trigger, pgsig.fire, pgsig.cancel_backfill;
        DROP TABLE pgsig_private.backfill_time, pgsig_private.backfill, pgsig_private.gap;
        ALTER TABLE pgsig_private.trigger DROP COLUMN paused, DROP COLUMN paused_at;
        """
    )
