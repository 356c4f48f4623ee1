"""The demo runs unattended, succeeds, and leaves no process running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.edges
def test_demo_answers_three_callers_and_stops_its_processes(tmp_path: Path) -> None:
    """Three callers get their answers, one by e-mail, and every process of the demo has ended."""
    marker = f"DEMO_MARK={tmp_path.name}"
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        env={**os.environ, "DEMO_MARK": tmp_path.name},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for told in (
        "continues with the typed answer: paid",
        "found the answer in its sweep",
        "prints: paid",
        "Each caller received",
    ):
        assert told in done.stdout
    assert _processes_with(marker) == []


def _processes_with(marker: str) -> list[str]:
    """Return the processes that inherited the marker."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found
