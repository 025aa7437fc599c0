"""Other job systems on Postgres, each behind the same five words and in a process of its own.

`python -m tests.bench.peer.NAME ADDRESS WORD [N]`

install    make its tables                 fill N   put N jobs that do nothing into its queue
round N    fill and drain, in one process
drain N    work until N are done: prints the seconds that this took, from the moment at which it is ready to begin
work N     wait for jobs that come one by one: prints "ready", then a list of N latencies from enqueue to start, in seconds
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


def main(words: dict[str, Callable[[str, int], object]]) -> None:
    address, word, *more = sys.argv[1:]
    said: object = None
    for one in ("fill", "drain") if word == "round" else (word,):
        said = words[one](_url(address), int(more[0]) if more else 0)
    if said is not None:
        print(json.dumps(said), flush=True)


def _url(address: str) -> str:
    """An address of either form as a URL: not everybody reads key=value."""
    of = {name: quote(str(value), safe="") for name, value in conninfo_to_dict(address).items()}
    return f"postgresql://{of.get('user', '')}:{of.get('password', '')}@{of.get('host', '')}:{of.get('port', '5432')}/{of['dbname']}"


def pause() -> float:
    """Seconds between two jobs of `send`: long enough for everything to be idle again."""
    return random.uniform(0.045, 0.065)


def now() -> float:
    return time.time()
