"""Scripts of `FakeHumans`: which tasks a script applies to, when it acts, and how the task ends."""

import re
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, create_model

from awaithumans_core import HumanTask, Outcome, TaskStatus, settle
from awaithumans_core.errors import (
    QuestionEndedError,
    ResponseSchemaError,
    TaskCancelledError,
    TaskTimeoutError,
    VerificationExhaustedError,
)
from awaithumans_core.testing import FakeHumans, Script, VirtualClock, faults
from tests.support.decisions import Decision
from tests.testing_kit.questions import DAY, HOUR, MINUTE, MONTH, NO, YES, question, task_body, until


async def outcome_of(humans: FakeHumans, task: HumanTask[Any] | None = None) -> Outcome:
    """Ask a question and return its outcome."""
    async with humans.client() as client:
        return await client.ask(task or question())


def seconds_taken(humans: FakeHumans) -> float:
    """Return how long the only task was open, on the fake's clock."""
    (task,) = humans.tasks
    ended = task.completed_at or task.timed_out_at or task.updated_at
    return (ended - task.created_at).total_seconds()


def is_large(record: Mapping[str, Any]) -> bool:
    return bool(record["payload"].get("amount", 0) > 100)


# --- selection of tasks


@pytest.mark.parametrize(
    "match",
    ["refund", re.compile(r"^Approve .* refund\?$"), is_large, None],
    ids=["text in it", "pattern", "function of the record", "every task"],
)
async def test_matching_script_answers(match: Any) -> None:
    """All four ways to select a task work."""
    async with FakeHumans() as humans:
        script = humans.answer(match, YES)
        outcome = await outcome_of(humans, question("Approve the refund?", payload={"amount": 250}))
    assert settle(outcome, Decision).approved
    assert script.answered == [outcome.task_id]


@pytest.mark.parametrize(
    "match",
    ["invoice", re.compile("^refund"), is_large],
    ids=["text not in it", "pattern elsewhere", "function returns false"],
)
async def test_script_without_match_does_nothing(match: Any) -> None:
    """Without an answer the task ends at its deadline."""
    async with FakeHumans() as humans:
        script = humans.answer(match, YES)
        outcome = await outcome_of(humans, question(payload={"amount": 50}, timeout_seconds=900))
        assert outcome.status == "timed_out"
        assert seconds_taken(humans) == 900
    assert script.answered == []


async def test_task_without_script_times_out() -> None:
    """A task that no script selects ends at its deadline."""
    async with FakeHumans() as humans:
        outcome = await outcome_of(humans, question(timeout_seconds=60))
        assert seconds_taken(humans) == 60
    with pytest.raises(TaskTimeoutError):
        settle(outcome, Decision)


async def test_first_matching_script_applies() -> None:
    """Later scripts do not apply, even if they would act earlier."""
    async with FakeHumans() as humans:
        humans.answer("refund", YES).after(MINUTE)
        humans.answer(None, NO)
        about_refund, about_rest = await outcome_of(humans), await outcome_of(humans, question("Deploy?"))
    assert about_refund.response == YES
    assert about_rest.response == NO


async def test_once_applies_to_one_task() -> None:
    """The first answer is given once, and the next script handles later tasks."""
    async with FakeHumans() as humans:
        humans.answer("refund", NO).once()
        humans.answer("refund", YES)
        responses = [(await outcome_of(humans)).response for _ in range(3)]
    assert responses == [NO, YES, YES]


async def test_times_counts_tasks() -> None:
    """A script applies to this many tasks; a task that is found again by its key is not a new one."""
    async with FakeHumans() as humans:
        script = humans.answer("refund", NO).times(2)
        humans.answer("refund", YES)
        keys = ["a", "a", "b", "b", "c"]
        responses = [(await outcome_of(humans, question(idempotency_key=key))).response for key in keys]
    assert responses == [NO, NO, NO, NO, YES]
    assert len(script.answered) == 2


async def test_script_can_ignore_one_task() -> None:
    """The first question gets no answer, and the second one does."""
    async with FakeHumans() as humans:
        humans.on("refund").once()
        humans.answer("refund", YES)
        ends = [(await outcome_of(humans)).status for _ in range(2)]
    assert ends == ["timed_out", "completed"]


async def test_script_applies_to_later_tasks_only() -> None:
    """A script does not apply to tasks that were created before it."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, humans.client() as client:
        opened = await client.create(question())
        humans.answer(None, YES)
        assert (await client.get(opened.task_id)).status == "created"


# --- time


@pytest.mark.parametrize(
    ("after", "seconds"),
    [(90, 90.0), (0.5, 0.5), (timedelta(hours=2), 2 * HOUR), (timedelta(days=29), 29 * DAY)],
    ids=["seconds", "half a second", "hours", "days"],
)
async def test_after_is_counted_from_creation(after: float | timedelta, seconds: float) -> None:
    """The delay is exact on the fake's clock."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).after(after)
        outcome = await outcome_of(humans, question(timeout_seconds=MONTH))
        assert outcome.status == "completed"
        assert seconds_taken(humans) == pytest.approx(seconds)


async def test_script_without_after_answers_immediately() -> None:
    """No time passes before the answer."""
    async with FakeHumans() as humans:
        humans.answer(None, YES)
        await outcome_of(humans)
        assert seconds_taken(humans) == 0


async def test_answer_after_deadline_is_too_late() -> None:
    """The task times out before the answer."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).after(HOUR)
        outcome = await outcome_of(humans, question(timeout_seconds=60))
    assert outcome.status == "timed_out"


@pytest.mark.parametrize("ends", ["answered", "timed out"])
async def test_month_of_waiting_takes_moments(ends: str) -> None:
    """A wait of a month ends within moments, with and without an answer."""
    async with FakeHumans() as humans:
        if ends == "answered":
            humans.answer(None, YES).after(MONTH - timedelta(seconds=1))
        outcome = await outcome_of(humans, question(timeout_seconds=MONTH))
        assert humans.clock.now() >= 30 * DAY - 1
    assert outcome.status == ("completed" if ends == "answered" else "timed_out")


# --- statuses before the end


async def test_statuses_are_spread_over_the_delay() -> None:
    """Each status comes at its own moment, evenly spread before the end."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans:
        humans.answer(None, YES).passes("notified", "assigned", "in_progress").after(30 * MINUTE)
        seen: list[tuple[float, str]] = []
        async with humans.client() as client:
            await client.create(question(timeout_seconds=HOUR))
        (task,) = humans.tasks
        for minute in range(0, 31, 5):
            humans.clock.advance(5 * MINUTE if minute else 0)  # type: ignore[attr-defined]
            await until(lambda minute=minute: task.status == _expected(minute))  # type: ignore[misc]  # a loop's closure
            seen.append((humans.clock.now() / MINUTE, task.status))
    assert seen == [
        (0, "notified"),
        (5, "notified"),
        (10, "assigned"),
        (15, "assigned"),
        (20, "in_progress"),
        (25, "in_progress"),
        (30, "completed"),
    ]
    assert task.history == ["created", "notified", "assigned", "in_progress", "completed"]


def _expected(minute: int) -> str:
    return ("notified", "assigned", "in_progress", "completed")[minute // 10]


async def test_statuses_are_reported_while_waiting() -> None:
    """`on_status` gets the statuses in order, each at most once."""
    seen: list[str] = []
    async with FakeHumans() as humans:
        humans.answer(None, YES).passes("notified", "assigned", "in_progress").after(HOUR)
        async with humans.client() as client:
            await client.ask(question(timeout_seconds=2 * HOUR), on_status=lambda outcome: seen.append(outcome.status))
        (task,) = humans.tasks
    in_order = [status.value for status in task.history if status in seen]
    assert seen == in_order
    assert seen[0] == "created"


async def _statuses_of_one_wait() -> list[tuple[float, str]]:
    seen: list[tuple[float, str]] = []
    async with FakeHumans() as humans:
        humans.answer(None, YES).passes("notified", "assigned", "in_progress", "submitted").after(4000)
        async with humans.client() as client:
            await client.ask(
                question(timeout_seconds=2 * HOUR),
                on_status=lambda outcome: seen.append((humans.clock.now(), outcome.status)),
            )
    return seen


async def test_no_status_is_missed_while_waiting() -> None:
    """`on_status` gets each status at the moment it begins, in every run of the test."""
    every = [(await _statuses_of_one_wait())[1:] for _ in range(8)]
    assert every == [[(1000.0, "assigned"), (2000.0, "in_progress"), (3000.0, "submitted")]] * 8


async def test_statuses_without_an_answer_time_out() -> None:
    """A person who opens the task and does not answer leaves it to its deadline."""
    async with FakeHumans() as humans:
        humans.on(None).passes("notified", "assigned").after(HOUR)
        await outcome_of(humans, question(timeout_seconds=2 * HOUR))
        (task,) = humans.tasks
    assert task.history == ["created", "notified", "assigned", "timed_out"]


@pytest.mark.parametrize("status", ["completed", "timed_out", "cancelled", "verification_exhausted"])
def test_terminal_status_before_the_end_is_refused(status: str) -> None:
    """An impossible script is refused when it is written."""
    with pytest.raises(ValueError, match=f"a task does not pass {status}"):
        FakeHumans().on(None).passes("notified", status)


def test_unknown_status_in_a_script_is_refused() -> None:
    """A misspelt status is refused when the script is written."""
    with pytest.raises(ValueError, match="notifed"):
        FakeHumans().on(None).passes("notifed")


# --- person and channel


MISTAKES: dict[str, Callable[[FakeHumans], object]] = {
    "a response that is none": lambda humans: humans.answer("Refund", True),  # type: ignore[arg-type]
    "words for seconds": lambda humans: humans.on("Refund").after("10 minutes"),  # type: ignore[arg-type]
    "seconds that have passed": lambda humans: humans.on("Refund").after(-5),
    "a channel that is none": lambda humans: humans.on("Refund").via("mail"),  # type: ignore[arg-type]
    "a request that is none": lambda humans: humans.fault(faults.status(502), on="polls"),  # type: ignore[arg-type]
    "a number for a fault": lambda humans: humans.fault(502),  # type: ignore[arg-type]
    "a callback's fault on a request": lambda humans: humans.fault(faults.duplicate(), on="poll"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_script_without_effect_is_refused(mistake: Callable[[FakeHumans], object]) -> None:
    """A script that can do nothing would let a test pass without proving anything."""
    with pytest.raises((TypeError, ValueError)):
        mistake(FakeHumans())


async def test_unanswered_question_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """If there are scripts and none matches, this is logged, and pytest shows the log with the failure."""
    async with FakeHumans() as humans, humans.client() as client:
        humans.answer("refund", {"approved": True})
        await client.create(task_body("key", task="Refund $250?"))
    assert "no script matches the task 'Refund $250?'" in caplog.text


async def test_by_sets_the_person() -> None:
    """The outcome names the person."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).by("anna@example.com")
        outcome = await outcome_of(humans)
    assert outcome.completed_by_email == "anna@example.com"
    assert outcome.completed_via_channel == "dashboard"


async def test_person_can_be_unknown() -> None:
    """The server does not always know an address."""
    async with FakeHumans() as humans:
        humans.answer(None, YES).by(None)
        assert (await outcome_of(humans)).completed_by_email is None


@pytest.mark.parametrize(
    ("configure", "channel", "called_back"),
    [
        (lambda script: script, "dashboard", 1),
        (lambda script: script.via("dashboard"), "dashboard", 1),
        (lambda script: script.via("slack"), "slack", 0),
        (lambda script: script.via("email"), "email", 0),
        (lambda script: script.by_email(), "email", 0),
    ],
    ids=["default", "dashboard", "slack", "via email", "by email"],
)
async def test_via_sets_the_channel(configure: Callable[[Script], Script], channel: str, called_back: int) -> None:
    """The outcome names the channel; answers by e-mail and in Slack are not called back, as on the real server."""
    async with FakeHumans() as humans, humans.client() as client:
        configure(humans.answer(None, YES)).after(1)
        humans.fault(faults.lost())
        opened = await client.create(task_body(callback_url="http://receiver.test/"))
        outcome = await client.poll(opened.task_id)
        assert (await client.get(opened.task_id)).completed_via_channel == channel
    assert outcome.response == YES
    assert len(humans.deliveries) == called_back


# --- ends


@pytest.mark.parametrize(
    ("configure", "error", "seconds"),
    [
        (lambda script: script.times_out(), TaskTimeoutError, 900),
        (lambda script: script.times_out().after(60), TaskTimeoutError, 60),
        (lambda script: script.after(60).times_out(), TaskTimeoutError, 60),
        (lambda script: script.cancels(), TaskCancelledError, 0),
        (lambda script: script.cancels().after(60), TaskCancelledError, 60),
        (lambda script: script.exhausts_verification(), VerificationExhaustedError, 0),
        (lambda script: script.exhausts_verification().after(60), VerificationExhaustedError, 60),
    ],
    ids=[
        "times out at its deadline",
        "times out early",
        "the same in the other order",
        "cancelled at once",
        "cancelled later",
        "verification exhausted at once",
        "verification exhausted later",
    ],
)
async def test_each_end_without_answer_raises_its_error(
    configure: Callable[[Script], Script], error: type[QuestionEndedError], seconds: float
) -> None:
    """Each end raises its own error at the scripted time."""
    async with FakeHumans() as humans:
        configure(humans.on("refund"))
        outcome = await outcome_of(humans, question(timeout_seconds=900))
        assert seconds_taken(humans) == seconds
    with pytest.raises(error) as raised:
        settle(outcome, Decision)
    assert type(raised.value) is error


async def test_exhausted_verification_reports_attempts() -> None:
    """The number of attempts is the verifier's maximum."""
    async with FakeHumans() as humans:
        humans.on(None).exhausts_verification()
        outcome = await outcome_of(humans, question(verifier={"max_attempts": 5}))
    assert outcome.verification_attempt == 5
    with pytest.raises(VerificationExhaustedError, match="5 attempts"):
        settle(outcome, Decision)


class Colour(Enum):
    RED = "red"


class Address(BaseModel):
    street: str


def _with(kind: Any) -> type[BaseModel]:
    return create_model("Answer", value=(kind, ...))


@pytest.mark.parametrize(
    "kind",
    [bool, int, float, str, str | None, date, Literal["a", "b"], Colour, list[str], list[Colour], Address],
    ids=["bool", "int", "float", "str", "or nothing", "date", "literal", "enum", "list", "list of enum", "model"],
)
async def test_submits_invalid_matches_no_field_type(kind: Any) -> None:
    """The submitted value is invalid for every type of field."""
    schema = _with(kind)
    async with FakeHumans() as humans:
        humans.on(None).submits_invalid()
        outcome = await outcome_of(humans, HumanTask(task="Fill this in", response_schema=schema))
    assert outcome.status == "completed"
    with pytest.raises(ResponseSchemaError) as raised:
        settle(outcome, schema)
    assert raised.value.problems[0].startswith("value")


class Remark(BaseModel):
    note: str | None = None


@pytest.mark.parametrize("kind", [dict[str, str], Remark], ids=["mapping", "model without required fields"])
async def test_submits_invalid_matches_no_class_without_required_fields(kind: Any) -> None:
    """The response is invalid even where an object with any field would be accepted."""
    schema = _with(kind)
    async with FakeHumans() as humans:
        humans.on(None).submits_invalid()
        outcome = await outcome_of(humans, HumanTask(task="Fill this in", response_schema=schema))
    with pytest.raises(ResponseSchemaError):
        settle(outcome, schema)


async def test_submits_invalid_accepts_a_given_response() -> None:
    """The given response is submitted unchanged."""
    async with FakeHumans() as humans:
        humans.on(None).submits_invalid({"approved": "maybe"})
        outcome = await outcome_of(humans)
    assert outcome.response == {"approved": "maybe"}
    with pytest.raises(ResponseSchemaError, match="approved"):
        settle(outcome, Decision)


async def test_question_is_asked_again_after_invalid_answer() -> None:
    """After an invalid answer, `max_reasks` repeats the question and the valid answer is returned."""
    async with FakeHumans() as humans:
        humans.on("refund").submits_invalid().once()
        humans.answer("asked again", YES).by("anna@example.com")
        async with humans.client() as client:
            (answer,) = await client.wait_all([question(max_reasks=1)])
        assert len(humans.tasks) == 2
    assert answer.result().approved


async def test_all_eleven_statuses_can_be_produced() -> None:
    """A test can produce every status."""
    async with FakeHumans() as humans:
        way = ["notified", "assigned", "in_progress", "submitted", "rejected", "verified"]
        humans.answer("complete", YES).passes(*way).after(HOUR)
        humans.on("expire").times_out()
        humans.on("cancel").cancels()
        humans.on("verify").exhausts_verification()
        for task in ("complete", "expire", "cancel", "verify"):
            await outcome_of(humans, question(task, timeout_seconds=2 * HOUR))
        assert {status for task in humans.tasks for status in task.history} == set(TaskStatus)


async def test_script_is_fixed_when_the_task_is_created() -> None:
    """Changes of a script apply to later tasks only."""
    async with FakeHumans(clock=VirtualClock(auto=False)) as humans, humans.client() as client:
        script = humans.answer(None, YES).after(HOUR)
        first = await client.create(question())
        script.after(0).answers(NO)
        second = await client.create(question())
        await until(lambda: humans.task(lambda record: record["id"] == second.task_id).terminal)
        assert (await client.get(second.task_id)).response == NO
        assert not (await client.get(first.task_id)).terminal
