"""The door of the package: which names it has, and what does not come in with them."""

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
    """The modules a fresh interpreter holds after running this."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=180)
    return set(json.loads(done.stdout))


def test_the_public_names_are_these() -> None:
    """Adding or losing a public name is a decision, not an accident."""
    assert awaithumans_core.__all__ == PUBLIC


def test_the_public_names_are_sorted() -> None:
    """A reader finds a name where the alphabet says."""
    assert awaithumans_core.__all__ == sorted(awaithumans_core.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_loads(name: str) -> None:
    """No public name is a promise its module does not keep."""
    assert getattr(awaithumans_core, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` and import machinery work as with any module."""
    with pytest.raises(AttributeError, match="no attribute 'await_robot'"):
        awaithumans_core.__getattr__("await_robot")


def test_dir_lists_the_public_names() -> None:
    """Completion in a shell offers the public names before any of them is loaded."""
    assert dir(awaithumans_core) == PUBLIC


def test_importing_the_package_brings_nothing_with_it() -> None:
    """The bare import loads no other package and opens the way to no socket."""
    assert loaded_by("import awaithumans_core").isdisjoint({"httpx", "itsdangerous", "pydantic", "socket"})


@pytest.mark.parametrize("name", ["HumanTask", "Outcome", "Route", "settle"])
def test_what_a_workflow_uses_brings_no_http_client(name: str) -> None:
    """The names used inside a workflow sandbox load neither the HTTP client nor the signer."""
    loaded = loaded_by(f"import awaithumans_core; awaithumans_core.{name}")
    assert loaded.isdisjoint({"httpx", "itsdangerous"})
