"""Tests of the conversations with the task API and the relay: each request and the handling of each reply."""

import itertools
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from awaithumans_core.deleted_tasks import Readings
from awaithumans_core.errors import (
    AuthenticationError,
    AwaitHumansError,
    CallbackRejectedError,
    InvalidTaskError,
    PermissionDeniedError,
    QuestionChangedError,
    RequestRefusedError,
    ServerUnreachableError,
    SettingsError,
    TaskNotFoundError,
    TaskRejectedError,
    TaskTimeoutError,
    UnexpectedReplyError,
)
from awaithumans_core.failure_cause import Cause, cause_of
from awaithumans_core.flow import (
    ASKED_BY,
    HEAVY_PAGE_BYTES,
    MAX_PAGE_TASKS,
    Call,
    Flow,
    Lost,
    Notice,
    Patience,
    Pause,
    Proofs,
    Proxy,
    Reply,
    ask,
    close,
    close_if_marked,
    close_if_mine,
    create,
    ended_page,
    finish,
    follow,
    get,
    last_look,
    open_page,
    open_wait,
    poll,
    relay_report,
    withdraw,
    withdraw_key,
)
from awaithumans_core.outcome import Outcome
from awaithumans_core.task import AGAIN
from tests.unit.scripted import START, Conversation, Delayed, Event, held_poll, poll_reply, record, reply

BODY = {"task": "Approve?", "timeout_seconds": 900, "idempotency_key": "question-1"}
RELAY = "http://relay.example"
TOKEN = "the.route.token"
ASKING = "the proof of the caller that asks"
PROOFS = Proofs(TOKEN, lambda task_id: f"the proof for {task_id}", lambda: ASKING)
ANSWER = {"approved": True}

CREATE = "POST /api/tasks"
LIST = "GET /api/tasks"
GET = "GET /api/tasks/task-1"
POLL = "GET /api/tasks/task-1/poll"
CANCEL = "POST /api/tasks/task-1/cancel"
REGISTER = f"PUT {RELAY}/waits/task-1"

REFUSED = Lost("ConnectError: refused")
GONE = reply(404, {"error": "TASK_NOT_FOUND", "message": "Task 'task-1' not found."})
OPEN = reply(200, record("notified"))
ENDED = reply(409, {"error": "TASK_ALREADY_TERMINAL", "message": "Task 'task-1' has ended."})
DONE = reply(200, record("completed", response=ANSWER))
HTML = reply(200, b"<html>Welcome</html>", content_type="text/html")
PROXY_404 = reply(404, b"<html>nginx</html>", content_type="text/html")

TROUBLES: dict[str, Reply | Lost] = {
    "lost": REFUSED,
    "408": reply(408, {"detail": "too slow"}),
    "425": reply(425, {"detail": "too early"}),
    "429": reply(429, {"detail": "too many"}),
    "500": reply(500, {"error": "INTERNAL_ERROR"}),
    "502": reply(502, b"Bad Gateway"),
    "503": reply(503, b""),
    "a cut body": reply(200, b'{"id": "task-1", "status": "cre'),
    "an empty body": reply(200, b""),
    "no UTF-8": reply(200, b"\xff\xfe"),
    "a page": HTML,
    "a JSON list": reply(200, [record()]),
    "another API": reply(200, {"hello": "world"}),
    "a status that is no text": reply(200, {"id": "task-1", "status": 7}),
    "a proxy's 404": PROXY_404,
}
every_trouble = pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)

ONE_CALL: dict[str, Callable[[Patience], Flow[Outcome]]] = {
    "create": lambda patience: create(BODY, patience),
    "get": lambda patience: get("task-1", patience),
    "poll": lambda patience: poll("task-1", patience),
    "close": lambda patience: close("task-1", patience),
}
every_call = pytest.mark.parametrize("flow", ONE_CALL.values(), ids=ONE_CALL)


def refused_with(kind: type[AwaitHumansError], talk: Conversation, flow: Flow[Any]) -> Any:
    """Drive a flow that must end in exactly this error."""
    with pytest.raises(kind) as raised:
        talk.run(flow)
    assert type(raised.value) is kind
    return raised.value


# --- create


def test_create_sends_body_and_reads_record() -> None:
    """Creating a task is one call that carries the body unchanged and uses the driver's own token."""
    talk = Conversation([reply(201, record())])
    assert talk.run(create(BODY, talk.patience)) == Outcome.model_validate(record())
    assert talk.steps == [Call("POST", "/api/tasks", json=BODY)]


def test_create_with_known_key_returns_existing_task() -> None:
    """A known key returns the task that it belongs to, whether that task has ended or not."""
    known = record("completed", response=ANSWER)
    talk = Conversation([reply(201, known, idempotent_replayed="true")])
    assert talk.run(create(BODY, talk.patience)).response == ANSWER


@pytest.mark.parametrize(
    "asked",
    [
        {"payload": {"amount": 251}},
        {"payload": {"amount": "250"}},
        {"payload": {"amount": 250, "to": "Bob"}},
        {"payload": {}, "task": "Another?"},
    ],
    ids=["another value", "another type", "another field", "no payload and another text"],
)
@pytest.mark.parametrize("status", ["created", "completed"])
def test_create_with_key_of_another_question_is_refused(asked: dict[str, Any], status: str) -> None:
    """A decision about one payload is never taken as the answer to another question with the same key."""
    known = record(status, task="Approve?", payload={"amount": 250} if asked["payload"] else {}, response=ANSWER)
    talk = Conversation([reply(201, known, idempotent_replayed="true")])
    error = refused_with(QuestionChangedError, talk, create(BODY | asked, talk.patience))
    assert error.task_id == "task-1"
    assert "question-1" in str(error)


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (
            {"payload": {"a": 1, "b": [2.5, None, "é"]}},
            {"payload": {"b": [2.5, None, "é"], "a": 1}, "task": "Approve?"},
        ),
        ({"payload": {}}, {"payload": {}, "task": "Approve?"}),
        ({"payload": {"a": 1}}, {"payload": {"_redacted": True}, "task": "Approve?"}),
        ({"payload": {"a": 1}}, {"payload": None, "task": "Approve?"}),
        ({"payload": {"a": 1}}, {}),
    ],
    ids=["the same in another order", "no payload", "redacted", "erased", "not shown"],
)
def test_create_with_key_of_same_question_is_accepted(asked: dict[str, Any], shown: dict[str, Any]) -> None:
    """A restarted caller gets its answer, also from a server that hides payloads."""
    talk = Conversation([reply(201, record("completed", response=ANSWER, **shown), idempotent_replayed="true")])
    assert talk.run(create(BODY | asked, talk.patience)).response == ANSWER


@pytest.mark.parametrize("same_words", [True, False])
def test_reworded_question_is_refused_unless_rewording_is_allowed(same_words: bool) -> None:  # noqa: FBT001
    """The text may be all that identifies a question, so only engines whose keys are positions may change it."""
    known = record("completed", response=ANSWER, task="Refund $250?", payload={"order": "A"})
    talk = Conversation([reply(201, known, idempotent_replayed="true")])
    asked = BODY | {"task": "Refund $2500000?", "payload": {"order": "A"}}
    opening = open_wait(asked, RELAY, PROOFS, talk.patience, same_words=same_words)
    if same_words:
        refused_with(QuestionChangedError, talk, opening)
    else:
        assert talk.run(opening).response == ANSWER


def test_derived_key_of_another_caller_is_refused() -> None:
    """A caller's own key may look like a derived key, but its answer is not taken for that of a repeated question."""
    known = record("completed", response=ANSWER, task="Something else?", payload={"amount": 250})
    talk = Conversation([reply(201, known, idempotent_replayed="true")])
    asked = BODY | {"task": f"Approve?{AGAIN}approved: wrong)", "payload": {"amount": 250}}
    refused_with(QuestionChangedError, talk, create(asked, talk.patience))


def test_record_with_another_key_or_id_is_rejected() -> None:
    """A record with another key or another task id is never taken for the requested one."""
    talk = Conversation([reply(201, record(idempotency_key="another")), reply(201, record())])
    assert talk.run(create(BODY, talk.patience)).idempotency_key == "question-1"
    talk = Conversation([reply(200, record(id="task-2")), reply(200, record())])
    assert talk.run(get("task-1", talk.patience)).task_id == "task-1"


def test_deeply_nested_answer_is_read() -> None:
    """An answer that the server has stored is read at any nesting depth that it accepts."""
    deep: Any = []
    for _ in range(240):
        deep = [deep]
    body = json.dumps(record("completed", response={"deep": deep})).encode()
    talk = Conversation([reply(200, body)])
    assert talk.run(get("task-1", talk.patience)).response == {"deep": deep}


def test_endlessly_nested_reply_is_an_unusable_reply() -> None:
    """A reply that is nested too deep to be parsed counts as unusable and does not crash the caller."""
    talk = Conversation([reply(200, b"[" * 100_000), reply(200, record())])
    assert talk.run(get("task-1", talk.patience)).task_id == "task-1"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, TaskRejectedError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, TaskRejectedError),
        (409, TaskRejectedError),
        (413, TaskRejectedError),
        (422, TaskRejectedError),
    ],
)
@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"error": "NOT_SO", "message": "Not like this.", "docs": "https://..."}, "NOT_SO", "Not like this."),
        ({"error_code": "NOT_SO", "message": "Not like this."}, "NOT_SO", "Not like this."),
        ({"error": "NOT_SO"}, "NOT_SO", "NOT_SO"),
        ({"detail": "Not like this."}, None, "Not like this."),
        (
            {"detail": [{"loc": ["body", "timeout_seconds"], "msg": "too small"}, {"loc": ["body", 0], "msg": "odd"}]},
            None,
            "body.timeout_seconds: too small; body.0: odd",
        ),
    ],
    ids=["error", "error_code", "error alone", "detail", "details"],
)
def test_refusal_is_typed_error_with_server_message(
    status: int, kind: type[RequestRefusedError], body: Any, code: str | None, words: str
) -> None:
    """Each 4xx raises its typed error at once, and every error shape of the server is read."""
    talk = Conversation([reply(status, body)])
    error = refused_with(kind, talk, create(BODY, talk.patience))
    assert error.status_code == status
    assert error.server_code == code
    assert words in str(error)
    assert talk.requests == [CREATE]


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [{"loc": None, "msg": "odd"}]},
        {"detail": [{"loc": 7, "msg": "odd"}]},
        {"detail": ["odd"]},
        {"detail": {"error": "odd"}},
        {"message": {"odd": 1}},
        {"error": ["odd"]},
        {},
        [],
        None,
        b"odd",
        b"",
    ],
    ids=str,
)
def test_refusal_with_unreadable_body_is_typed_error(body: Any) -> None:
    """A 4xx with any other body still raises the typed error with its status."""
    talk = Conversation([reply(422, body)])
    error = refused_with(TaskRejectedError, talk, create(BODY, talk.patience))
    assert error.status_code == 422
    assert "422" in str(error)


@pytest.mark.parametrize(("status", "advice"), [(401, "AWAITHUMANS_ADMIN_API_TOKEN"), (403, "a token of an operator")])
@every_call
def test_refused_token_names_the_setting(flow: Callable[[Patience], Flow[Outcome]], status: int, advice: str) -> None:
    """401 and 403 mean the same for every call, and the error names the setting to check."""
    talk = Conversation([reply(status, {"detail": "no"})])
    error = refused_with({401: AuthenticationError, 403: PermissionDeniedError}[status], talk, flow(talk.patience))
    assert advice in str(error)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@every_call
def test_redirect_is_a_settings_error(flow: Callable[[Patience], Flow[Outcome]], status: int) -> None:
    """A redirect is neither followed nor retried, and the error names the address to configure."""
    talk = Conversation([reply(status, b"", location="https://humans.example/")])
    error = refused_with(UnexpectedReplyError, talk, flow(talk.patience))
    assert "https://humans.example/" in str(error)
    assert len(talk.calls) == 1


# --- retries


@every_trouble
@every_call
def test_unusable_reply_is_retried_after_half_a_second(
    flow: Callable[[Patience], Flow[Outcome]], trouble: Reply | Lost
) -> None:
    """After a reply that is not part of the API, the same call is repeated half a second later."""
    if flow is ONE_CALL["poll"] and trouble is TROUBLES["another API"]:
        trouble = reply(200, {"id": "task-1"})  # a poll reply has no id to miss
    talk = Conversation([trouble, reply(200, record("cancelled") if flow is ONE_CALL["close"] else record())])
    assert talk.run(flow(talk.patience)).status in {"created", "cancelled"}
    first, pause, second = talk.steps
    assert first == second
    assert isinstance(pause, Pause)
    assert pause.seconds == 0.5


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (REFUSED, "ConnectError: refused"),
        (reply(503, b"", content_type="text/plain"), "503 text/plain"),
        (reply(502, b""), "502 without a content type"),
        (HTML, "200 whose body is not the API's"),
    ],
    ids=["lost", "503", "502", "a page"],
)
def test_pause_reports_its_reason(trouble: Reply | Lost, reason: str) -> None:
    """One line tells an operator why the client is pausing."""
    talk = Conversation([trouble, reply(200, record())])
    talk.run(get("task-1", talk.patience))
    assert reason in talk.pauses[0].reason


def test_pauses_grow_with_every_failure() -> None:
    """Each further failure lengthens the pause, so an overloaded server is not called twice a second."""
    talk = Conversation([REFUSED] * 8 + [reply(200, record())], seconds=900)
    talk.run(get("task-1", talk.patience))
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("status", [429, 503, 200])
def test_retry_after_in_seconds_is_respected(status: int) -> None:
    """The pause lasts as long as the header of any reply asks for."""
    talk = Conversation([reply(status, b"", retry_after="7"), reply(200, record())])
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 7


def test_retry_after_as_date_is_respected() -> None:
    """The date form of the header is relative to the server's own date, because clocks may differ by years."""
    sent = datetime(2031, 1, 1, tzinfo=UTC)
    then = format_datetime(sent + timedelta(seconds=30), usegmt=True)
    talk = Conversation(
        [reply(503, b"", retry_after=then, date=format_datetime(sent, usegmt=True)), reply(200, record())]
    )
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 30


@pytest.mark.parametrize("date", [None, "yesterday"], ids=["no date", "no date at all"])
def test_retry_after_as_date_without_server_date_is_ignored(date: str | None) -> None:
    """Without the server's date the pause cannot be computed, so the usual pause applies."""
    then = format_datetime(datetime(2031, 1, 1, tzinfo=UTC), usegmt=True)
    headers = {"retry_after": then} | ({"date": date} if date else {})
    talk = Conversation([reply(503, b"", **headers), reply(200, record())])
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 0.5


@pytest.mark.parametrize(
    "value",
    ["", "0", "-5", "soon", "nan", "inf", "1e999", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 2015", "\ud800"],
    ids=ascii,
)
def test_invalid_or_past_retry_after_is_ignored(value: str) -> None:
    """A header that is malformed or names a time in the past does not change the pause."""
    talk = Conversation([reply(503, b"", retry_after=value), reply(200, record())])
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 0.5


GIVING_UP: dict[str, tuple[Reply | Lost, type[ServerUnreachableError]]] = {
    "lost": (REFUSED, ServerUnreachableError),
    "500": (TROUBLES["500"], ServerUnreachableError),
    "503": (TROUBLES["503"], ServerUnreachableError),
    "408": (TROUBLES["408"], ServerUnreachableError),
    "425": (TROUBLES["425"], ServerUnreachableError),
    "429": (TROUBLES["429"], ServerUnreachableError),
    "a page": (HTML, UnexpectedReplyError),
    "another API": (reply(200, {"id": "task-1"}), UnexpectedReplyError),
    "a proxy's 404": (PROXY_404, UnexpectedReplyError),
}


@pytest.mark.parametrize(("trouble", "kind"), GIVING_UP.values(), ids=GIVING_UP)
def test_error_after_last_retry_names_the_cause(trouble: Reply | Lost, kind: type[ServerUnreachableError]) -> None:
    """An unreachable or overloaded server and a wrong address raise different errors."""
    talk = Conversation([], then=trouble, seconds=10)
    error = refused_with(kind, talk, create(BODY, talk.patience))
    assert error.url == "/api/tasks"
    assert error.attempts == len(talk.calls) == 5
    assert "5 attempts" in str(error)
    assert talk.clock.now <= 1010


def test_slow_failures_use_up_retry_time() -> None:
    """Retries are limited by time and not by number, so calls that hang count as well."""
    talk = Conversation([], then=Delayed(15.0, Lost("ReadTimeout")), seconds=40)
    error = refused_with(ServerUnreachableError, talk, get("task-1", talk.patience))
    assert error.attempts == 3


def test_pause_longer_than_remaining_retry_time_is_not_started() -> None:
    """If the server asks for a longer pause than there is time for, the caller gets the error immediately."""
    talk = Conversation([reply(503, b"", retry_after="45")], seconds=30)
    refused_with(ServerUnreachableError, talk, get("task-1", talk.patience))
    assert talk.pauses == []


def test_retry_after_is_limited_to_a_minute() -> None:
    """A maintenance page that asks for hours does not delay an answer for hours."""
    talk = Conversation([reply(503, b"", retry_after="7200"), reply(200, record())], seconds=900)
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 60


# --- get, poll, close


def test_get_reads_once() -> None:
    """`get` makes exactly one plain read."""
    talk = Conversation([reply(200, record("notified"))])
    assert talk.run(get("task-1", talk.patience)).status == "notified"
    assert talk.steps == [Call("GET", "/api/tasks/task-1")]


@pytest.mark.parametrize("seconds", [1, 25, 30])
def test_poll_read_timeout_exceeds_hold_time(seconds: int) -> None:
    """The request names how long the server may hold it, and the client waits ten seconds longer."""
    talk = Conversation([poll_reply()])
    talk.run(poll("task-1", talk.patience, seconds=seconds))
    assert talk.steps == [
        Call("GET", "/api/tasks/task-1/poll", params={"timeout": seconds}, timeout=seconds + 10.0),
    ]


def test_poll_is_held_for_25_seconds_by_default() -> None:
    """A poll is held for the documented default of 25 seconds."""
    talk = Conversation([poll_reply()])
    talk.run(poll("task-1", talk.patience))
    assert talk.calls[0].params == {"timeout": 25}


def test_poll_outcome_names_its_task() -> None:
    """Poll replies do not name the task, but the outcome does."""
    talk = Conversation([poll_reply("notified")])
    outcome = talk.run(poll("task-1", talk.patience))
    assert (outcome.task_id, outcome.status) == ("task-1", "notified")


@pytest.mark.parametrize("name", ["get", "poll", "close"])
@pytest.mark.parametrize("word", ["error", "error_code"])
def test_unknown_task_raises_not_found(name: str, word: str) -> None:
    """The server's own 404, in the form it sends and in the documented form, raises an error that names the task."""
    talk = Conversation([reply(404, {word: "TASK_NOT_FOUND", "message": "Task 'task-1' not found."})])
    error = refused_with(TaskNotFoundError, talk, ONE_CALL[name](talk.patience))
    assert error.task_id == "task-1"
    assert error.status_code == 404


@pytest.mark.parametrize("name", ["get", "poll", "close"])
def test_unknown_task_error_does_not_question_the_address(name: str) -> None:
    """A server that replies TASK_NOT_FOUND is the right server, so the error does not mention AWAITHUMANS_URL."""
    talk = Conversation([GONE])
    assert "AWAITHUMANS_URL" not in str(refused_with(TaskNotFoundError, talk, ONE_CALL[name](talk.patience)))


def test_404_at_create_questions_the_address() -> None:
    """No task can be missing at creation, so the error names the address as the thing to check."""
    talk = Conversation([reply(404, {"detail": "Not Found"})])
    assert "AWAITHUMANS_URL" in str(refused_with(TaskRejectedError, talk, create(BODY, talk.patience)))


@pytest.mark.parametrize("name", ["get", "poll", "close"])
def test_404_of_another_service_is_not_a_missing_task(name: str) -> None:
    """A 404 of another service means that the address is wrong, not that the task does not exist."""
    talk = Conversation([reply(404, {"detail": "Not Found"})])
    error = refused_with(UnexpectedReplyError, talk, ONE_CALL[name](talk.patience))
    assert "Is this the awaithumans server?" in str(error)


@pytest.mark.parametrize("name", ["get", "poll", "close"])
def test_other_refusal_raises_general_error(name: str) -> None:
    """A refusal without an error class of its own still carries its status and the task."""
    talk = Conversation([reply(400, {"detail": "no"})])
    error = refused_with(RequestRefusedError, talk, ONE_CALL[name](talk.patience))
    assert (error.status_code, error.task_id) == (400, "task-1")


def test_close_cancels_open_task() -> None:
    """An open task is cancelled, so that nobody answers it in vain."""
    talk = Conversation([reply(200, record("cancelled"))])
    assert talk.run(close("task-1", talk.patience)).status == "cancelled"
    assert talk.steps == [Call("POST", "/api/tasks/task-1/cancel")]


def test_close_returns_answer_given_before() -> None:
    """Closing a task that has been answered is no failure and returns the answer."""
    talk = Conversation([ENDED, reply(200, record("completed", response=ANSWER))])
    assert talk.run(close("task-1", talk.patience)).response == ANSWER
    assert talk.requests == [CANCEL, GET]


def test_close_after_lost_reply_reports_cancelled() -> None:
    """A cancellation whose reply was lost gets 409 the second time, and the task counts as cancelled."""
    talk = Conversation([REFUSED, ENDED, reply(200, record("cancelled"))])
    assert talk.run(close("task-1", talk.patience)).status == "cancelled"
    assert talk.requests == [CANCEL, CANCEL, GET]


# --- follow


def test_follow_returns_answer_immediately() -> None:
    """The wait ends with the first poll that reports the end of the task."""
    talk = Conversation([Delayed(3.0, poll_reply("completed", ANSWER)), DONE])
    assert talk.run(follow("task-1", 900, talk.patience)).response == ANSWER
    assert talk.requests == [POLL, GET]
    assert talk.pauses == []


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_follow_returns_each_terminal_status(status: str) -> None:
    """Each of the four terminal statuses ends the wait and is returned unchanged."""
    talk = Conversation([held_poll(), poll_reply(status), reply(200, record(status))])
    assert talk.run(follow("task-1", 900, talk.patience)).status == status


def test_follow_repeats_held_polls_without_pause() -> None:
    """Held polls follow one another without a pause until the task ends."""
    talk = Conversation(
        [held_poll(), held_poll("notified"), held_poll("in_progress"), poll_reply("completed", ANSWER), DONE]
    )
    talk.run(follow("task-1", 900, talk.patience))
    assert talk.requests == [POLL] * 4 + [GET]
    assert talk.pauses == []


def test_follow_reports_each_status_once() -> None:
    """Every change of status is reported once, and the end is the result instead of a report."""
    seen = ["created", "created", "notified", "notified", "created"]
    talk = Conversation([*(held_poll(status) for status in seen), poll_reply("completed", ANSWER), DONE])
    talk.run(follow("task-1", 900, talk.patience))
    assert talk.reported_statuses == ["created", "notified", "created"]


def test_follow_treats_unknown_status_as_pending() -> None:
    """A status of a newer server ends no wait and is reported like any other."""
    talk = Conversation([held_poll("escalated"), poll_reply("completed", ANSWER), DONE])
    assert talk.run(follow("task-1", 900, talk.patience)).status == "completed"
    assert talk.reported_statuses == ["escalated"]


def test_follow_slows_down_when_polls_are_not_held() -> None:
    """A server or proxy that replies `pending` at once is polled at growing intervals."""
    talk = Conversation([poll_reply()] * 4 + [poll_reply("completed", ANSWER), DONE])
    talk.run(follow("task-1", 900, talk.patience))
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 2, 4]


def test_follow_resets_interval_after_held_poll() -> None:
    """After one held poll, the next quick reply starts with the shortest interval again."""
    talk = Conversation([poll_reply(), poll_reply(), held_poll(), poll_reply(), poll_reply("completed", ANSWER), DONE])
    talk.run(follow("task-1", 900, talk.patience))
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 0.5]


def test_follow_last_poll_ends_at_deadline() -> None:
    """The last poll is held for the remaining time, and for one second at least."""
    talk = Conversation(
        [
            held_poll(),
            Delayed(7.0, poll_reply()),
            Delayed(0.6, poll_reply()),
            Delayed(1.0, poll_reply()),
            reply(200, record("cancelled")),
        ]
    )
    talk.run(follow("task-1", 33.0, talk.patience))
    assert [call.params for call in talk.calls[:4]] == [{"timeout": seconds} for seconds in (25, 8, 1, 1)]


def test_follow_closes_task_at_deadline() -> None:
    """A task without an answer is closed at its deadline, and the result is a timeout and not a cancellation."""
    talk = Conversation([held_poll(), held_poll(), OPEN, reply(200, record("cancelled"))])
    assert talk.run(follow("task-1", 50, talk.patience)).status == "timed_out"
    assert talk.requests == [POLL, POLL, GET, CANCEL]
    assert talk.clock.now == 1050


def test_answer_between_last_poll_and_deadline_counts() -> None:
    """An answer that is given between the last poll and the deadline is returned."""
    talk = Conversation([held_poll(), held_poll(), reply(200, record("completed", response=ANSWER))])
    outcome = talk.run(follow("task-1", 50, talk.patience))
    assert (outcome.status, outcome.response) == ("completed", ANSWER)
    assert talk.requests == [POLL, POLL, GET]


def test_answer_between_last_read_and_close_counts() -> None:
    """If a person answers after the last read, closing is refused and the answer is returned."""
    talk = Conversation([held_poll(), held_poll(), OPEN, ENDED, reply(200, record("completed", response=ANSWER))])
    assert talk.run(follow("task-1", 50, talk.patience)).response == ANSWER
    assert talk.requests == [POLL, POLL, GET, CANCEL, GET]


def test_cancellation_by_operator_is_not_a_timeout() -> None:
    """A cancellation before the deadline is reported as such, even if polls failed in the meantime."""
    talk = Conversation([held_poll(), held_poll(), reply(200, record("cancelled"))])
    assert talk.run(follow("task-1", 50, talk.patience)).status == "cancelled"


@pytest.mark.parametrize(("time", "closed"), [(60, True), (3600, False)], ids=["own", "longer"])
def test_task_with_longer_timeout_of_another_caller_stays_open(time: int, closed: bool) -> None:  # noqa: FBT001
    """A caller that shares the key of a longer question gets a timeout, and the other caller's task stays open."""
    standing = record("notified", timeout_seconds=time)
    talk = Conversation([reply(201, standing), *[held_poll("notified")] * 3], then=reply(200, standing))
    talk.then = lambda call: reply(200, record("cancelled") if call.method == "POST" else standing)
    assert talk.run(ask(BODY, 60, talk.patience)).status == "timed_out"
    assert (CANCEL in talk.requests) is closed


def test_follow_without_time_left_reads_once() -> None:
    """A wait that starts at its deadline makes only the last read."""
    talk = Conversation([reply(200, record("completed", response=ANSWER))])
    assert talk.run(follow("task-1", 0, talk.patience)).response == ANSWER
    assert talk.requests == [GET]


@every_trouble
def test_outage_does_not_end_wait(trouble: Reply | Lost) -> None:
    """Failures between two polls are retried until the task's deadline, not for a minute only."""
    if trouble is TROUBLES["another API"]:
        trouble = reply(200, {"id": "task-1"})
    talk = Conversation([held_poll(), *[trouble] * 12, poll_reply("completed", ANSWER), DONE], seconds=60)
    assert talk.run(follow("task-1", 900, talk.patience)).response == ANSWER
    assert talk.clock.now > 1200


def test_failed_poll_at_deadline_does_not_hide_answer() -> None:
    """A failure in the last second still leads to the last read, which is retried as the caller has set."""
    start: list[Event] = [held_poll(), reply(502, b"Bad Gateway")]
    polls = itertools.chain(start, itertools.repeat(poll_reply("completed", ANSWER)))
    late: dict[str, Event] = {GET: reply(200, record("completed", response=ANSWER))}

    def server(call: Call) -> Event:
        said = f"{call.method} {call.url}"
        return next(polls) if said == POLL else late[said]

    talk = Conversation([], then=server)
    assert talk.run(follow("task-1", 25.3, talk.patience)).response == ANSWER


@pytest.mark.parametrize("trouble", [reply(503, b"", retry_after="60"), REFUSED], ids=["retry after", "lost"])
def test_failure_near_deadline_does_not_close_task_early(trouble: Reply | Lost) -> None:
    """If no further retry fits before the deadline, the task still stays open until then."""
    replies = {CANCEL: reply(200, record("cancelled")), GET: OPEN}
    talk = Conversation([held_poll()], then=lambda call: replies.get(f"{call.method} {call.url}", trouble))
    talk.run(follow("task-1", 65, talk.patience))
    assert talk.requests[-2:] == [GET, CANCEL]
    assert talk.called_at[-2] >= 65


def test_poll_hanging_past_deadline_is_followed_by_last_read() -> None:
    """After a silently dead connection has used up the time, the task is closed without another pause."""
    talk = Conversation(
        [held_poll(), Delayed(35.0, Lost("ReadTimeout")), reply(200, record("completed", response=ANSWER))]
    )
    assert talk.run(follow("task-1", 50, talk.patience)).response == ANSWER
    assert talk.requests == [POLL, POLL, GET]
    assert talk.pauses == []


def test_server_unreachable_until_deadline_is_not_a_timeout() -> None:
    """Without any reply the end of the task is unknown, so the error is not a timeout."""
    talk = Conversation([held_poll()], then=REFUSED)
    refused_with(ServerUnreachableError, talk, follow("task-1", 300, talk.patience))


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (reply(404, {"detail": "Not Found"}), UnexpectedReplyError),
        (reply(401, {}), AuthenticationError),
        (reply(307, b"", location="/login"), UnexpectedReplyError),
    ],
    ids=["another service's 404", "401", "307"],
)
def test_refusal_ends_wait(trouble: Reply, kind: type[AwaitHumansError]) -> None:
    """A request that would be refused again is not repeated until the deadline."""
    talk = Conversation([held_poll(), trouble])
    refused_with(kind, talk, follow("task-1", 900, talk.patience))


# --- a task that the server does not know


def test_confirmed_deletion_ends_follow() -> None:
    """A deletion is confirmed by at least three reads over at least five minutes, and the error carries the outcome."""
    talk = Conversation([held_poll()], then=GONE)
    error = refused_with(TaskNotFoundError, talk, follow("task-1", 3600, talk.patience))
    assert error.outcome == Outcome(task_id="task-1", status="not_found")
    assert error.task_id == "task-1"
    first, *_, last = talk.called_at[1:]
    assert 300 <= last - first < 330
    assert set(talk.requests) == {POLL}


def test_missing_task_is_logged_once() -> None:
    """A missing task is logged once, however often it is read until its deletion is confirmed."""
    talk = Conversation([held_poll()], then=GONE)
    refused_with(TaskNotFoundError, talk, follow("task-1", 3600, talk.patience))
    assert all(pause.missing for pause in talk.pauses)
    assert [pause.logged for pause in talk.pauses] == [True] + [False] * (len(talk.pauses) - 1)


def test_reappeared_task_is_followed_to_its_end() -> None:
    """If the server ran on another database for a while, the answer still arrives and the status is reported again."""
    talk = Conversation([held_poll(), GONE, GONE, GONE, held_poll(), poll_reply("completed", ANSWER), DONE])
    assert talk.run(follow("task-1", 900, talk.patience, known="created")).response == ANSWER
    assert talk.reported_statuses == ["created"]


def test_successful_read_resets_the_missing_count() -> None:
    """Five minutes of 404 with one successful read among them confirm no deletion."""

    def server(_: Call) -> Event:
        return held_poll() if 150 < talk.clock.now - START < 250 else GONE

    talk = Conversation([], then=server)
    refused_with(TaskNotFoundError, talk, follow("task-1", 3600, talk.patience))
    assert talk.called_at[-1] >= 150 + 300


def test_deadline_before_confirmed_deletion_is_a_timeout() -> None:
    """A deadline that passes before the deletion is confirmed ends the wait as a timeout."""
    talk = Conversation([held_poll()], then=GONE)
    ended = talk.run(follow("task-1", 200, talk.patience))
    assert (ended.status, ended.task_id) == ("timed_out", "task-1")
    assert talk.called_at[-1] >= 200
    assert CREATE not in talk.requests


def test_wait_continues_while_most_tasks_are_missing() -> None:
    """If both tasks of a caller are missing, both are waited for until their deadline."""
    readings = Readings()
    readings.missing("another", START)
    talk = Conversation([], then=GONE)
    ended = talk.run(follow("task-1", 900, talk.patience, readings=readings))
    assert ended.status == "timed_out"
    assert "another database" in [pause.reason for pause in talk.pauses if pause.logged][-1]
    assert sum(pause.logged for pause in talk.pauses) == 2


def test_internal_deleted_status_from_server_is_pending() -> None:
    """No record, poll or list can claim that a task was deleted."""
    talk = Conversation([poll_reply("not_found"), poll_reply("completed", ANSWER), DONE])
    assert talk.run(follow("task-1", 900, talk.patience)).response == ANSWER
    claimed = reply(200, record("not_found"))
    talk = Conversation([claimed])
    assert not talk.run(get("task-1", talk.patience)).terminal
    talk = Conversation([claimed])
    assert not talk.run(create(BODY | {"idempotency_key": "question-1"}, talk.patience)).terminal
    talk = Conversation([claimed, reply(200, record("cancelled"))])  # an open task is cancelled once more
    assert talk.run(close("task-1", talk.patience)).status == "cancelled"
    talk = Conversation([reply(200, [record("not_found")])])
    assert [outcome.terminal for outcome in talk.run(ended_page(0, 25, talk.patience)).tasks] == [False]


def test_too_large_reply_is_retried() -> None:
    """A reply larger than any task does not come from the API, so the request is repeated."""
    talk = Conversation([Reply(200, {}, b"", cut=True), reply(200, record("cancelled"))])
    assert talk.run(get("task-1", talk.patience)).status == "cancelled"


@pytest.mark.parametrize(("size", "next_size", "covered"), [(50, 25, 0), (1, 1, 1)])
def test_too_large_page_is_read_in_smaller_pages(size: int, next_size: int, covered: int) -> None:
    """A page that is too large is read again in smaller pages, and a single task that is too large is left out."""
    talk = Conversation([Reply(200, {}, b"", cut=True)])
    page = talk.run(ended_page(0, size, talk.patience))
    assert (page.tasks, page.full, page.next_size, page.covered) == ([], True, next_size, covered)


# --- ask


def test_ask_returns_stored_answer_immediately() -> None:
    """A key whose question was answered before asks no person again."""
    talk = Conversation([reply(201, record("completed", response=ANSWER, completed_by_email="ann@example.com"))])
    outcome = talk.run(ask(BODY, 900, talk.patience))
    assert outcome.completed_by_email == "ann@example.com"
    assert talk.requests == [CREATE]
    assert talk.reported_statuses == []


def test_ask_creates_polls_and_reads_the_record() -> None:
    """`ask` creates the task, polls to its end and reads from the record who answered on which channel."""
    ended = record("completed", response=ANSWER, completed_by_email="ann@example.com", completed_via_channel="slack")
    talk = Conversation(
        [reply(201, record()), held_poll("notified"), poll_reply("completed", ANSWER), reply(200, ended)]
    )
    outcome = talk.run(ask(BODY, 900, talk.patience))
    assert outcome == Outcome.model_validate(ended)
    assert talk.requests == [CREATE, POLL, POLL, GET]


def test_ask_reports_new_task_before_answer() -> None:
    """The first report carries the new task, so that a link to it can be shown."""
    talk = Conversation(
        [reply(201, record()), poll_reply("completed", ANSWER), reply(200, record("completed", response=ANSWER))]
    )
    talk.run(ask(BODY, 900, talk.patience))
    assert talk.steps[1] == Notice(Outcome.model_validate(record()))


def test_ask_reports_each_status_once() -> None:
    """The first poll does not report the status with which the task was created again."""
    done = record("completed", response=ANSWER)
    talk = Conversation(
        [
            reply(201, record()),
            held_poll("created"),
            held_poll("notified"),
            poll_reply("completed", ANSWER),
            reply(200, done),
        ]
    )
    talk.run(ask(BODY, 900, talk.patience))
    assert talk.reported_statuses == ["created", "notified"]


def test_ask_reports_own_cancellation_as_timeout() -> None:
    """A task that the caller cancelled at its deadline raises a timeout, although its record is `cancelled`."""
    cancelled = reply(200, record("cancelled"))
    talk = Conversation([reply(201, record()), *[held_poll()] * 3, OPEN, cancelled])
    assert talk.run(ask(BODY, 60, talk.patience)).status == "timed_out"


def test_ask_waits_for_server_to_time_out_the_task() -> None:
    """The server's scheduler runs some seconds after the deadline, so cancelling waits 15 s for it."""
    cancelled = reply(200, record("cancelled"))
    talk = Conversation([reply(201, record()), *[held_poll()] * 3, OPEN, cancelled])
    talk.run(ask(BODY, 60, talk.patience))
    assert talk.requests[-1] == CANCEL
    assert talk.clock.now == 1000 + 60 + 15


def test_ask_raises_refusal_immediately() -> None:
    """A question that the server refuses raises its error at once, because the caller has to correct it."""
    talk = Conversation([reply(422, {"detail": "no"})])
    refused_with(TaskRejectedError, talk, ask(BODY, 900, talk.patience))


# --- finish


OPENED = Outcome.model_validate(record("notified"))
"""An open task, as it was seen last."""


def test_finish_reads_answerer_from_record() -> None:
    """A poll does not name the person and channel, so the record is read once at the end."""
    done = record("completed", response=ANSWER, completed_by_email="ann@example.com", completed_via_channel="slack")
    talk = Conversation([held_poll(), poll_reply("completed", ANSWER), reply(200, done)])
    assert talk.run(finish(OPENED, 900, talk.patience)) == Outcome.model_validate(done)
    assert talk.requests == [POLL, POLL, GET]


def test_finish_reports_changes_only() -> None:
    """The status in which the task was found is not reported, and each later status is reported once."""
    statuses = ["notified", "in_progress", "in_progress", "notified"]
    done = reply(200, record("completed", response=ANSWER))
    talk = Conversation([*(held_poll(status) for status in statuses), poll_reply("completed", ANSWER), done])
    talk.run(finish(OPENED, 900, talk.patience))
    assert talk.reported_statuses == ["in_progress", "notified"]


def test_finish_ends_at_its_own_deadline() -> None:
    """`finish` ends after exactly the seconds that it was given."""
    cancelled = reply(200, record("cancelled"))
    talk = Conversation([held_poll(), held_poll(), OPEN, cancelled])
    assert talk.run(finish(OPENED, 50, talk.patience)).status == "timed_out"
    assert talk.requests == [POLL, POLL, GET, CANCEL]
    assert talk.clock.now == 1050


@pytest.mark.parametrize(
    ("patience", "most"), [(900.0, 30.0), (5.0, 5.0)], ids=["half a minute at most", "or the caller's patience"]
)
def test_last_read_has_little_retry_time(patience: float, most: float) -> None:
    """The last read at the deadline is retried for half a minute at most."""
    talk = Conversation([held_poll()], then=REFUSED, seconds=patience)
    refused_with(ServerUnreachableError, talk, finish(OPENED, 60, talk.patience))
    assert 1060 < talk.clock.now <= 1060 + most
    assert talk.requests[-1] == GET


def test_finish_outlasts_outage_longer_than_retry_time() -> None:
    """The retry time limits the last read only, so an open question outlives a longer outage."""
    talk = Conversation([held_poll(), *[REFUSED] * 9, poll_reply("completed", ANSWER), DONE], seconds=5)
    assert talk.run(finish(OPENED, 900, talk.patience)).response == ANSWER
    assert talk.clock.now > 1030


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(reply(401, {}), AuthenticationError), (reply(403, {}), PermissionDeniedError)],
    ids=["401", "403"],
)
def test_refusal_ends_finish(trouble: Reply, kind: type[AwaitHumansError]) -> None:
    """A task that the caller may not read is not waited for."""
    talk = Conversation([held_poll(), trouble])
    refused_with(kind, talk, finish(OPENED, 900, talk.patience))


# --- replies of other requests


def named(flow: Callable[..., Flow[Outcome]], talk: Conversation) -> Outcome:
    """Drive a flow about task-1 that waits for its end."""
    return talk.run(flow("task-1", 900, talk.patience, key="question-1"))


ENDS = ["completed", "timed_out", "cancelled", "verification_exhausted"]
OTHER = {"approved": False}
MOMENT = "2031-01-01T10:00:00.123456Z"


def reported(moment: str | None, response: dict[str, bool] | None = ANSWER) -> Reply:
    """A poll that reports a completion at this moment."""
    return reply(200, {"status": "completed", "response": response, "completed_at": moment, "timed_out_at": None})


def erased(moment: str | None, **fields: Any) -> Reply:
    """The record of a completed task whose response is gone."""
    return reply(200, record("completed", response=None, completed_at=moment, **fields))


@pytest.mark.parametrize("status", ENDS)
def test_poll_reporting_end_of_open_task_is_ignored(status: str) -> None:
    """Such a reply belongs to another request, so it is logged and polling continues."""
    wrong = reply(200, {"status": status, "response": OTHER, "completed_at": MOMENT, "timed_out_at": None})
    talk = Conversation([held_poll(), wrong, OPEN, held_poll(), poll_reply("completed", ANSWER), DONE])
    assert named(follow, talk).response == ANSWER
    assert talk.requests == [POLL, POLL, GET, POLL, POLL, GET]
    assert "belongs to another request" in talk.pauses[0].reason
    assert repr(status) in talk.pauses[0].reason


def test_repeated_wrong_ends_slow_down_polling() -> None:
    """A proxy that caches a reply does not turn the wait into a storm of requests."""
    talk = Conversation([poll_reply("completed", OTHER), OPEN] * 5 + [poll_reply("completed", ANSWER), DONE])
    assert named(follow, talk).response == ANSWER
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 2, 4, 8]


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("wrong", ["completed", "timed_out"])
def test_record_determines_the_outcome(status: str, wrong: str) -> None:
    """Status and response come from the record, whatever the poll reported."""
    shown = record(status, response=ANSWER, completed_by_email="ann@example.com")
    talk = Conversation([poll_reply(wrong, OTHER), reply(200, shown)])
    assert named(follow, talk) == Outcome.model_validate(shown)


@pytest.mark.parametrize("name", ["get", "poll", "close", "follow"])
@pytest.mark.parametrize(
    "wrong",
    [
        reply(200, record("completed", id="task-2", response=OTHER)),
        reply(200, record("completed", idempotency_key="question-2", response=OTHER)),
        poll_reply("completed", OTHER),
        reply(200, [record("completed", response=OTHER)]),
    ],
    ids=["another task", "another key", "a poll", "a list"],
)
def test_reply_of_another_request_is_read_again(name: str, wrong: Reply) -> None:
    """A reply that is not a record of this task and question is requested again."""
    if name == "poll" and wrong.body == to_json(record("completed", idempotency_key="question-2", response=OTHER)):
        wrong = reply(200, record("completed", id="task-2", response=OTHER))  # a poll is not given the key
    flows: dict[str, Callable[[Patience], Flow[Outcome]]] = {
        "get": lambda patience: get("task-1", patience, key="question-1"),
        "poll": lambda patience: poll("task-1", patience),
        "close": lambda patience: close("task-1", patience, key="question-1"),
        "follow": lambda patience: follow("task-1", 900, patience, key="question-1"),
    }
    before = [poll_reply("completed")] if name in {"poll", "follow"} else []
    talk = Conversation([*before, wrong, DONE])
    assert talk.run(flows[name](talk.patience)).response == ANSWER
    assert len(talk.pauses) == 1


def test_single_poll_reads_end_from_record() -> None:
    """`poll` does not report an end that the record does not confirm."""
    talk = Conversation([poll_reply("completed", OTHER), DONE])
    assert talk.run(poll("task-1", talk.patience)).response == ANSWER
    talk = Conversation([poll_reply("completed", OTHER), OPEN])
    assert talk.run(poll("task-1", talk.patience)).status == "notified"
    assert "belongs to another request" in talk.pauses[0].reason


@pytest.mark.parametrize(
    ("polled_at", "shown_at"),
    [
        (MOMENT, MOMENT),
        (MOMENT, "2031-01-01T10:00:00.123456"),
        (MOMENT, "2031-01-01T12:00:00.123456+02:00"),
        (MOMENT, "2031-01-01T10:00:00.123Z"),
        ("2031-01-01T10:00:00.123Z", MOMENT),
        (MOMENT, "2031-01-01T10:00:00Z"),
    ],
    ids=["equal", "without a zone", "in another zone", "milliseconds", "milliseconds in the poll", "seconds"],
)
def test_response_erased_after_poll_is_taken_from_poll(polled_at: str, shown_at: str) -> None:
    """With `redact_response_after_submit`, a response may be erased between the poll and the read of the record."""
    talk = Conversation(
        [reply(201, record()), reported(polled_at), erased(shown_at, completed_by_email="ann@example.com")]
    )
    outcome = talk.run(ask(BODY, 900, talk.patience))
    assert (outcome.response, outcome.completed_by_email) == (ANSWER, "ann@example.com")
    assert talk.requests == [CREATE, POLL, GET]
    talk = Conversation([reported(polled_at), erased(shown_at)])
    assert talk.run(poll("task-1", talk.patience)).response == ANSWER


@pytest.mark.parametrize(
    ("polled_at", "shown_at"),
    [
        (MOMENT, "2031-01-01T10:00:00.123457Z"),
        (MOMENT, "2031-01-01T10:00:00.124Z"),
        (MOMENT, "2031-01-01T10:00:01Z"),
        (MOMENT, None),
        (None, MOMENT),
        (None, None),
    ],
    ids=["a microsecond", "a millisecond", "a second", "no moment in the record", "none in the poll", "none"],
)
def test_response_of_another_completion_is_rejected(polled_at: str | None, shown_at: str | None) -> None:
    """If the poll reported the completion of another task, its response does not replace the erased one."""
    talk = Conversation([reported(polled_at, OTHER), erased(shown_at)])
    outcome = named(follow, talk)
    assert (outcome.status, outcome.response) == ("completed", None)


@pytest.mark.parametrize("status", ["timed_out", "cancelled", "verification_exhausted"])
def test_no_response_is_added_to_another_end(status: str) -> None:
    """Only a completion can have a response that was erased."""
    shown = record(status, response=None, completed_at=MOMENT)
    talk = Conversation([reported(MOMENT, OTHER), reply(200, shown)])
    assert named(follow, talk).response is None


def test_answer_of_poll_survives_outage_until_last_read() -> None:
    """If the record is unreadable until the deadline and then lacks its response, the poll's response is used."""
    talk = Conversation([reported(MOMENT)], then=lambda call: erased(MOMENT) if talk.clock.now >= 1060 else REFUSED)
    assert talk.run(follow("task-1", 60, talk.patience)).response == ANSWER


@pytest.mark.parametrize("trouble", [REFUSED, TROUBLES["503"], HTML], ids=["lost", "503", "a page"])
def test_unreadable_record_is_retried(trouble: Reply) -> None:
    """Once a poll has reported the end, the record is read as soon as the server is reachable again."""
    talk = Conversation([reply(201, record()), poll_reply("completed", ANSWER), *[trouble] * 9, DONE])
    assert talk.run(ask(BODY, 900, talk.patience)).response == ANSWER
    assert talk.clock.now > 1060


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(reply(403, {}), PermissionDeniedError), (reply(307, b""), UnexpectedReplyError)],
    ids=["403", "307"],
)
def test_refused_record_is_an_error(trouble: Reply, kind: type[AwaitHumansError]) -> None:
    """Without the record nothing proves whose answer a poll reported, so it is not taken."""
    talk = Conversation([reply(201, record()), poll_reply("completed", ANSWER), trouble])
    refused_with(kind, talk, ask(BODY, 900, talk.patience))


def test_record_missing_after_end_is_read_until_confirmed() -> None:
    """After a poll reported the end, a 404 of the record does not lose the answer if the record reappears."""
    talk = Conversation(
        [reply(201, record()), poll_reply("completed", ANSWER), GONE, poll_reply("completed", ANSWER), DONE]
    )
    assert talk.run(ask(BODY, 900, talk.patience)).response == ANSWER
    talk = Conversation([reply(201, record()), poll_reply("completed", ANSWER)], then=GONE)
    refused_with(TaskNotFoundError, talk, ask(BODY, 900, talk.patience))
    assert talk.clock.now - START >= 300


def test_record_with_hidden_key_is_identified_by_id() -> None:
    """A record without its key is identified by the task id, and the question keeps its key."""
    shown = record(idempotency_key=None, task="Approve?", payload={"amount": 5})
    ended = shown | {"status": "completed", "response": ANSWER}
    talk = Conversation([reply(201, shown), poll_reply("completed"), reply(200, ended)])
    assert talk.run(ask(BODY | {"payload": {"amount": 5}}, 900, talk.patience)).response == ANSWER
    talk = Conversation([reply(200, shown | {"status": "cancelled"})])
    assert talk.run(close("task-1", talk.patience, key="question-1")).status == "cancelled"
    talk = Conversation([reply(200, ended | {"id": "task-2"}), reply(200, ended)])
    assert talk.run(get("task-1", talk.patience, key="question-1")).task_id == "task-1"


@pytest.mark.parametrize(
    "shown",
    [
        {},
        {"task": "Approve?", "payload": {"_redacted": True}},
        {"task": "Approve?", "payload": {"amount": 6}},
        {"task": "Other?", "payload": {"amount": 5}},
    ],
    ids=["nothing else", "a hidden payload", "another payload", "another text"],
)
@pytest.mark.parametrize("name", ["create", "withdraw", "withdraw by key"])
def test_created_record_without_key_or_question_is_rejected(name: str, shown: dict[str, Any]) -> None:
    """A reply to a create must contain the key or the whole question, because nothing else identifies the task."""
    body = BODY | {"payload": {"amount": 5}}
    flows: dict[str, Callable[[Patience], Flow[Outcome]]] = {
        "create": lambda patience: create(body, patience),
        "withdraw": lambda patience: withdraw(body, patience),
        "withdraw by key": lambda patience: withdraw_key("question-1", patience),
    }
    talk = Conversation(
        [
            reply(201, record("completed", idempotency_key=None, response=OTHER, **shown)),
            reply(201, {**record("completed", response=ANSWER), "task": "Approve?", "payload": {"amount": 5}}),
        ]
    )
    assert talk.run(flows[name](talk.patience)).response == ANSWER
    assert talk.requests == [CREATE, CREATE]


@pytest.mark.parametrize("answers", [[OPEN], [ENDED, OPEN]], ids=["an open record", "409, and an open record"])
def test_cancel_is_repeated_while_record_is_open(answers: list[Event]) -> None:
    """A reply that leaves the task open belongs to another request, so the task is cancelled again."""
    talk = Conversation([*answers, reply(200, record("cancelled"))])
    assert talk.run(close("task-1", talk.patience)).status == "cancelled"
    assert talk.requests[-1] == CANCEL
    assert [pause.seconds for pause in talk.pauses] == [0.5]


def test_task_that_stays_open_is_not_reported_cancelled() -> None:
    """A task is not reported as cancelled while its record is open."""
    talk = Conversation([], then=OPEN, seconds=10)
    error = refused_with(UnexpectedReplyError, talk, close("task-1", talk.patience))
    assert "'notified' is not the status of a cancelled task" in str(error)
    assert error.task_id == "task-1"


def test_last_read_compares_the_key() -> None:
    """The end of another question is not taken for that of a caller whose time is up."""
    wrong = reply(200, record("completed", idempotency_key="question-2", response=OTHER))
    talk = Conversation([wrong, OPEN, wrong, reply(200, record("cancelled"))])
    assert talk.run(last_look("task-1", 900, talk.patience, key="question-1")).status == "timed_out"
    assert talk.requests == [GET, GET, CANCEL, CANCEL]


# --- proxies

PROXY = Proxy("HTTPS_PROXY", "http://proxy.example:3128", "humans.example")


@pytest.mark.parametrize("status", [200, 403, 502])
def test_page_from_proxy_names_the_proxy(status: int) -> None:
    """The error names the proxy's address, its variable and how to bypass it, and gives no advice about tokens."""
    page = replace(reply(status, b"<html>no</html>", content_type="text/html"), proxy=PROXY)
    talk = Conversation([page] * 60)
    with pytest.raises(AwaitHumansError) as raised:
        talk.run(get("task-1", talk.patience))
    for part in ("http://proxy.example:3128", "HTTPS_PROXY", "add humans.example to NO_PROXY"):
        assert part in str(raised.value)
    assert "TOKEN" not in str(raised.value)


# --- withdraw


def test_withdraw_by_key_alone_cancels_any_question() -> None:
    """A caller that knows only the key frees the person, whatever the question was about."""
    known = reply(201, record("notified", task="Approve?", payload={"amount": 5}), idempotent_replayed="true")
    talk = Conversation([known, reply(200, record("cancelled"))])
    assert talk.run(withdraw_key("question-1", talk.patience)).status == "cancelled"
    assert talk.requests == ["POST /api/tasks", CANCEL]
    assert talk.calls[0].json is not None
    assert talk.calls[0].json["idempotency_key"] == "question-1"


def test_withdraw_by_key_alone_reports_the_task_it_created() -> None:
    """If no question has this key, the task created in its place is reported and cancelled."""
    created = record("created", task="(withdrawn before it was asked)")
    talk = Conversation([reply(201, created), reply(200, record("cancelled"))])
    assert talk.run(withdraw_key("question-1", talk.patience)).status == "cancelled"
    assert talk.reported_statuses == ["created"]


def test_withdraw_by_key_alone_returns_existing_answer() -> None:
    """A task that has ended is returned and not changed."""
    talk = Conversation([reply(201, record("completed", response=ANSWER), idempotent_replayed="true")])
    assert talk.run(withdraw_key("question-1", talk.patience)).response == ANSWER


def test_withdraw_by_key_alone_raises_refusal() -> None:
    """A refused withdrawal raises the same error as a refused question."""
    talk = Conversation([reply(401, {"detail": "no"})])
    refused_with(AuthenticationError, talk, withdraw_key("question-1", talk.patience))


def test_withdraw_finds_task_by_key_and_cancels_it() -> None:
    """Creating the question again returns its existing task, which is then cancelled."""
    talk = Conversation([reply(201, record("notified"), idempotent_replayed="true"), reply(200, record("cancelled"))])
    assert talk.run(withdraw(BODY, talk.patience)).status == "cancelled"
    assert talk.steps == [Call("POST", "/api/tasks", json=BODY), Call("POST", "/api/tasks/task-1/cancel")]


def test_withdraw_of_unknown_task_leaves_nothing_open() -> None:
    """A caller that stopped before the server received its question ends with a cancelled task."""
    talk = Conversation([reply(201, record()), reply(200, record("cancelled"))])
    assert talk.run(withdraw(BODY, talk.patience)).status == "cancelled"
    assert talk.requests == [CREATE, CANCEL]


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_withdraw_returns_outcome_of_ended_question(status: str) -> None:
    """A task that has ended is not cancelled, and its answer is not lost."""
    talk = Conversation([reply(201, record(status, response=ANSWER), idempotent_replayed="true")])
    outcome = talk.run(withdraw(BODY, talk.patience))
    assert (outcome.status, outcome.response) == (status, ANSWER)
    assert talk.requests == [CREATE]


def test_answer_before_withdrawal_counts() -> None:
    """An answer that is given between the two calls is returned."""
    talk = Conversation([reply(201, record()), ENDED, reply(200, record("completed", response=ANSWER))])
    assert talk.run(withdraw(BODY, talk.patience)).response == ANSWER
    assert talk.requests == [CREATE, CANCEL, GET]


def test_withdraw_retries_each_call() -> None:
    """A short failure of the server leaves no task open behind a stopped caller."""
    talk = Conversation([REFUSED, reply(201, record()), TROUBLES["503"], reply(200, record("cancelled"))])
    assert talk.run(withdraw(BODY, talk.patience)).status == "cancelled"
    assert talk.requests == [CREATE, CREATE, CANCEL, CANCEL]


def test_withdraw_leaves_another_question_open() -> None:
    """A key that belongs to a different question ends no wait."""
    known = record(task="Approve?", payload={"amount": 250})
    talk = Conversation([reply(201, known, idempotent_replayed="true")])
    refused_with(QuestionChangedError, talk, withdraw(BODY | {"payload": {"amount": 251}}, talk.patience))
    assert talk.requests == [CREATE]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ([reply(422, {"detail": "no"})], TaskRejectedError),
        ([reply(401, {})], AuthenticationError),
        ([reply(201, record()), GONE], TaskNotFoundError),
        ([reply(201, record()), reply(403, {})], PermissionDeniedError),
    ],
    ids=["a malformed question", "no token", "deleted", "not allowed to cancel"],
)
def test_refused_withdrawal_is_typed_error(script: list[Event], kind: type[AwaitHumansError]) -> None:
    """A caller that withdraws a question is reported_tasks when that failed."""
    talk = Conversation(script)
    refused_with(kind, talk, withdraw(BODY, talk.patience))


@pytest.mark.parametrize("name", ["withdraw", "withdraw by key"])
def test_withdraw_ends_the_second_task_of_a_key(name: str) -> None:
    """A server with two tasks of one key fails at each create with it. The open one is cancelled."""
    second = record(id="task-2")
    replies = {
        ("POST", "/api/tasks"): reply(500, {"error": "INTERNAL_ERROR"}),
        ("GET", "/api/tasks"): reply(200, [second, record(id="task-3", idempotency_key="question-3")]),
        ("GET", "/api/tasks/task-1"): reply(200, record("cancelled")),
        ("GET", "/api/tasks/task-2"): reply(200, second),
        ("POST", "/api/tasks/task-2/cancel"): reply(200, second | {"status": "cancelled"}),
    }
    ended = reply(200, [record("cancelled")])

    def answer(call: Call) -> Reply:
        return ended if call.params and "terminal" in call.params else replies[call.method, call.url]

    talk = Conversation([], then=answer)
    steps = withdraw(BODY, talk.patience) if name == "withdraw" else withdraw_key("question-1", talk.patience)
    outcome = talk.run(steps)
    assert (outcome.status, outcome.task_id) == ("cancelled", "task-2")
    assert [request for request in talk.requests if "cancel" in request] == ["POST /api/tasks/task-2/cancel"]


def test_withdraw_raises_the_servers_failure_if_no_list_shows_the_key() -> None:
    """Lists without the key do not tell whether the question has a task, so the caller is told what failed."""

    def answer(call: Call) -> Reply | Lost:
        return reply(200, [record(id="task-3", idempotency_key="question-3")]) if call.params else TROUBLES["500"]

    error = refused_with(ServerUnreachableError, talk := Conversation([], then=answer), withdraw(BODY, talk.patience))
    assert "500" in str(error)
    assert CANCEL not in talk.requests


# --- lists


NOON = datetime(2031, 1, 1, 12, tzinfo=UTC)

FIRST_PAGE = 25


def whole_list(size: int, patience: Patience) -> Flow[int]:
    """Read all pages, each from where the previous one ended. Return the size of the page that would be next."""
    offset, full = 0, True
    while full:
        page = yield from ended_page(offset, size, patience)
        for outcome in page.tasks:
            yield Notice(outcome)
        offset, size, full = offset + page.covered, page.next_size, page.full
    return size


def listed(number: int, *, before_noon: float = 0.0) -> dict[str, Any]:
    """Return the record of an ended task that was created this many seconds before noon."""
    created_at = (NOON - timedelta(seconds=before_noon)).isoformat()
    return record("completed", id=f"task-{number}", response={"number": number}, created_at=created_at)


def page_of(count: int, *, first: int = 0, before_noon: float = 0.0, weight: int = 0) -> Reply:
    """Return a page of this many ended tasks with this many bytes in total."""
    body = to_json([listed(number, before_noon=before_noon) for number in range(first, first + count)])
    return reply(200, body.ljust(weight))


def pages(talk: Conversation) -> list[tuple[int, int]]:
    """Return limit and offset of every page that was requested."""
    return [(call.params["limit"], call.params["offset"]) for call in talk.calls if call.params]


def reported_tasks(talk: Conversation) -> list[str]:
    """Return the ids of the tasks that were reported."""
    return [step.outcome.task_id for step in talk.steps if isinstance(step, Notice)]


def test_ended_reads_one_page() -> None:
    """One plain read of the list reports each ended task with its answer."""
    talk = Conversation([page_of(3)])
    assert talk.run(whole_list(FIRST_PAGE, talk.patience)) == FIRST_PAGE
    assert talk.steps == [
        Call("GET", "/api/tasks", params={"terminal": "true", "limit": FIRST_PAGE, "offset": 0}, timeout=5.0),
        *(Notice(Outcome.model_validate(listed(number))) for number in range(3)),
    ]


def test_empty_list_is_read_once() -> None:
    """An empty list is read once and reports nothing."""
    talk = Conversation([reply(200, [])])
    assert talk.run(whole_list(FIRST_PAGE, talk.patience)) == FIRST_PAGE
    assert talk.reported_statuses == []


@pytest.mark.parametrize(
    ("page", "held_there", "weight", "following"),
    [
        (25, 25, 0, 50),
        (25, 25, HEAVY_PAGE_BYTES // 4 - 1, 50),
        (25, 25, HEAVY_PAGE_BYTES // 4, 25),
        (25, 25, HEAVY_PAGE_BYTES, 25),
        (25, 25, HEAVY_PAGE_BYTES + 1, 12),
        (25, 24, 0, 25),
        (25, 24, HEAVY_PAGE_BYTES + 1, 12),
        (2, 2, HEAVY_PAGE_BYTES + 1, 1),
        (1, 1, HEAVY_PAGE_BYTES + 1, 1),
        (1, 1, 0, 2),
        (100, 100, 0, MAX_PAGE_TASKS),
        (150, 150, 0, MAX_PAGE_TASKS),
        (MAX_PAGE_TASKS, MAX_PAGE_TASKS, 0, MAX_PAGE_TASKS),
        (MAX_PAGE_TASKS, MAX_PAGE_TASKS, HEAVY_PAGE_BYTES + 1, MAX_PAGE_TASKS // 2),
    ],
    ids=[
        "full and light: doubled",
        "just light: doubled",
        "not light any more: kept",
        "just not heavy: kept",
        "heavy: halved",
        "not full: kept",
        "not full, and heavy: halved",
        "two heavy ones: one",
        "one heavy one: one",
        "one light one: two",
        "to the server's limit",
        "not beyond the limit",
        "at the limit",
        "heavy at the limit",
    ],
)
def test_pages_grow_while_they_are_light(page: int, held_there: int, weight: int, following: int) -> None:
    """The size of the next page follows from the number of tasks and bytes of this one."""
    talk = Conversation([page_of(held_there, before_noon=1, weight=weight)])
    assert talk.run(ended_page(0, page, talk.patience)).next_size == following
    assert pages(talk) == [(page, 0)]


def test_page_of_open_tasks_is_one_request_for_one_status() -> None:
    """The server takes one status for each request."""
    talk = Conversation([page_of(25)])
    listed = talk.run(open_page("created", 50, 25, talk.patience))
    (call,) = talk.calls
    assert call.params == {"status": "created", "limit": 25, "offset": 50}
    assert (len(listed.tasks), listed.full, listed.next_size, listed.covered) == (25, True, 50, 25)
    assert listed.reached == NOON


@pytest.mark.parametrize(
    ("records", "reached"),
    [([listed(1, before_noon=1), record("completed")], NOON - timedelta(seconds=1)), ([record("completed")], None)],
    ids=["the last task has none", "no task has one"],
)
def test_page_reaches_back_to_its_last_creation_time(records: list[Any], reached: datetime | None) -> None:
    """A server may report no creation times."""
    talk = Conversation([reply(200, records)])
    assert talk.run(ended_page(0, 25, talk.patience)).reached == reached


def test_growing_page_starts_where_previous_ended() -> None:
    """Growing pages leave no gap, until one is not full."""
    talk = Conversation(
        [page_of(25), page_of(50, first=25), page_of(100, first=75), page_of(200, first=175), page_of(7)]
    )
    assert talk.run(whole_list(25, talk.patience)) == MAX_PAGE_TASKS
    assert pages(talk) == [(25, 0), (50, 25), (100, 75), (200, 175), (200, 375)]
    assert reported_tasks(talk)[:375] == [f"task-{number}" for number in range(375)]


def test_shrinking_page_starts_where_previous_ended() -> None:
    """Heavy pages are halved without a gap and grow again once they are light."""
    heavy = HEAVY_PAGE_BYTES + 1
    talk = Conversation(
        [page_of(5, weight=heavy), page_of(2, weight=heavy), page_of(1, weight=heavy), page_of(1), page_of(0)]
    )
    assert talk.run(whole_list(5, talk.patience)) == 2
    assert pages(talk) == [(5, 0), (2, 5), (1, 7), (1, 8), (2, 9)]


def test_tasks_created_at_one_moment_are_all_read() -> None:
    """The page that ends within that moment may not be their last."""
    talk = Conversation([page_of(25), page_of(50, first=25), page_of(1, first=75)])
    talk.run(whole_list(25, talk.patience))
    assert len(reported_tasks(talk)) == 76


def test_only_a_page_that_is_not_full_ends_the_listing() -> None:
    """However old the tasks of a page are."""
    talk = Conversation([page_of(25, before_noon=1e9), page_of(50, before_noon=2e9), page_of(0)])
    talk.run(whole_list(25, talk.patience))
    assert pages(talk) == [(25, 0), (50, 25), (100, 75)]


@pytest.mark.parametrize(
    "odd",
    [
        None,
        "task-9",
        9,
        [],
        {},
        {"id": "task-9"},
        {"id": "task-9", "status": 7},
    ],
    ids=["null", "text", "a number", "a list", "empty", "no status", "a number for a status"],
)
@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "in the middle", "last"])
def test_malformed_record_hides_no_other(odd: object, place: int) -> None:
    """One malformed record of a page is left out, whatever its position."""
    records: list[object] = [listed(1), listed(2)]
    records.insert(place, odd)
    talk = Conversation([reply(200, records)])
    talk.run(whole_list(FIRST_PAGE, talk.patience))
    assert reported_tasks(talk) == ["task-1", "task-2"]
    assert len(talk.calls) == 1


def test_malformed_records_count_towards_a_full_page() -> None:
    """A full page of unreadable records does not end the listing."""
    talk = Conversation([reply(200, [{}, {}]), reply(200, [listed(1), {}, {}, {}]), page_of(1, first=2)])
    talk.run(whole_list(2, talk.patience))
    assert pages(talk) == [(2, 0), (4, 2), (8, 6)]
    assert reported_tasks(talk) == ["task-1", "task-2"]


def test_tasks_without_creation_time_do_not_end_the_listing() -> None:
    """The list of a server that reports no creation times is read to its end."""
    talk = Conversation([reply(200, [record("completed"), record("completed")]), page_of(1)])
    talk.run(whole_list(2, talk.patience))
    assert pages(talk) == [(2, 0), (4, 2)]


@pytest.mark.parametrize(
    "trouble",
    [*TROUBLES.values(), reply(200, {"tasks": []}), reply(200, b"null"), reply(200, b'"task"')],
    ids=[*TROUBLES, "an object", "null", "text"],
)
def test_failure_between_pages_is_retried(trouble: Reply | Lost) -> None:
    """A reply that is not a list of tasks is requested again with the same offset."""
    if isinstance(trouble, Reply) and trouble.status == 200 and trouble.body.startswith(b"["):
        trouble = reply(200, record())  # a list is what is asked for here: one record is the trouble
    talk = Conversation([page_of(2), trouble, page_of(1, first=2)])
    talk.run(whole_list(2, talk.patience))
    assert pages(talk) == [(2, 0), (4, 2), (4, 2)]
    assert reported_tasks(talk) == ["task-0", "task-1", "task-2"]


def test_every_page_has_the_full_retry_time() -> None:
    """A long list on an unreliable server is read to its end."""
    talk = Conversation(
        [*[REFUSED] * 4, page_of(2), *[REFUSED] * 4, page_of(4, first=2), *[REFUSED] * 4, page_of(0)], seconds=8
    )
    talk.run(whole_list(2, talk.patience))
    assert talk.clock.now > 1000 + 2 * 8


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(REFUSED, ServerUnreachableError), (TROUBLES["503"], ServerUnreachableError), (HTML, UnexpectedReplyError)],
    ids=["lost", "503", "a page"],
)
def test_list_that_stays_unreachable_is_an_error(trouble: Reply | Lost, kind: type[AwaitHumansError]) -> None:
    """The listing fails after its retry time, and the tasks reported so far stay reported."""
    talk = Conversation([page_of(2)], then=trouble, seconds=4)
    error = refused_with(kind, talk, whole_list(2, talk.patience))
    assert error.url == "/api/tasks"
    assert reported_tasks(talk) == ["task-0", "task-1"]
    assert talk.clock.now <= 1004


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (reply(401, {"detail": "no"}), AuthenticationError),
        (reply(403, {"detail": "no"}), PermissionDeniedError),
        (reply(405, {"detail": "Method Not Allowed"}), RequestRefusedError),
        (reply(422, {"detail": "no"}), RequestRefusedError),
        (reply(404, {"detail": "Not Found"}), UnexpectedReplyError),
        (reply(307, b"", location="/login"), UnexpectedReplyError),
    ],
    ids=["401", "403", "405", "422", "404", "307"],
)
def test_refused_list_is_raised_immediately(refused: Reply, kind: type[AwaitHumansError]) -> None:
    """A token that may not list tasks is not retried, so that its owner can read tasks one by one."""
    talk = Conversation([refused])
    refused_with(kind, talk, whole_list(FIRST_PAGE, talk.patience))
    assert talk.requests == [LIST]


@given(
    newest_first=st.lists(st.sampled_from(["ended", "ends while pages are turned", "open"]), max_size=40),
    old=st.integers(0, 5),
    page=st.integers(1, 10),
    weights=st.lists(st.sampled_from([0, HEAVY_PAGE_BYTES // 2, HEAVY_PAGE_BYTES + 1]), min_size=1, max_size=4),
    data=st.data(),
)
def test_tasks_ending_between_pages_cause_no_gap(
    newest_first: list[str], old: int, page: int, weights: list[int], data: st.DataObject
) -> None:
    """Tasks that end between two pages shift others to later pages, where they are read twice and never missed."""
    tasks = {place: listed(place, before_noon=place) for place in range(len(newest_first) + old)}
    states = dict(enumerate([*newest_first, *["ended"] * old]))
    shown = {place for place, state in states.items() if state == "ended"}
    there_from_the_beginning = {f"task-{place}" for place in shown}
    heavy = itertools.cycle(weights)

    def server(call: Call) -> Reply:
        assert call.params is not None
        offset, limit = call.params["offset"], call.params["limit"]
        body = to_json([tasks[place] for place in sorted(shown)[offset : offset + limit]]).ljust(next(heavy))
        ending = [place for place, state in states.items() if state.startswith("ends") and place not in shown]
        shown.update(data.draw(st.sets(st.sampled_from(ending))) if ending else ())
        return reply(200, body)

    talk = Conversation([], then=server)
    assert 1 <= talk.run(whole_list(page, talk.patience)) <= MAX_PAGE_TASKS
    assert there_from_the_beginning <= set(reported_tasks(talk))


def test_address_with_extra_path_is_a_settings_error() -> None:
    """A dashboard page or a path below the API accepts no tasks."""
    talk = Conversation([reply(405, {"detail": "Method Not Allowed"})])
    assert "AWAITHUMANS_URL" in str(refused_with(UnexpectedReplyError, talk, create(BODY, talk.patience)))


# --- open_wait


def test_open_wait_creates_task_and_registers_it() -> None:
    """The task carries its callback URL, and the relay is then told its id with the route's own token."""
    body = dict(BODY)
    talk = Conversation([reply(201, record()), reply(200, {"state": "open"})])
    assert talk.run(open_wait(body, RELAY, PROOFS, talk.patience)) == Outcome.model_validate(record())
    assert talk.steps == [
        Call("POST", "/api/tasks", json=BODY | {"callback_url": f"{RELAY}/callbacks/{TOKEN}"}),
        Notice(Outcome.model_validate(record())),
        Call("PUT", f"{RELAY}/waits/task-1", json={"timeout_seconds": 900}, bearer="the proof for task-1"),
    ]
    assert body == BODY


def test_task_of_earlier_attempt_is_reused() -> None:
    """The next attempt reads the task that an earlier one created, and registers its wait again."""
    talk = Conversation([reply(200, record()), reply(200, {"state": "open"})])
    assert talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, known="task-1")) == Outcome.model_validate(record())
    assert talk.calls == [
        Call("GET", "/api/tasks/task-1"),
        Call("PUT", f"{RELAY}/waits/task-1", json={"timeout_seconds": 900}, bearer="the proof for task-1"),
    ]


ASKED = f"GET {RELAY}/waits/asked"


@pytest.mark.parametrize(
    "nothing",
    [reply(200, {"task_id": None}), reply(405, {"detail": "Method Not Allowed"}, allow="PUT")],
    ids=["none", "an older relay"],
)
def test_question_unknown_to_relay_is_created(nothing: Reply) -> None:
    """A caller that may have asked before first asks the relay whether it knows the question."""
    talk = Conversation([nothing, reply(201, record()), reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True))
    assert talk.requests == [ASKED, CREATE, REGISTER]
    assert talk.calls[0].bearer == ASKING


REFUSALS = pytest.mark.parametrize(
    ("refused", "setting"),
    [
        (reply(401, {}), "AWAITHUMANS_RELAY_SECRET"),
        (reply(404, {"detail": "Not Found"}), "AWAITHUMANS_RELAY_URL"),
        (reply(405, {"detail": "Method Not Allowed"}, allow="GET"), "AWAITHUMANS_RELAY_URL"),
    ],
    ids=["another secret", "another service", "no such method"],
)


@REFUSALS
def test_relay_refusal_prevents_creating_again(refused: Reply, setting: str) -> None:
    """The task may have been deleted, and without the relay nothing shows that it existed."""
    talk = Conversation([refused])
    flow = open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True, gives_up=lambda _: False)
    assert setting in str(refused_with(RequestRefusedError, talk, flow))
    assert talk.requests == [ASKED]


@REFUSALS
def test_retried_caller_cancels_task_of_earlier_attempt(refused: Reply, setting: str) -> None:
    """A task that an earlier attempt may have created is found by its key and cancelled."""
    talk = Conversation([refused, reply(201, record()), refused, reply(200, record("cancelled"))])
    flow = open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True)
    assert setting in str(refused_with(RequestRefusedError, talk, flow))
    assert talk.requests == [ASKED, CREATE, REGISTER, CANCEL]


def test_retried_caller_gets_unreachable_relay_named() -> None:
    """The error names the setting, as it does when the registration fails."""
    talk = Conversation([REFUSED] * 99)
    flow = open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True)
    assert "AWAITHUMANS_RELAY_URL" in str(refused_with(ServerUnreachableError, talk, flow))
    assert set(talk.requests) == {ASKED}


def test_question_known_to_relay_is_not_created_again() -> None:
    """A caller without memory of its task continues with the one that it created before it crashed."""
    talk = Conversation([reply(200, {"task_id": "task-1"}), reply(200, record()), reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True))
    assert talk.requests == [ASKED, GET, REGISTER]


@pytest.mark.parametrize(
    ("refused", "kind"),
    [(reply(401, {}), AuthenticationError), (reply(404, {"detail": "Not Found"}), UnexpectedReplyError)],
    ids=["401", "another service's 404"],
)
def test_unreadable_known_task_is_an_error(refused: Reply, kind: type[AwaitHumansError]) -> None:
    """Only the API's own TASK_NOT_FOUND is left to the relay."""
    talk = Conversation([refused])
    refused_with(kind, talk, open_wait(BODY, RELAY, PROOFS, talk.patience, known="task-1"))


def test_known_task_of_another_question_is_refused() -> None:
    """A caller's own key that belongs to another question is refused, as at creation."""
    other = record(task="Approve?", payload={"amount": 250})
    talk = Conversation([reply(200, other)])
    body = BODY | {"payload": {"amount": 251}}
    refused_with(QuestionChangedError, talk, open_wait(body, RELAY, PROOFS, talk.patience, known="task-1"))


def test_answered_known_task_needs_no_wait() -> None:
    """The next attempt finds the answer on the record."""
    talk = Conversation([reply(200, record("completed", response=ANSWER))])
    assert talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, known="task-1")).response == ANSWER
    assert talk.requests == ["GET /api/tasks/task-1"]


@pytest.mark.parametrize("read", [GONE, reply(200, record(idempotency_key="another"))], ids=["404", "another task"])
def test_missing_known_task_is_registered_as_missing(read: Reply) -> None:
    """A missing task is neither created again nor given up at the first 404: the relay confirms its deletion."""
    talk = Conversation([read, reply(200, {"state": "open"})])
    outcome = talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, known="task-1"))
    assert (outcome.task_id, outcome.terminal) == ("task-1", False)
    registered = {"timeout_seconds": 900, "missing": True}
    assert talk.calls[1:] == [Call("PUT", f"{RELAY}/waits/task-1", json=registered, bearer="the proof for task-1")]


def test_api_token_is_sent_to_task_server_only() -> None:
    """A call without a bearer token of its own gets the driver's API token, so no such call goes to the relay."""
    talk = Conversation([reply(201, record()), REFUSED, reply(503, b""), reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert {call.bearer for call in talk.calls if call.url.startswith("http")} == {"the proof for task-1"}
    assert {call.bearer for call in talk.calls if call.url.startswith("/")} == {None}


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_ended_task_needs_no_wait(status: str) -> None:
    """A key that was used before returns its outcome without a registration at the relay."""
    talk = Conversation([reply(201, record(status, response=ANSWER))])
    assert talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience)).status == status
    assert talk.requests == [CREATE]


def test_refused_question_is_not_registered() -> None:
    """Without a task no wait is registered."""
    talk = Conversation([reply(422, {"detail": "no"})])
    refused_with(TaskRejectedError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert talk.requests == [CREATE]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_relay_refusal_names_the_relay(status: int) -> None:
    """The refusal of a relay is no TaskRejectedError and gives no advice about the API token."""
    talk = Conversation(
        [reply(201, record()), reply(status, {"detail": "no such engine"}), reply(200, record("cancelled"))]
    )
    error = refused_with(RequestRefusedError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert error.status_code == status
    assert "the relay refused" in str(error)
    assert "no such engine" in str(error)
    assert "AWAITHUMANS_ADMIN_API_TOKEN" not in str(error)


@pytest.mark.parametrize(
    "closing",
    [reply(200, record("cancelled")), GONE, ENDED, REFUSED, HTML],
    ids=["cancelled", "404", "ended", "lost", "a page"],
)
def test_unregistered_task_is_cancelled(closing: Reply | Lost) -> None:
    """The relay's refusal cancels the task, and it is the raised error whether or not the cancellation works."""
    talk = Conversation([reply(201, record()), reply(422, {"detail": "no such engine"})], then=closing)
    error = refused_with(RequestRefusedError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert error.status_code == 422
    assert talk.requests[:3] == [CREATE, REGISTER, CANCEL]
    assert talk.clock.now <= 1030


def test_answer_given_before_cancellation_is_returned() -> None:
    """If a person has answered before the task of a refused wait is cancelled, the answer is returned."""
    refused, answered = reply(422, {"detail": "no such engine"}), reply(200, record("completed", response=ANSWER))
    talk = Conversation([reply(201, record()), refused, ENDED, answered])
    assert talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience)).response == ANSWER


def test_shared_task_is_not_cancelled() -> None:
    """A key that existed before may have another caller whose wait the relay accepted."""
    talk = Conversation([reply(201, record(), idempotent_replayed="true"), reply(422, {"detail": "no such engine"})])
    refused_with(RequestRefusedError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert talk.requests == [CREATE, REGISTER]


def test_relay_redirect_is_a_settings_error() -> None:
    """A redirected registration is not taken for a registered wait."""
    redirect = reply(307, b"", location="https://relay.example/")
    talk = Conversation([reply(201, record()), redirect, reply(200, record("cancelled"))])
    error = refused_with(UnexpectedReplyError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert "https://relay.example/" in str(error)


@pytest.mark.parametrize(
    "trouble",
    [REFUSED, TROUBLES["429"], TROUBLES["502"], TROUBLES["a JSON list"], HTML, PROXY_404, reply(204, b"")],
    ids=["lost", "429", "502", "a JSON list", "a page", "a proxy's 404", "nothing"],
)
def test_registration_is_retried_while_relay_is_down(trouble: Reply | Lost) -> None:
    """The registration is retried, and the task is not created again."""
    talk = Conversation([reply(201, record()), trouble, trouble, reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert talk.requests == [CREATE, REGISTER, REGISTER, REGISTER]


def test_unreachable_relay_is_named() -> None:
    """The error names the address that could not be reached."""
    talk = Conversation([reply(201, record())], then=REFUSED)
    error = refused_with(ServerUnreachableError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert error.url == f"{RELAY}/waits/task-1"


def test_relay_report_is_read_with_the_proof() -> None:
    """The relay's report comes back as it is."""
    talk = Conversation([reply(200, {"version": "0.1.0"})])
    assert talk.run(relay_report(RELAY, "proof", talk.patience)) == {"version": "0.1.0"}
    assert [(call.url, call.bearer) for call in talk.calls] == [(f"{RELAY}/waits/report", "proof")]


@pytest.mark.parametrize(
    ("refused", "kind", "words"),
    [
        (reply(405, {"detail": "no"}, allow="PUT"), UnexpectedReplyError, "of an earlier release"),
        (reply(405, {"detail": "no"}, allow="GET"), RequestRefusedError, "Is this the relay?"),
        (reply(401, {"error": "CALLBACK_REJECTED"}), RequestRefusedError, "AWAITHUMANS_RELAY_SECRET"),
    ],
    ids=["an older relay", "another service", "another secret"],
)
def test_relay_without_a_report_is_an_error(refused: Reply, kind: type[AwaitHumansError], words: str) -> None:
    """The error distinguishes an older relay, another service and another secret."""
    talk = Conversation([refused])
    assert words in str(refused_with(kind, talk, relay_report(RELAY, "proof", talk.patience)))


# --- the caller that a task was created for

MARKED = {**BODY, "payload_schema": {"type": "object"}}


def marked(mark: str | None, status: str = "created", **fields: Any) -> dict[str, Any]:
    """Return a record that was created for this caller."""
    return record(status, payload_schema={"type": "object"} | ({} if mark is None else {ASKED_BY: mark}), **fields)


def found(mark: str | None) -> Reply:
    """Return the record of `marked`, as a reply to a create with its known key."""
    return reply(201, marked(mark), idempotent_replayed="true")


def test_task_names_its_caller() -> None:
    """An annotation of the payload schema names the caller, and the caller's own body stays unchanged."""
    talk = Conversation([reply(201, marked("caller-1")), reply(200, {"state": "open"})])
    talk.run(open_wait(MARKED, RELAY, PROOFS, talk.patience, asked_by="caller-1"))
    assert talk.calls[0].json is not None
    assert talk.calls[0].json["payload_schema"] == {"type": "object", ASKED_BY: "caller-1"}
    assert MARKED["payload_schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("mark", "cancelled"), [("caller-1", True), ("caller-2", False), (None, False)], ids=["own", "another's", "unknown"]
)
def test_refused_caller_cancels_its_own_earlier_task_only(mark: str | None, cancelled: bool) -> None:  # noqa: FBT001
    """A refused caller cancels the task of its earlier attempt, but not that of another caller with the same key."""
    talk = Conversation(
        [found(mark), reply(422, {"error": "X", "message": "no"})], then=reply(200, record("cancelled"))
    )
    error = refused_with(
        RequestRefusedError, talk, open_wait(MARKED, RELAY, PROOFS, talk.patience, asked_by="caller-1")
    )
    assert error.task_id == "task-1"
    assert talk.requests == [CREATE, REGISTER, *([CANCEL] if cancelled else [])]


def test_caller_that_retries_leaves_its_task_open() -> None:
    """Cancelling the task would use up its key."""
    talk = Conversation([reply(201, marked("caller-1")), reply(401, {"error": "X", "message": "no"})])
    opening = open_wait(MARKED, RELAY, PROOFS, talk.patience, asked_by="caller-1", gives_up=lambda error: False)
    refused_with(RequestRefusedError, talk, opening)
    assert talk.requests == [CREATE, REGISTER]


def test_caller_out_of_time_cancels_its_task_without_relay() -> None:
    """A caller whose time is up cancels its task even while the relay is unreachable."""
    replies = iter([reply(201, marked("caller-1"))])
    cancelled = reply(200, record("cancelled"))
    talk = Conversation([], then=lambda call: next(replies, cancelled if "cancel" in call.url else REFUSED))
    opening = open_wait(MARKED, RELAY, PROOFS, talk.patience, asked_by="caller-1", gives_up=lambda error: True)
    error = refused_with(ServerUnreachableError, talk, opening)
    assert error.task_id == "task-1"
    assert talk.requests[-1] == CANCEL


@pytest.mark.parametrize(("mark", "cancelled"), [("caller-1", True), ("caller-2", False), (None, False)])
def test_withdraw_by_key_leaves_tasks_of_other_callers(mark: str | None, cancelled: bool) -> None:  # noqa: FBT001
    """A shared key may belong to a caller that is still waiting."""
    talk = Conversation([found(mark)], then=reply(200, record("cancelled")))
    outcome = talk.run(withdraw_key("question-1", talk.patience, asked_by="caller-1"))
    assert outcome.status == ("cancelled" if cancelled else "created")
    assert talk.requests == [CREATE, *([CANCEL] if cancelled else [])]


def test_withdraw_by_key_leaves_nothing_open() -> None:
    """A task that did not exist is created and cancelled, also when it names its caller."""
    talk = Conversation([reply(201, record()), reply(200, record("cancelled"))])
    assert talk.run(withdraw_key("question-1", talk.patience, asked_by="caller-1")).status == "cancelled"


@pytest.mark.parametrize(
    ("own", "mark", "cancelled"),
    [("caller-1", "caller-1", True), ("caller-1", "caller-2", False), ("caller-1", None, False), (None, None, True)],
    ids=["own", "another's", "unknown", "never shared"],
)
def test_caller_closes_only_its_own_task(own: str | None, mark: str | None, cancelled: bool) -> None:  # noqa: FBT001
    """A task that was created for another caller under the same key stays open."""
    asked: list[str] = []
    talk = Conversation([reply(200, marked(mark))], then=reply(200, record("cancelled")))
    outcome = talk.run(close_if_mine("task-1", lambda key: asked.append(key) or own, talk.patience))  # type: ignore[func-returns-value]
    assert outcome.status == ("cancelled" if cancelled else "created")
    assert talk.requests == [GET, *([CANCEL] if cancelled else [])]
    assert asked == ["question-1"]


def test_close_keeps_answer_and_raises_refusal() -> None:
    """An answer that was given in the meantime is returned, and a refusal is an error."""
    talk = Conversation([reply(200, marked("caller-2", "completed", response=ANSWER))])
    assert talk.run(close_if_mine("task-1", lambda key: None, talk.patience)).response == ANSWER
    talk = Conversation([reply(401, {"detail": "no"})])
    refused_with(AuthenticationError, talk, close_if_mine("task-1", lambda key: None, talk.patience))


# --- classification of refusals

SETTING, QUESTION, OUTAGE = Cause.SETTING, Cause.QUESTION, Cause.OUTAGE
UNKNOWN_ENGINE = reply(422, {"error": "ENGINE_UNKNOWN", "message": "this relay has no engine 'temporal'"})
AT_CREATE: dict[str, tuple[Reply | Lost, Cause]] = {
    "another token": (reply(401, {"detail": "no"}), SETTING),
    "too weak a token": (reply(403, {"detail": "no"}), SETTING),
    "a proxy's 403": (reply(403, b"<html>", content_type="text/html"), SETTING),
    "a proxy's 407": (reply(407, b"<html>", content_type="text/html"), SETTING),
    "another service, 404": (reply(404, {"detail": "Not Found"}), SETTING),
    "another service, 404 page": (PROXY_404, SETTING),
    "another service, 405": (reply(405, {"detail": "Method Not Allowed"}), SETTING),
    "another service, 400 page": (reply(400, b"<html>", content_type="text/html"), SETTING),
    "another service, 422 page": (reply(422, b"<html>", content_type="text/html"), SETTING),
    "another service, 200 page": (HTML, SETTING),
    "another host": (reply(421, b""), SETTING),
    "a redirect": (reply(307, b"", location="https://elsewhere.example"), SETTING),
    "malformed": (reply(422, {"detail": [{"loc": ["body"], "msg": "no"}]}), QUESTION),
    "too large": (reply(413, b"<html>", content_type="text/html"), QUESTION),
    "conflict": (reply(409, {"error": "X", "message": "no"}), QUESTION),
    "down": (REFUSED, OUTAGE),
    "bad gateway": (reply(502, b"<html>", content_type="text/html"), OUTAGE),
    "too many requests": (reply(429, {"detail": "no"}), OUTAGE),
}
AT_RELAY: dict[str, tuple[Reply | Lost, Cause]] = {
    "another secret": (reply(401, {"error": "CALLBACK_REJECTED", "message": "no"}), SETTING),
    "another service, 404": (reply(404, {"detail": "Not Found"}), SETTING),
    "another service, 404 page": (PROXY_404, SETTING),
    "another service, 405": (reply(405, {"detail": "Method Not Allowed"}), SETTING),
    "no such engine": (UNKNOWN_ENGINE, SETTING),
    "a proxy's 407": (reply(407, b""), SETTING),
    "a malformed route": (reply(422, {"error": "CALLBACK_REJECTED", "message": "no"}), QUESTION),
    "down": (REFUSED, OUTAGE),
    "not running": (reply(503, {"error": "NOT_RUNNING", "message": "no"}), OUTAGE),
    "never started": (reply(503, {"error": "NOT_RUNNING", "message": "no", "started": False}), SETTING),
}


@pytest.mark.parametrize("case", AT_CREATE)
def test_server_refusal_is_classified(case: str) -> None:
    """One table decides whether the question, a setting or the moment is at fault."""
    answer, cause = AT_CREATE[case]
    talk = Conversation([], then=answer, seconds=5)
    with pytest.raises(AwaitHumansError) as raised:
        talk.run(create(BODY, talk.patience))
    assert cause_of(raised.value) == cause


@pytest.mark.parametrize("case", AT_RELAY)
def test_relay_refusal_is_classified(case: str) -> None:
    """The same table applies to the relay, and the message of a wrong setting names what to correct."""
    answer, cause = AT_RELAY[case]
    talk = Conversation([reply(201, record())], then=lambda call: answer if "waits" in call.url else OPEN, seconds=5)
    with pytest.raises(AwaitHumansError) as raised:
        talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert cause_of(raised.value) == cause
    if cause == SETTING:
        assert "AWAITHUMANS_RELAY" in str(raised.value)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (SettingsError("no token"), SETTING),
        (QuestionChangedError("another"), QUESTION),
        (InvalidTaskError("empty"), QUESTION),
        (TaskTimeoutError("late"), QUESTION),
        (CallbackRejectedError("no"), OUTAGE),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else "",
)
def test_errors_without_reply_are_classified_by_type(error: AwaitHumansError, cause: Cause) -> None:
    """Errors without a reply are classified by their type."""
    assert cause_of(error) == cause


# --- arbitrary replies


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["detail", "error", "error_code", "message", "loc", "msg", "id", "status", "response"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
error_bodies = st.fixed_dictionaries(
    {"detail": st.lists(json_values | st.fixed_dictionaries({}, optional={"loc": json_values, "msg": json_values}))}
)
replies = st.builds(
    Reply,
    st.sampled_from([200, 201, 204, 301, 307, 400, 401, 403, 404, 409, 422, 429, 500, 503]) | st.integers(100, 599),
    st.dictionaries(st.sampled_from(["content-type", "retry-after", "location"]), st.text(), max_size=3),
    st.binary() | (json_values | error_bodies).map(to_json),
)


@given(st.sampled_from(sorted(ONE_CALL)), st.lists(replies | st.builds(Lost, st.text()), min_size=1, max_size=3))
def test_any_reply_gives_outcome_or_typed_error(name: str, heard: list[Reply | Lost]) -> None:
    """Every flow ends with an outcome or a typed error, whatever the replies are."""
    answers = itertools.cycle(heard)
    talk = Conversation([], then=lambda _: next(answers), seconds=20)
    try:
        outcome = talk.run(ONE_CALL[name](talk.patience))
    except AwaitHumansError:
        pass
    else:
        assert outcome.task_id is not None
    assert talk.clock.now <= 1020


LONGER: dict[str, Callable[[Patience], Flow[Any]]] = {
    "ask": lambda patience: ask(BODY, 60, patience),
    "finish": lambda patience: finish(OPENED, 60, patience),
    "withdraw": lambda patience: withdraw(BODY, patience),
    "open_wait": lambda patience: open_wait(BODY, RELAY, PROOFS, patience),
    "list": lambda patience: whole_list(FIRST_PAGE, patience),
}


@given(st.sampled_from(sorted(LONGER)), st.lists(replies | st.builds(Lost, st.text()), min_size=1, max_size=3))
def test_longer_conversation_always_ends(name: str, heard: list[Reply | Lost]) -> None:
    """A flow of several calls ends with a result or a typed error within the time for each of its calls."""
    answers = itertools.cycle(heard)
    talk = Conversation([], then=lambda _: next(answers), seconds=20)
    with suppress(AwaitHumansError):
        talk.run(LONGER[name](talk.patience))
    assert talk.clock.now <= 1000 + 20 + 75 + 3 * 20


# --- task ids


@pytest.mark.parametrize(
    "odd", ["..", ".", "", "a/b", "a?b=1", "a#b", "%2e%2e%2fstatus", "a b", "a\n", "\u0430", "a" * 65], ids=repr
)
@pytest.mark.parametrize(
    "asking", [get, poll, close, lambda odd, patience: close_if_mine(odd, lambda _: None, patience)], ids=range(4)
)
def test_invalid_task_id_is_never_put_into_a_url(asking: Callable[..., Any], odd: str) -> None:
    """The URL is sent with the API token, so an id that names another endpoint is refused and nothing is sent."""
    talk = Conversation([])
    assert "is not a task id" in str(refused_with(InvalidTaskError, talk, asking(odd, talk.patience)))
    assert talk.calls == []


def test_created_task_with_invalid_id_is_retried() -> None:
    """A reply with such an id does not come from the API, so the call is repeated and the error names the reason."""
    talk = Conversation([reply(201, record(id="../status"))] * 99)
    error = refused_with(UnexpectedReplyError, talk, create(BODY, talk.patience))
    assert "'../status' is not a task id" in str(error)


@pytest.mark.parametrize(
    ("shown", "mark", "closed"),
    [
        ("question-1", "ours", True),
        (None, "ours", True),
        ("question-2", "ours", False),
        ("question-1", "theirs", False),
        ("question-1", None, False),
    ],
    ids=["own", "hidden key", "another question", "another caller's", "without a mark"],
)
def test_only_task_of_given_callers_is_closed(shown: str | None, mark: str | None, closed: bool) -> None:  # noqa: FBT001
    """Only the key and the caller named in the record decide whether the task is closed."""
    schema = {} if mark is None else {"x-awaithumans-asked-by": mark}
    found = reply(200, record(idempotency_key=shown, payload_schema=schema))
    talk = Conversation([found, *([reply(200, record("cancelled", idempotency_key=shown))] if closed else [])])
    outcome = talk.run(close_if_marked("task-1", "question-1", {"ours"}, talk.patience))
    assert outcome.terminal is closed
    assert talk.requests == ([GET, CANCEL] if closed else [GET])


def test_repr_of_a_call_shows_neither_proof_nor_content() -> None:
    """A call or reply that is logged or part of a traceback reveals no secret and no content."""
    call = Call("PUT", "/waits/t", json={"callback_url": "token-in-url"}, bearer="route-token")
    assert repr(call) == "Call(method='PUT', url='/waits/t', params=None, timeout=15.0)"
    assert "answer" not in repr(Reply(200, {"set-cookie": "answer"}, b"answer"))
