"""`await_human` inside a Temporal workflow: sandbox-safe, deterministic, and replayed from the history.

Laws: every question has its own identity; duplicate answers are ignored by key; an answer given at the last moment wins
over the deadline; a caller that stops waiting frees the person.
"""

import asyncio
from datetime import timedelta
from typing import Any, Literal, TypeVar, Unpack, get_args, overload

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from awaithumans_adapters.temporal.activities.options import ActivityOptions, chosen
    from awaithumans_adapters.temporal.names import within
    from awaithumans_adapters.temporal.workflow.activity_mode import interval, wait_for_activity
    from awaithumans_adapters.temporal.workflow.mailbox import CLOSE_LIMIT, Mailbox, OnCancel
    from awaithumans_adapters.temporal.workflow.signal_mode import wait_for_signal
    from awaithumans_core.errors import InvalidTaskError, QuestionChangedError, SettingsError
    from awaithumans_core.outcome import Outcome
    from awaithumans_core.reask import answered
    from awaithumans_core.task import HumanTask, TaskOptions

T = TypeVar("T")

_NO_KEY = "(none)"
"""Placeholder for the key of a question whose key the mailbox makes. Any text will do, because it is never compared."""

OUTSIDE = (
    "awaithumans_adapters.temporal.await_human works in a workflow only. In a script call "
    "awaithumans_core.await_human, in a LangGraph node awaithumans_adapters.langgraph.await_human; instead of in an "
    "activity, ask in its workflow"
)

Via = Literal["signal", "activity"]
"""How the answer arrives: as a signal, or as the completion of an activity."""


@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    via: Via = "signal",
    recheck: float | timedelta | None = None,
    ask_within: float | timedelta | None = None,
    on_cancel: OnCancel = "wait",
    cancel_within: float | timedelta = CLOSE_LIMIT,
    activities: ActivityOptions | None = None,
    may_reword: bool = True,
    return_outcome: Literal[False] = False,
    **options: Unpack[TaskOptions],
) -> T: ...
@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    via: Via = "signal",
    recheck: float | timedelta | None = None,
    ask_within: float | timedelta | None = None,
    on_cancel: OnCancel = "wait",
    cancel_within: float | timedelta = CLOSE_LIMIT,
    activities: ActivityOptions | None = None,
    may_reword: bool = True,
    return_outcome: Literal[True],
    **options: Unpack[TaskOptions],
) -> tuple[T, Outcome]: ...
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    via: Via = "signal",
    recheck: float | timedelta | None = None,
    ask_within: float | timedelta | None = None,
    on_cancel: OnCancel = "wait",
    cancel_within: float | timedelta = CLOSE_LIMIT,
    activities: ActivityOptions | None = None,
    may_reword: bool = True,
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """Ask a person from a workflow and wait for the typed answer, without holding any resources in the meantime.

    Any number of waits may be open at once (`asyncio.gather`). Cancelling the workflow, or the coroutine that waits,
    cancels the task, so that people do not work in vain. So does a run that ends with open questions. A run that
    continues as new passes them on: ask the same again there (text, payload, people), and the wait continues. The
    worker needs `HumanTasksPlugin`.

    Args:
        task: The question, one line, as the reviewer reads it.
        response_schema: The type of the answer: a pydantic model, a dataclass or a TypedDict.
        via: `"signal"`: one activity asks, and the answer arrives as a signal. `"activity"`: one activity asks and is
            completed with the answer. That takes fewer history events, and the worker compensates for a lost callback.
        recheck: In activity mode, the interval at which the activity is retried to find an answer that was not called
            back: seconds or a timedelta. Each retry shows as a start-to-close timeout and another attempt, which
            Temporal Cloud bills. Default: by the time people have, every hour up to 6 hours, every 6 hours up to 3
            days, else daily.
        ask_within: Time in which the question has to be asked while the server or the relay is unreachable or a setting
            is wrong: seconds or a timedelta. No task is created later. Default: `timeout_seconds`. People have the
            whole `timeout_seconds` once they are asked. So a call lasts at most `ask_within` + `timeout_seconds` +
            15 s, plus the final check. If the server is unreachable at the end, that check is retried until the server
            is reachable again, because an answer given at the last moment counts.
        on_cancel: What a call that is cancelled, for instance by `asyncio.timeout`, does with its question. `"wait"`:
            cancel the task, and wait until that is done. `"request"`: start cancelling, and do not wait. If the run
            ends before a worker has done it, the relay cancels the task. `"leave"`: the task stays open, and the same
            call with its `idempotency_key` gets the answer. If the run ends, the relay cancels it.
        cancel_within: How long to try to cancel the task, and so the maximum duration of `"wait"`: seconds or a
            timedelta. After that the task's own deadline frees the person.
        activities: How the activities of this question are scheduled: task queue, retries, priority. Default: the
            options of `HumanTasksPlugin(activities=...)`.
        may_reword: A deploy may change text, payload or people of a question while it is open. The answer to the task
            that is recorded in the history is then taken, and the change is reported in `Outcome.reworded`, the log and
            the details. False: such an answer raises `QuestionChangedError`, unless it was taken before the deploy. (In
            a LangGraph node the default is False, because a node runs again from its start and may come to another
            question.)
        return_outcome: Return `(answer, Outcome)`: who decided, when, on which channel.
        options: The other fields of `HumanTask`: payload, timeout_seconds (seconds or timedelta, 60 s to 30 days),
            assign_to, max_reasks, only_assignee, not_by, ...

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: the task ended without an answer.
        QuestionNotAskedError: a `TaskTimeoutError`; the question was not asked within `ask_within`.
        TaskNotFoundError: the task was deleted on the server. The same call with its key creates a new task.
        ResponseSchemaError: the answer does not fit the response schema.
        AnswererNotAllowedError: the person who answered is not allowed to (`only_assignee`, `not_by`).
        QuestionChangedError: with `may_reword=False`, the person was asked in other words.
        workflow.NondeterminismError: the code asks its questions in another order than the history. No answer is given
            to another question. The workflow task fails until the order is restored, and nothing is lost.
        ResponseMissingError: the answer is larger than Temporal can carry, or no longer on the server.
        TaskRejectedError, AuthenticationError, InvalidTaskError, SettingsError: the call or the worker's settings must
            be fixed.

    Example:
        @workflow.run
        async def run(self, refund: Refund) -> str:
            decision = await await_human(task="Approve $250 refund?", payload=refund, response_schema=Decision)
            return "paid" if decision.approved else "declined"
    """
    if not workflow.in_workflow():
        raise SettingsError(OUTSIDE)
    named = "idempotency_key" in options
    options.setdefault("idempotency_key", _NO_KEY)
    question = HumanTask(task=task, response_schema=response_schema, **options)
    _check_choice("via", via, Via)
    _check_choice("on_cancel", on_cancel, OnCancel)
    attempt_time = interval(question.seconds, None if recheck is None else _time("recheck", recheck))
    limits = None if ask_within is None else _time("ask_within", ask_within), _time("cancel_within", cancel_within)
    own = chosen(activities)
    mailbox = Mailbox.here()
    wait = mailbox.asks(question, named=named)
    mailbox.schedule(wait, own)
    wait.on_cancel = on_cancel
    wait.ask_within, wait.cancel_within = limits
    question = question.under(wait.key)

    async def ask(attempt: HumanTask[Any]) -> Outcome:
        if via == "activity":
            outcome = await wait_for_activity(attempt, mailbox, wait, attempt_time)
        else:
            outcome = await wait_for_signal(attempt, mailbox, wait)
        outcome = mailbox.joined(wait, attempt.idempotency_key, outcome)
        if not mailbox.closed:
            mailbox.ends(wait, outcome)
        return outcome

    try:
        decision, outcome = await answered(question, ask)
        if outcome.reworded and not may_reword:
            _refuse_reworded(question, outcome)
    except Exception:
        await _still_there(mailbox)
        mailbox.leaves(wait)
        raise
    except asyncio.CancelledError:
        mailbox.leaves(wait)
        raise
    await _still_there(mailbox)
    mailbox.leaves(wait)
    return (decision, outcome) if return_outcome else decision


def _check_choice(name: str, given: str, choices: Any) -> None:
    if given not in get_args(choices):
        raise InvalidTaskError(f"{name} is {given!r}: give one of {', '.join(map(repr, get_args(choices)))}")


def _time(name: str, given: float | timedelta) -> timedelta:
    time = given if isinstance(given, timedelta) else timedelta(seconds=given)
    if time < timedelta(seconds=1):
        raise InvalidTaskError(f"{name} is {given}: give at least a second")
    return time


def _refuse_reworded(question: HumanTask[Any], outcome: Outcome) -> None:
    """Raise for a reworded question, unless an earlier release of the workflow has taken this answer.

    A patch marker records the refusal. A history without the marker continued with the answer, and so does its replay.

    Raises:
        QuestionChangedError: the answer is refused.
    """
    recorded = outcome.idempotency_key or question.idempotency_key
    if workflow.patched(f"awaithumans-reworded-{within(recorded)}"):
        raise QuestionChangedError(
            f"the workflow asks {question.task!r}, and text, payload or people are not those that the person was asked "
            f"(task {outcome.task_id}). The answer was not taken; it stays on the server. To take it although a deploy "
            "has changed the question, leave out may_reword=False; if the workflow has failed, then reset it to its "
            "last workflow task",
            task_id=outcome.task_id,
            differs=("idempotency_key",),
        )


async def _still_there(mailbox: Mailbox) -> None:
    """Block forever if the run is ending: calls that were still open must not continue while their people are freed."""
    if mailbox.closed:
        await workflow.wait_condition(lambda: False)
