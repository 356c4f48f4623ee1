"""Benchmarks of this package, measured on real servers and compared with the official SDK and adapters.

many_waits        One process waits for a thousand answers.
relay             The relay acknowledges callbacks and wakes callers.
sweep             The relay's sweep of thousands of open waits.
temporal_cost     One wait in Temporal: history, replay, start on a cold worker.
temporal_gather   Many questions in one workflow.
temporal_many     Thousands of workflows that wait at the same time.

`python -m benchmarks.NAME --help` describes what a benchmark measures. Modules with an underscore are their parts.
"""
