"""Benchmarks of this package, measured on real servers and compared with the official SDK and adapters.

Each module of `MODULES` is a benchmark: it declares its rows and measures them (`BENCHMARK`). `book` runs them and
writes the report. `python -m benchmarks --help` describes the command. `scale` simulates a month and has a command of
its own. Modules with an underscore are parts of the benchmarks.
"""

MODULES = (
    "answer_to_awake",
    "open_waits",
    "sweep",
    "many_waits",
    "relay",
    "temporal_cost",
    "temporal_gather",
    "temporal_many",
    "import_cost",
)
"""The benchmarks, in the order in which they are measured and reported."""
