"""Executing runs. `loop` supervises, `link` talks with the database, `guard` outlives them, `door` serves jobs.

An engine is one small file behind the protocol in `engine`, and passes `conformance`; `process` is the one for local processes. It starts
Python callables from `warm`, the runner's end of its `forkserver`, and keeps each job in a `cgroup` where it can; commands
are put there by a `mover`.
"""
