"""Callbacks: verified first, then parsed, then matched with their question, and refused unless all three succeed."""

import json
import secrets
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awaithumans_core.callback import MAX_BODY_BYTES, Callback, open_callback
from awaithumans_core.errors import CallbackRejectedError
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route, RouteSigner
from awaithumans_core.signing import KEY_BYTES, KeyRing, sign

SIGNATURE_HEADER = "X-Awaithumans-Signature"
TASK_ID_HEADER = "X-Awaithumans-Task-Id"
KEY = bytes([7]) * KEY_BYTES
SIGNER = RouteSigner([secrets.token_urlsafe(32)])
KEYS = KeyRing([KEY])
ROUTE = Route("temporal", {"workflow_id": "refund-1"}, "question-1")
TOKEN = SIGNER.issue(ROUTE)


def said(**fields: Any) -> bytes:
    """A callback body as the server sends it; a field that is `...` is left out."""
    whole = {
        "task_id": "task-1",
        "idempotency_key": "question-1",
        "status": "completed",
        "response": {"approved": True},
        "completed_at": "2026-01-02T10:00:00",
        "timed_out_at": None,
        "completed_by_email": "ann@example.com",
        "completed_via_channel": "dashboard",
        "verification_attempt": 0,
    } | fields
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def received(body: bytes, *, token: str = TOKEN, key: bytes = KEY, task_id: str | None = None) -> Callback:
    """Open a callback that carries a true signature of its body under this key."""
    headers = {SIGNATURE_HEADER: sign(body, key)} | ({} if task_id is None else {TASK_ID_HEADER: task_id})
    return open_callback(token, headers, body, signer=SIGNER, keys=KEYS)


def refusal(body: bytes, **more: Any) -> CallbackRejectedError:
    with pytest.raises(CallbackRejectedError) as raised:
        received(body, **more)
    return raised.value


def test_nothing_is_decoded_before_both_signatures_are_verified() -> None:
    """A valid token with a wrong signature is refused without decoding its content."""
    no_route = SIGNER._callbacks._serializer.dumps({"not": "a route"})
    with pytest.raises(CallbackRejectedError, match="the body is not signed"):
        open_callback(no_route, {SIGNATURE_HEADER: sign(said(), bytes(KEY_BYTES))}, said(), signer=SIGNER, keys=KEYS)
    assert "the token was not signed" in str(refusal(said(), token=no_route))


@pytest.mark.parametrize(
    ("status", "response"),
    [
        ("completed", {"approved": True}),
        ("completed", {}),
        ("timed_out", None),
        ("cancelled", None),
        ("verification_exhausted", None),
    ],
    ids=["completed", "completed with an empty object", "timed out", "cancelled", "verification exhausted"],
)
def test_each_terminal_status_is_accepted(status: str, response: dict[str, Any] | None) -> None:
    """Each of the four terminal statuses is returned with the route of the URL and the outcome of the body."""
    body = said(status=status, response=response)
    assert received(body) == Callback(ROUTE, Outcome.model_validate_json(body))


def test_outcome_names_person_time_and_channel() -> None:
    """A callback carries who decided, when, and on which channel."""
    outcome = received(said()).outcome
    assert outcome.completed_by_email == "ann@example.com"
    assert outcome.completed_via_channel == "dashboard"
    assert str(outcome.completed_at) == "2026-01-02 10:00:00+00:00"


@pytest.mark.parametrize(
    ("note", "read"),
    [
        (r"half \ud83d", "half \ufffd"),
        (r"\uDE00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"whole \ud83d\ude00", "whole \U0001f600"),
        (r"no escape \\ud83d", r"no escape \ud83d"),
        (r"\\\ud83d\n", "\\\ufffd\n"),
    ],
)
def test_truncated_character_does_not_lose_the_answer(note: str, read: str) -> None:
    """If a field's limit cuts an emoji in two and the server signs the rest, the answer is accepted."""
    body = said(response={"note": "..."}).replace(b'"..."', b'"%s"' % note.encode())
    assert received(body).outcome.response == {"note": read}


@pytest.mark.parametrize("depth", [150, 250, 400])
def test_too_deeply_nested_answer_still_wakes_the_caller(depth: int) -> None:
    """A response that is nested too deep to be read is left out of the outcome, and the caller is woken."""
    deep: Any = "end"
    for _ in range(depth):
        deep = [deep]
    outcome = received(said(response={"deep": deep})).outcome
    assert outcome.answered
    assert outcome.response == ({"deep": deep} if depth < 255 else None)


def test_header_names_are_case_insensitive() -> None:
    """Servers spell header names differently, so a case-insensitive mapping is enough."""
    body = said()
    headers = httpx.Headers({SIGNATURE_HEADER.lower(): sign(body, KEY), TASK_ID_HEADER.upper(): "task-1"})
    assert open_callback(TOKEN, headers, body, signer=SIGNER, keys=KEYS).route == ROUTE


def test_largest_possible_answer_is_accepted() -> None:
    """The server allows 5 MB of payload and response, and no such answer is too large."""
    assert received(said(response={"note": "x" * 5 * 1024 * 1024})).outcome.answered


def test_body_at_the_limit_is_accepted() -> None:
    """A body of exactly the maximum size is accepted."""
    padding = MAX_BODY_BYTES - len(said(response={"note": ""}))
    body = said(response={"note": "x" * padding})
    assert len(body) == MAX_BODY_BYTES
    assert received(body).outcome.answered


@pytest.mark.parametrize(("token", "status"), [(TOKEN, 413), ("nonsense", 401)], ids=["own URL", "any URL"])
def test_body_over_the_limit_is_413_for_valid_urls_only(token: str, status: int) -> None:
    """The holder of a valid URL learns that the body is too large, and anyone else gets a 401."""
    assert refusal(b" " * (MAX_BODY_BYTES + 1), token=token).http_status == status


def test_foreign_token_is_401() -> None:
    """A correctly signed body at a URL that was never issued has no effect."""
    foreign = RouteSigner([secrets.token_urlsafe(32)]).issue(ROUTE)
    assert refusal(said(), token=foreign).http_status == 401


def test_foreign_key_is_401() -> None:
    """A body signed with another key has no effect at a valid URL."""
    assert refusal(said(), key=bytes(KEY_BYTES)).http_status == 401


def test_missing_signature_is_401() -> None:
    """Without the header nothing can be verified."""
    with pytest.raises(CallbackRejectedError) as raised:
        open_callback(TOKEN, {}, said(), signer=SIGNER, keys=KEYS)
    assert raised.value.http_status == 401


@pytest.mark.parametrize("body", [b"", b"{", said(status="created"), said(idempotency_key="question-2")], ids=str)
def test_unverified_body_is_401_whatever_it_contains(body: bytes) -> None:
    """An unsigned body is a 401, so that a stranger learns nothing about parsing."""
    assert refusal(body, key=bytes(KEY_BYTES)).http_status == 401
    assert refusal(body, token="nonsense").http_status == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"completed"',
        b"[" * 100_000,
        said(task_id=...),
        said(task_id=7),
        said(status=...),
        said(status=None),
        said(response=[True]),
        said(response="yes"),
        said(status="created"),
        said(status="rejected"),
        said(status="escalated"),
        said(status="COMPLETED"),
        said(response=None),
        said(response=...),
    ],
    ids=[
        "empty",
        "cut",
        "not UTF-8",
        "null",
        "list",
        "text",
        "nested without end",
        "no task",
        "task is a number",
        "no status",
        "null status",
        "response is a list",
        "response is text",
        "created",
        "rejected",
        "unknown status",
        "status in capitals",
        "null response",
        "no response",
    ],
)
def test_signed_body_without_an_end_is_422(body: bytes) -> None:
    """A signed body that is malformed, pending or completed without a response is refused."""
    assert refusal(body).http_status == 422


def test_header_naming_another_task_is_422() -> None:
    """If header and body contradict each other, the callback is refused."""
    assert refusal(said(), task_id="task-2").http_status == 422


def test_header_naming_the_same_task_is_accepted() -> None:
    """The header is accepted as the server sends it."""
    assert received(said(), task_id="task-1").outcome.task_id == "task-1"


@pytest.mark.parametrize("key", ["question-2", "", None, ...], ids=["another", "empty", "null", "absent"])
def test_answer_to_another_question_is_403(key: Any) -> None:
    """A correct body at the correct URL of another question is not given to the wrong caller."""
    assert refusal(said(idempotency_key=key)).http_status == 403


def test_callback_does_not_answer_another_question_of_the_workflow() -> None:
    """The answer to a workflow's first question has no effect at the URL of its second."""
    second = SIGNER.issue(Route(ROUTE.engine, ROUTE.target, "question-2"))
    assert refusal(said(), token=second).http_status == 403


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "body: Invalid JSON"),
        (said(status=7), "status: Input should be a valid string"),
        (said(status="created"), "status 'created' with response present is not an answer"),
        (said(response=None), "status 'completed' with response absent is not an answer"),
    ],
    ids=["cut", "no status", "pending", "no response"],
)
def test_refusal_names_the_malformed_part(body: bytes, words: str) -> None:
    """The server's delivery log shows which part was not understood."""
    assert words in str(refusal(body))


def test_refusal_does_not_repeat_the_answer() -> None:
    """A person's answer is not part of texts that are logged."""
    assert "4111" not in str(refusal(said(response=["4111-1111"])))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
almost_callbacks = st.fixed_dictionaries(
    {},
    optional={
        "task_id": st.just("task-1") | json_values,
        "idempotency_key": st.just("question-1") | json_values,
        "status": st.sampled_from(["completed", "timed_out", "created"]) | json_values,
        "response": st.just({"approved": True}) | json_values,
        "completed_at": st.datetimes().map(str) | json_values,
        "verification_attempt": json_values,
    },
).map(lambda fields: json.dumps(fields).encode())


@given(
    st.just(TOKEN) | st.text(),
    st.dictionaries(st.sampled_from([SIGNATURE_HEADER, TASK_ID_HEADER]) | st.text(), st.text()),
    st.binary() | almost_callbacks,
)
def test_unsigned_callback_is_always_401(token: str, headers: dict[str, str], body: bytes) -> None:
    """No token, header or body without a signature gets any other reply."""
    with pytest.raises(CallbackRejectedError) as raised:
        open_callback(token, headers, body, signer=SIGNER, keys=KEYS)
    assert raised.value.http_status == 401


@given(st.none() | st.just("task-1") | st.text(), st.binary() | almost_callbacks)
def test_signed_callback_is_an_answer_or_a_documented_refusal(task_id: str | None, body: bytes) -> None:
    """Only a verified answer to the URL's own question is returned, and anything else is a documented refusal."""
    try:
        callback = received(body, task_id=task_id)
    except CallbackRejectedError as refused:
        assert refused.http_status in {403, 422}  # noqa: PT017 - either end is right, each in its own way
    else:
        assert callback.route == ROUTE
        assert callback.outcome.answered
        assert callback.outcome.idempotency_key == ROUTE.idempotency_key
