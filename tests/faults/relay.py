"""`awaithumans-relay` on a clock that a file sets forward or back: `python -m tests.faults.relay ARGUMENT...`."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

CLOCK = "FAULTS_CLOCK"
"""Variable with the path of a file that has the seconds by which the wall clock differs."""


def set_clock(file: Path) -> None:
    """Replace the wall clock of this process. Nothing may have been imported that keeps the original."""
    real = time.time

    def moved() -> float:
        with suppress(OSError, ValueError):
            return real() + float(file.read_text())
        return real()

    time.time = moved


if __name__ == "__main__":
    set_clock(Path(os.environ[CLOCK]))
    from awaithumans_relay.cli import cli

    cli(sys.argv[1:])
