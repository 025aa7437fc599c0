"""A job in Python that does all that a job can do. `job.mjs` beside it is the same in Node, without a library."""

from __future__ import annotations

import json
import os

from pgsig import run
from pgsig.errors import PgsigError

# What it is, and why it runs.
print(f'{run.workflow}.{run.operator} attempt {run.attempt} of generation {run.generation} for "{run.subject}"')
cause = [[signal.key, signal.value] for signal in run.cause]
print(f"params {json.dumps(run.params, separators=(',', ':'))} cause {json.dumps(cause, separators=(',', ':'))}")

# Emit one signal, or several: all or none. The same event_id twice is one signal.
said = {"key": "node.said", "value": {"n": 1}, "subject": run.subject, "event_id": f"said-{run.id}"}
first = run.emit("node.said", {"n": 1}, run.subject, event_id=f"said-{run.id}")
again, second = run.emit_many([said, {"key": "node.said", "value": 2}])
print("emitted", str(second > first and again == first).lower())

run.progress(1, 2, "half of it")
run.ready()


@run.on_reload
def reload(order: run.Reload) -> None:
    """An exception is the reason why the reload failed, and a restart follows."""
    print("reload", json.dumps([signal.value for signal in order.cause], separators=(",", ":")))
    if any(signal.value == "bad" for signal in order.cause):
        raise PgsigError("a bad configuration", code="bad")


# Signals as they are committed. The cursor is kept as the checkpoint: the next attempt, or run, goes on behind the last one handled.
kept = run.checkpoint_value or {"cursor": "", "heard": 0}
print("heard", kept["heard"], "before")
for signal in run.signals("config.**", after=kept["cursor"]):
    kept = {"cursor": signal.cursor, "heard": kept["heard"] + 1}
    print("heard", signal.key, json.dumps(signal.value))
    run.checkpoint(kept)
    run.result({"heard": kept["heard"]})
    if signal.value == "crash":
        os._exit(3)
print("ended in good order")
