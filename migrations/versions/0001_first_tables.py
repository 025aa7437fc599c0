"""The first tables: the log, what is defined, what was decided, what runs.

Why: everything that happens in pgsig is a row of one of four groups. The *log* (signals, in time partitions, never
updated) and the cursors that say how far each lane of it was evaluated. The *definitions* (workflows, operators, rules,
triggers), versioned. The *ledger* (actions, outcomes, the state of rules). The *jobs* (instances, runs, processes).
Hot tables carry no foreign keys: a key-share lock on an operator's row for each run would make every insert of a busy
operator meet on one row.
Functions, views, triggers and roles are not here: they live in `sql/` and are re-applied whenever they change.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LOG = r"""
CREATE SCHEMA IF NOT EXISTS pgsig;
CREATE SCHEMA IF NOT EXISTS pgsig_private;

CREATE TABLE pgsig_private.setting (
    name  text PRIMARY KEY,
    value jsonb NOT NULL,
    about text NOT NULL
);
INSERT INTO pgsig_private.setting (name, value, about) VALUES
    ('partition_days', '7',    'days of signals in one partition'),
    ('retention_days', '28',   'days after which a partition of signals that every lane has passed is dropped'),
    ('depth_limit',    '100',  'length of a causal chain of signals at which the next action is refused'),
    ('sql_digest',     'null', 'digest of the sql/ files that were applied last'),
    ('system_id',      'null', 'cluster that the transaction ids in the log belong to');

-- CACHE 1 (the default) matters: positions drawn from a session's cache would come out of order within a key.
CREATE SEQUENCE pgsig_private.signal_id;
CREATE TABLE pgsig.signals (
    xid        xid8        NOT NULL DEFAULT pg_current_xact_id(),
    id         bigint      NOT NULL DEFAULT nextval('pgsig_private.signal_id'),
    namespace  text        NOT NULL DEFAULT 'default',
    key        text        NOT NULL,
    subject    text        NOT NULL DEFAULT '',
    value      jsonb       NOT NULL DEFAULT 'null',
    source     text        NOT NULL DEFAULT session_user,
    event_id   text,
    run_id     bigint,
    emitted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind       text        NOT NULL DEFAULT 'user',
    depth      smallint    NOT NULL DEFAULT 0,
    lane       smallint    NOT NULL GENERATED ALWAYS AS ((hashtextextended(namespace, 0) & 3)::smallint) STORED,
    CONSTRAINT "PS101_key_is_dotted_lower_case_no_wildcard_200_bytes"
        CHECK (octet_length(key) <= 200 AND key ~ '^[a-z0-9_:-]+(\.[a-z0-9_:-]+)*$'),
    CONSTRAINT "PS102_key_prefix_run_tick_manual_timer_is_reserved"
        CHECK (kind <> 'user' OR key !~ '^(run|tick|manual|timer)(\.|$)'),
    CONSTRAINT "PS103_value_is_at_most_256_kib"   CHECK (pg_column_size(value) <= 262144),
    CONSTRAINT "PS104_namespace_is_lower_case_63_bytes" CHECK (namespace ~ '^[a-z][a-z0-9_-]{0,62}$'),
    CONSTRAINT "PS105_subject_is_at_most_200_bytes"  CHECK (octet_length(subject) <= 200),
    CONSTRAINT "PS106_source_is_at_most_200_bytes"   CHECK (octet_length(source) <= 200),
    CONSTRAINT "PS107_event_id_is_1_to_200_bytes"    CHECK (octet_length(event_id) BETWEEN 1 AND 200),
    CONSTRAINT kind_is_known CHECK (kind IN ('user', 'state', 'tick', 'manual', 'timer'))
) PARTITION BY RANGE (emitted_at);
CREATE INDEX signals_take ON pgsig.signals (lane, xid, id);
CREATE INDEX signals_id   ON pgsig.signals (id);
CREATE INDEX signals_key  ON pgsig.signals (namespace, key, id);

CREATE TABLE pgsig_private.event (
    namespace text   NOT NULL,
    source    text   NOT NULL,
    event_id  text   NOT NULL,
    signal_id bigint NOT NULL,
    digest    bytea  NOT NULL,
    seen_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, source, event_id)
);

CREATE TABLE pgsig_private.lane (
    lane     smallint PRIMARY KEY,
    revision bigint NOT NULL DEFAULT 0
);
INSERT INTO pgsig_private.lane (lane) SELECT generate_series(0, 3);

CREATE TABLE pgsig_private.cursor (
    lane     smallint    NOT NULL,
    seq      bigint      NOT NULL,
    s1       pg_snapshot NOT NULL,
    s2       pg_snapshot,
    last_id  bigint,
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (lane, seq),
    CHECK ((s2 IS NULL) = (last_id IS NULL))
);
INSERT INTO pgsig_private.cursor (lane, seq, s1) SELECT lane, 1, pg_current_snapshot() FROM pgsig_private.lane;
"""

DEFINITIONS = r"""
CREATE TABLE pgsig_private.workflow (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace  text NOT NULL CHECK (namespace ~ '^[a-z][a-z0-9_-]{0,62}$'),
    name       text NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    version    integer NOT NULL,
    removed_at timestamptz,
    UNIQUE (namespace, name)
);

CREATE TABLE pgsig_private.workflow_version (
    workflow_id bigint  NOT NULL REFERENCES pgsig_private.workflow,
    version     integer NOT NULL,
    definition  jsonb   NOT NULL,
    digest      text    NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by  text    NOT NULL DEFAULT session_user,
    PRIMARY KEY (workflow_id, version)
);

CREATE TABLE pgsig_private.operator (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workflow_id bigint NOT NULL REFERENCES pgsig_private.workflow,
    name        text   NOT NULL CHECK (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
    kind        text   NOT NULL CHECK (kind IN ('batch', 'streaming')),
    spec        jsonb  NOT NULL,
    removed_at  timestamptz,
    UNIQUE (workflow_id, name)
);

-- What an operator was at a version of its workflow. A run keeps the version it was decided under.
CREATE TABLE pgsig_private.operator_version (
    operator_id bigint  NOT NULL REFERENCES pgsig_private.operator,
    version     integer NOT NULL,
    kind        text    NOT NULL,
    spec        jsonb   NOT NULL,
    PRIMARY KEY (operator_id, version)
);

CREATE TABLE pgsig_private.rule (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operator_id bigint   NOT NULL REFERENCES pgsig_private.operator,
    name        text     NOT NULL,
    action      text     NOT NULL CHECK (action IN ('START', 'STOP', 'RESTART', 'RELOAD')),
    ordinal     smallint NOT NULL,
    condition   jsonb    NOT NULL,
    by          text     NOT NULL DEFAULT 'subject',
    digest      text     NOT NULL,
    since       pg_snapshot NOT NULL DEFAULT pg_current_snapshot(),
    added_in    integer  NOT NULL,
    removed_in  integer
);
CREATE INDEX rule_operator ON pgsig_private.rule (operator_id) WHERE removed_in IS NULL;

CREATE TABLE pgsig_private.trigger (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    operator_id bigint NOT NULL REFERENCES pgsig_private.operator,
    name        text   NOT NULL,
    spec        jsonb  NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_due    timestamptz,
    removed_at  timestamptz,
    UNIQUE (operator_id, name)
);

CREATE TABLE pgsig_private.tick (
    trigger_id bigint      NOT NULL,
    due_at     timestamptz NOT NULL,
    signal_id  bigint      NOT NULL,
    fired_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (trigger_id, due_at)
);
"""

LEDGER = r"""
CREATE TABLE pgsig_private.rule_state (
    rule_id bigint NOT NULL,
    subject text   NOT NULL,
    body    jsonb  NOT NULL,
    PRIMARY KEY (rule_id, subject)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

CREATE SEQUENCE pgsig_private.action_id;
CREATE TABLE pgsig_private.action (
    id          bigint PRIMARY KEY,
    operator_id bigint   NOT NULL,
    rule_id     bigint   NOT NULL DEFAULT 0,
    subject     text     NOT NULL DEFAULT '',
    action      text     NOT NULL CHECK (action IN ('START', 'STOP', 'RESTART', 'RELOAD', 'NONE')),
    result      text     NOT NULL,
    version     integer  NOT NULL,
    cause_id    bigint   NOT NULL,
    nth         smallint NOT NULL DEFAULT 0,
    depth       smallint NOT NULL DEFAULT 1,
    evidence    bigint[] NOT NULL DEFAULT '{}',
    explanation jsonb,
    run_id      bigint,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Rule 4, once: the same firing of a rule for an instance cannot be recorded twice, whatever the code does.
CREATE UNIQUE INDEX action_once     ON pgsig_private.action (rule_id, subject, cause_id, nth);
CREATE INDEX        action_operator ON pgsig_private.action (operator_id, id);
CREATE INDEX        action_cause    ON pgsig_private.action (cause_id);

CREATE TABLE pgsig_private.outcome (
    signal_id   bigint NOT NULL,
    rule_id     bigint NOT NULL,
    subject     text   NOT NULL DEFAULT '',
    outcome     text   NOT NULL CHECK (outcome IN
                ('consumed', 'superseded', 'expired', 'late', 'duplicate', 'held', 'quarantined')),
    action_id   bigint,
    detail      text,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (signal_id, rule_id, subject)
);
CREATE INDEX outcome_action ON pgsig_private.outcome (action_id) WHERE action_id IS NOT NULL;
"""

JOBS = r"""
CREATE TABLE pgsig_private.process (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    role        text NOT NULL CHECK (role IN ('worker', 'runner', 'clock', 'web')),
    name        text NOT NULL,
    host        text NOT NULL,
    pid         integer NOT NULL,
    version     text NOT NULL,
    pools       text[] NOT NULL DEFAULT '{}',
    capacity    integer NOT NULL DEFAULT 0,
    detail      jsonb NOT NULL DEFAULT '{}',
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_until timestamptz NOT NULL,
    ended_at    timestamptz
) WITH (fillfactor = 50);
CREATE INDEX process_alive ON pgsig_private.process (role) WHERE ended_at IS NULL;

CREATE TABLE pgsig_private.instance (
    operator_id bigint NOT NULL,
    subject     text   NOT NULL,
    desired     text   NOT NULL DEFAULT 'stopped' CHECK (desired IN ('running', 'stopped')),
    observed    text   NOT NULL DEFAULT 'never_run',
    generation  bigint NOT NULL DEFAULT 0,
    run_id      bigint,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (operator_id, subject)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

CREATE SEQUENCE pgsig_private.run_id;
CREATE TABLE pgsig_private.run (
    id           bigint PRIMARY KEY,
    operator_id  bigint   NOT NULL,
    subject      text     NOT NULL DEFAULT '',
    state        text     NOT NULL DEFAULT 'queued',
    desired      text     NOT NULL DEFAULT 'run' CHECK (desired IN ('run', 'stop')),
    attempt      integer  NOT NULL DEFAULT 1,
    generation   bigint   NOT NULL,
    epoch        bigint   NOT NULL DEFAULT 0,
    version      integer  NOT NULL,
    action_id    bigint   NOT NULL,
    depth        smallint NOT NULL,
    pool         text     NOT NULL DEFAULT 'default',
    priority     smallint NOT NULL DEFAULT 0,
    slots        smallint NOT NULL DEFAULT 1,
    slot         smallint,
    handover_of  bigint,
    params       jsonb    NOT NULL DEFAULT '{}',
    evidence     bigint[] NOT NULL DEFAULT '{}',
    claimable_at timestamptz,
    runner_id    bigint,
    queued_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_at   timestamptz,
    started_at   timestamptz,
    ready_at     timestamptz,
    ended_at     timestamptz,
    exit_code    integer,
    reason       text,
    result       jsonb,
    progress     jsonb,
    checkpoint   jsonb,
    CONSTRAINT state_is_known CHECK (state IN
        ('queued', 'starting', 'running', 'retrying', 'succeeded', 'failed', 'stopped', 'lost')),
    CONSTRAINT ended_if_final CHECK ((ended_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'stopped', 'lost'))),
    CONSTRAINT granted_to_a_runner CHECK (state NOT IN ('starting', 'running') OR (runner_id IS NOT NULL AND slot IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
-- No more live runs of an instance than it has slots, whoever claims and however they race.
CREATE UNIQUE INDEX run_slot ON pgsig_private.run (operator_id, subject, slot)
    WHERE state IN ('starting', 'running', 'retrying');
CREATE INDEX run_claim  ON pgsig_private.run (pool, priority DESC, claimable_at, id)
    WHERE state IN ('queued', 'retrying') AND claimable_at IS NOT NULL;
CREATE INDEX run_alive  ON pgsig_private.run (operator_id, subject, id)
    WHERE state IN ('queued', 'starting', 'running', 'retrying');
CREATE INDEX run_runner ON pgsig_private.run (runner_id) WHERE state IN ('starting', 'running');
CREATE INDEX run_operator ON pgsig_private.run (operator_id, id);
CREATE INDEX run_action ON pgsig_private.run (action_id);

CREATE TABLE pgsig_private.reload (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id       bigint NOT NULL,
    action_id    bigint NOT NULL,
    evidence     bigint[] NOT NULL DEFAULT '{}',
    state        text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'acknowledged', 'failed')),
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered_at timestamptz,
    ended_at     timestamptz,
    reason       text
);
CREATE INDEX reload_open ON pgsig_private.reload (run_id, id) WHERE state IN ('pending', 'delivered');

CREATE TABLE pgsig_private.log (
    run_id  bigint  NOT NULL,
    seq     integer NOT NULL,
    attempt integer NOT NULL DEFAULT 1,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    text    text    NOT NULL,
    PRIMARY KEY (run_id, seq)
);
"""


def upgrade() -> None:
    for part in (LOG, DEFINITIONS, LEDGER, JOBS):
        op.execute(part)


def downgrade() -> None:
    op.execute("DROP SCHEMA pgsig CASCADE")
    # The version table lives in pgsig_private too: Alembic still writes to it after this returns.
    op.execute(
        """
        DO $$ DECLARE item record; BEGIN
            FOR item IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'pgsig_private'::regnamespace
                AND c.relkind IN ('r', 'p') AND c.relname <> 'schema_version' AND NOT c.relispartition
            LOOP EXECUTE format('DROP TABLE pgsig_private.%I CASCADE', item.relname); END LOOP;
            FOR item IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'pgsig_private'::regnamespace
                AND c.relkind = 'S'
            LOOP EXECUTE format('DROP SEQUENCE IF EXISTS pgsig_private.%I CASCADE', item.relname); END LOOP;
        END $$
        """
    )
