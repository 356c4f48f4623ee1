"""Ends the servers of a process that was killed and so could not end them itself.

`processes` runs this file as a program of its own and writes one line to it for every server: `+PID` when it has been
started, `-PID` when it has ended. The end of the input means that the process is gone. No signal can prevent that, and
no process id is used that the process did not name.
"""

import os
import signal
import sys
import time
from contextlib import suppress

GRACE_SECONDS = 10.0
"""Seconds from SIGTERM to SIGKILL."""


def end(groups: set[int]) -> None:
    """End these process groups, with SIGTERM and then with SIGKILL."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE_SECONDS
        groups = {group for group in groups if _sent(group, how)}
        while groups and time.monotonic() < until:
            time.sleep(0.05)
            groups = {group for group in groups if _sent(group, 0)}


def _sent(group: int, how: int) -> bool:
    with suppress(OSError):
        os.killpg(group, how)
        return True
    return False


def main() -> None:
    """Read which servers run, and end them when there is no more input."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        known = groups.add if line.startswith(b"+") else groups.discard
        known(int(line[1:]))
    end(groups)


if __name__ == "__main__":
    main()
