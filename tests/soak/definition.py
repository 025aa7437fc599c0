"""The workflow that the soak runs in each namespace. The rules are few and simple: the checker has a model of each, written anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

WORKFLOW = "soak"
PORTION = 20  # signals that `counted` counts
STREAMING = ("sink", "service", "front")
MAY_OVERLAP = ("front",)
TICK_EVERY = 3  # seconds


def document(namespace: str, folder: Path, deploy: int = 0) -> dict[str, Any]:
    """deploy: makes another version of what is not streaming, without touching a rule."""
    job = str(Path(__file__).with_name("job.py"))

    def batch(**more: Any) -> dict[str, Any]:
        return {
            "command": [sys.executable, "-B", job, "batch"], "env": {"SOAK": str(folder)}, "retries": 20, "retry_delay": "100ms",
            "params": {"deploy": deploy}, "timeout": "2m", **more,
        }  # fmt: skip

    def warm(**more: Any) -> dict[str, Any]:
        """The same without an interpreter of its own."""
        whole = batch(**more)
        del whole["command"]
        root = str(Path(__file__).resolve().parents[2])
        return {**whole, "python": "tests.soak.job:warm", "env": {**whole["env"], "PYTHONPATH": root}}

    def stream(**more: Any) -> dict[str, Any]:
        return {"command": [sys.executable, "-B", job, "stream"], "env": {"SOAK": str(folder)}, **more}

    return {
        "workflow": WORKFLOW,
        "namespace": namespace,
        "operators": {
            "sink": {"streaming": stream(), "start": [{"signal": "load.item"}, {"signal": "load.done"}]},
            "each": {"batch": warm(), "start": {"signal": "load.each"}},
            "counted": {"batch": batch(), "start": {"signal": "load.item", "count": PORTION}},
            "both": {"batch": warm(), "start": {"all": [{"signal": "load.a"}, {"signal": "load.b"}]}},
            "picky": {"batch": batch(), "start": {"signal": "load.picky", "eq": 1}},
            "stubborn": {"batch": batch(timeout="1s", grace="200ms", retries=0), "start": {"signal": "load.stubborn"}},
            "after": {"batch": batch(on_busy="merge"), "start": {"signal": f"run.{WORKFLOW}.both.succeeded"}},
            "ticked": {"batch": batch(on_busy="skip"), "start": {"every": f"{TICK_EVERY}s"}},
            "service": {
                "streaming": stream(), "start": {"signal": "svc.start"}, "stop": {"signal": "svc.stop"},
                "restart": {"signal": "svc.restart"}, "reload": {"signal": "svc.reload"},
            },
            "front": {
                "streaming": stream(handover="start_first", ready="api"),
                "start": {"signal": "front.start"}, "restart": {"signal": "front.restart"},
            },
        },
    }  # fmt: skip
