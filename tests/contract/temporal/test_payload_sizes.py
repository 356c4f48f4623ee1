"""Size limits apply to what Temporal receives, after codec and external storage, in both modes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from devservers import HumansServer, TemporalServer
from temporalio.client import WorkflowFailureError
from temporalio.converter import DataConverter, ExternalStorage
from temporalio.exceptions import ApplicationError

from tests.support.payloads import Compressing, Encrypting, Folder
from tests.support.people import People
from tests.support.temporal import result, unreachable, worker_and_relay
from tests.support.workflows import AskAboutADocument, AskForFacts

pytestmark = pytest.mark.edges

LARGE = {"approved": True, "note": "x" * 2_200_000}


@pytest.fixture
def stored(tmp_path: Path) -> DataConverter:
    (tmp_path / "stored").mkdir()
    return DataConverter(external_storage=ExternalStorage(drivers=[Folder(tmp_path / "stored")]))


@pytest.fixture
def through(request: pytest.FixtureRequest, stored: DataConverter) -> DataConverter:
    return stored if request.param == "external storage" else DataConverter(payload_codec=Compressing())


@pytest.mark.parametrize(
    "through", ["external storage", pytest.param("compression", marks=pytest.mark.edges)], indirect=True
)
async def test_large_question_and_answer_arrive_when_compressed_or_stored(
    through: DataConverter,
    people: People,
    temporal: TemporalServer,
    humans: HumansServer,
    tmp_path: Path,
    question: str,
    via: str,
) -> None:
    """A question of 3 MB is asked, and the relay delivers an answer of 2.2 MB."""
    async with worker_and_relay(through, temporal, humans, tmp_path) as parts:
        handle = await parts.start(AskAboutADocument.run, question, via, 3_000_000)
        await parts.relay.check_now((await people.answer(question, LARGE))["id"])
        assert await result(handle) == [True, 2_200_000]


@pytest.mark.edges
@pytest.mark.parametrize("options", [{"via": "activity", "recheck": 2}, {"via": "signal", "idempotency_key": "used"}])
async def test_large_answer_found_by_a_worker_is_returned(
    stored: DataConverter,
    people: People,
    temporal: TemporalServer,
    humans: HumansServer,
    tmp_path: Path,
    question: str,
    options: dict[str, Any],
) -> None:
    """A worker with external storage returns a large answer found by a re-check or under a used key."""
    if "idempotency_key" in options:
        options = options | {"idempotency_key": question}
    async with worker_and_relay(stored, temporal, humans, tmp_path, connect=unreachable) as parts:
        handle = await parts.start(AskForFacts.run, {"task": question, **options})
        await people.answer(question, LARGE)
        if options["via"] == "signal":
            await handle.terminate()
            handle = await parts.start(AskForFacts.run, {"task": question, **options})
        assert (await result(handle))["error"] is None


@pytest.mark.edges
async def test_question_that_encryption_makes_too_large_fails_at_once(
    people: People, temporal: TemporalServer, humans: HumansServer, tmp_path: Path, question: str, via: str
) -> None:
    """The question fails at once with its size; otherwise its workflow task would fail forever."""
    converter = DataConverter(payload_codec=Encrypting(Fernet.generate_key(), strict=True))
    async with worker_and_relay(converter, temporal, humans, tmp_path) as parts:
        handle = await parts.start(AskAboutADocument.run, question, via, 1_500_000)
        with pytest.raises(WorkflowFailureError) as failed:
            await asyncio.wait_for(result(handle), 30)
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == "InvalidTaskError"
    assert "2.0 MB" in str(failed.value.cause)
    assert await people.find(question, count=0) == []
