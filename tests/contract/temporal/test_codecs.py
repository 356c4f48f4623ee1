"""The relay does not write in clear text what a workflow encrypts, in both modes."""

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from devservers import HumansServer, TemporalServer, free_port
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import DataConverter

from awaithumans_adapters.temporal import TemporalEngine
from awaithumans_core import Outcome, Route, SettingsError
from awaithumans_core.engine import RelayNotReady
from tests.support.payloads import Encrypting
from tests.support.people import People
from tests.support.relay import running_relay
from tests.support.temporal import connecting, result, start, worker_and_relay, worker_beside
from tests.support.workflows import AskUncaught

pytestmark = pytest.mark.edges

SECRET = "the patient agrees"
KEY = Fernet.generate_key()
PLAIN = DataConverter.default
ENCRYPTED = {
    "lenient": DataConverter(payload_codec=Encrypting(KEY, strict=False)),
    "strict": DataConverter(payload_codec=Encrypting(KEY, strict=True)),
}
codecs = pytest.mark.parametrize("codec", [pytest.param("lenient", marks=pytest.mark.edges), "strict"])


async def in_clear(handle: WorkflowHandle[Any, Any]) -> bool:
    """Return whether the answer can be read in the history."""
    return any(SECRET.encode() in event.SerializeToString() for event in (await handle.fetch_history()).events)


async def answered(people: People, question: str) -> str:
    return str((await people.answer(question, {"approved": True, "note": SECRET}))["id"])


@codecs
async def test_relay_with_the_codec_encrypts_the_answer(
    people: People,
    temporal: TemporalServer,
    humans: HumansServer,
    tmp_path: Path,
    question: str,
    via: str,
    codec: str,
) -> None:
    """A relay with the codec encrypts the answer, and the workflow decrypts it."""
    async with worker_and_relay(ENCRYPTED[codec], temporal, humans, tmp_path) as parts:
        handle = await parts.start(AskUncaught.run, {"task": question, "via": via})
        await parts.relay.check_now(await answered(people, question))
        assert await result(handle) is True
        assert not await in_clear(handle)


@codecs
async def test_relay_without_the_codec_keeps_the_answer_until_it_has_it(
    people: People,
    temporal: TemporalServer,
    humans: HumansServer,
    tmp_path: Path,
    question: str,
    via: str,
    codec: str,
) -> None:
    """A relay without the codec writes nothing and keeps the answer; it delivers once it is started with the codec."""
    without, port = TemporalEngine(connecting(temporal, PLAIN)), free_port()
    async with AsyncExitStack() as stack:
        async with running_relay([without], humans, tmp_path, port=port) as relay:
            parts = await stack.enter_async_context(worker_beside(relay, ENCRYPTED[codec], temporal))
            handle = await parts.start(AskUncaught.run, {"task": question, "via": via})
            task_id = await answered(people, question)
            await relay.check_now(task_id)
            (wait,) = await relay.wait_for(task_id, "answered")
            async with asyncio.timeout(30):
                while wait.last_error is None:
                    await asyncio.sleep(0.05)
                    (wait,) = await relay.store.queries.find(task_id)
            assert wait.state == "answered"
            assert "--temporal-data-converter" in wait.last_error
            assert not await in_clear(handle)
        engine = TemporalEngine(connecting(temporal, ENCRYPTED[codec]))
        async with running_relay([engine], humans, tmp_path, settings=relay.settings, port=port) as restarted:
            await restarted.store.leases.hasten(await restarted.store.queries.find(task_id))
            assert await result(handle) is True
        assert not await in_clear(handle)


async def test_relay_with_a_codec_answers_a_caller_without_in_clear(
    people: People, temporal: TemporalServer, humans: HumansServer, tmp_path: Path, question: str, via: str
) -> None:
    """A caller without a codec gets a clear-text answer, since it could not read an encrypted one."""
    with_codec = connecting(temporal, ENCRYPTED["strict"])
    async with worker_and_relay(PLAIN, temporal, humans, tmp_path, connect=with_codec) as parts:
        handle = await parts.start(AskUncaught.run, {"task": question, "via": via})
        await parts.relay.check_now(await answered(people, question))
        assert await result(handle) is True


async def test_route_without_codec_mark_is_delivered_with_one_warning(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A route of an earlier release has no mark and is delivered; a marked one is refused until a codec is set."""
    handle = await start(client, "Ask", task_queue="no worker")
    engine = TemporalEngine(client)
    target = {"namespace": "default", "workflow_id": handle.id}
    with caplog.at_level(logging.WARNING, "awaithumans.temporal"):
        for key in ("a", "b"):
            answer = Outcome.model_validate(
                {"task_id": key, "idempotency_key": key, "status": "completed", "response": {"approved": True}}
            )
            await engine.deliver(Route("temporal", target, key), answer)
    assert [record.levelname for record in caplog.records if "does not state" in record.message] == ["WARNING"]
    with pytest.raises(RelayNotReady, match="not written in clear text"):
        await engine.deliver(Route("temporal", target, "c", encoded=True), answer)
    await handle.terminate()


async def test_check_fails_for_a_codec_that_cannot_read_what_it_writes(temporal: TemporalServer) -> None:
    """The engine check reports a codec that cannot decode its own output, before the first answer."""

    class Wrong(Encrypting):
        async def decode(self, payloads: Any) -> Any:
            return await Encrypting(Fernet.generate_key(), strict=True).decode(payloads)

    converter = DataConverter(payload_codec=Wrong(KEY, strict=True))
    with pytest.raises(SettingsError, match=r"codec: the data converter cannot .*InvalidToken"):
        await TemporalEngine(connecting(temporal, converter)).check()
