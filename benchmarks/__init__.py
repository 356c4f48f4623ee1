"""Benchmarks of this package, measured on real servers and compared with the official SDK and adapters.

Each module without an underscore is a benchmark: it declares its rows and measures them (`BENCHMARK`). `book` runs them
and writes the report. `python -m benchmarks --help` describes the command. Modules with an underscore are parts of the
benchmarks.
"""

MODULES = (
    "answer_to_awake",
    "open_waits",
    "many_waits",
    "relay",
    "temporal_cost",
    "temporal_gather",
    "temporal_many",
    "import_cost",
)
"""The benchmarks, in the order in which they are measured and reported."""
