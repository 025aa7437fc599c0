"""Benchmarks: `python -m tests.bench`. Not tests; they measure, and compare with what Postgres itself can do in the same run."""
