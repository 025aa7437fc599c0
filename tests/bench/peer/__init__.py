"""Other job systems on Postgres, each behind the same five words and in a process of its own.

`python -m tests.bench.peer.NAME ADDRESS` reads words, a line each, and answers each with a line of JSON: to be started takes many of them
longer than a round. Or a single one, from a shell: `python -m tests.bench.peer.NAME ADDRESS WORD [N]`.

install    make its tables
fill N     put N jobs that do nothing into its queue
drain N    work until N are done: the seconds that this took, from the moment at which it is ready to begin
work N     wait for jobs that come one by one: says "ready", then the N latencies from enqueue to start, in seconds
send N     enqueue N jobs, 45 to 65 ms apart, each with the time in it
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

_answers = sys.stdout


def main(words: dict[str, Callable[[str, int], object]]) -> None:
    sys.stdout = sys.stderr  # whatever else is printed is no answer
    given, *more = sys.argv[1:]
    address = _url(given)
    for line in [" ".join(more)] if more else sys.stdin:
        word, *number = line.split()
        say(words[word](address, int(number[0]) if number else 0))


def say(what: object) -> None:
    print(json.dumps(what), file=_answers, flush=True)


def _url(address: str) -> str:
    """An address of either form as a URL: not everybody reads key=value."""
    of = {name: quote(str(value), safe="") for name, value in conninfo_to_dict(address).items()}
    return f"postgresql://{of.get('user', '')}:{of.get('password', '')}@{of.get('host', '')}:{of.get('port', '5432')}/{of['dbname']}"


def pause() -> float:
    """Seconds between two jobs of `send`: long enough for everything to be idle again."""
    return random.uniform(0.045, 0.065)


def now() -> float:
    return time.time()
