"""Servers that this package starts end with the process that started them, also if it is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STARTS_A_SERVER = """
import sys, time
from pathlib import Path
from awaithumans_relay.dev.processes import Process

server = Process([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], Path.cwd())
server.start()
while "up" not in server.output():
    time.sleep(0.05)
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.edges
def test_killed_process_leaves_no_server(tmp_path: Path) -> None:
    """SIGKILL cannot be handled, so the guard of the process ends its servers."""
    command = [sys.executable, "-c", STARTS_A_SERVER]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True) as starter:
        assert starter.stdout is not None
        server = int(starter.stdout.readline())
        os.kill(server, 0)
        starter.send_signal(signal.SIGKILL)
    until = time.monotonic() + 60
    while _runs(server):
        assert time.monotonic() < until, "the server still runs"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # no process collects the exit code of an orphan in some containers
