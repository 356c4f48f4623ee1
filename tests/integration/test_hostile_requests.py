"""Hostile requests to every endpoint of the relay, on both databases.

None causes a 5xx, a redirect or an unhandled exception, and only the signed answer to the signed question is stored.
"""

import itertools
import json
import socket
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from awaithumans_core import Outcome, Route
from awaithumans_core.callback import MAX_BODY_BYTES
from awaithumans_core.json_values import read_json
from awaithumans_core.signing import sign
from awaithumans_relay.store.table.rows import storable
from tests.support.threaded_relay import KEY, ThreadedRelay, threaded_relay

FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=50)
NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def relay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[ThreadedRelay]:
    database: str
    if request.param == "postgres":
        database = request.getfixturevalue("postgres").database()
    else:
        database = f"sqlite:///{tmp_path_factory.mktemp('threaded_relay') / 'waits.db'}"
    with threaded_relay(database) as running:
        yield running


@pytest.fixture(autouse=True)
def no_traceback(relay: ThreadedRelay) -> Generator[None]:
    """Check afterwards that the log has no traceback and the relay still accepts an answer."""
    relay.errors.clear()
    yield
    assert [error for error in relay.errors if "Traceback" in error] == []
    key = f"still there {next(NUMBERS)}"
    assert relay.call_back(relay.token(key), body(key)).status_code == 200


def body(key: str, **fields: Any) -> bytes:
    said = {"task_id": "task-1", "idempotency_key": key, "status": "completed", "response": {"approved": True}}
    return json.dumps(said | fields).encode()


def raw(relay: ThreadedRelay, request: bytes, more: bytes) -> bytes:
    """Return the relay's reply to these bytes, until one side closes the connection."""
    with socket.create_connection(("127.0.0.1", relay.port), timeout=60) as line:
        reply = b""
        with suppress(OSError):  # the relay may close the connection first
            line.sendall(request)
            line.sendall(more)
            line.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while chunk := line.recv(65536):
                reply += chunk
        return reply


TRUE, RAW_KEY = body("raw"), "raw"
REGISTRATION = b'{"timeout_seconds": 900}'
SIGNED = b"x-awaithumans-signature: " + sign(TRUE, KEY).encode()
SIZED = b"content-length: %d" % len(TRUE)
CHUNKED = b"transfer-encoding: chunked"
LONG = b"a" * 200_000


def posted(*headers: bytes, path: bytes = b"/callbacks/TOKEN", verb: bytes = b"POST") -> bytes:
    return b"\r\n".join([verb + b" " + path + b" HTTP/1.1", b"host: relay", *headers, b"", b""])


def registered(path: bytes, size: int = 24) -> bytes:
    return posted(b"authorization: Bearer TOKEN", b"content-length: %d" % size, path=path, verb=b"PUT")


ODD: dict[str, tuple[bytes, bytes]] = {
    "shorter than its content-length": (posted(SIGNED, b"content-length: 900"), TRUE),
    "longer than its content-length": (posted(SIGNED, b"content-length: 5"), TRUE),
    "negative length": (posted(SIGNED, b"content-length: -1"), TRUE),
    "endless length": (posted(SIGNED, b"content-length: 1" + b"0" * 40), TRUE),
    "two lengths": (posted(SIGNED, SIZED, b"content-length: 2"), TRUE),
    "length and chunks": (posted(SIGNED, SIZED, CHUNKED), TRUE),
    "chunk without size": (posted(SIGNED, CHUNKED), b"zz\r\n" + TRUE),
    "chunk that ends early": (posted(SIGNED, CHUNKED), b"ffffffff\r\n" + TRUE),
    "foreign encoding": (posted(SIGNED, b"transfer-encoding: gzip"), TRUE),
    "header not ascii": (posted(b"x-awaithumans-signature: \xff\xfe", SIZED), TRUE),
    "two signatures": (posted(b"x-awaithumans-signature: a", SIGNED, SIZED), TRUE),
    "header without value": (posted(b"x-awaithumans-signature", SIZED), TRUE),
    "overlong header": (posted(b"x-awaithumans-signature: " + LONG, SIZED), TRUE),
    "overlong path": (posted(SIGNED, SIZED, path=b"/callbacks/" + LONG), TRUE),
    "path not ascii": (posted(SIGNED, SIZED, path=b"/callbacks/\xc3\xa9"), TRUE),
    "path with null": (posted(SIGNED, SIZED, path=b"/callbacks/%00%ff"), TRUE),
    "dots": (posted(SIGNED, SIZED, path=b"/callbacks/.."), TRUE),
    "encoded dots and slash": (posted(SIGNED, SIZED, path=b"/callbacks/%2e%2e/%2F"), TRUE),
    "no token": (posted(SIGNED, SIZED, path=b"/callbacks"), TRUE),
    "empty token": (posted(SIGNED, SIZED, path=b"/callbacks/"), TRUE),
    "two slashes before": (posted(SIGNED, SIZED, path=b"//callbacks//TOKEN"), TRUE),
    "another verb": (posted(SIGNED, SIZED, verb=b"GET"), TRUE),
    "wait with null": (registered(b"/waits/%00"), REGISTRATION),
    "wait with slash": (registered(b"/waits/a%2Fb"), REGISTRATION),
    "wait with overlong id": (registered(b"/waits/" + b"a" * 300), REGISTRATION),
    "wait without end": (registered(b"/waits/a"), b'{"timeout_seconds": 9e9}'),
    "overlong registration": (registered(b"/waits/a", 5000), b" " * 5000),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00", b""),
    "nulls": (bytes(100), b""),
}


@pytest.mark.parametrize("odd", ODD)
def test_malformed_request_is_refused_and_stores_nothing(relay: ThreadedRelay, odd: str) -> None:
    """Requests that no HTTP library would send get no 5xx and no 3xx reply, and store nothing."""
    head, content = ODD[odd]
    reply = raw(relay, head.replace(b"TOKEN", relay.token(RAW_KEY).encode()), content)
    if reply:
        assert reply.split(maxsplit=2)[1][:1] == b"4", reply[:200]
    assert relay.rows(RAW_KEY) == []


@pytest.mark.parametrize("slashes", ["", "/", "//"])
def test_callback_with_trailing_slashes_is_accepted(relay: ThreadedRelay, slashes: str) -> None:
    """Inside an application that redirects, a callback URL with trailing slashes is accepted directly."""
    key = f"slashes {next(NUMBERS)}"
    assert relay.call_back(relay.token(key) + slashes, body(key)).status_code == 200


@pytest.mark.parametrize("content_type", ["text/xml", "multipart/form-data", "application/json; charset=utf-16", "é"])
def test_content_type_of_a_callback_is_ignored(relay: ThreadedRelay, content_type: str) -> None:
    """The signed bytes are read, whatever the content type."""
    key = f"typed {next(NUMBERS)}"
    reply = relay.http.post(
        f"/callbacks/{relay.token(key)}",
        content=body(key),
        headers=[
            (b"content-type", content_type.encode("latin-1")),
            (b"x-awaithumans-signature", sign(body(key), KEY).encode()),
        ],
    )
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "odd", [Route("\ud800", {}, "k"), Route("taker", {"\ud800": ""}, "k"), Route("taker", {}, "\ud800")]
)
def test_lone_surrogate_in_a_route_is_refused(relay: ThreadedRelay, odd: Route) -> None:
    """Both endpoints refuse text that a database cannot store or a page cannot show."""
    proof = relay.signer.prove(odd, "odd")
    replies = [
        relay.call_back(relay.signer.issue(odd), body(odd.idempotency_key)),
        relay.http.put("/waits/odd", content=REGISTRATION, headers={"Authorization": f"Bearer {proof}"}),
    ]
    assert [reply.status_code for reply in replies] in ([422, 422], [403, 422])
    assert relay.rows("k") == []


def test_endless_body_is_refused_soon_after_the_limit(relay: ThreadedRelay) -> None:
    """An endless body gets a reply, and the connection is closed soon after the limit."""
    head = posted(CHUNKED).replace(b"TOKEN", relay.token("endless").encode())
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", relay.port), timeout=60) as line, suppress(OSError):
        line.sendall(head)
        while sent < 10 * MAX_BODY_BYTES:
            line.sendall(chunk)
            sent += len(chunk)
    assert sent < MAX_BODY_BYTES + 8 * 1024 * 1024  # buffers of both sockets


HUGE = ["1e999", "1" + "0" * 400, "1" + "0" * 5000]
NO_NUMBERS = ["NaN", "-Infinity"]
TEXTS = ['"\\u0000"', '"\\ud800"', "null", "true", "1.0"]
NAMES = ['"a"', '"approved"', '"\\u0000"', '"status"']


def listed(items: list[str]) -> str:
    return f"[{','.join(items)}]"


def mapped(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


json_texts = st.recursive(
    st.sampled_from(HUGE + NO_NUMBERS + TEXTS)
    | st.text(max_size=5).map(json.dumps)
    | st.integers(1, 400).map(lambda depth: "[" * depth + "]" * depth),
    lambda inner: (
        st.lists(inner, max_size=3).map(listed)
        | st.lists(st.tuples(st.sampled_from(NAMES), inner), max_size=3).map(mapped)
    ),
    max_leaves=6,
)
responses = json_texts | json_texts.map(lambda value: mapped([('"a"', value)]))
task_ids = st.sampled_from(["task", "t" * 255, "t" * 256, "a\x00b", "", "\n", "\u202e", "é/.."]).map(json.dumps)
fields = st.sampled_from(["task_id", "idempotency_key", "status", "response", "completed_at", "response_omitted", "id"])
prefixes = st.sampled_from([b"", b"\xef\xbb\xbf", b" " * 9, b"\xff"])


@MANY
@given(task_ids, responses, st.lists(st.tuples(fields.map(json.dumps), json_texts), max_size=2), prefixes)
def test_signed_body_is_refused_or_stored_unchanged(
    relay: ThreadedRelay, task_id: str, response: str, more: list[tuple[str, str]], before: bytes
) -> None:
    """However unusual, a signed body is refused without a trace or stored as the one answer it is.

    Content that cannot be stored is omitted, and the outcome gives the reason, so that the caller is woken all the
    same.
    """
    key = f"signed {next(NUMBERS)}"
    said = [('"task_id"', task_id), ('"idempotency_key"', f'"{key}"'), ('"status"', '"completed"')]
    content = before + mapped([*said, ('"response"', response), *more]).encode()
    reply = relay.call_back(relay.token(key), content)
    stored = relay.rows(key)
    if reply.status_code == 200:
        outcome = storable(Outcome.model_validate(read_json(content)))
        assert outcome.answered
        assert [(row["task_id"], row["outcome"]) for row in stored] == [(outcome.task_id, outcome.value())]
    else:
        assert reply.status_code in {403, 422}
        assert stored == []


@st.composite
def altered(draw: st.DrawFn, true: str) -> str:
    """Return this text with one small change."""
    place = draw(st.integers(0, len(true) - 3))
    sign_ = draw(
        st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f/?#%\\", exclude_categories=["Cc"])
    )
    return draw(
        st.sampled_from(
            [
                true[:place],
                true[place:],
                true[:place] + sign_ + true[place + 1 :],
                true + sign_,
                sign_ + true,
                true.upper(),
                true.swapcase(),
                true.removeprefix("sha256="),
                true.replace("sha256=", "SHA256="),
                true.replace("sha256=", "sha512="),
                true.replace("sha256=", "sha256=sha256="),
                true.replace("sha256=", "sha256:"),
                f"{true},{true}",
                true[::-1],
                true * 100,
            ]
        )
    )


@MANY
@given(st.data())
def test_altered_proof_of_a_wait_is_401_at_both_endpoints(relay: ThreadedRelay, data: st.DataObject) -> None:
    """A proof for another task or for asking, or with any change, gets the same 401."""
    key, task_id = "registrations", data.draw(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
    assume(task_id != "asked")
    true = relay.proof(key, task_id)
    others = [relay.token(key), relay.proof(key, f"{task_id}x"[:64] + "y"), relay.proof(key, None)]
    given_proof = data.draw(st.sampled_from(others) | altered(true))
    assume(given_proof != true)
    held = [(b"authorization", f"Bearer {given_proof}".encode("latin-1"))]
    replies = [relay.http.put(f"/waits/{task_id}", content=REGISTRATION, headers=held)]
    if given_proof != others[2]:
        replies.append(relay.http.get("/waits/asked", headers=held))
    stranger = relay.http.put("/waits/x", content=b"")
    assert {(reply.status_code, reply.content) for reply in replies} == {(401, stranger.content)}
    assert relay.rows(key) == []


TOKEN_KEY = "proofs"


@MANY
@given(st.data())
def test_altered_proof_of_a_callback_is_401_and_stores_nothing(relay: ThreadedRelay, data: st.DataObject) -> None:
    """Whichever proof is altered, the caller gets the same 401, and nothing is stored."""
    token, signature = relay.token(TOKEN_KEY), sign(body(TOKEN_KEY), KEY)
    which = data.draw(st.sampled_from(["token", "signature", "both"]))
    given_token = data.draw(altered(token)) if which != "signature" else token
    given_signature = data.draw(altered(signature)) if which != "token" else signature
    assume((given_token, given_signature) != (token, signature))
    reply = relay.http.post(
        f"/callbacks/{given_token}",
        content=body(TOKEN_KEY),
        headers=[(b"x-awaithumans-signature", given_signature.encode("latin-1"))],
    )
    stranger = relay.http.post("/callbacks/x", content=b"")
    assert (reply.status_code, reply.content) == (401, stranger.content)
    assert relay.rows(TOKEN_KEY) == []


def test_replies_do_not_reveal_which_tasks_exist(relay: ThreadedRelay) -> None:
    """A known task, an unknown one, a forged token and a forged signature get the same reply."""
    key = f"known {next(NUMBERS)}"
    held = {"Authorization": f"Bearer {relay.proof(key, 'known')}"}
    leaked = {"Authorization": f"Bearer {relay.token(key)}"}
    assert relay.http.put("/waits/known", json={"timeout_seconds": 900}, headers=held).status_code == 200
    forged = {"Authorization": "Bearer forged.token"}
    replies = [
        relay.http.put("/waits/known", json={"timeout_seconds": 900}, headers=forged),
        relay.http.put("/waits/unknown", json={"timeout_seconds": 900}, headers=forged),
        relay.http.put("/waits/known", json={"timeout_seconds": 900}, headers=leaked),
        relay.http.put("/waits/other", json={"timeout_seconds": 900}, headers=held),
        relay.http.get("/waits/asked", headers=leaked),
        relay.http.get("/waits/asked", headers=held),
        relay.http.get("/waits/report"),
        relay.http.get("/waits/report", headers=forged),
        relay.http.get("/waits/report", headers=leaked),
        relay.http.get("/waits/report", headers=held),
        relay.http.get("/waits/report", headers={"Authorization": f"Bearer {relay.proof(key, None)}"}),
        relay.http.put("/waits/known", content=b"{", headers=forged),
        relay.http.put("/waits/known", content=b" " * 5000),
        relay.http.post("/callbacks/forged.token", content=body(key)),
        relay.http.post(f"/callbacks/{relay.token(key)}", content=body(key)),
        relay.http.post("/callbacks/forged.token", content=b" " * 200_000),
        relay.http.post(f"/callbacks/{relay.token(key)}", content=b" " * 200_000),
    ]
    seen = {
        (reply.status_code, reply.content, *sorted((n, v) for n, v in reply.headers.items() if n != "date"))
        for reply in replies
    }
    assert len(seen) == 1
    assert {reply.status_code for reply in replies} == {401}


CHECKS: list[Any] = [not_a_server_error, content_type_conformance, response_schema_conformance]


@pytest.mark.filterwarnings("ignore")  # schemathesis's own
@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", "/callbacks/{token}"),
        ("PUT", "/waits/{task_id}"),
        ("GET", "/waits/asked"),
        ("GET", "/waits/report"),
    ],
)
def test_generated_requests_get_documented_replies(relay: ThreadedRelay, verb: str, path: str, signed: bool) -> None:  # noqa: FBT001
    """Every request generated from the OpenAPI document gets a documented reply, with and without proofs."""
    document = schemathesis.openapi.from_url(f"{relay.url}/openapi.json")
    strategy = document[path][verb].as_strategy()

    def signature(prepared: Any) -> Any:
        prepared.headers["X-Awaithumans-Signature"] = sign(prepared.body or b"", KEY)
        return prepared

    @settings(FEW, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def conforms(case: Any) -> None:
        if signed:
            if path.startswith("/callbacks"):
                case.path_parameters["token"] = relay.token(case.body["idempotency_key"][:500])
            else:
                task_id = case.path_parameters.get("task_id")
                case.headers["Authorization"] = f"Bearer {relay.proof(f'schema {next(NUMBERS)}', task_id)}"
        before = len(relay.rows())
        reply = case.call_and_validate(checks=CHECKS, allow_redirects=False, auth=signature if signed else None)
        assert 200 <= reply.status_code < 300 or reply.status_code >= 400
        assert signed or len(relay.rows()) == before

    conforms()
