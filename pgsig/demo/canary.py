"""The operator `canary`: asks the service about digits that no model has learned, all the time.

It counts what came back right, and what did not come back: a request that was refused (nobody listens), and one that was taken
and then dropped, which must never happen. While nobody answers for longer than its patience it emits `canary.alarm`, once.
"""

from __future__ import annotations

import http.client
import itertools
import json
from dataclasses import asdict, dataclass
from time import monotonic

from pgsig import run
from pgsig.demo import digits
from pgsig.demo.folder import Folder

TELL_EVERY = 2.0  # seconds between two looks at its progress
BEAT_EVERY = 10.0  # seconds between two heartbeats
ANSWER_WITHIN = 5.0


@dataclass
class Count:
    """asked: all questions. unsure: answered without a prediction. early: there was no model yet."""

    asked: int = 0
    right: int = 0
    wrong: int = 0
    unsure: int = 0
    early: int = 0
    refused: int = 0
    dropped: int = 0

    @property
    def answered(self) -> int:
        return self.right + self.wrong + self.unsure + self.early

    def text(self) -> str:
        judged = self.right + self.wrong
        share = f"{self.right / judged:.0%} right, " if judged else ""
        return f"{self.asked:,} asked, {share}{self.refused} refused, {self.dropped} dropped"


def main() -> None:
    """Ask until asked to stop."""
    run.handle_stop()
    folder = Folder()
    folder.note_pid("canary")
    every, patience = float(run.params["every"]), float(run.params["patience"])
    held = digits.load(folder).held
    count = Count()
    answered_at = told_at = beat_at = monotonic()
    alarmed = False
    for row in itertools.cycle(held.tolist()):
        if run.stopping.wait(every):
            break
        before = count.answered
        ask(folder.port, row, count)
        now = monotonic()
        if count.answered > before:
            answered_at, alarmed = now, False
        elif now - answered_at > patience and not alarmed:
            run.emit("canary.alarm", {"silent_for": round(now - answered_at, 1), "asked": count.asked})
            print(f"nobody has answered for {now - answered_at:.1f} s", flush=True)
            alarmed = True
        if now - told_at > TELL_EVERY:
            run.progress(count.asked, text=count.text())
            told_at = now
        if now - beat_at > BEAT_EVERY:
            run.emit("canary.beat", asdict(count))
            beat_at = now
    run.result(asdict(count))
    print(count.text(), flush=True)


def ask(port: int, row: int, count: Count) -> None:
    """Ask about one digit."""
    count.asked += 1
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_WITHIN)
    try:
        connection.connect()
    except OSError:
        count.refused += 1
        return
    try:
        connection.request("GET", f"/predict?digit={row}")
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        count.dropped += 1
        return
    finally:
        connection.close()
    if response.status == 503:
        count.early += 1
    elif answer.get("prediction") is None:
        count.unsure += 1
    elif answer["prediction"] == answer["truth"]:
        count.right += 1
    else:
        count.wrong += 1
