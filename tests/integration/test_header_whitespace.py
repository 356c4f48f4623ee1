"""Whitespace around a header value is ignored (RFC 9110), whichever HTTP parser uvicorn uses.

h11 removes it, while httptools keeps the whitespace after the value.
"""

import base64
import itertools
import json
import socket
from collections.abc import Generator, Mapping

import pytest

from awaithumans_core.signing import sign
from tests.support.threaded_relay import KEY, OPERATOR_TOKEN, ThreadedRelay, threaded_relay

NUMBERS = itertools.count()
BLANKS = {
    "spaces after": ("", "   "),
    "tab after": ("", "\t"),
    "both after": ("", " \t \t"),
    "spaces before": ("   ", ""),
    "tab before": ("\t", ""),
    "on both sides": ("\t ", " \t"),
}

around = pytest.mark.parametrize(("before", "after"), BLANKS.values(), ids=BLANKS)


@pytest.fixture(scope="module", params=["h11", "httptools"])
def relay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[ThreadedRelay]:
    database = f"sqlite:///{tmp_path_factory.mktemp('blanks') / 'waits.db'}"
    with threaded_relay(database, parser=request.param) as running:
        yield running


def send(relay: ThreadedRelay, verb: str, path: str, headers: Mapping[str, str], body: bytes = b"") -> int:
    """Return the status of a request with exactly these header lines, which an HTTP client would normalise."""
    lines = [f"{verb} {path} HTTP/1.1", "host:relay", "connection:close", f"content-length:{len(body)}"]
    lines += [f"{name}:{value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", relay.port), timeout=30) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return int(line.makefile("rb").readline().split()[1])


def callback() -> tuple[str, bytes]:
    """Return an idempotency key and a callback body with it."""
    key = f"blanks {next(NUMBERS)}"
    said = {"task_id": "task-1", "idempotency_key": key, "status": "completed", "response": {"approved": True}}
    return key, json.dumps(said).encode()


@around
def test_callback_with_header_whitespace_is_accepted(relay: ThreadedRelay, before: str, after: str) -> None:
    """A proxy that adds whitespace to the headers of a callback loses no answer."""
    key, body = callback()
    values = {"x-awaithumans-signature": sign(body, KEY), "x-awaithumans-task-id": "task-1"}
    headers = {name: f"{before}{value}{after}" for name, value in values.items()}
    assert send(relay, "POST", f"/callbacks/{relay.token(key)}", headers, body) == 200
    assert [row["task_id"] for row in relay.rows(key)] == ["task-1"]


@around
@pytest.mark.parametrize("verb", ["PUT", "GET"], ids=["registration", "operator"])
@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
def test_authorization_with_whitespace_is_accepted(
    relay: ThreadedRelay, verb: str, scheme: str, before: str, after: str
) -> None:
    """Registrations and the operator API ignore whitespace around the token."""
    key, _ = callback()
    if verb == "GET":
        path, body, token = "/waits", b"", OPERATOR_TOKEN
    else:
        path, body, token = "/waits/task-2", b'{"timeout_seconds": 900}', relay.proof(key, "task-2")
    if scheme == "Basic":
        token = base64.b64encode(f"any:{token}".encode()).decode()
    expected = 401 if (verb, scheme) == ("PUT", "Basic") else 200
    assert send(relay, verb, path, {"authorization": f"{before}{scheme}  {token}{after}"}, body) == expected


@pytest.mark.parametrize(
    "odd",
    ["{0[0]} {0[1]}", "{0}\xa0", "\xa0{0}", "{0},", "{0} {0}", "{0}\x0b", " ", "sha256 = {1}", "sha256= {1}", "{1}"],
    ids=[
        "blank inside",
        "other blank after",
        "other blank before",
        "comma",
        "twice",
        "vertical tab",
        "empty",
        "blanks around the sign",
        "blank after the sign",
        "no scheme",
    ],
)
def test_malformed_signature_is_refused(relay: ThreadedRelay, odd: str) -> None:
    """Only whitespace around the value is ignored; any other signature is refused and nothing is stored."""
    key, body = callback()
    true = sign(body, KEY)
    signature = odd.format(true, true.partition("=")[2])
    status = send(relay, "POST", f"/callbacks/{relay.token(key)}", {"x-awaithumans-signature": signature}, body)
    assert status in {400, 401}
    assert relay.rows(key) == []


def test_header_of_another_task_is_refused(relay: ThreadedRelay) -> None:
    """Whitespace does not make the header of one task match another."""
    key, body = callback()
    headers = {"x-awaithumans-signature": sign(body, KEY), "x-awaithumans-task-id": "task- 1"}
    assert send(relay, "POST", f"/callbacks/{relay.token(key)}", headers, body) == 422
    assert relay.rows(key) == []
