"""The benchmarks as commands: what they list, what they record, and that they leave no process behind."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.edges


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def has_ended(pid: int) -> bool:
    """An orphan whose new parent does not collect it stays a zombie, which has ended too."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_interrupted_benchmark_leaves_no_process(sign: signal.Signals) -> None:
    """However a run is ended, every server, worker and client that it has started ends too."""
    runner = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--quick", "--only", "temporal-many"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    process = psutil.Process(runner.pid)
    # The guard of the runner, the benchmark and its guard, and three servers.
    wait_until(lambda: len(process.children(recursive=True)) >= 6 or runner.poll() is not None)
    assert runner.poll() is None
    started = [child.pid for child in process.children(recursive=True)]
    runner.send_signal(sign)
    runner.wait()
    wait_until(lambda: all(map(has_ended, started)))


def test_run_records_figures_without_machine_names(tmp_path: Path) -> None:
    """A run of one benchmark writes its figures to the given folder, and nothing into the repository."""
    published = (ROOT / "docs" / "performance.md").read_bytes()
    file = tmp_path / "run.jsonl"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "import-cost", "--json", str(file)]
    subprocess.run([*command, "--docs", str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    lines = file.read_text()
    assert [json.loads(line)["record"] for line in lines.splitlines()] == ["run", "benchmark", "row", "row"]
    assert [each for each in (socket.gethostname(), str(ROOT), str(tmp_path)) if each in lines] == []
    assert (tmp_path / "performance" / "import-cost.time.svg").exists()
    assert (ROOT / "docs" / "performance.md").read_bytes() == published


def test_every_benchmark_declares_its_rows() -> None:
    """Every benchmark is listed, and every row has a name of its own that starts with its benchmark's."""
    listed = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    modules = {
        path.stem.replace("_", "-")
        for path in (ROOT / "benchmarks").glob("[!_]*.py")
        if "BENCHMARK = Benchmark(" in path.read_text()
    }
    rows = [line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "]
    assert {row.partition(".")[0] for row in rows} == modules
    assert len(set(rows)) == len(rows)


def test_unknown_row_is_an_error_of_usage() -> None:
    """Nothing is measured, and the exit status is that of a wrong command line."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "relya"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "no row is named 'relya'" in run.stderr
