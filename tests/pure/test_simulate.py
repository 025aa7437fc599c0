"""What the simulation of docs/scaling.md says of workers, lanes, emitters and clusters, where the answer is known or was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from tests.bench import simulate
from tests.bench.simulate import LANES, MEASURED, Costs, Emit, Line, Shape, Way, drain, emitters, fullest, load, need


def line(step: float, each: float) -> Line:
    return Line(((0, step), (1000, step + 1000 * each)))


WAY = Way(
    take=line(100.0, 4.0), decide=line(200.0, 6.0), lock=line(50.0, 1.0), plan=line(30.0, 5.0), write=line(40.0, 9.0),
    wal=line(100.0, 500.0), beside=0.0, notifies=False,
)  # fmt: skip
COSTS = Costs(
    {"acts": WAY, "starts": replace(WAY, notifies=True)},
    {"one": Emit(40.0, 120.0, 450.0, 1, 0.0), "many": Emit(1000.0, 9000.0, 420_000.0, 1000, 0.0)},
    device=150.0, work=50.0, rate=1000.0,
)  # fmt: skip
DOCS = MEASURED.parents[2] / "scaling.md"
DRAINS, OF_CLIENTS, SHARED, OF_64 = (
    0.2,
    0.3,
    0.6,
    1.2,
)  # how far off at most; of rates, and of how many commits share a flush


def step(signals: int) -> float:
    """µs of a step where nobody else is: three journeys one after the other, but for parts that are planned while others are written."""
    parts = [250] * (signals // 250) or [signals]
    planned, written = 0.0, 0.0
    for number, part in enumerate(parts):
        planned += 5.0 * part + (0.0 if number else 30.0)
        written = max(planned, written) + 9.0 * part + (0.0 if number else 40.0)
    return 350.0 + 11.0 * signals + written + 200.0 + (100.0 + 500.0 * signals) / 1000.0


@pytest.mark.parametrize("signals", [50, 250, 1000])
def test_a_lane_is_as_fast_as_its_steps(signals: int) -> None:
    assert drain(COSTS, "acts", signals, 8, backlog=20 * signals) == pytest.approx(
        signals / step(signals) * 1e6, rel=0.001
    )


def test_lanes_go_side_by_side_until_there_are_no_more_cores() -> None:
    one, four, crowded = (
        drain(COSTS, "acts", 1000, cores, backlog=20_000, lanes=lanes) for cores, lanes in ((16, 1), (16, 4), (2, 4))
    )
    assert four == pytest.approx(4 * one, rel=0.05)
    processor = (100 + 200 + 50 + 30 + 40 + 50) / 1000 + 4 + 6 + 1 + 5 + 9  # µs of a signal, the flush's among them
    assert crowded == pytest.approx(2 / processor * 1e6, rel=0.03)


def test_who_notifies_flushes_alone() -> None:
    """With a slow device the commits of four lanes share its flushes, but not those that hold the lock meanwhile."""
    slow = replace(COSTS, device=100_000.0)
    one, four = (drain(slow, "acts", 1000, 16, backlog=20_000, lanes=lanes) for lanes in (1, 4))
    alone, starting = (drain(slow, "starts", 1000, 16, backlog=20_000, lanes=lanes) for lanes in (1, 4))
    assert alone == one
    assert four > 1.9 * one
    assert starting < 1.3 * one


@pytest.mark.parametrize(("clients", "cores"), [(1, 2), (64, 2), (64, 64)])
def test_emitters(clients: int, cores: int) -> None:
    """One goes step by step. Many are held up by the cores; where there are enough of these, by two flushes at most."""
    found = emitters(COSTS, "one", clients, cores, term=1e5)
    if clients == 1:
        assert found.shared == 1.0
        assert found.commits == pytest.approx(1e6 / (40 + 120 + 200 + 0.45), rel=0.01)
    elif cores == 2:
        assert found.commits == pytest.approx(2e6 / (160 + 50 / found.shared), rel=0.03)
        assert found.shared > 4
    else:
        assert 1e6 * 64 / (160 + 2 * 250) < found.commits < 1e6 * 64 / (160 + 200)


@pytest.mark.parametrize(("kind", "rate", "shape", "first"), [
    ("many", 20_000, Shape(16, 8, 8), ""), ("many", 400_000, Shape(16, 8, 8), simulate.LANE),
    ("many", 60_000, Shape(1, 8, 8), simulate.SERVER), ("many", 120_000, Shape(16, 1, 8), simulate.WORKERS),
    ("one", 40_000, Shape(16, 8, 1), simulate.CLIENTS), ("many", 90_000, Shape(2), simulate.SERVER),
])  # fmt: skip
def test_what_is_used_up_first(kind: str, rate: int, shape: Shape, first: str) -> None:
    use = load(COSTS, "acts", kind, rate, shape)
    assert use.keeps_up == (not first)
    if first:
        assert use.most == first
        assert use.shares[first] > 0.95
        assert use.done < rate
    else:
        assert use.done == pytest.approx(rate, rel=0.1)
        assert use.wal == pytest.approx(rate * (420 + 500 + 0.1), rel=0.1)
        assert max(use.shares.values()) < 0.5


def test_a_slow_device_is_used_up_by_bytes() -> None:
    use = load(replace(COSTS, rate=20.0), "acts", "many", 40_000, Shape(16, 8, 8))
    assert (use.keeps_up, use.most) == (False, simulate.DEVICE)


def test_signals_wait_longer_the_more_there_are() -> None:
    waits = [load(COSTS, "acts", "many", rate, Shape(16, 8, 8)).p99 for rate in (20_000, 80_000, 140_000)]
    assert waits == sorted(waits)
    assert waits[-1] > 3 * step(1000) > waits[0]


def test_the_same_seed_says_the_same() -> None:
    first, second, other = (load(COSTS, "acts", "one", 5000, Shape(4, 4, 4), seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_twice_as_much_needs_twice_as_much_and_what_is_needed_is_enough() -> None:
    half, whole = (need(COSTS, "acts", "many", rate) for rate in (5e5, 1e6))
    assert whole.lanes == pytest.approx(2 * half.lanes)
    assert whole.lanes == pytest.approx(step(1000) / 1000, rel=0.01)
    assert whole.lanes <= LANES * whole.clusters * simulate.FULL
    assert half.clusters < whole.clusters <= 2 * half.clusters
    assert whole.wal == pytest.approx(1e6 * 920, rel=0.1)
    assert half.keeps_up
    assert whole.keeps_up


def test_few_names_fall_unevenly() -> None:
    """Two of four lanes: the same one a quarter of the time."""
    assert fullest(2) == (0.5, 1.0)
    assert fullest(1) == (1.0, 1.0)
    assert 0.25 < fullest(400)[1] < 0.32


def test_a_line_goes_through_its_points() -> None:
    bent = Line(((5, 100.0), (50, 1000.0), (1000, 20_000.0)))
    assert [bent.of(size) for size in (5, 50, 525, 1000, 2000)] == pytest.approx(
        [100.0, 1000.0, 10_500.0, 20_000.0, 40_000.0]
    )
    assert sum(bent.between(begin, begin + 250) for begin in range(0, 1000, 250)) == pytest.approx(bent.of(1000))
    assert Line(((5, 1.0), (50, 10.0), (1000, 5.0))).of(3000) == 0.0
    assert bent.less(200.0).points == ((5, 0.0), (50, 800.0), (1000, 19_800.0))


# ── the named run ──


@pytest.fixture(scope="module")
def named() -> dict[str, Any]:
    if not MEASURED.exists():
        pytest.skip("needs a checkout")
    found: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return found


def test_the_measured_points_are_met(named: dict[str, Any]) -> None:
    """What went in is none of them: processor time of steps of 5, 50 and 1,000, of one client and of eight."""
    for name, ratio in ratios(named["scaling"], predicted).items():
        off = OF_CLIENTS if "clients" in name else DRAINS
        if "flush" in name:
            off = OF_64 if name.startswith("64") else SHARED
        assert 1 - off <= ratio <= 1 + off, (name, ratio)


def test_they_would_not_be_met_without_what_is_simulated(named: dict[str, Any]) -> None:
    """One flush for each commit; or cores for everybody; or nothing to pay for waiting."""
    flush_each = ratios(named["scaling"], lambda costs, name, cores: 1e6 / (costs.device + costs.work))
    cores_for_all = ratios(named["scaling"], lambda costs, name, cores: predicted(costs, name, 1000))
    no_wake = ratios(named["scaling"], lambda costs, name, cores: predicted(replace(costs, wake=0.0), name, cores))
    for clients in "16 clients, commits a second", "64 clients, commits a second":
        assert no_wake[clients] > 1 + OF_CLIENTS
        assert flush_each[clients] < 1 - OF_CLIENTS
        assert cores_for_all[clients] > 1 + OF_CLIENTS
    for way in "an action each", "a run each":
        assert cores_for_all[f"{way}, two lanes and workers"] > 1 + DRAINS


def test_the_tables_of_the_document_are_those_of_the_run(named: dict[str, Any]) -> None:
    text = DOCS.read_text(encoding="utf-8")
    for line in (*simulate.costs_table(named["figures"]), *simulate.compared(named["scaling"]), *simulate.spread(1)):
        assert line in text, line
    rounds = simulate.by_speed(named["scaling"])
    cells = simulate.needed(rounds, simulate.ACTION, simulate.COPY, 1e6, 1)
    assert f"| {' | '.join(cells)} |" in text


def ratios(scaling: dict[str, Any], say: Callable[[Costs, str, int], float]) -> dict[str, float]:
    """What is said of each point / what was measured, the median of the rounds."""
    return {
        name: median(
            say(Costs.of(costs), name, scaling["cores"]) / measured
            for costs, (_, measured) in zip(scaling["costs"], pairs, strict=True)
        )
        for name, pairs in scaling["points"].items()
    }


def predicted(costs: Costs, name: str, cores: int) -> float:
    what, _, more = name.partition(", ")
    if "clients" in what:
        found = emitters(costs, simulate.SOME, int(what.split()[0]), cores, term=1e5)
        return found.shared if "flush" in more else found.commits
    if "lanes" in more:
        return drain(costs, what, 1000, cores, backlog=20_000, lanes=2)
    return drain(costs, what, int(more.rpartition(" ")[2].replace(",", "")), cores, backlog=20_000)
