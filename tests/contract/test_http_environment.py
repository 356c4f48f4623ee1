"""Errors in proxy and certificate settings of the environment are reported with variable and value."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from awaithumans_adapters.langgraph import LangGraphServerEngine
from awaithumans_core import (
    AwaitHumansError,
    HumanTask,
    Settings,
    SettingsError,
    SyncTaskClient,
    TaskClient,
)
from awaithumans_core.http.clients import async_client, check_environment, lost_reason, sync_client
from awaithumans_core.http.environment import proxy_for
from awaithumans_core.testing import FakeHumans, faults
from awaithumans_relay.availability.server_check import server_problem
from tests.support.decisions import Decision

VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir", "sslkeylogfile"}


QUESTION = HumanTask(task="Refund?", response_schema=Decision, timeout_seconds=900)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove proxy and certificate variables of the developer's shell."""
    for name in [name for name in os.environ if name.lower() in VARIABLES]:
        monkeypatch.delenv(name)


@pytest.fixture
def no_certificates(tmp_path: Path) -> str:
    file = tmp_path / "no-certificates.pem"
    file.write_text("no certificate")
    return str(file)


def create_sync() -> None:
    SyncTaskClient("http://127.0.0.1:9", "token", patience=0).ask(QUESTION)


async def create_async() -> None:
    async with TaskClient("http://127.0.0.1:9", "token", patience=0) as client:
        await client.ask(QUESTION)


async def make_async() -> None:
    await async_client().aclose()


CALLERS: dict[str, Callable[[], object]] = {
    "sync client": lambda: sync_client().close(),
    "async client": lambda: asyncio.run(make_async()),
    "script": create_sync,
    "async script": lambda: asyncio.run(create_async()),
    "doctor": lambda: asyncio.run(server_problem(Settings.load(url="http://127.0.0.1:9", admin_api_token="token"))),
    "serve": check_environment,
}

WRONG = [
    ("SSL_CERT_FILE", "/nowhere/cacert.pem", "No such file"),
    ("SSL_CERT_FILE", "/", "directory"),
    ("SSLKEYLOGFILE", "/nowhere/keys.log", "No such file"),
    ("ALL_PROXY", "socks5://proxy:1080", "pip install 'httpx[socks]'"),
    ("all_proxy", "socks5h://proxy:1080", "pip install 'httpx[socks]'"),
    ("HTTPS_PROXY", "http://proxy:port", "http://host:port"),
    ("HTTP_PROXY", "ftp://proxy:21", "http://host:port"),
    ("HTTP_PROXY", "http://proxy:99999", "http://host:port"),
    ("http_proxy", '"http://proxy:3128"', "http://host:port"),
    ("ALL_PROXY", "http://", "http://host:port"),
    ("ALL_PROXY", "//proxy:3128", "http://host:port"),
    ("ALL_PROXY", "http://proxy:3128\n", "http://host:port"),
    ("NO_PROXY", "localhost,fd00::/8", "'fd00::/8'"),
    ("no_proxy", "[::1]", "'[::1]'"),
]


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize(("name", "value", "advice"), [WRONG[0], WRONG[3], WRONG[5], WRONG[12]])
def test_every_caller_reports_the_wrong_variable(
    monkeypatch: pytest.MonkeyPatch, caller: str, name: str, value: str, advice: str
) -> None:
    """The variable is named even if a local server needs neither a proxy nor a certificate."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        CALLERS[caller]()
    assert str(raised.value).startswith(f"{name} is {value!r}")
    assert advice in str(raised.value)


@pytest.mark.parametrize(("name", "value", "advice"), WRONG)
def test_wrong_variable_is_named_with_value_and_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, advice: str
) -> None:
    """The error names the variable with its value and the remedy."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        check_environment()
    assert f"{name} is " in str(raised.value)
    assert repr(value)[1:-1] in str(raised.value)
    assert advice in str(raised.value)


def test_file_without_certificates_is_named(monkeypatch: pytest.MonkeyPatch, no_certificates: str) -> None:
    """OpenSSL's errors become the same error as those of the file system."""
    monkeypatch.setenv("SSL_CERT_FILE", no_certificates)
    with pytest.raises(SettingsError, match=r"SSL_CERT_FILE is .*no-certificates.pem"):
        check_environment()


@pytest.mark.parametrize("value", ["http://me:hush#hush@proxy:3128", "socks5://me:hush@proxy:1080", "me:hush@:x"])
def test_password_of_a_proxy_is_not_shown(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The proxy's password is neither in the message nor in a chained error."""
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(SettingsError, match="ALL_PROXY") as raised:
        check_environment()
    assert "hush" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("value", ["http://proxy:3128", "proxy:3128", "http://me:pass@proxy", "https://[::1]:3128"])
@pytest.mark.parametrize("not_proxied", ["", "*", "fd00::/8,*", "localhost,.example.com,::1,10.0.0.0/8,host:8080"])
def test_values_that_httpx_accepts_are_accepted(monkeypatch: pytest.MonkeyPatch, value: str, not_proxied: str) -> None:
    """Every value that httpx accepts is accepted here."""
    monkeypatch.setenv("ALL_PROXY", value)
    monkeypatch.setenv("NO_PROXY", not_proxied)
    httpx.Client().close()
    check_environment()


def test_transport_of_the_caller_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """FakeHumans without a socket works on a machine whose proxy setting is malformed."""
    monkeypatch.setenv("ALL_PROXY", "http://proxy:port")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/cacert.pem")

    async def ask() -> str:
        fake = FakeHumans()
        fake.answer("Refund", {"approved": True})
        async with fake, fake.client() as client:
            return (await client.ask(QUESTION)).status

    assert asyncio.run(ask()) == "completed"


async def test_langgraph_server_engine_names_the_wrong_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's client is created under the same checks of the environment."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/cacert.pem")
    with pytest.raises(SettingsError, match=r"SSL_CERT_FILE is '/nowhere/cacert.pem'"):
        await LangGraphServerEngine("http://127.0.0.1:9").check()


@pytest.mark.edges
def test_serve_reports_the_variable_in_one_line(tmp_path: Path) -> None:
    """`serve` prints one line without a traceback and without any mention of the database."""
    command = [sys.executable, "-m", "awaithumans_relay.cli", "serve", "--temporal", "127.0.0.1:9"]
    wanted = {"AWAITHUMANS_URL": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:1080", "HOME": str(tmp_path)}
    done = subprocess.run(
        command, env=os.environ | wanted, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "ALL_PROXY is 'socks5://127.0.0.1:1080'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "--database" not in done.stderr


# --- replies that come through a proxy

SERVER = "http://humans.example:3001"


class Answers(BaseHTTPRequestHandler):
    """Send the reply of the server to every request, for any host."""

    server: "ProxyServer"

    def do_GET(self) -> None:
        status, body, headers = self.server.reply
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class ProxyServer(ThreadingHTTPServer):
    """A proxy that replies to requests itself."""

    reply: tuple[int, bytes, Mapping[str, str]] = (200, b"", {})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answers(self, fault: faults.Fault) -> None:
        assert fault.reply is not None
        self.reply = fault.reply


@pytest.fixture(scope="module")
def answering() -> Generator[ProxyServer]:
    server = ProxyServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def proxy(answering: ProxyServer, monkeypatch: pytest.MonkeyPatch) -> ProxyServer:
    monkeypatch.setenv("HTTP_PROXY", answering.url.replace("//", "//me:hush@"))
    return answering


def read_sync() -> None:
    SyncTaskClient(SERVER, "token", patience=0).get("task-1")


async def read_async() -> None:
    async with TaskClient(SERVER, "token", patience=0) as client:
        await client.get("task-1")


both = pytest.mark.parametrize("read", [read_sync, lambda: asyncio.run(read_async())], ids=["sync", "async"])


@both
@pytest.mark.parametrize(
    "fault",
    [*(faults.html(status) for status in (200, 401, 403, 404, 407, 502)), faults.redirect("http://login.example")],
    ids=lambda fault: fault.name,
)
def test_refusal_of_a_proxy_names_the_proxy_and_its_variable(
    proxy: ProxyServer, fault: faults.Fault, read: Callable[[], None]
) -> None:
    """The error does not advise another token, because that would not help."""
    proxy.answers(fault)
    with pytest.raises(AwaitHumansError) as raised:
        read()
    message = str(raised.value)
    assert "HTTP_PROXY" in message
    assert proxy.url.replace("//", "//***@") in message
    assert "hush" not in message
    assert "add humans.example to NO_PROXY" in message
    assert "TOKEN" not in message
    assert "use a token" not in message


@both
def test_refusal_of_the_server_through_a_proxy_keeps_its_advice(proxy: ProxyServer, read: Callable[[], None]) -> None:
    """A 401 in the API's form is the server's own, even if it came through a proxy."""
    proxy.answers(faults.status(401))
    with pytest.raises(AwaitHumansError, match="AWAITHUMANS_ADMIN_API_TOKEN"):
        read()


@both
def test_unreachable_proxy_is_named(monkeypatch: pytest.MonkeyPatch, read: Callable[[], None]) -> None:
    """The error names the unreachable proxy and not the server."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(AwaitHumansError, match=r"ConnectError.*the proxy http://127.0.0.1:9 \(http_proxy\)"):
        read()


@both
def test_missing_certificate_directory_is_ignored_for_plain_http(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[], None]
) -> None:
    """A server on plain HTTP works without the directory."""
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere/certs")
    with pytest.raises(AwaitHumansError, match="ConnectError") as raised:
        read()
    assert "SSL_CERT_DIR" not in str(raised.value)


def test_missing_certificate_directory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL does not report a missing directory and then trusts no server, so the check names it."""
    untrusted = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate")
    assert lost_reason(untrusted).endswith("(give the certificate of its authority as SSL_CERT_FILE)")
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere/certs")
    with pytest.raises(SettingsError, match=r"SSL_CERT_DIR is '/nowhere/certs'"):
        lost_reason(untrusted)


def test_html_401_of_a_gateway_is_no_wrong_token(answering: ProxyServer) -> None:
    """An HTML page with 401 does not come from the API, so the error does not name the token."""
    answering.answers(faults.html(401))
    with pytest.raises(AwaitHumansError, match="AWAITHUMANS_URL must be an address") as raised:
        SyncTaskClient(answering.url, "token", patience=0).get("task-1")
    assert "TOKEN" not in str(raised.value)


async def _server() -> str | None:
    return await server_problem(Settings.load(url=SERVER, admin_api_token="token"))


@pytest.mark.parametrize("fault", [faults.html(200), faults.html(403)], ids=lambda fault: fault.name)
async def test_doctor_and_serve_name_the_proxy(proxy: ProxyServer, fault: faults.Fault) -> None:
    """`doctor` and `serve` name the proxy instead of advising another token or address."""
    proxy.answers(fault)
    found = await _server()
    assert found is not None
    assert "(HTTP_PROXY)" in found
    assert "add humans.example to NO_PROXY" in found
    assert "TOKEN" not in found


@pytest.mark.parametrize(
    ("url", "variables", "expected"),
    [
        ("http://a.example", {"HTTP_PROXY": "p:1"}, "the proxy http://p:1 (HTTP_PROXY)"),
        (
            "http://a.example",
            {"HTTP_PROXY": "http://p:1", "http_proxy": "http://q:2"},
            "the proxy http://q:2 (http_proxy)",
        ),
        ("https://a.example", {"HTTP_PROXY": "http://p:1"}, "None"),
        ("https://a.example", {"ALL_PROXY": "http://u:v@p:1"}, "the proxy http://***@p:1 (ALL_PROXY)"),
        ("http://a.example:80", {"ALL_PROXY": "http://p:1", "NO_PROXY": "a.example"}, "None"),
        ("http://a.example:81", {"ALL_PROXY": "http://p:1", "NO_PROXY": "a.example:81"}, "None"),
        ("http://[::1]:3001", {"ALL_PROXY": "http://p:1", "NO_PROXY": "::1"}, "None"),
    ],
)
def test_proxy_for_an_address_follows_httpx(
    monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], expected: str
) -> None:
    """As in httpx, the variable in lower case takes precedence, and a host in NO_PROXY has no proxy."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(proxy_for(url)) == expected
