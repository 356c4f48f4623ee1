"""The relay's command line with a Temporal behind TLS, client certificates and API keys, and with a codec."""

import uuid
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from devservers import HumansServer, RelayServer, TemporalServer, started
from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from awaithumans_relay.store import Store
from tests.integration.test_cli_doctor import doctor
from tests.support.authority import Authority
from tests.support.gateway import Gateway
from tests.support.payloads import Encrypting
from tests.support.people import People
from tests.support.relay import settings_for
from tests.support.temporal import result, start
from tests.support.workflows import WORKFLOWS, AskUncaught

pytestmark = pytest.mark.edges

KEYS = {"key-of-default": "default", "key-of-payments": "payments"}
CONVERTER = """
import os

from temporalio.converter import DataConverter

from tests.support.payloads import Encrypting

data_converter = DataConverter(payload_codec=Encrypting(os.environ["TESTS_CODEC_KEY"].encode(), strict=True))


def broken():
    raise RuntimeError(os.environ["TESTS_CODEC_KEY"])
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def address(temporal: TemporalServer, authority: Authority) -> AsyncGenerator[str]:
    """Yield the address of a Temporal with TLS and API keys."""
    async with Gateway(temporal.address, KEYS).serving(authority) as address:
        yield address


@pytest.fixture
async def mutual(temporal: TemporalServer, authority: Authority) -> AsyncGenerator[str]:
    """Yield the address of a Temporal that requires client certificates."""
    async with Gateway(temporal.address).serving(authority, mutual=True) as address:
        yield address


@pytest.fixture
def environment(address: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Set the environment variables that reach this Temporal."""
    (tmp_path / "converter_of_the_relay.py").write_text(CONVERTER)
    monkeypatch.syspath_prepend(tmp_path)
    variables = {
        "TEMPORAL_ADDRESS": address,
        "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(authority.file),
        "TEMPORAL_API_KEY": "key-of-default",
        "TESTS_CODEC_KEY": Fernet.generate_key().decode(),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


async def finding(*flags: str) -> tuple[str, str]:
    """Return the finding of `doctor` about Temporal."""
    _, found = await doctor(*flags)
    ((status, detail),) = [finding for check, finding in found.items() if check.startswith("Temporal")]
    return status, detail


async def test_doctor_reads_temporals_variables(environment: dict[str, str]) -> None:
    """Address, authority and API key come from TEMPORAL_* variables, as for Temporal's own command line."""
    found = await finding("--temporal-data-converter", "converter_of_the_relay:data_converter")
    assert (found[0], found[1].partition(";")[0]) == ("ok", "reachable")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"TEMPORAL_API_KEY": "wrong"}, "TEMPORAL_API_KEY"),
        pytest.param({"TEMPORAL_NAMESPACE": "payments"}, "TEMPORAL_API_KEY", marks=pytest.mark.edges),
        ({"TEMPORAL_TLS_SERVER_CA_CERT_PATH": ""}, "TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
        ({"TEMPORAL_TLS_SERVER_NAME": "elsewhere"}, "TEMPORAL_TLS_SERVER_NAME"),
        ({"TEMPORAL_TLS": "false"}, "TLS: the server closes the connection"),
        ({"TEMPORAL_TLS_SERVER_CA_CERT_PATH": "nowhere.pem"}, "nowhere.pem"),
        ({"TEMPORAL_PROFILE": "nowhere"}, "nowhere"),
    ],
)
async def test_doctor_names_the_wrong_setting(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], told: str
) -> None:
    """Errors of TLS and API key are distinguished, and no key is shown."""
    for name, value in changes.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    status, detail = await finding()
    assert status == "failed"
    assert told in detail
    assert environment["TEMPORAL_API_KEY"] not in detail


async def test_doctor_names_the_variable_that_turns_tls_off(
    environment: dict[str, str], temporal: TemporalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API key turns TLS on; for a server without TLS the finding names the variable that turns it off."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", temporal.address)
    assert "TEMPORAL_TLS=false" in (await finding())[1]


@pytest.mark.edges
async def test_doctor_names_the_variable_for_a_client_certificate(
    environment: dict[str, str], mutual: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a client certificate the finding names the variable; with one the check succeeds."""
    monkeypatch.setenv("TEMPORAL_ADDRESS", mutual)
    assert "TEMPORAL_TLS_CLIENT_CERT_PATH" in (await finding())[1]
    certificate, key = authority.issue("relay")
    monkeypatch.setenv("TEMPORAL_TLS_CLIENT_CERT_PATH", str(certificate))
    monkeypatch.setenv("TEMPORAL_TLS_CLIENT_KEY_PATH", str(key))
    found = await finding()
    assert (found[0], found[1].partition(";")[0]) == ("ok", "reachable")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("converter_of_the_relay", "write it as module:attribute"),
        ("nowhere:converter", "No module named 'nowhere'"),
        ("converter_of_the_relay:os", "is module"),
        ("converter_of_the_relay:broken", "fails (RuntimeError)"),
    ],
)
async def test_doctor_names_a_wrong_data_converter(environment: dict[str, str], place: str, told: str) -> None:
    """The function's error text may quote a key and is not shown."""
    status, detail = await finding("--temporal-data-converter", place)
    assert status == "failed"
    assert told in detail
    assert environment["TESTS_CODEC_KEY"] not in detail


@pytest.mark.edges
async def test_serve_uses_a_profile_for_each_namespace(
    environment: dict[str, str],
    address: str,
    authority: Authority,
    temporal: TemporalServer,
    humans: HumansServer,
    people: People,
    tmp_path: Path,
    question: str,
) -> None:
    """Each namespace has its own API key, encrypted answers arrive in both, and the log has no key."""
    (tmp_path / "temporal.toml").write_text(
        "".join(
            f'[profile.{namespace}]\naddress = "{address}"\nnamespace = "{namespace}"\napi_key = "{key}"\n'
            f'[profile.{namespace}.tls]\nserver_ca_cert_path = "{authority.file}"\n'
            for key, namespace in KEYS.items()
        )
    )
    converter = DataConverter(payload_codec=Encrypting(environment["TESTS_CODEC_KEY"].encode(), strict=True))
    secret = uuid.uuid4().hex
    flags = [flag for namespace in KEYS.values() for flag in ("--temporal-profile", namespace)]
    server = RelayServer(
        tmp_path / "relay",
        humans,
        [*flags, "--temporal-data-converter", "converter_of_the_relay:data_converter", "--log-level", "debug"],
        secret=secret,
        env={
            "TEMPORAL_CONFIG_FILE": str(tmp_path / "temporal.toml"),
            "TESTS_CODEC_KEY": environment["TESTS_CODEC_KEY"],
            "PYTHONPATH": f"{tmp_path}:{Path(__file__).resolve().parents[2]}",
        },
    )
    settings = settings_for(humans, server.url, secret)
    await with_namespace(temporal, "payments")
    async with started(server):
        store = Store(f"sqlite:///{tmp_path / 'relay' / 'awaithumans-relay.db'}")
        for namespace in KEYS.values():
            client = await Client.connect(
                temporal.address,
                namespace=namespace,
                data_converter=converter,
                plugins=[HumanTasksPlugin(settings)],
            )
            asked = f"{question} {namespace}"
            async with Worker(client, task_queue=asked, workflows=WORKFLOWS):
                handle = await start(client, AskUncaught.run, {"task": asked}, task_queue=asked)
                task = await people.answer(asked, {"approved": True})
                assert await result(handle) is True
                (wait,) = await store.queries.find(task["id"])
                assert wait.route.encoded is True
        await store.stop()
    log = server.process.output()
    assert not any(key in log for key in (*KEYS, environment["TESTS_CODEC_KEY"]))


async def with_namespace(temporal: TemporalServer, name: str) -> None:
    client = await Client.connect(temporal.address)
    retention = Duration(seconds=int(timedelta(days=1).total_seconds()))
    try:
        await client.workflow_service.register_namespace(
            RegisterNamespaceRequest(namespace=name, workflow_execution_retention_period=retention)
        )
    except RPCError as error:
        if error.status != RPCStatusCode.ALREADY_EXISTS:
            raise
