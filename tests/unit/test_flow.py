"""The conversations with the task API and the relay, word for word: what is sent, and what is made of every reply."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from awaithumans_core.errors import (
    AuthenticationError,
    AwaitHumansError,
    PermissionDeniedError,
    QuestionChangedError,
    RequestRefusedError,
    ServerUnreachableError,
    TaskNotFoundError,
    TaskRejectedError,
    UnexpectedReplyError,
)
from awaithumans_core.flow import (
    Call,
    Flow,
    Lost,
    Notice,
    Patience,
    Pause,
    Reply,
    ask,
    close,
    create,
    follow,
    get,
    open_wait,
    poll,
)
from awaithumans_core.outcome import Outcome
from tests.unit.scripted import After, Event, Talk, held, polled, record, reply

BODY = {"task": "Approve?", "timeout_seconds": 900, "idempotency_key": "question-1"}
RELAY = "http://relay.example"
TOKEN = "the.route.token"
ANSWER = {"approved": True}

CREATE = "POST /api/tasks"
GET = "GET /api/tasks/task-1"
POLL = "GET /api/tasks/task-1/poll"
CANCEL = "POST /api/tasks/task-1/cancel"
REGISTER = f"PUT {RELAY}/waits/task-1"

REFUSED = Lost("ConnectError: refused")
GONE = reply(404, {"error": "TASK_NOT_FOUND", "message": "Task 'task-1' not found."})
ENDED = reply(409, {"error": "TASK_ALREADY_TERMINAL", "message": "Task 'task-1' has ended."})
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
    "a time outside the calendar": reply(200, record(completed_at="0001-01-01T00:00:00+23:00")),
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
        ({"payload": {"a": 1}, "task": "Do you approve?"}, {"payload": {"a": 1}, "task": "Approve?"}),
        ({"payload": {}}, {"payload": {}, "task": "Approve?"}),
        ({"payload": {"a": 1}}, {"payload": {"_redacted": True}, "task": "Approve?"}),
        ({"payload": {"a": 1}}, {"payload": None, "task": "Approve?"}),
        ({"payload": {"a": 1}}, {}),
    ],
    ids=["the same in another order", "the same reworded", "no payload", "redacted", "erased", "not shown"],
)
def test_a_key_of_the_same_question_is_picked_up(asked: dict[str, Any], shown: dict[str, Any]) -> None:
    """A restart, a release that words the question better, and a server that hides payloads all get their answer."""
    talk = Talk([reply(201, record("completed", response=ANSWER, **shown), idempotent_replayed="true")])
    assert talk.run(create(BODY | asked, talk.patience)).response == ANSWER


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
    talk = Talk([trouble, reply(200, record())])
    assert talk.run(flow(talk.patience)).status == "created"
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
    talk = Talk([polled("completed", ANSWER)])
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
    talk = Talk([polled("completed", ANSWER)])
    outcome = talk.run(poll("task-1", talk.patience))
    assert (outcome.task_id, outcome.status, outcome.response) == ("task-1", "completed", ANSWER)


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
    talk = Talk([After(3.0, polled("completed", ANSWER))])
    assert talk.run(follow("task-1", 900, talk.patience)).response == ANSWER
    assert talk.said == [POLL]


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_follow_ends_with_the_task(status: str) -> None:
    """All four ends are ends, and come out as they are."""
    talk = Talk([held(), polled(status)])
    assert talk.run(follow("task-1", 900, talk.patience)).status == status


def test_follow_reconnects_until_the_end() -> None:
    """Held polls follow one another without a pause between them."""
    talk = Talk([held(), held("notified"), held("in_progress"), polled("completed", ANSWER)])
    talk.run(follow("task-1", 900, talk.patience))
    assert talk.said == [POLL] * 4
    assert talk.pauses == []


def test_follow_notices_each_status_once() -> None:
    """Every change is told, what stays the same is not, and the end is the result and not a notice."""
    seen = ["created", "created", "notified", "notified", "created"]
    talk = Talk([*(held(status) for status in seen), polled("completed", ANSWER)])
    talk.run(follow("task-1", 900, talk.patience))
    assert talk.noticed == ["created", "notified", "created"]


def test_follow_takes_an_unknown_status_as_pending() -> None:
    """A newer server's status ends no wait, and is told like any other."""
    talk = Talk([held("escalated"), polled("completed", ANSWER)])
    assert talk.run(follow("task-1", 900, talk.patience)).status == "completed"
    assert talk.noticed == ["escalated"]


def test_follow_makes_no_storm_of_polls_that_are_not_held() -> None:
    """A server or proxy that answers pending at once is asked ever more slowly."""
    talk = Talk([polled()] * 4 + [polled("completed", ANSWER)])
    talk.run(follow("task-1", 900, talk.patience))
    assert [pause.seconds for pause in talk.pauses] == [0.5, 1, 2, 4]


def test_follow_forgets_a_storm_once_a_poll_is_held() -> None:
    """One held poll, and the next quick reply is the first again."""
    talk = Talk([polled(), polled(), held(), polled(), polled("completed", ANSWER)])
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
    talk = Talk([held(), held(), reply(200, record("cancelled"))])
    assert talk.run(follow("task-1", 50, talk.patience)).status == "timed_out"
    assert talk.said == [POLL, POLL, CANCEL]
    assert talk.clock.now == 1050


def test_an_answer_at_the_last_moment_wins() -> None:
    """An answer given between the last poll and the deadline is the answer."""
    talk = Talk([held(), held(), ENDED, reply(200, record("completed", response=ANSWER))])
    outcome = talk.run(follow("task-1", 50, talk.patience))
    assert (outcome.status, outcome.response) == ("completed", ANSWER)


def test_follow_without_time_left_looks_once_more() -> None:
    """A wait that begins at its deadline goes straight to the last look."""
    talk = Talk([ENDED, reply(200, record("completed", response=ANSWER))])
    assert talk.run(follow("task-1", 0, talk.patience)).response == ANSWER
    assert talk.said == [CANCEL, GET]


@every_trouble
def test_an_outage_does_not_end_a_wait(trouble: Reply | Lost) -> None:
    """Trouble between two polls is waited out for as long as the task has time, not a minute."""
    if trouble is TROUBLES["another API"]:
        trouble = reply(200, {"id": "task-1"})
    talk = Talk([held(), *[trouble] * 12, polled("completed", ANSWER)], seconds=60)
    assert talk.run(follow("task-1", 900, talk.patience)).response == ANSWER
    assert talk.clock.now > 1200


def test_one_failed_poll_at_the_deadline_does_not_hide_an_answer() -> None:
    """A hiccup in the last second still ends in the last look, with the caller's patience."""
    start: list[Event] = [held(), reply(502, b"Bad Gateway")]
    polls = itertools.chain(start, itertools.repeat(polled("completed", ANSWER)))
    late: dict[str, Event] = {CANCEL: ENDED, GET: reply(200, record("completed", response=ANSWER))}

    def server(call: Call) -> Event:
        said = f"{call.method} {call.url}"
        return next(polls) if said == POLL else late[said]

    talk = Talk([], then=server)
    assert talk.run(follow("task-1", 25.3, talk.patience)).response == ANSWER


@pytest.mark.parametrize("trouble", [reply(503, b"", retry_after="60"), REFUSED], ids=["retry after", "lost"])
def test_trouble_does_not_bring_the_deadline_forward(trouble: Reply | Lost) -> None:
    """When no further try fits in before the deadline, the task stays open until then: people keep their time."""
    cancelled = reply(200, record("cancelled"))
    talk = Talk([held()], then=lambda call: cancelled if call.method == "POST" else trouble)
    talk.run(follow("task-1", 65, talk.patience))
    assert talk.said[-1] == CANCEL
    assert talk.called_at[-1] >= 65


def test_a_server_that_stays_away_is_said_to_be_away() -> None:
    """Without any reply up to the deadline nobody knows how the task ended: it is not called a timeout."""
    talk = Talk([held()], then=REFUSED)
    refused_with(ServerUnreachableError, talk, follow("task-1", 300, talk.patience))


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (GONE, TaskNotFoundError),
        (reply(404, {"detail": "Not Found"}), UnexpectedReplyError),
        (reply(401, {}), AuthenticationError),
        (reply(307, b"", location="/login"), UnexpectedReplyError),
    ],
    ids=["404", "another service's 404", "401", "307"],
)
def test_a_refusal_ends_a_wait(trouble: Reply, kind: type[AwaitHumansError]) -> None:
    """What will be refused again is not polled for until the deadline."""
    talk = Talk([held(), trouble])
    refused_with(kind, talk, follow("task-1", 900, talk.patience))


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


def test_ask_keeps_an_answer_the_record_has_lost() -> None:
    """The server may erase a response once another receiver took it; what the poll brought stays."""
    redacted = record("completed", response=None, completed_by_email="ann@example.com")
    talk = Talk([reply(201, record()), polled("completed", ANSWER), reply(200, redacted)])
    outcome = talk.run(ask(BODY, 900, talk.patience))
    assert outcome.response == ANSWER
    assert outcome.completed_by_email == "ann@example.com"


@pytest.mark.parametrize(
    "trouble",
    [GONE, reply(403, {"detail": "no"}), reply(307, b"", location="/"), REFUSED, TROUBLES["503"], HTML],
    ids=["404", "403", "307", "lost", "503", "a page"],
)
def test_ask_keeps_an_answer_whose_record_cannot_be_read(trouble: Reply | Lost) -> None:
    """An answer in hand is not lost because the server cannot say any more who gave it."""
    talk = Talk([reply(201, record()), polled("completed", ANSWER)], then=trouble)
    outcome = talk.run(ask(BODY, 900, talk.patience))
    assert (outcome.task_id, outcome.status, outcome.response) == ("task-1", "completed", ANSWER)


def test_ask_calls_its_own_cancelling_a_timeout() -> None:
    """The record says cancelled, as we did it; the asker hears that the deadline passed."""
    talk = Talk([reply(201, record()), *[held()] * 3, reply(200, record("cancelled")), reply(200, record("cancelled"))])
    assert talk.run(ask(BODY, 60, talk.patience)).status == "timed_out"


def test_ask_leaves_the_server_time_to_end_the_task_itself() -> None:
    """The server's scheduler comes some seconds after the deadline; cancelling waits 15 s for it."""
    talk = Talk([reply(201, record()), *[held()] * 3, reply(200, record("cancelled")), reply(200, record("cancelled"))])
    talk.run(ask(BODY, 60, talk.patience))
    assert talk.said[-2] == CANCEL
    assert talk.clock.now == 1000 + 60 + 15


def test_ask_does_not_wait_for_what_was_refused() -> None:
    """A question the server does not take is the caller's to mend, at once."""
    talk = Talk([reply(422, {"detail": "no"})])
    refused_with(TaskRejectedError, talk, ask(BODY, 900, talk.patience))


# --- open_wait


def test_a_wait_is_opened_in_two_steps() -> None:
    """The task carries its callback address; then the relay is told which task it is, with the route's own token."""
    body = dict(BODY)
    talk = Talk([reply(201, record()), reply(200, {"state": "open"})])
    assert talk.run(open_wait(body, RELAY, TOKEN, talk.patience)) == Outcome.model_validate(record())
    assert talk.steps == [
        Call("POST", "/api/tasks", json=BODY | {"callback_url": f"{RELAY}/callbacks/{TOKEN}"}),
        Call("PUT", f"{RELAY}/waits/task-1", json={"timeout_seconds": 900}, bearer=TOKEN),
    ]
    assert body == BODY


def test_the_api_token_is_for_the_task_server_only() -> None:
    """A call without a bearer of its own gets the driver's API token: none such goes to the relay."""
    talk = Talk([reply(201, record()), REFUSED, reply(503, b""), reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, TOKEN, talk.patience))
    assert {call.bearer for call in talk.calls if call.url.startswith("http")} == {TOKEN}
    assert {call.bearer for call in talk.calls if call.url.startswith("/")} == {None}


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_a_task_that_has_ended_needs_no_wait(status: str) -> None:
    """A key that was used before brings its outcome, and the relay hears nothing."""
    talk = Talk([reply(201, record(status, response=ANSWER))])
    assert talk.run(open_wait(BODY, RELAY, TOKEN, talk.patience)).status == status
    assert talk.said == [CREATE]


def test_a_refused_question_is_not_registered() -> None:
    """Without a task there is nothing to wait for."""
    talk = Talk([reply(422, {"detail": "no"})])
    refused_with(TaskRejectedError, talk, open_wait(BODY, RELAY, TOKEN, talk.patience))
    assert talk.said == [CREATE]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_a_relay_that_refuses_is_named(status: int) -> None:
    """It is the relay that said no, not the task server: no advice about the API token, and no TaskRejectedError."""
    talk = Talk([reply(201, record()), reply(status, {"detail": "no such engine"}), reply(200, record("cancelled"))])
    error = refused_with(RequestRefusedError, talk, open_wait(BODY, RELAY, TOKEN, talk.patience))
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
    error = refused_with(RequestRefusedError, talk, open_wait(BODY, RELAY, TOKEN, talk.patience))
    assert error.status_code == 422
    assert talk.said[:3] == [CREATE, REGISTER, CANCEL]
    assert talk.clock.now <= 1030


def test_a_task_that_others_share_is_not_cancelled() -> None:
    """A key that was known already may have another asker, whom the relay does know."""
    talk = Talk([reply(201, record(), idempotent_replayed="true"), reply(422, {"detail": "no such engine"})])
    refused_with(RequestRefusedError, talk, open_wait(BODY, RELAY, TOKEN, talk.patience))
    assert talk.said == [CREATE, REGISTER]


def test_a_relay_that_redirects_is_an_address_to_mend() -> None:
    """A wait that was not registered is not taken for one."""
    redirect = reply(307, b"", location="https://relay.example/")
    talk = Talk([reply(201, record()), redirect, reply(200, record("cancelled"))])
    error = refused_with(UnexpectedReplyError, talk, open_wait(BODY, RELAY, TOKEN, talk.patience))
    assert "https://relay.example/" in str(error)


@pytest.mark.parametrize(
    "trouble",
    [REFUSED, TROUBLES["429"], TROUBLES["502"], TROUBLES["a JSON list"], HTML, PROXY_404, reply(204, b"")],
    ids=["lost", "429", "502", "a JSON list", "a page", "a proxy's 404", "nothing"],
)
def test_a_relay_that_is_down_is_waited_for(trouble: Reply | Lost) -> None:
    """The registration is tried again, the task is not created again."""
    talk = Talk([reply(201, record()), trouble, trouble, reply(200, {"state": "open"})])
    talk.run(open_wait(BODY, RELAY, TOKEN, talk.patience))
    assert talk.said == [CREATE, REGISTER, REGISTER, REGISTER]


def test_a_relay_that_stays_down_is_named() -> None:
    """The error names the address that could not be reached."""
    talk = Talk([reply(201, record())], then=REFUSED)
    error = refused_with(ServerUnreachableError, talk, open_wait(BODY, RELAY, TOKEN, talk.patience))
    assert error.url == f"{RELAY}/waits/task-1"


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
