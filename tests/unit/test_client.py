"""The verbs of the two clients: each is written once, and both clients show it with its real signature."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from awaithumans_core import Outcome, SyncTaskClient, TaskClient

VERBS = ["ask", "cancel", "create", "get", "poll", "withdraw"]


@pytest.mark.parametrize("verb", VERBS)
def test_both_clients_have_a_verb_with_the_same_signature_and_docstring(verb: str) -> None:
    """The async and the blocking form of a verb differ only in that one has to be awaited."""
    awaited, blocking = getattr(TaskClient, verb), getattr(SyncTaskClient, verb)
    assert inspect.signature(awaited) == inspect.signature(blocking)
    assert inspect.getdoc(awaited) == inspect.getdoc(blocking) != ""
    assert inspect.iscoroutinefunction(awaited)
    assert not inspect.iscoroutinefunction(blocking)


@pytest.mark.parametrize("client", [TaskClient, SyncTaskClient])
@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_the_result_of_a_verb(client: type[Any], verb: str) -> None:
    """A verb is shown as a method of its client that takes `self` and returns an outcome, not as a flow."""
    method: Callable[..., Any] = getattr(client, verb)
    assert method.__qualname__ == f"{client.__name__}.{verb}"
    signature = inspect.signature(method)
    assert next(iter(signature.parameters)) == "self"
    assert signature.return_annotation is Outcome
