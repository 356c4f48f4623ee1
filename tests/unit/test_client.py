"""The verbs of the two clients: each is written once, and both clients show it with its real signature."""

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from awaithumans_core import Outcome, SyncTaskClient, TaskClient
from awaithumans_core.flow import Call, Flow, Lost, Reply

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


async def test_reply_that_never_completes_counts_as_lost() -> None:
    """Each piece arrives in time, but the reply has no end, so it would hold its connection for ever."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)

    def call() -> Flow[Reply | Lost | None]:
        return (yield Call("GET", "/api/tasks", timeout=0.3))

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with TaskClient(f"http://127.0.0.1:{port}", "token") as client, asyncio.timeout(20):
            assert isinstance(await client.run(call()), Lost)
        server.close()
