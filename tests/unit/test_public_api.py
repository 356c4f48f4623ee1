"""The public API of the package: its names, and what importing it does not load."""

import json
import subprocess
import sys

import pytest

import awaithumans_core

PUBLIC = [
    "Answer",
    "AnswererNotAllowedError",
    "AuthenticationError",
    "AwaitHumansError",
    "Engine",
    "HumanTask",
    "HumanTasks",
    "InvalidTaskError",
    "Outcome",
    "PermissionDeniedError",
    "QuestionChangedError",
    "QuestionNotAskedError",
    "ResponseMissingError",
    "ResponseSchemaError",
    "Route",
    "ServerUnreachableError",
    "Settings",
    "SettingsError",
    "Step",
    "SyncTaskClient",
    "TargetBusy",
    "TargetGone",
    "TargetNotReady",
    "TaskCancelledError",
    "TaskClient",
    "TaskNotFoundError",
    "TaskRejectedError",
    "TaskStatus",
    "TaskTimeoutError",
    "UnexpectedReplyError",
    "Verdict",
    "VerificationExhaustedError",
    "Vote",
    "await_human",
    "await_human_sync",
    "escalate",
    "quorum",
    "settle",
]


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after this code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=180)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_public_names_are_pinned() -> None:
    """A public name is added or removed on purpose only."""
    assert awaithumans_core.__all__ == PUBLIC


def test_public_names_are_sorted() -> None:
    """Names are listed alphabetically."""
    assert awaithumans_core.__all__ == sorted(awaithumans_core.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_loads(name: str) -> None:
    """Each public name exists in its module."""
    assert getattr(awaithumans_core, name).__name__ == name


def test_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` and the import system work as with any module."""
    with pytest.raises(AttributeError, match="no attribute 'await_robot'"):
        awaithumans_core.__getattr__("await_robot")


def test_dir_lists_the_public_names() -> None:
    """Completion in a shell offers the public names before they are loaded."""
    assert dir(awaithumans_core) == PUBLIC


def test_import_loads_no_other_package() -> None:
    """The import alone loads no other package and opens no socket."""
    assert loaded_by("import awaithumans_core").isdisjoint({"asyncio", "httpx", "itsdangerous", "pydantic", "socket"})


@pytest.mark.parametrize("name", ["await_human", "await_human_sync"])
def test_script_names_load_what_they_need_at_the_first_call(name: str) -> None:
    """A script that can ask a person starts as quickly as one that cannot."""
    loaded = loaded_by(f"from awaithumans_core import {name}")
    assert loaded.isdisjoint({"asyncio", "httpx", "pydantic", "pydantic_settings", "rich"})


@pytest.mark.parametrize("name", ["HumanTask", "Outcome", "Route", "settle"])
def test_workflow_names_load_no_http_client(name: str) -> None:
    """Names used inside a workflow sandbox load neither the HTTP client nor the signer."""
    loaded = loaded_by(f"import awaithumans_core; awaithumans_core.{name}")
    assert loaded.isdisjoint({"httpx", "itsdangerous"})


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["serve", "--help"]], ids=" ".join)
def test_help_of_the_command_line_loads_only_what_it_shows(arguments: list[str]) -> None:
    """Help and version load no server, database, HTTP client or engine. (Typer itself loads pydantic for options.)"""
    loaded = loaded_by(f"from awaithumans_relay.cli import cli; cli({arguments}, standalone_mode=False)")
    heavy = {"asyncio", "fastapi", "httpx", "jinja2", "langgraph", "prometheus_client", "sqlalchemy", "temporalio"}
    assert "typer" in loaded
    assert loaded.isdisjoint(heavy | {"uvicorn"})
