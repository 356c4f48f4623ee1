"""Coverage of the conversations: every branch is tested without a socket and without a clock."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from awaithumans_core import flow

ROOT = Path(__file__).parents[2]
FLOW = Path(flow.__file__).parent
MODULES = sorted(FLOW.rglob("*.py"))

SEALED = '''
"""No sockets, and no clock but that of the tests."""

import datetime
import pkgutil
import socket
from importlib import import_module
from types import SimpleNamespace

import pytest

from awaithumans_core import clock, flow

MODULES = [import_module(found.name) for found in pkgutil.walk_packages(flow.__path__, flow.__name__ + ".")]
DATED = [module for module in MODULES if hasattr(module, "datetime")]


class Forbidden(BaseException):
    """Not an error that anything here would handle."""


def refuse(*args, **options):
    raise Forbidden("a socket, or the machine's clock")


class Dates(datetime.datetime):
    now = utcnow = today = classmethod(refuse)


def pytest_runtestloop(session):
    socket.socket.__init__ = socket.getaddrinfo = refuse
    clock.time = SimpleNamespace(monotonic=refuse, time=refuse, sleep=refuse)
    clock._Real.monotonic = staticmethod(refuse)
    assert DATED
    for module in DATED:
        assert module.datetime is datetime.datetime
        module.datetime = Dates
    dates = [module.datetime.now for module in DATED]
    for forbidden in (socket.socket, clock.SYSTEM.now, flow.Patience().clock, *dates):
        with pytest.raises(Forbidden):
            forbidden()
'''


@pytest.mark.edges
def test_every_branch_of_the_conversations_is_tested_without_io(tmp_path: Path) -> None:
    """Without sockets and the machine's clock, test_flow.py covers every line and branch of the package."""
    (tmp_path / "sealed.py").write_text(SEALED)
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    environment = outside | {
        "COVERAGE_FILE": str(tmp_path / "data"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # unneeded plugins are not loaded, which halves the time
        "PYTHONPATH": str(tmp_path),
    }

    def coverage(*args: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "coverage", *args]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
        return done.returncode, done.stdout + done.stderr

    plugins = [
        f"-p{name}" for name in ("sealed", "pytest_asyncio.plugin", "pytest_timeout", "no:xdist", "no:cacheprovider")
    ]
    options = [*plugins, "-oaddopts=", "--confcutdir=tests/unit", "-q"]
    failed, said = coverage(
        "run", "--branch", f"--include={FLOW}/*", "-m", "pytest", *options, "tests/unit/test_flow.py"
    )
    assert not failed, said
    incomplete, report = coverage("report", "--fail-under=100", "--show-missing", "--skip-empty")
    assert not incomplete, report
    assert {name for name in report.split() if name.endswith(".py")} == {
        str(module.relative_to(ROOT)) for module in MODULES
    }
    assert "Branch" in report


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_no_line_of_the_conversations_is_excluded(module: Path) -> None:
    """A line that is excluded from the count would not be missed."""
    assert "pragma: no" not in module.read_text()


def test_conversations_import_no_io() -> None:
    """The allowed imports are listed: no socket, HTTP client, event loop, thread or clock."""
    imported: set[str] = set()
    for node in (node for module in MODULES for node in ast.walk(ast.parse(module.read_text()))):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
            if node.module == "awaithumans_core":
                imported = imported - {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    assert {name for name in imported if not name.startswith("awaithumans_core.")} <= {
        "collections.abc",
        "contextlib",
        "dataclasses",
        "datetime",
        "email.utils",
        "functools",
        "json",
        "math",
        "pydantic",
        "pydantic.types",
        "pydantic_core",
        "typing",
    }
    own = {f"{flow.__name__}.{module.stem}" for module in MODULES}
    assert {name for name in imported if name.startswith("awaithumans_core.")} - own == {
        f"awaithumans_core.{name}"
        for name in (
            "binding",
            "display.channels",
            "display.request",
            "clock",
            "deleted_tasks",
            "errors",
            "json_values",
            "outcome",
            "retry",
            "services",
            "status",
            "task_id",
        )
    }
