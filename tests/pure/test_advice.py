"""What numbers about storage mean: thresholds, and a way out for each finding."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgsig.store.advice import Finding, advice
from pgsig.store.metrics import Holder, Lane, Metrics, Partitions, Table

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WELL = Metrics(
    now=NOW, bytes=10**7, queue=0.0, frozen_age=1000, autovacuum=True, may_look=True, signals=1, actions=1, runs=1, shift=0,
    tables=[Table("run", 1, 1000, 10, 8192, 8192, NOW, NOW, NOW)], lanes=[Lane(0, 0, None, 0.0)], horizon=[],
    partitions=Partitions(3, NOW + timedelta(days=14), enough=True, half_gone=0, overdue=0),
)  # fmt: skip


def told(seen: Metrics) -> dict[str, Finding]:
    return {finding.check: finding for finding in advice(seen)}


def test_all_is_well() -> None:
    assert {finding.state for finding in told(WELL).values()} == {"ok"}


@pytest.mark.parametrize(
    ("change", "check", "state", "word"),
    [
        ({"queue": 0.2}, "queue", "warning", "20.0%"),
        ({"queue": 0.6}, "queue", "problem", "60.0%"),
        ({"lanes": [Lane(2, 7, NOW, 11.0)]}, "lag", "problem", "lane 2 (7)"),
        ({"autovacuum": False}, "vacuum", "problem", "off"),
        ({"tables": [Table("run", 1, 1000, 50_000, 1, 1, None, None)]}, "vacuum", "warning", "never vacuumed"),
        ({"frozen_age": 1_200_000_000}, "freeze", "warning", "1,200,000,000"),
        ({"frozen_age": 1_900_000_000}, "freeze", "problem", "1,900,000,000"),
        ({"partitions": Partitions(0, None, enough=False, half_gone=0, overdue=0)}, "partitions", "problem", "none"),
        ({"partitions": Partitions(9, NOW, enough=True, half_gone=0, overdue=2)}, "partitions", "warning", "2 past"),
        ({"partitions": Partitions(9, NOW, enough=True, half_gone=1, overdue=0)}, "partitions", "warning", "detached"),
        ({"may_look": False}, "horizon", "warning", "does not see"),
        ({"horizon": [Holder("session", "psql", "pid 7, me, idle in transaction", NOW, 400.0, 9)]}, "horizon", "warning", "psql"),
        ({"horizon": [Holder("session", "psql", "pid 7, me", NOW, 4000.0, 9)]}, "horizon", "problem", "4000 s"),
        ({"horizon": [Holder("prepared transaction", "a'b", "owner x", NOW, 400.0, 9)]}, "horizon", "warning", "a'b"),
        ({"horizon": [Holder("replication slot", "s", "nobody reads it", None, None, 2_000_000)]}, "horizon", "warning", "2000000"),
        ({"horizon": [Holder("standby", "s", "feedback", None, None, 20_000_000)]}, "horizon", "problem", "20000000"),
    ],
)  # fmt: skip
def test_what_is_wrong_has_a_way_out(change: dict[str, object], check: str, state: str, word: str) -> None:
    found = told(replace(WELL, **change))  # type: ignore[arg-type]
    assert found[check].state == state
    assert word in found[check].detail
    assert found[check].fix
    assert {finding.check for finding in found.values() if finding.state != "ok"} == {check}


def test_the_way_out_can_be_pasted() -> None:
    def fix(holder: Holder) -> str:
        return told(replace(WELL, horizon=[holder]))["horizon"].fix

    assert "pg_terminate_backend(7)" in fix(Holder("session", "psql", "pid 7, me, idle", NOW, 400.0, 9))
    assert "ROLLBACK PREPARED 'a''b'" in fix(Holder("prepared transaction", "a'b", "owner x", NOW, 400.0, 9))
    assert "pg_drop_replication_slot('s')" in fix(Holder("replication slot", "s", "", None, None, 2_000_000))


def test_a_table_with_few_dead_rows_is_left_alone() -> None:
    large = Table("outcome", 1, 10**7, 10**6, 1, 1, NOW, NOW)
    assert told(replace(WELL, tables=[large]))["vacuum"].state == "ok"


def test_how_large_and_how_old_is_told_when_all_is_well() -> None:
    assert told(WELL)["storage"].detail == "10.0 MB in all; the oldest row, in run, is 0 min old"
    older = Table("outcome", 1, 0, 0, 0, 0, None, None, NOW - timedelta(days=12))
    assert told(replace(WELL, tables=[*WELL.tables, older]))["storage"].detail.endswith("in outcome, is 12 d old")
    assert told(replace(WELL, tables=[]))["storage"].detail.endswith("no rows yet in what grows")
    assert told(replace(WELL, queue=0.04))["queue"].detail.startswith("4.0%")
    held = Holder("session", "psql", "pid 7, me", NOW, 20.0, 9)
    assert told(replace(WELL, horizon=[held]))["horizon"].detail.endswith(
        "the oldest is session psql (pid 7, me), open for 20 s"
    )


def test_tables_that_grow_and_when_their_rows_go() -> None:
    names = {"outcome": 0, "cursor": 999_999, "kept_signal": 1_000_000, "run": 0}
    tables = [Table(name, 1, 0, 0, size, 0, None, None) for name, size in names.items()]
    seen = replace(WELL, tables=tables, days={"outcome_days": 28.0, "run_days": None})
    shown = {table.name: seen.goes_after(table) for table in seen.growing}
    assert shown == {"outcome": "28 d", "kept_signal": "", "run": "never"}
