"""What tests of the engine ask a workshop: what was done, and a runner's part by hand."""

from __future__ import annotations

from tests.flow.workshop import Workshop


def did(shop: Workshop) -> list[tuple[str, str, str]]:
    """(subject, action, result) of every action, in order."""
    return [(subject, action, result) for _, subject, action, result, _ in shop.actions()]


def evidence(shop: Workshop) -> list[list[int]]:
    return [found for *_, found in shop.actions()]


def runner(shop: Workshop) -> int:
    return int(shop.call("SELECT pgsig_private.join_processes('runner', 'r', 'h', 1, '0', '{default}', 9, '1 day')"))


def claim(shop: Workshop, by: int, capacity: int = 1) -> list[tuple[int, int, str]]:
    """(run, epoch, subject) of each run that a runner is given."""
    text = "SELECT id, epoch, subject FROM pgsig_private.claim(%s, '{default}', %s) ORDER BY id"
    return shop.connection.execute(text.encode(), [by, capacity]).fetchall()


def succeed(shop: Workshop, run: int, epoch: int) -> None:
    for state in ("running", "succeeded"):
        assert shop.call("SELECT pgsig_private.report(%s, %s, %s)", run, epoch, state) == "ok"
