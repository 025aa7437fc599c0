"""Executing runs. `loop` supervises, `link` talks with the database, `guard` outlives them, `door` serves jobs.

An engine is one small file behind the protocol in `engine`; `process` is the one for local processes.
"""
