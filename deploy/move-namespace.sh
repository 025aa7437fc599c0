#!/bin/sh
# Move a namespace to another cluster: OLD=postgresql://… NEW=postgresql://… NS=shop sh deploy/move-namespace.sh WORKFLOW.yaml …
#
# OLD, NEW: addresses as the owner of pgsig's tables, passwords in ~/.pgpass. NS: the namespace. Files: its definitions, all of them. Needs psql,
# pgsig, and before that: the namespace's emitters are stopped and their transactions at an end; NEW is migrated and has workers, runners
# and clocks as OLD has, which find nothing to do yet; OLD's go on.
#
# Nothing is started twice: in NEW nothing is applied before nothing is alive in OLD. Nothing is lost: what comes to OLD meanwhile is held there, and
# taken along with what rules wait for. To break off before "moved" is said: resume the workflows in OLD, while they are still there.
# docs/scaling.md says why each step is there; tests/lives/test_move.py runs this file.
set -eu

ask() { psql "$1" -qAtX -v ON_ERROR_STOP=1 -c "$2"; }
until_true() {
    echo "waiting until $1" >&2
    while found=$(ask "$OLD" "SELECT $2") && [ "$found" != t ]; do sleep "${LOOK_EVERY:-1}"; done
    [ "$found" = t ]
}
old() { DATABASE_URL=$OLD pgsig "$@" </dev/null; }
new() { DATABASE_URL=$NEW pgsig "$@" </dev/null; }
bag=$(mktemp -d)
alive="EXISTS (SELECT FROM pgsig.runs WHERE namespace = '$NS' AND state IN ('queued', 'starting', 'running', 'retrying')"

# 1. Nothing new is decided. A pause is a signal, and those of a namespace are evaluated in order: when it is, everything before it was.
workflows=$(ask "$OLD" "SELECT DISTINCT workflow FROM pgsig.operators WHERE namespace = '$NS' ORDER BY 1")
before=$(ask "$OLD" "SELECT last_value FROM pgsig_private.signal_id")
for workflow in $workflows; do last=$(old pause "$workflow" --namespace "$NS" --reason "moves to another cluster"); done
until_true "what came before is evaluated" "pgsig_private.is_evaluated(s) FROM pgsig_private.signal s WHERE s.id = $last"

# 2. What runs comes to its end, and so does what its end is a signal for; what never ends is stopped with its definition, and noted.
waiting="EXISTS (SELECT FROM pgsig_private.signal s WHERE s.id > $before AND s.namespace = '$NS' AND NOT pgsig_private.is_evaluated(s))"
until_true "no batch run is alive, and what came is evaluated" "NOT $alive AND kind = 'batch') AND NOT $waiting"
ask "$OLD" "SELECT workflow || '.' || operator, subject FROM pgsig.operators WHERE namespace = '$NS' AND kind = 'streaming' AND desired = 'running'" >"$bag/running"

# 3. OLD knows the namespace no more: one operator stays, which nothing starts. Triggers end, and what rules had in hand expires.
for workflow in $workflows; do
    echo "{workflow: $workflow, namespace: $NS, operators: {moved: {description: to another cluster, batch: {command: ['true']}}}}" >"$bag/stub.yaml"
    old apply "$bag/stub.yaml" >&2
done
until_true "nothing is alive" "NOT $alive)"

# 4. What is taken along: what rules had in hand and nothing else has used, and what came since: also ticks that met no rule any more, since
# their triggers were gone when they were evaluated. Of timers and orders by hand nothing.
in_hand="SELECT o.signal_id, o.rule_id FROM pgsig_private.outcome o
    JOIN pgsig_private.rule r ON r.id = o.rule_id JOIN pgsig_private.operator p ON p.id = r.operator_id
    JOIN pgsig_private.workflow w ON w.id = p.workflow_id AND w.namespace = '$NS' AND r.removed_in = w.version
   WHERE o.outcome = 'expired' AND o.detail = 'the rule was changed or removed'"
used="EXISTS (SELECT FROM pgsig_private.fate f WHERE f.signal_id = s.id AND (f.signal_id, f.rule_id) NOT IN (SELECT signal_id, rule_id FROM h))"
ask "$OLD" "COPY (WITH h AS ($in_hand)
    SELECT s.kind, s.namespace, s.key, s.subject, s.value, s.source, 'moved:' || s.id FROM pgsig_private.remembered s
     WHERE s.id IN (SELECT signal_id FROM h) AND s.kind IN ('user', 'state', 'tick') AND NOT $used
        OR s.id > $before AND s.namespace = '$NS' AND s.kind IN ('user', 'tick') AND NOT EXISTS (SELECT FROM pgsig_private.fate f WHERE f.signal_id = s.id)
     ORDER BY s.id) TO STDOUT" >"$bag/signals"
ask "$OLD" "WITH h AS ($in_hand) SELECT s.id, s.key, s.subject, s.value FROM pgsig_private.remembered s
     WHERE s.id IN (SELECT signal_id FROM h) AND s.kind IN ('user', 'state', 'tick') AND $used ORDER BY s.id" >"$bag/left"
ask "$OLD" "COPY (SELECT * FROM pgsig_private.event WHERE namespace = '$NS') TO STDOUT" >"$bag/events"
ask "$OLD" "SELECT w.name || '.' || o.name, t.name, to_char(greatest(t.created_at, t.last_due) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
    FROM pgsig_private.trigger t JOIN pgsig_private.operator o ON o.id = t.operator_id JOIN pgsig_private.workflow w ON w.id = o.workflow_id
    JOIN pgsig_private.workflow_version v ON v.workflow_id = w.id AND v.version = w.version
   WHERE w.namespace = '$NS' AND t.removed_at >= v.applied_at - interval '1 minute' AND t.paused IS NULL" >"$bag/triggers"

# 5. NEW goes on. Event ids first: whoever repeats itself has still said it once.
ask "$NEW" "COPY pgsig_private.event FROM STDIN" <"$bag/events"
for file in "$@"; do new apply "$file" >&2; done
ask "$NEW" "COPY pgsig.signals (kind, namespace, key, subject, value, source, event_id) FROM STDIN" <"$bag/signals"
while IFS='|' read -r operator subject; do
    new act "$operator" start --subject "$subject" --namespace "$NS" --reason "ran in the old cluster" >&2
done <"$bag/running"
while IFS='|' read -r operator trigger place; do  # due times between the end there and the beginning here
    until=$(ask "$NEW" "SELECT to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM pgsig_private.trigger t
        JOIN pgsig_private.operator o ON o.id = t.operator_id JOIN pgsig_private.workflow w ON w.id = o.workflow_id
       WHERE w.namespace = '$NS' AND w.name || '.' || o.name = '$operator' AND t.name = '$trigger'")
    from=$(ask "$NEW" "SELECT to_char(timestamptz '$place' AT TIME ZONE 'UTC' + interval '1 microsecond', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    new backfill start "$operator" "$trigger" --from "$from" --to "$until" --namespace "$NS" >&2 || true  # there may be none
done <"$bag/triggers"

echo "moved $(wc -l <"$bag/signals") signals that waited; not moved, since something used them before:"
cat "$bag/left"
rm -r "$bag"
