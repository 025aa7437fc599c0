"""The invariants of the ledger, held against a machine that tries everything. PGSIG_MODEL_EXAMPLES=2000 for a long, random run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from pgsig.store.database import connect
from tests.flow.machine_steps import Model

EXAMPLES = int(os.environ.get("PGSIG_MODEL_EXAMPLES", "0"))
PROFILE = settings(
    max_examples=EXAMPLES or 40,
    stateful_step_count=40,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
)


@pytest.fixture
def model(database: str) -> Iterator[type[Model]]:
    with connect(database, name="floor") as floor:
        Model.dsn, Model.floor = database, floor
        Model.names = Model.two_lanes(floor)
        yield Model


@pytest.mark.slow
def test_what_is_promised_holds_whatever_happens(model: type[Model]) -> None:
    run_state_machine_as_test(model, settings=PROFILE)
