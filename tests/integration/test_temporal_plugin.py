"""`HumanTasksPlugin` on client or worker, beside converters and other plugins, and its error messages."""

import asyncio
import secrets
import uuid
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest
from devservers import TemporalServer
from examples.temporal_two_files import starter as two_files_starter
from examples.temporal_two_files import worker as two_files_worker
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.client import Client
from temporalio.contrib.opentelemetry import OpenTelemetryPlugin
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import (
    BinaryProtoPayloadConverter,
    CompositePayloadConverter,
    DataConverter,
)
from temporalio.langgraph import LangGraphPlugin
from temporalio.plugin import SimplePlugin
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from awaithumans_adapters.temporal import (
    ActivityOptions,
    HumanTaskActivities,
    HumanTasksActivityPlugin,
    HumanTasksPlugin,
    HumanTasksWorkflowPlugin,
)
from awaithumans_core import Settings, SettingsError
from awaithumans_core.discovery import announce
from tests.support.dev_instance import dev_instance, listening
from tests.support.people import People
from tests.support.plain_workflow import AskPlainly
from tests.support.relay import RunningRelay
from tests.support.spans import exporter
from tests.support.workflows import WORKFLOWS, AskUncaught


@pytest.fixture
def name() -> str:
    return f"q-{uuid.uuid4().hex}"


async def asked_and_answered(people: People, client: Client, name: str, **options: Any) -> None:
    """Run a workflow on this client's worker that asks and gets its answer."""
    async with Worker(client, task_queue=name, workflows=WORKFLOWS, **options):
        handle = await client.start_workflow(AskUncaught.run, {"task": name}, id=name, task_queue=name)
        await people.answer(name, {"approved": True})
        assert await asyncio.wait_for(handle.result(), 30) is True


# --- worker and starter in files of their own


async def test_starter_with_the_plugin_sends_and_receives_decimals_and_dates(
    people: People,
    temporal: TemporalServer,
    temporal_relay: RunningRelay,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """The example runs as written: the worker asks, and the starter, with another client, gets the typed result."""
    settings = temporal_relay.settings
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal.address)
    monkeypatch.setenv("AWAITHUMANS_URL", settings.url)
    monkeypatch.setenv("AWAITHUMANS_ADMIN_API_TOKEN", settings.token())
    monkeypatch.setenv("AWAITHUMANS_RELAY_URL", settings.relay())
    monkeypatch.setenv("AWAITHUMANS_RELAY_SECRET", settings.relay_secret[0].get_secret_value())
    working = asyncio.create_task(two_files_worker.main())
    starting = asyncio.create_task(two_files_starter.main(name))
    try:
        task = await people.answer(f"Pay invoice {name}?", {"approved": True})
        await temporal_relay.check_now(task["id"])
        await asyncio.wait_for(starting, 60)
    finally:
        for each in (starting, working):
            each.cancel()
        await asyncio.gather(starting, working, return_exceptions=True)
    assert f"99.90 paid on 2030-01-31 for {name}" in capsys.readouterr().out


REFUSED = pytest.raises(TypeError, match="Decimal is not JSON serializable")


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, REFUSED),
        ({"plugins": [HumanTasksPlugin()]}, nullcontext()),
        ({"data_converter": pydantic_data_converter}, nullcontext()),
    ],
    ids=["neither", "plugin", "converter"],
)
async def test_starter_needs_the_plugin_or_the_pydantic_converter(
    temporal: TemporalServer, name: str, options: dict[str, Any], sent: AbstractContextManager[object]
) -> None:
    """Without both, Temporal itself refuses the input in the starter's process, as the README says."""
    client = await Client.connect(temporal.address, **options)
    invoice = two_files_worker.Invoice(number=name, amount=Decimal("1.10"), due=date(2030, 1, 31))
    with catch_warnings(), sent:
        simplefilter("ignore")  # Temporal's own hint at its pydantic converter
        run = two_files_worker.InvoiceWorkflow.run
        await (await client.start_workflow(run, invoice, id=name, task_queue=name)).terminate()


# --- on worker or client


def test_worker_on_another_temporal_than_the_development_instance_is_refused(
    temporal: TemporalServer, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The relay of the instance could not wake its workflows. Settings of its own name another relay."""
    for variable in ("URL", "ADMIN_API_TOKEN", "RELAY_URL", "RELAY_SECRET"):
        monkeypatch.delenv(f"AWAITHUMANS_{variable}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    secret = secrets.token_urlsafe(32)
    with listening(secret) as relay:

        async def worker(address: str, settings: Settings | None = None) -> None:
            announce(dev_instance(relay.url, relay_secret=secret, temporal_address=address), tmp_path)
            client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(settings)])
            Worker(client, task_queue=name)

        with pytest.raises(
            SettingsError, match=r"connected to Temporal at .*, which wakes workflows at 127\.0\.0\.1:9:"
        ):
            asyncio.run(worker("127.0.0.1:9"))
        asyncio.run(worker(temporal.address))
        asyncio.run(worker("127.0.0.1:9", Settings(url="http://127.0.0.1:9")))
        monkeypatch.setenv("AWAITHUMANS_RELAY_URL", "http://127.0.0.1:9")
        asyncio.run(worker("127.0.0.1:9"))


async def test_plugin_on_the_worker_alone_is_enough(
    people: People, temporal_relay: RunningRelay, temporal: TemporalServer, name: str
) -> None:
    """A client of an application needs only a converter that carries JSON."""
    client = await Client.connect(temporal.address)
    await asked_and_answered(people, client, name, plugins=[HumanTasksPlugin(temporal_relay.settings)])


async def test_equal_plugins_on_client_and_worker_are_one(
    people: People, temporal_relay: RunningRelay, temporal: TemporalServer, name: str
) -> None:
    """Two plugins with the same settings act as one."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(temporal_relay.settings)])
    with pytest.warns(UserWarning, match="present from both"):
        await asked_and_answered(people, client, name, plugins=[HumanTasksPlugin(temporal_relay.settings)])


async def test_plugins_with_different_settings_are_refused(
    temporal_relay: RunningRelay, temporal: TemporalServer
) -> None:
    """It would be unclear which settings apply, so neither is used."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(temporal_relay.settings)])
    other = HumanTasksPlugin(Settings.load(admin_api_token="another", relay_url="http://127.0.0.1:9"))
    with (
        pytest.raises(SettingsError, match="not with this plugin's settings"),
        pytest.warns(UserWarning, match="present from both"),
    ):
        Worker(client, task_queue="both", workflows=WORKFLOWS, plugins=[other])


async def test_activities_registered_by_hand_are_refused(
    temporal_relay: RunningRelay, temporal: TemporalServer
) -> None:
    """The SDK's error would be about a duplicate name; this one states what to leave out."""
    client = await Client.connect(temporal.address, plugins=[HumanTasksPlugin(temporal_relay.settings)])
    by_hand = HumanTaskActivities(temporal_relay.settings).all()
    with pytest.raises(SettingsError, match="leave them out of activities="):
        Worker(client, task_queue="both", workflows=WORKFLOWS, activities=by_hand)


def combined(which: str, settings: Settings) -> SimplePlugin:
    routed = ActivityOptions(task_queue="people")
    made: dict[str, SimplePlugin] = {
        "everything": HumanTasksPlugin(settings),
        "everything, routed": HumanTasksPlugin(settings, activities=routed),
        "workflows": HumanTasksWorkflowPlugin(activities=routed),
        "activities": HumanTasksActivityPlugin(settings),
    }
    return made[which]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("workflows", "activities"),
        ("activities", "workflows"),
        ("workflows", "workflows"),
        ("activities", "activities"),
        ("everything", "activities"),
        ("everything, routed", "workflows"),
    ],
)
async def test_equal_plugins_on_one_worker_are_accepted(
    temporal_relay: RunningRelay, temporal: TemporalServer, first: str, second: str
) -> None:
    """A worker may have several plugins, on itself and its client, with equal configuration."""
    client = await Client.connect(temporal.address)
    plugins = [combined(first, temporal_relay.settings), combined(second, temporal_relay.settings)]
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # the SDK's warning about two plugins with one name
        worker = Worker(
            client,
            task_queue="several",
            workflows=WORKFLOWS,
            workflow_runner=UnsandboxedWorkflowRunner(),
            plugins=plugins,
        )
    assert worker.is_running is False


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("everything", "workflows"),
        ("workflows", "everything"),
        ("everything", "everything, routed"),
        ("activities", "everything"),
    ],
)
async def test_plugins_with_different_options_are_refused(
    temporal_relay: RunningRelay, temporal: TemporalServer, first: str, second: str
) -> None:
    """It would be unclear which options apply."""
    client = await Client.connect(temporal.address)
    plugins = [combined(first, temporal_relay.settings), combined(second, temporal_relay.settings)]
    with pytest.raises(SettingsError, match=r"plugin of this package|leave them out"):
        Worker(client, task_queue="several", workflows=WORKFLOWS, plugins=plugins)


async def test_worker_without_the_plugin_shows_what_is_missing(temporal: TemporalServer, name: str) -> None:
    """The workflow does not fail: the Temporal UI shows what its worker lacks, and it continues once added."""
    client = await Client.connect(temporal.address)
    async with Worker(client, task_queue=name, workflows=[AskPlainly]):
        handle = await client.start_workflow(AskPlainly.run, name, id=name, task_queue=name)
        async with asyncio.timeout(60):
            while not (said := await _failures(client, name)):
                await asyncio.sleep(0.1)
    assert "this worker has no HumanTasksPlugin" in said[0]
    await handle.terminate()


async def _failures(client: Client, workflow_id: str) -> list[str]:
    history = (await client.get_workflow_handle(workflow_id).fetch_history()).events
    failed = [event.workflow_task_failed_event_attributes.failure for event in history]
    return [failure.message for failure in failed if failure.message]


# --- converters


class OnlyProtobuf(CompositePayloadConverter):
    def __init__(self) -> None:
        super().__init__(BinaryProtoPayloadConverter())


class CustomConverter(PydanticPayloadConverter):
    """An application's own converter that carries JSON."""


async def test_converter_without_json_is_refused(temporal: TemporalServer) -> None:
    """It is refused at construction and not at the first question."""
    with pytest.raises(SettingsError, match="OnlyProtobuf"):
        await Client.connect(
            temporal.address,
            data_converter=DataConverter(payload_converter_class=OnlyProtobuf),
            plugins=[HumanTasksPlugin()],
        )


async def test_custom_converter_with_json_is_kept(
    people: People, temporal_relay: RunningRelay, temporal: TemporalServer, name: str
) -> None:
    """An application's converter is used unchanged."""
    client = await Client.connect(
        temporal.address,
        data_converter=DataConverter(payload_converter_class=CustomConverter),
        plugins=[HumanTasksPlugin(temporal_relay.settings)],
    )
    assert client.data_converter.payload_converter_class is CustomConverter
    await asked_and_answered(people, client, name)


# --- beside others


def beside(which: str) -> SimplePlugin:
    return OpenTelemetryPlugin(add_temporal_spans=True) if which == "opentelemetry" else LangGraphPlugin()


@pytest.mark.edges
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("which", ["opentelemetry", "langgraph"])
async def test_plugin_works_beside_other_plugins(
    people: People,
    temporal_relay: RunningRelay,
    temporal: TemporalServer,
    name: str,
    spans: InMemorySpanExporter,
    which: str,
    first: bool,  # noqa: FBT001 - the parameter is the case
) -> None:
    """In any order, questions are asked and answered, and the other plugin works.

    OpenTelemetry's plugin shows the asking within the workflow's trace, and the delivery is linked to it.
    """
    plugins = [HumanTasksPlugin(temporal_relay.settings), beside(which)]
    client = await Client.connect(temporal.address, plugins=plugins if first else plugins[::-1])
    await asked_and_answered(people, client, name)
    if which == "opentelemetry":
        found = {span.name: span for span in spans.get_finished_spans()}
        ask, delivery = found["ask temporal"], found["deliver temporal"]
        assert ask.parent is not None
        assert ask.parent.span_id == found["RunActivity:awaithumans.open_wait"].context.span_id
        assert [link.context.span_id for link in delivery.links] == [ask.context.span_id]


@pytest.fixture
def spans() -> InMemorySpanExporter:
    exporter().clear()
    return exporter()
