"""The conversations with the task API and the relay, word for word: what is sent, and what is made of every reply."""

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

from awaithumans_core.cause import Cause, cause_of
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
from awaithumans_core.flow import (
    ASKED_BY,
    FIRST_PAGE,
    HEAVY_PAGE_BYTES,
    MOST_ON_PAGE,
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
    close_of,
    close_own,
    create,
    ended,
    ended_page,
    finish,
    follow,
    get,
    last_look,
    open_wait,
    poll,
    withdraw,
    withdraw_key,
)
from awaithumans_core.outcome import Outcome
from awaithumans_core.task import AGAIN
from tests.unit.scripted import START, After, Event, Talk, held, polled, record, reply

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


def refused_with(kind: type[AwaitHumansError], talk: Talk, flow: Flow[Any]) -> Any:
    """Drive a flow that must end in exactly this error."""
    with pytest.raises(kind) as raised:
        talk.run(flow)
    assert type(raised.value) is kind
    return raised.value


# --- create


def test_create_sends_the_body_and_reads_the_record() -> None:
    """One call, with the body as it is and the driver's own token."""
    talk = Talk([reply(201, record())])
    assert talk.run(create(BODY, talk.patience)) == Outcome.model_validate(record())
    assert talk.steps == [Call("POST", "/api/tasks", json=BODY)]


def test_create_takes_a_replay_as_it_stands() -> None:
    """A known key gives the task it belongs to, ended or not."""
    known = record("completed", response=ANSWER)
    talk = Talk([reply(201, known, idempotent_replayed="true")])
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
def test_a_key_of_another_question_is_refused(asked: dict[str, Any], status: str) -> None:
    """What a person decided about one payload is no answer about another, asked under the same key."""
    known = record(status, task="Approve?", payload={"amount": 250} if asked["payload"] else {}, response=ANSWER)
    talk = Talk([reply(201, known, idempotent_replayed="true")])
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
def test_a_key_of_the_same_question_is_picked_up(asked: dict[str, Any], shown: dict[str, Any]) -> None:
    """A restart, and a server that hides payloads, get their answer."""
    talk = Talk([reply(201, record("completed", response=ANSWER, **shown), idempotent_replayed="true")])
    assert talk.run(create(BODY | asked, talk.patience)).response == ANSWER


@pytest.mark.parametrize("same_words", [True, False])
def test_other_words_are_another_question_unless_its_place_names_it(same_words: bool) -> None:  # noqa: FBT001
    """Text may be all that says what is asked; only an engine whose keys are places knows that it may change."""
    known = record("completed", response=ANSWER, task="Refund $250?", payload={"order": "A"})
    talk = Talk([reply(201, known, idempotent_replayed="true")])
    asked = BODY | {"task": "Refund $2500000?", "payload": {"order": "A"}}
    opening = open_wait(asked, RELAY, PROOFS, talk.patience, same_words=same_words)
    if same_words:
        refused_with(QuestionChangedError, talk, opening)
    else:
        assert talk.run(opening).response == ANSWER


def test_a_derived_key_that_is_somebody_elses_is_refused() -> None:
    """A caller's own key may look like that of a question that was asked again; its answer is not taken for ours."""
    known = record("completed", response=ANSWER, task="Something else?", payload={"amount": 250})
    talk = Talk([reply(201, known, idempotent_replayed="true")])
    asked = BODY | {"task": f"Approve?{AGAIN}approved: wrong)", "payload": {"amount": 250}}
    refused_with(QuestionChangedError, talk, create(asked, talk.patience))


def test_the_record_of_another_question_is_no_reply() -> None:
    """Whatever a server says under another key, or another id, is not taken for what was asked."""
    talk = Talk([reply(201, record(idempotency_key="another")), reply(201, record())])
    assert talk.run(create(BODY, talk.patience)).idempotency_key == "question-1"
    talk = Talk([reply(200, record(id="task-2")), reply(200, record())])
    assert talk.run(get("task-1", talk.patience)).task_id == "task-1"


def test_an_answer_may_be_nested_deep() -> None:
    """What the server has stored is read, however deep it goes."""
    deep: Any = []
    for _ in range(240):
        deep = [deep]
    body = json.dumps(record("completed", response={"deep": deep})).encode()
    talk = Talk([reply(200, body)])
    assert talk.run(get("task-1", talk.patience)).response == {"deep": deep}


def test_nesting_without_end_is_trouble() -> None:
    """It is no reply, and no crash."""
    talk = Talk([reply(200, b"[" * 100_000), reply(200, record())])
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
def test_a_refusal_is_a_typed_error_in_the_servers_words(
    status: int, kind: type[RequestRefusedError], body: Any, code: str | None, words: str
) -> None:
    """Each 4xx is its error, at once, and all of the server's error shapes are read."""
    talk = Talk([reply(status, body)])
    error = refused_with(kind, talk, create(BODY, talk.patience))
    assert error.status_code == status
    assert error.server_code == code
    assert words in str(error)
    assert talk.said == [CREATE]


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
def test_a_refusal_in_any_other_shape_is_a_refusal_still(body: Any) -> None:
    """However odd its body, a 4xx is the typed error with its status."""
    talk = Talk([reply(422, body)])
    error = refused_with(TaskRejectedError, talk, create(BODY, talk.patience))
    assert error.status_code == 422
    assert "422" in str(error)


@pytest.mark.parametrize(("status", "advice"), [(401, "AWAITHUMANS_ADMIN_API_TOKEN"), (403, "a token of an operator")])
@every_call
def test_a_refused_token_says_what_to_do(flow: Callable[[Patience], Flow[Outcome]], status: int, advice: str) -> None:
    """401 and 403 mean the same at every call, and tell which setting to look at."""
    talk = Talk([reply(status, {"detail": "no"})])
    error = refused_with({401: AuthenticationError, 403: PermissionDeniedError}[status], talk, flow(talk.patience))
    assert advice in str(error)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@every_call
def test_a_redirect_is_an_address_to_mend(flow: Callable[[Patience], Flow[Outcome]], status: int) -> None:
    """A redirect is not followed, and not tried again: the text says where the server is."""
    talk = Talk([reply(status, b"", location="https://humans.example/")])
    error = refused_with(UnexpectedReplyError, talk, flow(talk.patience))
    assert "https://humans.example/" in str(error)
    assert len(talk.calls) == 1


# --- trying again


@every_trouble
@every_call
def test_trouble_is_waited_out(flow: Callable[[Patience], Flow[Outcome]], trouble: Reply | Lost) -> None:
    """After anything that is no word of the API, the very same call is made again half a second later."""
    if flow is ONE_CALL["poll"] and trouble is TROUBLES["another API"]:
        trouble = reply(200, {"id": "task-1"})  # a poll reply has no id to miss
    talk = Talk([trouble, reply(200, record("cancelled") if flow is ONE_CALL["close"] else record())])
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
def test_a_pause_says_what_is_waited_out(trouble: Reply | Lost, reason: str) -> None:
    """An operator reads from one line what is wrong."""
    talk = Talk([trouble, reply(200, record())])
    talk.run(get("task-1", talk.patience))
    assert reason in talk.pauses[0].reason


def test_pauses_grow_with_every_failure() -> None:
    """A server that is down is not knocked at twice a second."""
    talk = Talk([REFUSED] * 8 + [reply(200, record())], seconds=900)
    talk.run(get("task-1", talk.patience))
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("status", [429, 503, 200])
def test_retry_after_in_seconds_is_kept(status: int) -> None:
    """The other side says when it can be asked again, with whatever reply."""
    talk = Talk([reply(status, b"", retry_after="7"), reply(200, record())])
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 7


def test_retry_after_as_a_date_is_kept() -> None:
    """The header's other form, a date, counts from the server's own date: clocks may differ by years."""
    sent = datetime(2031, 1, 1, tzinfo=UTC)
    then = format_datetime(sent + timedelta(seconds=30), usegmt=True)
    talk = Talk([reply(503, b"", retry_after=then, date=format_datetime(sent, usegmt=True)), reply(200, record())])
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 30


@pytest.mark.parametrize("date", [None, "yesterday"], ids=["no date", "no date at all"])
def test_retry_after_as_a_date_needs_the_servers_date(date: str | None) -> None:
    """What nobody can compute is left to the usual pause."""
    then = format_datetime(datetime(2031, 1, 1, tzinfo=UTC), usegmt=True)
    headers = {"retry_after": then} | ({"date": date} if date else {})
    talk = Talk([reply(503, b"", **headers), reply(200, record())])
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 0.5


@pytest.mark.parametrize(
    "value",
    ["", "0", "-5", "soon", "nan", "inf", "1e999", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 99 Oct 2015", "\ud800"],
    ids=ascii,
)
def test_any_other_retry_after_is_ignored(value: str) -> None:
    """A header that says nothing, or only something past, leaves the pause as it is."""
    talk = Talk([reply(503, b"", retry_after=value), reply(200, record())])
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
def test_when_patience_ends_the_error_says_what_is_wrong(
    trouble: Reply | Lost, kind: type[ServerUnreachableError]
) -> None:
    """A server that is away or too busy is one thing, an address where something else lives is another."""
    talk = Talk([], then=trouble, seconds=10)
    error = refused_with(kind, talk, create(BODY, talk.patience))
    assert error.url == "/api/tasks"
    assert error.attempts == len(talk.calls) == 5
    assert "5 attempts" in str(error)
    assert talk.clock.now <= 1010


def test_slow_failures_count_against_patience() -> None:
    """Patience is time, not a number of tries: calls that hang use it up, too."""
    talk = Talk([], then=After(15.0, Lost("ReadTimeout")), seconds=40)
    error = refused_with(ServerUnreachableError, talk, get("task-1", talk.patience))
    assert error.attempts == 3


def test_a_pause_beyond_the_end_of_patience_is_not_begun() -> None:
    """When the other side asks for more time than there is, the caller hears it now."""
    talk = Talk([reply(503, b"", retry_after="45")], seconds=30)
    refused_with(ServerUnreachableError, talk, get("task-1", talk.patience))
    assert talk.pauses == []


def test_no_retry_after_outlasts_a_minute() -> None:
    """A proxy's maintenance page that speaks of hours does not keep an answer from its asker for hours."""
    talk = Talk([reply(503, b"", retry_after="7200"), reply(200, record())], seconds=900)
    talk.run(get("task-1", talk.patience))
    assert talk.pauses[0].seconds == 60


# --- get, poll, close


def test_get_looks_once() -> None:
    """One plain read."""
    talk = Talk([reply(200, record("notified"))])
    assert talk.run(get("task-1", talk.patience)).status == "notified"
    assert talk.steps == [Call("GET", "/api/tasks/task-1")]


@pytest.mark.parametrize("seconds", [1, 25, 30])
def test_poll_asks_to_be_held_and_allows_for_it(seconds: int) -> None:
    """The server is told how long to hold, and the connection lives ten seconds longer."""
    talk = Talk([polled()])
    talk.run(poll("task-1", talk.patience, seconds=seconds))
    assert talk.steps == [
        Call("GET", "/api/tasks/task-1/poll", params={"timeout": seconds}, timeout=seconds + 10.0),
    ]


def test_poll_is_held_for_25_seconds_by_default() -> None:
    """The documented default."""
    talk = Talk([polled()])
    talk.run(poll("task-1", talk.patience))
    assert talk.calls[0].params == {"timeout": 25}


def test_a_poll_reply_is_given_its_task() -> None:
    """Poll replies do not name the task; the outcome does."""
    talk = Talk([polled("notified")])
    outcome = talk.run(poll("task-1", talk.patience))
    assert (outcome.task_id, outcome.status) == ("task-1", "notified")


@pytest.mark.parametrize("name", ["get", "poll", "close"])
@pytest.mark.parametrize("word", ["error", "error_code"])
def test_an_unknown_task_is_not_found(name: str, word: str) -> None:
    """The server's own 404, in the form it sends and in the form it documents, names the task."""
    talk = Talk([reply(404, {word: "TASK_NOT_FOUND", "message": "Task 'task-1' not found."})])
    error = refused_with(TaskNotFoundError, talk, ONE_CALL[name](talk.patience))
    assert error.task_id == "task-1"
    assert error.status_code == 404


@pytest.mark.parametrize("name", ["get", "poll", "close"])
def test_an_unknown_task_casts_no_doubt_on_the_address(name: str) -> None:
    """A server that says TASK_NOT_FOUND is the right server: nobody is sent to look at AWAITHUMANS_URL."""
    talk = Talk([GONE])
    assert "AWAITHUMANS_URL" not in str(refused_with(TaskNotFoundError, talk, ONE_CALL[name](talk.patience)))


def test_a_404_at_create_casts_doubt_on_the_address() -> None:
    """There is no task that could be missing yet: the address is what to look at."""
    talk = Talk([reply(404, {"detail": "Not Found"})])
    assert "AWAITHUMANS_URL" in str(refused_with(TaskRejectedError, talk, create(BODY, talk.patience)))


@pytest.mark.parametrize("name", ["get", "poll", "close"])
def test_a_404_of_something_else_is_no_missing_task(name: str) -> None:
    """Another service's 404 says that the address is wrong, not that the task is gone."""
    talk = Talk([reply(404, {"detail": "Not Found"})])
    error = refused_with(UnexpectedReplyError, talk, ONE_CALL[name](talk.patience))
    assert "no task API at this address" in str(error)


@pytest.mark.parametrize("name", ["get", "poll", "close"])
def test_any_other_refusal_is_the_general_one(name: str) -> None:
    """What has no error of its own still carries its status and the task."""
    talk = Talk([reply(400, {"detail": "no"})])
    error = refused_with(RequestRefusedError, talk, ONE_CALL[name](talk.patience))
    assert (error.status_code, error.task_id) == (400, "task-1")


def test_close_cancels() -> None:
    """An open task is cancelled, so that nobody works for nothing."""
    talk = Talk([reply(200, record("cancelled"))])
    assert talk.run(close("task-1", talk.patience)).status == "cancelled"
    assert talk.steps == [Call("POST", "/api/tasks/task-1/cancel")]


def test_close_finds_what_came_first() -> None:
    """Too late to cancel is no failure: the answer that was given is returned."""
    talk = Talk([ENDED, reply(200, record("completed", response=ANSWER))])
    assert talk.run(close("task-1", talk.patience)).response == ANSWER
    assert talk.said == [CANCEL, GET]


def test_close_whose_reply_was_lost_finds_its_own_work() -> None:
    """A cancel that went through unheard answers 409 the second time; the task is cancelled all the same."""
    talk = Talk([REFUSED, ENDED, reply(200, record("cancelled"))])
    assert talk.run(close("task-1", talk.patience)).status == "cancelled"
    assert talk.said == [CANCEL, CANCEL, GET]


# --- follow


def test_follow_returns_an_answer_at_once() -> None:
    """The moment a poll brings the end, the wait is over."""
    talk = Talk([After(3.0, polled("completed", ANSWER)), DONE])
    assert talk.run(follow("task-1", 900, talk.patience)).response == ANSWER
    assert talk.said == [POLL, GET]
    assert talk.pauses == []


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_follow_ends_with_the_task(status: str) -> None:
    """All four ends are ends, and come out as they are."""
    talk = Talk([held(), polled(status), reply(200, record(status))])
    assert talk.run(follow("task-1", 900, talk.patience)).status == status


def test_follow_reconnects_until_the_end() -> None:
    """Held polls follow one another without a pause between them."""
    talk = Talk([held(), held("notified"), held("in_progress"), polled("completed", ANSWER), DONE])
    talk.run(follow("task-1", 900, talk.patience))
    assert talk.said == [POLL] * 4 + [GET]
    assert talk.pauses == []


def test_follow_notices_each_status_once() -> None:
    """Every change is told, what stays the same is not, and the end is the result and not a notice."""
    seen = ["created", "created", "notified", "notified", "created"]
    talk = Talk([*(held(status) for status in seen), polled("completed", ANSWER), DONE])
    talk.run(follow("task-1", 900, talk.patience))
    assert talk.noticed == ["created", "notified", "created"]


def test_follow_takes_an_unknown_status_as_pending() -> None:
    """A newer server's status ends no wait, and is told like any other."""
    talk = Talk([held("escalated"), polled("completed", ANSWER), DONE])
    assert talk.run(follow("task-1", 900, talk.patience)).status == "completed"
    assert talk.noticed == ["escalated"]


def test_follow_makes_no_storm_of_polls_that_are_not_held() -> None:
    """A server or proxy that answers pending at once is asked ever more slowly."""
    talk = Talk([polled()] * 4 + [polled("completed", ANSWER), DONE])
    talk.run(follow("task-1", 900, talk.patience))
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 2, 4]


def test_follow_forgets_a_storm_once_a_poll_is_held() -> None:
    """One held poll, and the next quick reply is the first again."""
    talk = Talk([polled(), polled(), held(), polled(), polled("completed", ANSWER), DONE])
    talk.run(follow("task-1", 900, talk.patience))
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 0.5]


def test_follow_never_polls_far_beyond_its_deadline() -> None:
    """The last poll is held for what is left, and a second at least."""
    talk = Talk(
        [held(), After(7.0, polled()), After(0.6, polled()), After(1.0, polled()), reply(200, record("cancelled"))]
    )
    talk.run(follow("task-1", 33.0, talk.patience))
    assert [call.params for call in talk.calls[:4]] == [{"timeout": seconds} for seconds in (25, 8, 1, 1)]


def test_follow_closes_the_task_at_its_deadline() -> None:
    """Nobody answered: people are freed, and it is a timeout, not a cancellation."""
    talk = Talk([held(), held(), OPEN, reply(200, record("cancelled"))])
    assert talk.run(follow("task-1", 50, talk.patience)).status == "timed_out"
    assert talk.said == [POLL, POLL, GET, CANCEL]
    assert talk.clock.now == 1050


def test_an_answer_at_the_last_moment_wins() -> None:
    """An answer given between the last poll and the deadline is the answer."""
    talk = Talk([held(), held(), reply(200, record("completed", response=ANSWER))])
    outcome = talk.run(follow("task-1", 50, talk.patience))
    assert (outcome.status, outcome.response) == ("completed", ANSWER)
    assert talk.said == [POLL, POLL, GET]


def test_an_answer_between_the_last_look_and_the_closing_wins() -> None:
    """Closing comes too late, and what was too early for the look is the answer."""
    talk = Talk([held(), held(), OPEN, ENDED, reply(200, record("completed", response=ANSWER))])
    assert talk.run(follow("task-1", 50, talk.patience)).response == ANSWER
    assert talk.said == [POLL, POLL, GET, CANCEL, GET]


def test_an_operators_cancelling_is_no_timeout() -> None:
    """What somebody else has cancelled before the deadline is called so, also when polls were down meanwhile."""
    talk = Talk([held(), held(), reply(200, record("cancelled"))])
    assert talk.run(follow("task-1", 50, talk.patience)).status == "cancelled"


@pytest.mark.parametrize(("time", "closed"), [(60, True), (3600, False)], ids=["own", "longer"])
def test_a_question_that_others_wait_for_longer_stays_open(time: int, closed: bool) -> None:  # noqa: FBT001
    """Whoever asked under the key of a question with more time hears of a timeout, and the others keep theirs."""
    standing = record("notified", timeout_seconds=time)
    talk = Talk([reply(201, standing), *[held("notified")] * 3], then=reply(200, standing))
    talk.then = lambda call: reply(200, record("cancelled") if call.method == "POST" else standing)
    assert talk.run(ask(BODY, 60, talk.patience)).status == "timed_out"
    assert (CANCEL in talk.said) is closed


def test_follow_without_time_left_looks_once_more() -> None:
    """A wait that begins at its deadline goes straight to the last look."""
    talk = Talk([reply(200, record("completed", response=ANSWER))])
    assert talk.run(follow("task-1", 0, talk.patience)).response == ANSWER
    assert talk.said == [GET]


@every_trouble
def test_an_outage_does_not_end_a_wait(trouble: Reply | Lost) -> None:
    """Trouble between two polls is waited out for as long as the task has time, not a minute."""
    if trouble is TROUBLES["another API"]:
        trouble = reply(200, {"id": "task-1"})
    talk = Talk([held(), *[trouble] * 12, polled("completed", ANSWER), DONE], seconds=60)
    assert talk.run(follow("task-1", 900, talk.patience)).response == ANSWER
    assert talk.clock.now > 1200


def test_one_failed_poll_at_the_deadline_does_not_hide_an_answer() -> None:
    """A hiccup in the last second still ends in the last look, with the caller's patience."""
    start: list[Event] = [held(), reply(502, b"Bad Gateway")]
    polls = itertools.chain(start, itertools.repeat(polled("completed", ANSWER)))
    late: dict[str, Event] = {GET: reply(200, record("completed", response=ANSWER))}

    def server(call: Call) -> Event:
        said = f"{call.method} {call.url}"
        return next(polls) if said == POLL else late[said]

    talk = Talk([], then=server)
    assert talk.run(follow("task-1", 25.3, talk.patience)).response == ANSWER


@pytest.mark.parametrize("trouble", [reply(503, b"", retry_after="60"), REFUSED], ids=["retry after", "lost"])
def test_trouble_does_not_bring_the_deadline_forward(trouble: Reply | Lost) -> None:
    """When no further try fits in before the deadline, the task stays open until then: people keep their time."""
    replies = {CANCEL: reply(200, record("cancelled")), GET: OPEN}
    talk = Talk([held()], then=lambda call: replies.get(f"{call.method} {call.url}", trouble))
    talk.run(follow("task-1", 65, talk.patience))
    assert talk.said[-2:] == [GET, CANCEL]
    assert talk.called_at[-2] >= 65


def test_a_poll_that_hangs_beyond_the_deadline_is_followed_by_the_last_look() -> None:
    """A connection that died in silence has used up the time: the task is closed at once, without another pause."""
    talk = Talk([held(), After(35.0, Lost("ReadTimeout")), reply(200, record("completed", response=ANSWER))])
    assert talk.run(follow("task-1", 50, talk.patience)).response == ANSWER
    assert talk.said == [POLL, POLL, GET]
    assert talk.pauses == []


def test_a_server_that_stays_away_is_said_to_be_away() -> None:
    """Without any reply up to the deadline nobody knows how the task ended: it is not called a timeout."""
    talk = Talk([held()], then=REFUSED)
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
def test_a_refusal_ends_a_wait(trouble: Reply, kind: type[AwaitHumansError]) -> None:
    """What will be refused again is not polled for until the deadline."""
    talk = Talk([held(), trouble])
    refused_with(kind, talk, follow("task-1", 900, talk.patience))


# --- a task that the server does not know


def test_a_deleted_task_ends_follow_once_that_is_confirmed() -> None:
    """Three readings at least, over five minutes at least; the error carries the outcome."""
    talk = Talk([held()], then=GONE)
    error = refused_with(TaskNotFoundError, talk, follow("task-1", 3600, talk.patience))
    assert error.outcome == Outcome(task_id="task-1", status="not_found")
    assert error.task_id == "task-1"
    first, *_, last = talk.called_at[1:]
    assert 300 <= last - first < 330
    assert set(talk.said) == {POLL}


def test_one_pause_of_a_missing_task_is_logged() -> None:
    """However often it is read until its deletion is confirmed."""
    talk = Talk([held()], then=GONE)
    refused_with(TaskNotFoundError, talk, follow("task-1", 3600, talk.patience))
    assert all(pause.missing for pause in talk.pauses)
    assert [pause.logged for pause in talk.pauses] == [True] + [False] * (len(talk.pauses) - 1)


def test_a_task_that_is_there_again_is_followed_to_its_end() -> None:
    """A server that ran on another database for a while: the answer comes, and the status is news once more."""
    talk = Talk([held(), GONE, GONE, GONE, held(), polled("completed", ANSWER), DONE])
    assert talk.run(follow("task-1", 900, talk.patience, known="created")).response == ANSWER
    assert talk.noticed == ["created"]


def test_readings_in_between_begin_the_count_again() -> None:
    """Five minutes of 404 with one reading among them confirm nothing."""

    def server(_: Call) -> Event:
        return held() if 150 < talk.clock.now - START < 250 else GONE

    talk = Talk([], then=server)
    refused_with(TaskNotFoundError, talk, follow("task-1", 3600, talk.patience))
    assert talk.called_at[-1] >= 150 + 300


def test_the_deadline_of_a_missing_task_is_a_timeout() -> None:
    """One that comes before its deletion is confirmed is what the caller agreed to wait for."""
    talk = Talk([held()], then=GONE)
    ended = talk.run(follow("task-1", 200, talk.patience))
    assert (ended.status, ended.task_id) == ("timed_out", "task-1")
    assert talk.called_at[-1] >= 200
    assert CREATE not in talk.said


def test_no_question_ends_while_most_tasks_are_missing() -> None:
    """Two of the two tasks that a caller waits for are missing: both are waited for until their deadline."""
    readings = Readings()
    readings.missing("another", START)
    talk = Talk([], then=GONE)
    ended = talk.run(follow("task-1", 900, talk.patience, readings=readings))
    assert ended.status == "timed_out"
    assert "another database" in [pause.reason for pause in talk.pauses if pause.logged][-1]
    assert sum(pause.logged for pause in talk.pauses) == 2


def test_a_status_of_ours_from_the_server_is_pending() -> None:
    """No record, poll or list can claim that a task was deleted."""
    talk = Talk([polled("not_found"), polled("completed", ANSWER), DONE])
    assert talk.run(follow("task-1", 900, talk.patience)).response == ANSWER
    claimed = reply(200, record("not_found"))
    talk = Talk([claimed])
    assert not talk.run(get("task-1", talk.patience)).terminal
    talk = Talk([claimed])
    assert not talk.run(create(BODY | {"idempotency_key": "question-1"}, talk.patience)).terminal
    talk = Talk([claimed, reply(200, record("cancelled"))])  # an open task is cancelled once more
    assert talk.run(close("task-1", talk.patience)).status == "cancelled"
    talk = Talk([reply(200, [record("not_found")])])
    assert [outcome.terminal for outcome in talk.run(ended_page(0, 25, talk.patience)).ended] == [False]


def test_reply_that_is_too_large_is_asked_for_again() -> None:
    """What answers is not the API: no task is as large."""
    talk = Talk([Reply(200, {}, b"", cut=True), reply(200, record("cancelled"))])
    assert talk.run(get("task-1", talk.patience)).status == "cancelled"


@pytest.mark.parametrize(("size", "next_size", "covered"), [(50, 25, 0), (1, 1, 1)])
def test_page_that_is_too_large_is_read_again_in_smaller_ones(size: int, next_size: int, covered: int) -> None:
    """A single task that is too large is left out."""
    talk = Talk([Reply(200, {}, b"", cut=True)])
    page = talk.run(ended_page(0, size, talk.patience))
    assert (page.ended, page.full, page.next_size, page.covered) == ([], True, next_size, covered)


# --- ask


def test_ask_returns_a_stored_answer_at_once() -> None:
    """A key whose question was answered before asks nobody again."""
    talk = Talk([reply(201, record("completed", response=ANSWER, completed_by_email="ann@example.com"))])
    outcome = talk.run(ask(BODY, 900, talk.patience))
    assert outcome.completed_by_email == "ann@example.com"
    assert talk.said == [CREATE]
    assert talk.noticed == []


def test_ask_goes_the_whole_way() -> None:
    """Create, poll to the end, and read from the record who answered and where."""
    ended = record("completed", response=ANSWER, completed_by_email="ann@example.com", completed_via_channel="slack")
    talk = Talk([reply(201, record()), held("notified"), polled("completed", ANSWER), reply(200, ended)])
    outcome = talk.run(ask(BODY, 900, talk.patience))
    assert outcome == Outcome.model_validate(ended)
    assert talk.said == [CREATE, POLL, POLL, GET]


def test_ask_tells_of_the_task_before_anybody_answers() -> None:
    """The first notice carries the new task, so that a link to it can be shown."""
    talk = Talk([reply(201, record()), polled("completed", ANSWER), reply(200, record("completed", response=ANSWER))])
    talk.run(ask(BODY, 900, talk.patience))
    assert talk.steps[1] == Notice(Outcome.model_validate(record()))


def test_ask_notices_each_status_once() -> None:
    """The status the task was created with is no change when the first poll says it again."""
    done = record("completed", response=ANSWER)
    talk = Talk(
        [reply(201, record()), held("created"), held("notified"), polled("completed", ANSWER), reply(200, done)]
    )
    talk.run(ask(BODY, 900, talk.patience))
    assert talk.noticed == ["created", "notified"]


def test_ask_calls_its_own_cancelling_a_timeout() -> None:
    """The record says cancelled, as we did it; the asker hears that the deadline passed."""
    cancelled = reply(200, record("cancelled"))
    talk = Talk([reply(201, record()), *[held()] * 3, OPEN, cancelled])
    assert talk.run(ask(BODY, 60, talk.patience)).status == "timed_out"


def test_ask_leaves_the_server_time_to_end_the_task_itself() -> None:
    """The server's scheduler comes some seconds after the deadline; cancelling waits 15 s for it."""
    cancelled = reply(200, record("cancelled"))
    talk = Talk([reply(201, record()), *[held()] * 3, OPEN, cancelled])
    talk.run(ask(BODY, 60, talk.patience))
    assert talk.said[-1] == CANCEL
    assert talk.clock.now == 1000 + 60 + 15


def test_ask_does_not_wait_for_what_was_refused() -> None:
    """A question the server does not take is the caller's to mend, at once."""
    talk = Talk([reply(422, {"detail": "no"})])
    refused_with(TaskRejectedError, talk, ask(BODY, 900, talk.patience))


# --- finish


OPENED = Outcome.model_validate(record("notified"))
"""An open task, as it was seen last."""


def test_finish_follows_to_the_end_and_reads_who_answered() -> None:
    """A poll does not say who answered and where; the record, read once at the end, does."""
    done = record("completed", response=ANSWER, completed_by_email="ann@example.com", completed_via_channel="slack")
    talk = Talk([held(), polled("completed", ANSWER), reply(200, done)])
    assert talk.run(finish(OPENED, 900, talk.patience)) == Outcome.model_validate(done)
    assert talk.said == [POLL, POLL, GET]


def test_finish_tells_changes_only() -> None:
    """The status the task was found in is known already; what follows it is told once each."""
    statuses = ["notified", "in_progress", "in_progress", "notified"]
    done = reply(200, record("completed", response=ANSWER))
    talk = Talk([*(held(status) for status in statuses), polled("completed", ANSWER), done])
    talk.run(finish(OPENED, 900, talk.patience))
    assert talk.noticed == ["in_progress", "notified"]


def test_finish_ends_at_its_own_deadline() -> None:
    """The seconds given are all there are: nothing is added to them."""
    cancelled = reply(200, record("cancelled"))
    talk = Talk([held(), held(), OPEN, cancelled])
    assert talk.run(finish(OPENED, 50, talk.patience)).status == "timed_out"
    assert talk.said == [POLL, POLL, GET, CANCEL]
    assert talk.clock.now == 1050


@pytest.mark.parametrize(
    ("patience", "most"), [(900.0, 30.0), (5.0, 5.0)], ids=["half a minute at most", "or the caller's patience"]
)
def test_the_last_look_is_brief(patience: float, most: float) -> None:
    """At the deadline, a server that is away is not waited for as it was before."""
    talk = Talk([held()], then=REFUSED, seconds=patience)
    refused_with(ServerUnreachableError, talk, finish(OPENED, 60, talk.patience))
    assert 1060 < talk.clock.now <= 1060 + most
    assert talk.said[-1] == GET


def test_finish_waits_out_what_is_longer_than_its_patience() -> None:
    """An open question outlives an outage: patience is for the last look, not for the wait."""
    talk = Talk([held(), *[REFUSED] * 9, polled("completed", ANSWER), DONE], seconds=5)
    assert talk.run(finish(OPENED, 900, talk.patience)).response == ANSWER
    assert talk.clock.now > 1030


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(reply(401, {}), AuthenticationError), (reply(403, {}), PermissionDeniedError)],
    ids=["401", "403"],
)
def test_a_refusal_ends_finish(trouble: Reply, kind: type[AwaitHumansError]) -> None:
    """A task that may not be read is not waited for."""
    talk = Talk([held(), trouble])
    refused_with(kind, talk, finish(OPENED, 900, talk.patience))


# --- whose reply it is


def named(flow: Callable[..., Flow[Outcome]], talk: Talk) -> Outcome:
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
def test_poll_that_reports_an_end_of_an_open_task_ends_nothing(status: str) -> None:
    """The reply belongs to another request: it is logged, and polling continues."""
    wrong = reply(200, {"status": status, "response": OTHER, "completed_at": MOMENT, "timed_out_at": None})
    talk = Talk([held(), wrong, OPEN, held(), polled("completed", ANSWER), DONE])
    assert named(follow, talk).response == ANSWER
    assert talk.said == [POLL, POLL, GET, POLL, POLL, GET]
    assert "belongs to another request" in talk.pauses[0].reason
    assert repr(status) in talk.pauses[0].reason


def test_polls_that_go_on_reporting_a_wrong_end_are_made_ever_more_rarely() -> None:
    """A proxy that caches a reply does not turn the wait into a storm of requests."""
    talk = Talk([polled("completed", OTHER), OPEN] * 5 + [polled("completed", ANSWER), DONE])
    assert named(follow, talk).response == ANSWER
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 2, 4, 8]


@pytest.mark.parametrize("status", ENDS)
@pytest.mark.parametrize("wrong", ["completed", "timed_out"])
def test_the_record_says_how_a_task_ended(status: str, wrong: str) -> None:
    """Status and response come from the record, whatever the poll reported."""
    shown = record(status, response=ANSWER, completed_by_email="ann@example.com")
    talk = Talk([polled(wrong, OTHER), reply(200, shown)])
    assert named(follow, talk) == Outcome.model_validate(shown)


@pytest.mark.parametrize("name", ["get", "poll", "close", "follow"])
@pytest.mark.parametrize(
    "wrong",
    [
        reply(200, record("completed", id="task-2", response=OTHER)),
        reply(200, record("completed", idempotency_key="question-2", response=OTHER)),
        polled("completed", OTHER),
        reply(200, [record("completed", response=OTHER)]),
    ],
    ids=["another task", "another key", "a poll", "a list"],
)
def test_reply_of_another_request_is_no_record(name: str, wrong: Reply) -> None:
    """What is no record of this task and this question is read again."""
    if name == "poll" and wrong.body == to_json(record("completed", idempotency_key="question-2", response=OTHER)):
        wrong = reply(200, record("completed", id="task-2", response=OTHER))  # a poll is not given the key
    flows: dict[str, Callable[[Patience], Flow[Outcome]]] = {
        "get": lambda patience: get("task-1", patience, key="question-1"),
        "poll": lambda patience: poll("task-1", patience),
        "close": lambda patience: close("task-1", patience, key="question-1"),
        "follow": lambda patience: follow("task-1", 900, patience, key="question-1"),
    }
    before = [polled("completed")] if name in {"poll", "follow"} else []
    talk = Talk([*before, wrong, DONE])
    assert talk.run(flows[name](talk.patience)).response == ANSWER
    assert len(talk.pauses) == 1


def test_one_poll_reads_the_end_from_the_record() -> None:
    """`poll` by itself, too: an end that the record does not have is not reported to the caller."""
    talk = Talk([polled("completed", OTHER), DONE])
    assert talk.run(poll("task-1", talk.patience)).response == ANSWER
    talk = Talk([polled("completed", OTHER), OPEN])
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
def test_response_that_was_erased_after_the_poll_is_the_polls(polled_at: str, shown_at: str) -> None:
    """`redact_response_after_submit`: another receiver took the answer between the poll and the read of the record."""
    talk = Talk([reply(201, record()), reported(polled_at), erased(shown_at, completed_by_email="ann@example.com")])
    outcome = talk.run(ask(BODY, 900, talk.patience))
    assert (outcome.response, outcome.completed_by_email) == (ANSWER, "ann@example.com")
    assert talk.said == [CREATE, POLL, GET]
    talk = Talk([reported(polled_at), erased(shown_at)])
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
def test_response_of_another_completion_is_not_taken(polled_at: str | None, shown_at: str | None) -> None:
    """The poll reported the completion of another task: this answer is gone, and no other takes its place."""
    talk = Talk([reported(polled_at, OTHER), erased(shown_at)])
    outcome = named(follow, talk)
    assert (outcome.status, outcome.response) == ("completed", None)


@pytest.mark.parametrize("status", ["timed_out", "cancelled", "verification_exhausted"])
def test_no_response_is_added_to_another_end(status: str) -> None:
    """Only a completion has a response that may have been erased."""
    shown = record(status, response=None, completed_at=MOMENT)
    talk = Talk([reported(MOMENT, OTHER), reply(200, shown)])
    assert named(follow, talk).response is None


def test_answer_of_a_poll_survives_an_outage_until_the_last_look() -> None:
    """The record cannot be read until the deadline, and has lost the response by then: the poll's is still there."""
    talk = Talk([reported(MOMENT)], then=lambda call: erased(MOMENT) if talk.clock.now >= 1060 else REFUSED)
    assert talk.run(follow("task-1", 60, talk.patience)).response == ANSWER


@pytest.mark.parametrize("trouble", [REFUSED, TROUBLES["503"], HTML], ids=["lost", "503", "a page"])
def test_record_that_cannot_be_read_is_waited_for(trouble: Reply) -> None:
    """A poll has reported the end; the record is read as soon as the server is reachable again."""
    talk = Talk([reply(201, record()), polled("completed", ANSWER), *[trouble] * 9, DONE])
    assert talk.run(ask(BODY, 900, talk.patience)).response == ANSWER
    assert talk.clock.now > 1060


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(reply(403, {}), PermissionDeniedError), (reply(307, b""), UnexpectedReplyError)],
    ids=["403", "307"],
)
def test_record_that_is_refused_is_an_error(trouble: Reply, kind: type[AwaitHumansError]) -> None:
    """Without a record nothing shows whose answer a poll has reported, so it is not taken."""
    talk = Talk([reply(201, record()), polled("completed", ANSWER), trouble])
    refused_with(kind, talk, ask(BODY, 900, talk.patience))


def test_record_that_is_missing_after_the_end_is_read_until_that_is_confirmed() -> None:
    """A 404 of the record right after a poll reported the end: the answer counts once the record is there again."""
    talk = Talk([reply(201, record()), polled("completed", ANSWER), GONE, polled("completed", ANSWER), DONE])
    assert talk.run(ask(BODY, 900, talk.patience)).response == ANSWER
    talk = Talk([reply(201, record()), polled("completed", ANSWER)], then=GONE)
    refused_with(TaskNotFoundError, talk, ask(BODY, 900, talk.patience))
    assert talk.clock.now - START >= 300


def test_key_that_the_server_hides() -> None:
    """A record without its key is known by the task's id; the question keeps its key."""
    shown = record(idempotency_key=None, task="Approve?", payload={"amount": 5})
    ended = shown | {"status": "completed", "response": ANSWER}
    talk = Talk([reply(201, shown), polled("completed"), reply(200, ended)])
    assert talk.run(ask(BODY | {"payload": {"amount": 5}}, 900, talk.patience)).response == ANSWER
    talk = Talk([reply(200, shown | {"status": "cancelled"})])
    assert talk.run(close("task-1", talk.patience, key="question-1")).status == "cancelled"
    talk = Talk([reply(200, ended | {"id": "task-2"}), reply(200, ended)])
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
def test_created_record_that_names_no_question_is_no_reply(name: str, shown: dict[str, Any]) -> None:
    """In reply to a create, the key or else all of the question has to be there: nothing else says whose task it is."""
    body = BODY | {"payload": {"amount": 5}}
    flows: dict[str, Callable[[Patience], Flow[Outcome]]] = {
        "create": lambda patience: create(body, patience),
        "withdraw": lambda patience: withdraw(body, patience),
        "withdraw by key": lambda patience: withdraw_key("question-1", patience),
    }
    talk = Talk(
        [
            reply(201, record("completed", idempotency_key=None, response=OTHER, **shown)),
            reply(201, {**record("completed", response=ANSWER), "task": "Approve?", "payload": {"amount": 5}}),
        ]
    )
    assert talk.run(flows[name](talk.patience)).response == ANSWER
    assert talk.said == [CREATE, CREATE]


@pytest.mark.parametrize("answers", [[OPEN], [ENDED, OPEN]], ids=["an open record", "409, and an open record"])
def test_cancelled_task_has_ended(answers: list[Event]) -> None:
    """A reply that leaves the task open belongs to another request, so it is cancelled again."""
    talk = Talk([*answers, reply(200, record("cancelled"))])
    assert talk.run(close("task-1", talk.patience)).status == "cancelled"
    assert talk.said[-1] == CANCEL
    assert [pause.seconds for pause in talk.pauses] == [0.5]


def test_task_that_cannot_be_cancelled_is_an_error() -> None:
    """It is not called cancelled while its record says that it is open."""
    talk = Talk([], then=OPEN, seconds=10)
    error = refused_with(UnexpectedReplyError, talk, close("task-1", talk.patience))
    assert "'notified' is not the status of a cancelled task" in str(error)
    assert error.task_id == "task-1"


def test_last_look_compares_the_key() -> None:
    """A caller whose time is up does not take another question's end for that of its own."""
    wrong = reply(200, record("completed", idempotency_key="question-2", response=OTHER))
    talk = Talk([wrong, OPEN, wrong, reply(200, record("cancelled"))])
    assert talk.run(last_look("task-1", 900, talk.patience, key="question-1")).status == "timed_out"
    assert talk.said == [GET, GET, CANCEL, CANCEL]


# --- proxies

PROXY = Proxy("HTTPS_PROXY", "http://proxy.example:3128", "humans.example")


@pytest.mark.parametrize("status", [200, 403, 502])
def test_page_that_came_through_a_proxy_names_the_proxy(status: int) -> None:
    """Its address, its variable, and how it is left out; no other token is advised."""
    page = replace(reply(status, b"<html>no</html>", content_type="text/html"), proxy=PROXY)
    talk = Talk([page] * 60)
    with pytest.raises(AwaitHumansError) as raised:
        talk.run(get("task-1", talk.patience))
    for part in ("http://proxy.example:3128", "HTTPS_PROXY", "add humans.example to NO_PROXY"):
        assert part in str(raised.value)
    assert "TOKEN" not in str(raised.value)


# --- withdraw


def test_withdraw_by_key_alone_cancels_whatever_was_asked() -> None:
    """Whoever knows only the key frees the person, whatever the question was about."""
    known = reply(201, record("notified", task="Approve?", payload={"amount": 5}), idempotent_replayed="true")
    talk = Talk([known, reply(200, record("cancelled"))])
    assert talk.run(withdraw_key("question-1", talk.patience)).status == "cancelled"
    assert talk.said == ["POST /api/tasks", CANCEL]
    assert talk.calls[0].json is not None
    assert talk.calls[0].json["idempotency_key"] == "question-1"


def test_withdraw_by_key_alone_notices_the_task_that_it_created() -> None:
    """If no question has this key, the task that takes its place is noticed, and cancelled."""
    created = record("created", task="(withdrawn before it was asked)")
    talk = Talk([reply(201, created), reply(200, record("cancelled"))])
    assert talk.run(withdraw_key("question-1", talk.patience)).status == "cancelled"
    assert talk.noticed == ["created"]


def test_withdraw_by_key_alone_leaves_an_answer_alone() -> None:
    """What has ended is said, and not touched."""
    talk = Talk([reply(201, record("completed", response=ANSWER), idempotent_replayed="true")])
    assert talk.run(withdraw_key("question-1", talk.patience)).response == ANSWER


def test_withdraw_by_key_alone_hears_a_refusal() -> None:
    """As any question that is asked."""
    talk = Talk([reply(401, {"detail": "no"})])
    refused_with(AuthenticationError, talk, withdraw_key("question-1", talk.patience))


def test_withdraw_finds_the_task_by_its_key_and_cancels_it() -> None:
    """The question is asked once more, which gives its task, and that is cancelled."""
    talk = Talk([reply(201, record("notified"), idempotent_replayed="true"), reply(200, record("cancelled"))])
    assert talk.run(withdraw(BODY, talk.patience)).status == "cancelled"
    assert talk.steps == [Call("POST", "/api/tasks", json=BODY), Call("POST", "/api/tasks/task-1/cancel")]


def test_withdraw_leaves_nothing_open_when_the_task_did_not_exist() -> None:
    """An asker that was stopped before the server heard of it ends with a cancelled task all the same."""
    talk = Talk([reply(201, record()), reply(200, record("cancelled"))])
    assert talk.run(withdraw(BODY, talk.patience)).status == "cancelled"
    assert talk.said == [CREATE, CANCEL]


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_withdraw_says_how_an_ended_question_ended(status: str) -> None:
    """What has ended is not cancelled, and an answer is not lost."""
    talk = Talk([reply(201, record(status, response=ANSWER), idempotent_replayed="true")])
    outcome = talk.run(withdraw(BODY, talk.patience))
    assert (outcome.status, outcome.response) == (status, ANSWER)
    assert talk.said == [CREATE]


def test_an_answer_that_comes_before_the_withdrawal_wins() -> None:
    """Whoever answers between the two calls has answered."""
    talk = Talk([reply(201, record()), ENDED, reply(200, record("completed", response=ANSWER))])
    assert talk.run(withdraw(BODY, talk.patience)).response == ANSWER
    assert talk.said == [CREATE, CANCEL, GET]


def test_withdraw_waits_out_trouble_at_each_call() -> None:
    """A hiccup of the server leaves no task open behind a stopped asker."""
    talk = Talk([REFUSED, reply(201, record()), TROUBLES["503"], reply(200, record("cancelled"))])
    assert talk.run(withdraw(BODY, talk.patience)).status == "cancelled"
    assert talk.said == [CREATE, CREATE, CANCEL, CANCEL]


def test_withdraw_does_not_touch_another_question() -> None:
    """A key that belongs to a question about something else ends nobody's wait."""
    known = record(task="Approve?", payload={"amount": 250})
    talk = Talk([reply(201, known, idempotent_replayed="true")])
    refused_with(QuestionChangedError, talk, withdraw(BODY | {"payload": {"amount": 251}}, talk.patience))
    assert talk.said == [CREATE]


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
def test_a_refused_withdrawal_is_a_typed_error(script: list[Event], kind: type[AwaitHumansError]) -> None:
    """Who stops a question hears when that did not work."""
    talk = Talk(script)
    refused_with(kind, talk, withdraw(BODY, talk.patience))


# --- ended


NOON = datetime(2031, 1, 1, 12, tzinfo=UTC)

MANY = [NOON] * 2000
"""So many are waited for that every page is worth its while."""

FROM_THE_BEGINNING = [datetime(1, 1, 1, tzinfo=UTC)] * 2000


def listed(number: int, *, before_noon: float = 0.0) -> dict[str, Any]:
    """An ended task, created so many seconds before noon."""
    created_at = (NOON - timedelta(seconds=before_noon)).isoformat()
    return record("completed", id=f"task-{number}", response={"number": number}, created_at=created_at)


def page_of(count: int, *, first: int = 0, before_noon: float = 0.0, weight: int = 0) -> Reply:
    """A page of so many ended tasks that weighs so many bytes, or what it weighs."""
    body = to_json([listed(number, before_noon=before_noon) for number in range(first, first + count)])
    return reply(200, body.ljust(weight))


def pages(talk: Talk) -> list[tuple[int, int]]:
    """Limit and offset of every page that was asked for."""
    return [(call.params["limit"], call.params["offset"]) for call in talk.calls if call.params]


def told(talk: Talk) -> list[str]:
    """The tasks that were noticed."""
    return [step.outcome.task_id for step in talk.steps if isinstance(step, Notice)]


def test_ended_reads_one_page_of_the_list() -> None:
    """One plain read of the ended tasks, and each of them is noticed with its answer."""
    talk = Talk([page_of(3)])
    assert talk.run(ended(MANY, FIRST_PAGE, talk.patience)) == (FIRST_PAGE, None)
    assert talk.steps == [
        Call("GET", "/api/tasks", params={"terminal": "true", "limit": FIRST_PAGE, "offset": 0}),
        *(Notice(Outcome.model_validate(listed(number))) for number in range(3)),
    ]


def test_no_ended_tasks_are_no_trouble() -> None:
    """An empty list is read once and says nothing."""
    talk = Talk([reply(200, [])])
    assert talk.run(ended(FROM_THE_BEGINNING, FIRST_PAGE, talk.patience)) == (FIRST_PAGE, None)
    assert talk.noticed == []


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
        (100, 100, 0, MOST_ON_PAGE),
        (150, 150, 0, MOST_ON_PAGE),
        (MOST_ON_PAGE, MOST_ON_PAGE, 0, MOST_ON_PAGE),
        (MOST_ON_PAGE, MOST_ON_PAGE, HEAVY_PAGE_BYTES + 1, MOST_ON_PAGE // 2),
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
    """What the next look may ask for follows from how full and how heavy this page was."""
    talk = Talk([page_of(held_there, before_noon=1, weight=weight)])
    assert talk.run(ended(MANY, page, talk.patience))[0] == following
    assert pages(talk) == [(page, 0)]


def test_a_growing_page_begins_where_the_last_one_ended() -> None:
    """Pages are turned without a gap while they grow, until one is not full."""
    talk = Talk([page_of(25), page_of(50, first=25), page_of(100, first=75), page_of(200, first=175), page_of(7)])
    assert talk.run(ended(MANY, 25, talk.patience)) == (MOST_ON_PAGE, None)
    assert pages(talk) == [(25, 0), (50, 25), (100, 75), (200, 175), (200, 375)]
    assert told(talk)[:375] == [f"task-{number}" for number in range(375)]


def test_a_shrinking_page_begins_where_the_last_one_ended() -> None:
    """Heavy pages are halved without a gap, and grow again once they are light."""
    heavy = HEAVY_PAGE_BYTES + 1
    talk = Talk([page_of(5, weight=heavy), page_of(2, weight=heavy), page_of(1, weight=heavy), page_of(1), page_of(0)])
    assert talk.run(ended(MANY, 5, talk.patience)) == (2, None)
    assert pages(talk) == [(5, 0), (2, 5), (1, 7), (1, 8), (2, 9)]


def test_the_look_ends_with_the_first_task_that_is_too_old() -> None:
    """The list is newest first: past a task from before `since` there is nothing to look for."""
    talk = Talk([page_of(25), page_of(50, before_noon=0.001)])
    talk.run(ended(MANY, 25, talk.patience))
    assert len(pages(talk)) == 2


@pytest.mark.parametrize(("older", "turned"), [(0, 1), (6, 1), (7, 2), (12, 2), (13, 3), (120, 20)])
def test_pages_are_turned_only_while_that_is_worth_it(older: int, turned: int) -> None:
    """A page costs the server as much as six reads: a few old questions are not worth a long list of others' tasks."""
    talk = Talk([], then=lambda call: page_of(call.params["limit"] if call.params else 0))
    young, old = [NOON + timedelta(seconds=1)] * 50, [NOON - timedelta(days=9)] * older
    _, reached = talk.run(ended([*young, *old], MOST_ON_PAGE, talk.patience))
    assert len(pages(talk)) == turned
    assert reached == NOON


def test_tasks_of_that_very_moment_are_still_looked_for() -> None:
    """Many tasks are created in one moment, and the page that ends in it may not be the last of them."""
    talk = Talk([page_of(25), page_of(50, first=25), page_of(1, first=75)])
    talk.run(ended(MANY, 25, talk.patience))
    assert len(told(talk)) == 76


def test_without_a_moment_all_there_are_are_read() -> None:
    """When it is not known since when, only a page that is not full is the end."""
    talk = Talk([page_of(25, before_noon=1e9), page_of(50, before_noon=2e9), page_of(0)])
    talk.run(ended(FROM_THE_BEGINNING, 25, talk.patience))
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
def test_a_record_that_cannot_be_read_hides_no_other(odd: object, place: int) -> None:
    """One malformed record in a page is left out, wherever it stands."""
    records: list[object] = [listed(1), listed(2)]
    records.insert(place, odd)
    talk = Talk([reply(200, records)])
    talk.run(ended(MANY, FIRST_PAGE, talk.patience))
    assert told(talk) == ["task-1", "task-2"]
    assert len(talk.calls) == 1


def test_records_that_cannot_be_read_fill_a_page_like_others() -> None:
    """A full page of nothing readable is not the end of the list."""
    talk = Talk([reply(200, [{}, {}]), reply(200, [listed(1), {}, {}, {}]), page_of(1, first=2)])
    talk.run(ended(MANY, 2, talk.patience))
    assert pages(talk) == [(2, 0), (4, 2), (8, 6)]
    assert told(talk) == ["task-1", "task-2"]


def test_tasks_without_a_time_do_not_end_the_look() -> None:
    """A server that does not say when a task was created is read to the end."""
    talk = Talk([reply(200, [record("completed"), record("completed")]), page_of(1)])
    talk.run(ended(MANY, 2, talk.patience))
    assert pages(talk) == [(2, 0), (4, 2)]


@pytest.mark.parametrize(
    "trouble",
    [*TROUBLES.values(), reply(200, {"tasks": []}), reply(200, b"null"), reply(200, b'"task"')],
    ids=[*TROUBLES, "an object", "null", "text"],
)
def test_trouble_between_pages_is_waited_out(trouble: Reply | Lost) -> None:
    """Whatever is no list of tasks is asked for again, from the same place."""
    if isinstance(trouble, Reply) and trouble.status == 200 and trouble.body.startswith(b"["):
        trouble = reply(200, record())  # a list is what is asked for here: one record is the trouble
    talk = Talk([page_of(2), trouble, page_of(1, first=2)])
    talk.run(ended(MANY, 2, talk.patience))
    assert pages(talk) == [(2, 0), (4, 2), (4, 2)]
    assert told(talk) == ["task-0", "task-1", "task-2"]


def test_every_page_has_the_whole_patience() -> None:
    """A long list on a shaky server is read to its end."""
    talk = Talk(
        [*[REFUSED] * 4, page_of(2), *[REFUSED] * 4, page_of(4, first=2), *[REFUSED] * 4, page_of(0)], seconds=8
    )
    talk.run(ended(MANY, 2, talk.patience))
    assert talk.clock.now > 1000 + 2 * 8


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(REFUSED, ServerUnreachableError), (TROUBLES["503"], ServerUnreachableError), (HTML, UnexpectedReplyError)],
    ids=["lost", "503", "a page"],
)
def test_a_list_that_stays_away_is_an_error(trouble: Reply | Lost, kind: type[AwaitHumansError]) -> None:
    """After its patience the look gives up, and what it has noticed stays noticed."""
    talk = Talk([page_of(2)], then=trouble, seconds=4)
    error = refused_with(kind, talk, ended(MANY, 2, talk.patience))
    assert error.url == "/api/tasks"
    assert told(talk) == ["task-0", "task-1"]
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
def test_a_refused_list_is_said_at_once(refused: Reply, kind: type[AwaitHumansError]) -> None:
    """A token that may not list is not tried again, so that its owner can read tasks one by one instead."""
    talk = Talk([refused])
    refused_with(kind, talk, ended(MANY, FIRST_PAGE, talk.patience))
    assert talk.said == [LIST]


@given(
    newest_first=st.lists(st.sampled_from(["ended", "ends while pages are turned", "open"]), max_size=40),
    old=st.integers(0, 5),
    each=st.sampled_from([1, 100]),
    page=st.integers(1, 10),
    weights=st.lists(st.sampled_from([0, HEAVY_PAGE_BYTES // 2, HEAVY_PAGE_BYTES + 1]), min_size=1, max_size=4),
    data=st.data(),
)
def test_no_task_is_left_out_while_others_end(
    newest_first: list[str], old: int, each: int, page: int, weights: list[int], data: st.DataObject
) -> None:
    """Tasks that end between two pages push others to later pages: these are seen twice, and none is missed."""
    tasks = {place: listed(place, before_noon=place) for place in range(len(newest_first) + old)}
    states = dict(enumerate([*newest_first, *["ended"] * old]))
    shown = {place for place, state in states.items() if state == "ended"}
    asked_for = {f"task-{place}" for place in shown if place < len(newest_first)}
    heavy = itertools.cycle(weights)

    def server(call: Call) -> Reply:
        assert call.params is not None
        offset, limit = call.params["offset"], call.params["limit"]
        body = to_json([tasks[place] for place in sorted(shown)[offset : offset + limit]]).ljust(next(heavy))
        ending = [place for place, state in states.items() if state.startswith("ends") and place not in shown]
        shown.update(data.draw(st.sets(st.sampled_from(ending))) if ending else ())
        return reply(200, body)

    talk = Talk([], then=server)
    created = [NOON - timedelta(seconds=place) for place in range(len(newest_first))] * each
    following, reached = talk.run(ended(created, page, talk.patience))
    assert 1 <= following <= MOST_ON_PAGE
    back_to = [place for place in tasks if reached is None or NOON - timedelta(seconds=place) > reached]
    assert {task for task in asked_for if int(task.removeprefix("task-")) in back_to} <= set(told(talk))
    if each > 40:  # they are worth every page
        assert asked_for <= set(told(talk))


def test_an_address_with_a_path_too_many_is_said_to_be_none() -> None:
    """A dashboard's page, or a path below the API, takes no tasks."""
    talk = Talk([reply(405, {"detail": "Method Not Allowed"})])
    assert "AWAITHUMANS_URL" in str(refused_with(UnexpectedReplyError, talk, create(BODY, talk.patience)))


# --- open_wait


def test_a_wait_is_opened_in_two_steps() -> None:
    """The task carries its callback address; then the relay is told which task it is, with the route's own token."""
    body = dict(BODY)
    talk = Talk([reply(201, record()), reply(200, {"state": "open"})])
    assert talk.run(open_wait(body, RELAY, PROOFS, talk.patience)) == Outcome.model_validate(record())
    assert talk.steps == [
        Call("POST", "/api/tasks", json=BODY | {"callback_url": f"{RELAY}/callbacks/{TOKEN}"}),
        Notice(Outcome.model_validate(record())),
        Call("PUT", f"{RELAY}/waits/task-1", json={"timeout_seconds": 900}, bearer="the proof for task-1"),
    ]
    assert body == BODY


def test_a_task_that_an_earlier_attempt_created_is_not_created_again() -> None:
    """The next attempt reads it, and registers its wait once more."""
    talk = Talk([reply(200, record()), reply(200, {"state": "open"})])
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
def test_a_question_no_relay_knows_is_asked(nothing: Reply) -> None:
    """A caller that may have asked before asks the relay first."""
    talk = Talk([nothing, reply(201, record()), reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True))
    assert talk.said == [ASKED, CREATE, REGISTER]
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
def test_a_relay_that_refuses_does_not_make_a_retried_caller_ask_again(refused: Reply, setting: str) -> None:
    """Its task may have been deleted, and without the relay nothing shows that there was one."""
    talk = Talk([refused])
    flow = open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True, gives_up=lambda _: False)
    assert setting in str(refused_with(RequestRefusedError, talk, flow))
    assert talk.said == [ASKED]


@REFUSALS
def test_a_retried_caller_that_gives_up_cancels_the_task_it_may_have_created(refused: Reply, setting: str) -> None:
    """An earlier attempt may have created a task, which is found by its key."""
    talk = Talk([refused, reply(201, record()), refused, reply(200, record("cancelled"))])
    flow = open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True)
    assert setting in str(refused_with(RequestRefusedError, talk, flow))
    assert talk.said == [ASKED, CREATE, REGISTER, CANCEL]


def test_a_relay_that_is_down_is_named_to_a_retried_caller() -> None:
    """The error names the setting, as it does when the registration fails."""
    talk = Talk([REFUSED] * 99)
    flow = open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True)
    assert "AWAITHUMANS_RELAY_URL" in str(refused_with(ServerUnreachableError, talk, flow))
    assert set(talk.said) == {ASKED}


def test_a_question_the_relay_knows_is_not_asked_again() -> None:
    """A caller that remembers nothing goes on with the task it created before it died."""
    talk = Talk([reply(200, {"task_id": "task-1"}), reply(200, record()), reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, may_repeat=True))
    assert talk.said == [ASKED, GET, REGISTER]


@pytest.mark.parametrize(
    ("refused", "kind"),
    [(reply(401, {}), AuthenticationError), (reply(404, {"detail": "Not Found"}), UnexpectedReplyError)],
    ids=["401", "another service's 404"],
)
def test_a_known_task_that_may_not_be_read_is_an_error(refused: Reply, kind: type[AwaitHumansError]) -> None:
    """Only the API's own TASK_NOT_FOUND is left to the relay."""
    talk = Talk([refused])
    refused_with(kind, talk, open_wait(BODY, RELAY, PROOFS, talk.patience, known="task-1"))


def test_a_known_task_about_something_else_is_not_joined() -> None:
    """A caller's own key that belongs to another question is refused, as it is when a task is created."""
    other = record(task="Approve?", payload={"amount": 250})
    talk = Talk([reply(200, other)])
    body = BODY | {"payload": {"amount": 251}}
    refused_with(QuestionChangedError, talk, open_wait(body, RELAY, PROOFS, talk.patience, known="task-1"))


def test_the_answer_to_a_known_task_needs_no_wait() -> None:
    """The next attempt finds it on the record."""
    talk = Talk([reply(200, record("completed", response=ANSWER))])
    assert talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, known="task-1")).response == ANSWER
    assert talk.said == ["GET /api/tasks/task-1"]


@pytest.mark.parametrize("read", [GONE, reply(200, record(idempotency_key="another"))], ids=["404", "another task"])
def test_a_known_task_that_is_missing_is_left_to_the_relay(read: Reply) -> None:
    """It is neither created again nor given up at the first 404: the wait is registered as one of a missing task."""
    talk = Talk([read, reply(200, {"state": "open"})])
    outcome = talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience, known="task-1"))
    assert (outcome.task_id, outcome.terminal) == ("task-1", False)
    registered = {"timeout_seconds": 900, "missing": True}
    assert talk.calls[1:] == [Call("PUT", f"{RELAY}/waits/task-1", json=registered, bearer="the proof for task-1")]


def test_the_api_token_is_for_the_task_server_only() -> None:
    """A call without a bearer of its own gets the driver's API token: none such goes to the relay."""
    talk = Talk([reply(201, record()), REFUSED, reply(503, b""), reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert {call.bearer for call in talk.calls if call.url.startswith("http")} == {"the proof for task-1"}
    assert {call.bearer for call in talk.calls if call.url.startswith("/")} == {None}


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_a_task_that_has_ended_needs_no_wait(status: str) -> None:
    """A key that was used before brings its outcome, and the relay hears nothing."""
    talk = Talk([reply(201, record(status, response=ANSWER))])
    assert talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience)).status == status
    assert talk.said == [CREATE]


def test_a_refused_question_is_not_registered() -> None:
    """Without a task there is nothing to wait for."""
    talk = Talk([reply(422, {"detail": "no"})])
    refused_with(TaskRejectedError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert talk.said == [CREATE]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_a_relay_that_refuses_is_named(status: int) -> None:
    """It is the relay that said no, not the task server: no advice about the API token, and no TaskRejectedError."""
    talk = Talk([reply(201, record()), reply(status, {"detail": "no such engine"}), reply(200, record("cancelled"))])
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
def test_a_task_nobody_will_be_woken_for_is_cancelled(closing: Reply | Lost) -> None:
    """The relay's refusal frees the people; whether that works or not, it is the refusal that is told."""
    talk = Talk([reply(201, record()), reply(422, {"detail": "no such engine"})], then=closing)
    error = refused_with(RequestRefusedError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert error.status_code == 422
    assert talk.said[:3] == [CREATE, REGISTER, CANCEL]
    assert talk.clock.now <= 1030


def test_an_answer_given_while_the_task_is_given_up_is_returned() -> None:
    """The relay refuses the wait, and the task cannot be cancelled because a person has answered it."""
    refused, answered = reply(422, {"detail": "no such engine"}), reply(200, record("completed", response=ANSWER))
    talk = Talk([reply(201, record()), refused, ENDED, answered])
    assert talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience)).response == ANSWER


def test_a_task_that_others_share_is_not_cancelled() -> None:
    """A key that was known already may have another asker, whom the relay does know."""
    talk = Talk([reply(201, record(), idempotent_replayed="true"), reply(422, {"detail": "no such engine"})])
    refused_with(RequestRefusedError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert talk.said == [CREATE, REGISTER]


def test_a_relay_that_redirects_is_an_address_to_mend() -> None:
    """A wait that was not registered is not taken for one."""
    redirect = reply(307, b"", location="https://relay.example/")
    talk = Talk([reply(201, record()), redirect, reply(200, record("cancelled"))])
    error = refused_with(UnexpectedReplyError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert "https://relay.example/" in str(error)


@pytest.mark.parametrize(
    "trouble",
    [REFUSED, TROUBLES["429"], TROUBLES["502"], TROUBLES["a JSON list"], HTML, PROXY_404, reply(204, b"")],
    ids=["lost", "429", "502", "a JSON list", "a page", "a proxy's 404", "nothing"],
)
def test_a_relay_that_is_down_is_waited_for(trouble: Reply | Lost) -> None:
    """The registration is tried again, the task is not created again."""
    talk = Talk([reply(201, record()), trouble, trouble, reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert talk.said == [CREATE, REGISTER, REGISTER, REGISTER]


def test_a_relay_that_stays_down_is_named() -> None:
    """The error names the address that could not be reached."""
    talk = Talk([reply(201, record())], then=REFUSED)
    error = refused_with(ServerUnreachableError, talk, open_wait(BODY, RELAY, PROOFS, talk.patience))
    assert error.url == f"{RELAY}/waits/task-1"


# --- created for whom

MARKED = {**BODY, "payload_schema": {"type": "object"}}


def marked(mark: str | None, status: str = "created", **fields: Any) -> dict[str, Any]:
    """A record that was created for this caller."""
    return record(status, payload_schema={"type": "object"} | ({} if mark is None else {ASKED_BY: mark}), **fields)


def found(mark: str | None) -> Reply:
    """The same, found under its key."""
    return reply(201, marked(mark), idempotent_replayed="true")


def test_a_task_names_the_caller_it_was_created_for() -> None:
    """In an annotation of its payload schema; the caller's own body stays as it was."""
    talk = Talk([reply(201, marked("caller-1")), reply(200, {"state": "open"})])
    talk.run(open_wait(MARKED, RELAY, PROOFS, talk.patience, asked_by="caller-1"))
    assert talk.calls[0].json is not None
    assert talk.calls[0].json["payload_schema"] == {"type": "object", ASKED_BY: "caller-1"}
    assert MARKED["payload_schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("mark", "cancelled"), [("caller-1", True), ("caller-2", False), (None, False)], ids=["own", "another's", "unknown"]
)
def test_a_refused_caller_cancels_the_task_of_its_earlier_attempt(mark: str | None, cancelled: bool) -> None:  # noqa: FBT001
    """And no task that another caller has created under the same key."""
    talk = Talk([found(mark), reply(422, {"error": "X", "message": "no"})], then=reply(200, record("cancelled")))
    error = refused_with(
        RequestRefusedError, talk, open_wait(MARKED, RELAY, PROOFS, talk.patience, asked_by="caller-1")
    )
    assert error.task_id == "task-1"
    assert talk.said == [CREATE, REGISTER, *([CANCEL] if cancelled else [])]


def test_a_caller_that_tries_again_leaves_its_task_open() -> None:
    """To cancel it would use up its key."""
    talk = Talk([reply(201, marked("caller-1")), reply(401, {"error": "X", "message": "no"})])
    opening = open_wait(MARKED, RELAY, PROOFS, talk.patience, asked_by="caller-1", gives_up=lambda error: False)
    refused_with(RequestRefusedError, talk, opening)
    assert talk.said == [CREATE, REGISTER]


def test_a_caller_whose_time_is_over_cancels_its_task_while_the_relay_is_down() -> None:
    """Not only a refusal can be the end of asking."""
    replies = iter([reply(201, marked("caller-1"))])
    cancelled = reply(200, record("cancelled"))
    talk = Talk([], then=lambda call: next(replies, cancelled if "cancel" in call.url else REFUSED))
    opening = open_wait(MARKED, RELAY, PROOFS, talk.patience, asked_by="caller-1", gives_up=lambda error: True)
    error = refused_with(ServerUnreachableError, talk, opening)
    assert error.task_id == "task-1"
    assert talk.said[-1] == CANCEL


@pytest.mark.parametrize(("mark", "cancelled"), [("caller-1", True), ("caller-2", False), (None, False)])
def test_withdraw_by_key_leaves_what_others_have_asked(mark: str | None, cancelled: bool) -> None:  # noqa: FBT001
    """A key that is shared may belong to a caller that still waits."""
    talk = Talk([found(mark)], then=reply(200, record("cancelled")))
    outcome = talk.run(withdraw_key("question-1", talk.patience, asked_by="caller-1"))
    assert outcome.status == ("cancelled" if cancelled else "created")
    assert talk.said == [CREATE, *([CANCEL] if cancelled else [])]


def test_withdraw_by_key_leaves_nothing_open() -> None:
    """A task that did not exist is created and cancelled, also with a mark."""
    talk = Talk([reply(201, record()), reply(200, record("cancelled"))])
    assert talk.run(withdraw_key("question-1", talk.patience, asked_by="caller-1")).status == "cancelled"


@pytest.mark.parametrize(
    ("own", "mark", "cancelled"),
    [("caller-1", "caller-1", True), ("caller-1", "caller-2", False), ("caller-1", None, False), (None, None, True)],
    ids=["own", "another's", "unknown", "never shared"],
)
def test_a_caller_closes_its_own_task(own: str | None, mark: str | None, cancelled: bool) -> None:  # noqa: FBT001
    """One that was created for another caller under the same key stays open."""
    asked: list[str] = []
    talk = Talk([reply(200, marked(mark))], then=reply(200, record("cancelled")))
    outcome = talk.run(close_own("task-1", lambda key: asked.append(key) or own, talk.patience))  # type: ignore[func-returns-value]
    assert outcome.status == ("cancelled" if cancelled else "created")
    assert talk.said == [GET, *([CANCEL] if cancelled else [])]
    assert asked == ["question-1"]


def test_a_caller_closes_nothing_that_has_ended_or_cannot_be_read() -> None:
    """An answer given in the meantime wins; a refusal is an error."""
    talk = Talk([reply(200, marked("caller-2", "completed", response=ANSWER))])
    assert talk.run(close_own("task-1", lambda key: None, talk.patience)).response == ANSWER
    talk = Talk([reply(401, {"detail": "no"})])
    refused_with(AuthenticationError, talk, close_own("task-1", lambda key: None, talk.patience))


# --- what a refusal is about

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
}


@pytest.mark.parametrize("case", AT_CREATE)
def test_what_a_refusal_of_the_server_is_about(case: str) -> None:
    """One table says whether the question, a setting or the moment is at fault."""
    answer, cause = AT_CREATE[case]
    talk = Talk([], then=answer, seconds=5)
    with pytest.raises(AwaitHumansError) as raised:
        talk.run(create(BODY, talk.patience))
    assert cause_of(raised.value) == cause


@pytest.mark.parametrize("case", AT_RELAY)
def test_what_a_refusal_of_the_relay_is_about(case: str) -> None:
    """The same table; the message of a wrong setting names what to correct."""
    answer, cause = AT_RELAY[case]
    talk = Talk([reply(201, record())], then=lambda call: answer if "waits" in call.url else OPEN, seconds=5)
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
def test_what_other_errors_are_about(error: AwaitHumansError, cause: Cause) -> None:
    """Errors without a reply are classified by their type."""
    assert cause_of(error) == cause


# --- whatever comes


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
def test_whatever_is_answered_there_is_an_outcome_or_a_typed_error(name: str, heard: list[Reply | Lost]) -> None:
    """No reply, however odd, gets anything else out of a flow; and every flow ends."""
    answers = itertools.cycle(heard)
    talk = Talk([], then=lambda _: next(answers), seconds=20)
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
    "ended": lambda patience: ended(MANY, FIRST_PAGE, patience),
}


@given(st.sampled_from(sorted(LONGER)), st.lists(replies | st.builds(Lost, st.text()), min_size=1, max_size=3))
def test_whatever_is_answered_a_longer_conversation_ends(name: str, heard: list[Reply | Lost]) -> None:
    """In a result or in a typed error, within the time there is for each of its calls."""
    answers = itertools.cycle(heard)
    talk = Talk([], then=lambda _: next(answers), seconds=20)
    with suppress(AwaitHumansError):
        talk.run(LONGER[name](talk.patience))
    assert talk.clock.now <= 1000 + 20 + 75 + 3 * 20


# --- task ids


@pytest.mark.parametrize(
    "odd", ["..", ".", "", "a/b", "a?b=1", "a#b", "%2e%2e%2fstatus", "a b", "a\n", "\u0430", "a" * 65], ids=repr
)
@pytest.mark.parametrize(
    "asking", [get, poll, close, lambda odd, patience: close_own(odd, lambda _: None, patience)], ids=range(4)
)
def test_what_is_no_task_id_stands_in_no_url(asking: Callable[..., Any], odd: str) -> None:
    """The URL carries the API token: an id that names another endpoint is refused, and nothing is sent."""
    talk = Talk([])
    assert "is not a task id" in str(refused_with(InvalidTaskError, talk, asking(odd, talk.patience)))
    assert talk.calls == []


def test_created_task_with_an_odd_id_is_no_usable_reply() -> None:
    """What answers is not the API: it is tried again, and the error says why."""
    talk = Talk([reply(201, record(id="../status"))] * 99)
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
def test_only_a_task_of_these_callers_is_closed(shown: str | None, mark: str | None, closed: bool) -> None:  # noqa: FBT001
    """Key and mark of its record decide, whatever is known about it otherwise."""
    schema = {} if mark is None else {"x-awaithumans-asked-by": mark}
    found = reply(200, record(idempotency_key=shown, payload_schema=schema))
    talk = Talk([found, *([reply(200, record("cancelled", idempotency_key=shown))] if closed else [])])
    outcome = talk.run(close_of("task-1", "question-1", {"ours"}, talk.patience))
    assert outcome.terminal is closed
    assert talk.said == ([GET, CANCEL] if closed else [GET])


def test_repr_of_a_call_shows_neither_proof_nor_content() -> None:
    """A call or a reply in a log or a traceback gives nothing away."""
    call = Call("PUT", "/waits/t", json={"callback_url": "token-in-url"}, bearer="route-token")
    assert repr(call) == "Call(method='PUT', url='/waits/t', params=None, timeout=15.0)"
    assert "answer" not in repr(Reply(200, {"set-cookie": "answer"}, b"answer"))
