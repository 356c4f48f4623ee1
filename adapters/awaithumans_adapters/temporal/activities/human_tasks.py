"""The activities that make HTTP calls, on the worker. Settings stay here, so no token or key enters a history."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, cast

from temporalio import activity
from temporalio.converter import ActivitySerializationContext
from temporalio.exceptions import ApplicationError

from awaithumans_adapters.temporal.activities.attempt_memory import Memory
from awaithumans_adapters.temporal.failures import SettingErrors, failure, not_asked
from awaithumans_adapters.temporal.limits import carried, encoded_size
from awaithumans_adapters.temporal.names import (
    ASK_WITHIN,
    AWAIT_HUMAN,
    CARRIED,
    CLOSE_WAIT,
    ENGINE,
    LAST_LOOK,
    MEASURE,
    OPEN_WAIT,
    ORIGINAL_RUN,
    OWN_FIELDS,
    WITHDRAW,
    asked_again,
    mark_of,
    within,
)
from awaithumans_core.errors import AwaitHumansError, InvalidTaskError, RequestRefusedError, SettingsError
from awaithumans_core.failure_cause import Cause, cause_of
from awaithumans_core.flow import TIMEOUT_GRACE_SECONDS
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.safe_text import one_line
from awaithumans_core.settings import Settings
from awaithumans_core.status import TaskStatus
from awaithumans_core.task import MAX_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from awaithumans_core.human_tasks import HumanTasks

logger = safe_logger("awaithumans.temporal")

PATIENCE_SECONDS = 10.0
"""Seconds for which one attempt retries its HTTP calls.

Longer outages are retried by Temporal, where operators see them.
"""

MAX_RESETS = 100
"""Maximum number of times that one question is asked again after resets of its workflow.

A question is asked again if it had ended before the reset.
"""
LATE = timedelta(minutes=1)
"""Delay after scheduling up to which no heartbeat, which is billed, is spent to keep the moment of asking."""

LOGGED_EVERY_SECONDS = 300.0
"""Minimum seconds between two log entries of a worker about the same wrong setting.

It does not depend on the number of questions that the setting affects.
"""


@activity.defn(name=MEASURE)
async def question_size(body: dict[str, Any]) -> int:
    """Return the size in bytes of the payload that Temporal receives for this question.

    Only the worker's converter can determine it. This is a local activity, so its input is not sent to Temporal. It
    needs no settings, and runs on the workflow's worker.
    """
    return await encoded_size(body, activity.client().data_converter, _serialized_as())


class HumanTaskActivities:
    """The activities behind `await_human`, which `HumanTasksPlugin` registers.

    Args:
        settings: Default: read from the worker's environment when the first question is asked.
        setting_errors: Effect of a wrong setting: see `HumanTasksPlugin`.
    """

    def __init__(self, settings: Settings | None = None, *, setting_errors: SettingErrors = "retry") -> None:
        if setting_errors not in ("retry", "fail"):
            raise SettingsError(f'setting_errors is {setting_errors!r}: give "retry" or "fail"')
        self.settings = settings
        self.setting_errors: SettingErrors = setting_errors
        self._human_tasks: HumanTasks | None = None
        self._logged: dict[tuple[object, ...], float] = {}

    def same_as(self, other: "HumanTaskActivities") -> bool:
        """Whether both have the same settings, so that two plugins with them count as one."""
        return (self.settings, self.setting_errors) == (other.settings, other.setting_errors)

    def all(self) -> list[Callable[..., Any]]:
        """Return the activities that a worker has to register."""
        return [self.open_wait, self.close_wait, self.last_look, self.await_human, self.withdraw, question_size]

    @activity.defn(name=OPEN_WAIT)
    async def open_wait(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create the task and register the wait of the calling workflow. Repeating it is harmless."""
        body = _checked(body, "task", "timeout_seconds", "idempotency_key")
        # The caller has no run id: the answer goes to the run that is current when it arrives.
        key = body["idempotency_key"]
        patience = _Patience(self.setting_errors, Memory(), body["timeout_seconds"], ask_within=_ask_within(body))
        try:
            outcome, key = await self._open(body, _caller(), patience)
        except AwaitHumansError as error:
            raise self._failed(error, patience, key) from error
        if outcome.terminal:
            return await _fitting(outcome)
        review_url = self._ready().settings.review_url(outcome.task_id)
        return {"task_id": outcome.task_id, "review_url": review_url, "idempotency_key": key}

    @activity.defn(name=CLOSE_WAIT)
    async def close_wait(self, task_id: str) -> dict[str, Any]:
        """Cancel the task unless it has ended or is shared, and return its state."""
        try:
            return _brief(await self._ready().close(task_id, asked_by=_shared_mark))
        except AwaitHumansError as error:
            raise self._failed(error, _Patience(self.setting_errors, Memory())) from error

    @activity.defn(name=LAST_LOOK)
    async def last_look(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the state of the task at its deadline. Input: `{"task_id", "timeout_seconds", "idempotency_key"}`.

        The key is that of the recorded task. It is missing or null for a task that an earlier release asked for. See
        `flow.last_look`.
        """
        asked = _checked(asked, "task_id", "timeout_seconds")
        task_id, given, key = asked["task_id"], asked["timeout_seconds"], asked.get("idempotency_key")
        try:
            return await _fitting(await self._ready().last_look(task_id, given, key=key))
        except AwaitHumansError as error:
            raise self._failed(error, _Patience(self.setting_errors, Memory(), asked["timeout_seconds"])) from error

    @activity.defn(name=AWAIT_HUMAN)
    async def await_human(self, body: dict[str, Any]) -> dict[str, Any]:
        """Create the task, and be completed with the outcome when a person has answered.

        The result is `Outcome.value()`, for `settle`.

        `await_human(..., via="activity")` in a workflow uses this activity, and it may also be called directly. Set a
        start-to-close timeout: it is the interval of re-checks for an answer that was not called back. Set no heartbeat
        timeout. If called directly, its question outlives a workflow that is cancelled, because an activity between two
        attempts cannot be notified of the cancellation. It cannot be a local activity, since nothing outside of the
        worker can complete one.

        Args:
            body: `HumanTask.body()`, or the JSON body of `POST /api/tasks`. Without `idempotency_key` the key is made
                from the activity's own run and id.

        Example:
            question = HumanTask(task="Approve?", response_schema=Decision, idempotency_key=f"approve:{order}")
            outcome = await workflow.execute_activity_method(
                HumanTaskActivities.await_human, question.body(), start_to_close_timeout=timedelta(hours=1)
            )
            decision = settle(Outcome.model_validate(outcome), Decision)
        """
        info = activity.info()
        body = _checked(body, "task", "timeout_seconds")
        if info.is_local:
            raise ApplicationError(
                f"{AWAIT_HUMAN} was called as a local activity, which nothing outside of its worker can complete: call "
                "it with workflow.execute_activity_method, or call await_human of awaithumans_adapters.temporal",
                type=SettingsError.__name__,
                non_retryable=True,
            )
        target = _caller() | {"activity_id": info.activity_id}
        if info.workflow_id is not None:
            # An id names something else in another run. A run after a reset, or one that inherits the question, asks
            # itself.
            target["run_id"] = str(info.workflow_run_id)
        body = {"idempotency_key": ":".join((ENGINE, *target.values()))} | body
        key = body["idempotency_key"]
        given = timedelta(seconds=body["timeout_seconds"])
        memory = Memory()
        until = _asked_at(memory) + given + timedelta(seconds=TIMEOUT_GRACE_SECONDS)
        asked = _asked_before(memory)
        patience = _Patience(
            self.setting_errors,
            memory,
            given.total_seconds(),
            with_people_until=until if asked else None,
            ask_within=None if asked else _ask_within(body),
        )
        try:
            outcome, key = await self._open(body, target, patience)
            if not outcome.terminal and asked and info.current_attempt_scheduled_time >= until:
                outcome = await self._ready().last_look(outcome.task_id, given.total_seconds(), key=key)
        except AwaitHumansError as error:
            failed = self._failed(error, patience, key)
            if not failed.non_retryable and memory.get("asked") is None and not asked:
                memory.keep(asked=False)
            raise failed from error
        if not outcome.terminal:
            late = info.started_time - info.scheduled_time > LATE
            if memory.get("asked") is False or memory.get("refused_since") is not None or (late and not asked):
                asked_at = _asked_at(memory) if asked else info.started_time
                memory.keep(asked=True, asked_at=asked_at.isoformat(), refused_since=None)
            self._leave_open(outcome.task_id, memory)
        return await _fitting(outcome)

    def _leave_open(self, task_id: str, memory: Memory) -> NoReturn:
        """End this attempt without a result: the relay completes the activity with the answer to this task."""
        activity.raise_complete_async()

    @activity.defn(name=WITHDRAW)
    async def withdraw(self, asked: str | dict[str, Any]) -> dict[str, Any]:
        """Cancel a question by its key, unless it is shared. If no task has the key, create one and cancel it.

        Args:
            asked: `{"idempotency_key"}`, or the key alone. With the `ORIGINAL_RUN` of a workflow that was reset, the
                questions that it asked again are cancelled as well. With `activity_id` and `run_id`, the activity that
                waits: if no task has the key, the question was asked in other words, whose key is in the input of that
                activity.
        """
        asked = _checked({"idempotency_key": asked} if isinstance(asked, str) else asked, "idempotency_key")
        key, reset = asked["idempotency_key"], _was_reset(asked)
        try:
            outcome, missing = await self._withdraw(key)
            if missing and (recorded := await _recorded_key(asked)) not in (None, key):
                outcome, missing = await self._withdraw(key := str(recorded))
            for _ in range(MAX_RESETS if reset else 0):
                if missing:
                    break
                key = asked_again(key)
                outcome, missing = await self._withdraw(key)
            return _brief(outcome)
        except AwaitHumansError as error:
            raise self._failed(error, _Patience(self.setting_errors, Memory())) from error

    async def _withdraw(self, key: str) -> tuple[Outcome, bool]:
        """Cancel the task with this key. Return how it ended, and whether no task had the key."""
        missing: list[Outcome] = []
        outcome = await self._ready().withdraw(key, asked_by=_shared_mark(key), on_missing=missing.append)
        return outcome, bool(missing)

    async def _open(self, body: dict[str, Any], target: dict[str, str], patience: "_Patience") -> tuple[Outcome, str]:
        """Ask the question. Return the state of its task and its key.

        A workflow that was reset comes to questions that an earlier run has asked. An answer that a person gave counts.
        Any other end does not belong to this run, which asks again under the next key. The result is recorded in the
        history, so that replays follow it.
        """
        memory = patience.memory
        key: str = memory.get("key") or body["idempotency_key"]
        seen_open = memory.get("task_id") is not None or patience.with_people_until is not None
        outcome = await self._open_under(key, body, target, patience)
        for _ in range(0 if seen_open or not _was_reset(body) else MAX_RESETS):
            if not outcome.terminal or outcome.status == TaskStatus.COMPLETED:
                break
            key = asked_again(key)
            memory.keep(key=key)
            outcome = await self._open_under(key, body, target, patience)
        return outcome, key

    async def _open_under(
        self, key: str, body: dict[str, Any], target: dict[str, str], patience: "_Patience"
    ) -> Outcome:
        """Ask under this key.

        A task of an earlier attempt is read and never created again, even if it was deleted since.

        The relay knows the task once its wait is registered. Until then the attempts keep its id in their memory.
        """
        created: list[Outcome] = []
        carried: dict[str, str] | bool = body.get(CARRIED, False)
        route = _route(target, key)
        before = None if isinstance(carried, bool) else _route(target | carried, key)
        body = {name: value for name, value in body.items() if name not in OWN_FIELDS} | {"idempotency_key": key}
        if patience.asking_left() <= 0 and patience.memory.get("task_id") is None:
            return await self._too_late(key, patience)
        try:
            return await self._ready().open(
                body,
                route,
                # A key of the mailbox is made of text, payload and people. The response class may have changed since a
                # reset or since the previous run. In that case the existing task is joined, and the answer must fit the
                # current class.
                same_words=_shared_mark(key) is not None and not carried,
                asked_by=_asked_by(key),
                gives_up=patience.over,
                known=patience.memory.get("task_id"),
                on_created=created.append,
                may_repeat=bool(carried) or activity.info().attempt > 1,
                asked_before=before,
                within=max(0.0, patience.asking_left()),
            )
        except (AwaitHumansError, asyncio.CancelledError):  # cancelled: the worker is shutting down
            if created:
                patience.memory.keep(task_id=created[0].task_id)
            raise

    async def _too_late(self, key: str, patience: "_Patience") -> Outcome:
        """End a question whose time for asking is over.

        Create nothing, and cancel what an earlier attempt may have created.

        Raises:
            QuestionNotAskedError: no person has answered.
            AwaitHumansError: the server still refuses the request.
        """
        why = "no attempt was made in time"
        if activity.info().attempt > 1:
            try:
                outcome = await self._ready().withdraw(key, asked_by=_asked_by(key))
            except AwaitHumansError as error:
                if cause_of(error) is not Cause.OUTAGE:
                    raise  # this error explains better why the question was not asked
                why = error.text
            else:
                if outcome.terminal and outcome.status != TaskStatus.CANCELLED:
                    return outcome
                why = "server or relay were unreachable until then"
        raise not_asked(key, patience.ask_within or 0.0, why)

    def _ready(self) -> "HumanTasks":
        if self._human_tasks is None:
            # Imported here, so that a workflow file that names the plugin brings no HTTP client into its sandbox.
            from awaithumans_core.human_tasks import HumanTasks

            self._human_tasks = HumanTasks(self.settings, patience=PATIENCE_SECONDS)
        return self._human_tasks

    def _failed(self, error: AwaitHumansError, patience: "_Patience", key: str = "") -> ApplicationError:
        retried_for = patience.left(error)
        if retried_for <= 0 and cause_of(error) is Cause.OUTAGE:
            error = not_asked(key, patience.ask_within or 0.0, error.text)
        if retried_for > 0 and cause_of(error) is Cause.SETTING:
            self._log(error)
        return failure(error, retried_for=retried_for, attempt=activity.info().attempt)

    def _log(self, error: AwaitHumansError) -> None:
        """Log a wrong setting, unless it was logged within the last `LOGGED_EVERY_SECONDS`."""
        refused = error if isinstance(error, RequestRefusedError) else RequestRefusedError("")
        which = (type(error), refused.status_code, refused.server_code)
        now = time.monotonic()
        if now - self._logged.get(which, -math.inf) >= LOGGED_EVERY_SECONDS:
            self._logged[which] = now
            logger.error("questions wait for a setting to be corrected: %s", error)


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long one activity retries an error. All times are those of the Temporal server."""

    setting_errors: SettingErrors
    memory: Memory
    given: float | None = None
    """Seconds for which a wrong setting is retried, counted from the first attempt that it refused.

    None: the activity's own timeouts end it.
    """
    with_people_until: datetime | None = None
    """Time before which no refusal ends the activity.

    It is set if the question has been asked, because its answer may then come by callback.
    """
    ask_within: float | None = None
    """Seconds after the activity was scheduled in which the question has to be asked. None: it may have been asked."""
    began: float = field(default_factory=time.monotonic)

    def asking_left(self) -> float:
        """Return the seconds in which the question may still be asked."""
        if self.ask_within is None:
            return math.inf
        info = activity.info()
        passed = (info.started_time - info.scheduled_time).total_seconds() + time.monotonic() - self.began
        return self.ask_within - passed

    def left(self, error: AwaitHumansError) -> float:
        """Return the seconds for which this error is still retried. 0 or less ends the activity."""
        cause, asked = cause_of(error), self.with_people_until is not None
        if not asked and (cause is Cause.QUESTION or (self.setting_errors == "fail" and cause is Cause.SETTING)):
            return 0.0
        # A missing setting is not a refusal, because no request was sent.
        if cause is Cause.OUTAGE or self.given is None or isinstance(error, SettingsError):
            return self.asking_left()
        since = _refused_since(self.memory, asked=asked)
        if self.with_people_until is not None:
            since = max(since, self.with_people_until)
        return min(self.asking_left(), self.given - (activity.info().started_time - since).total_seconds())

    def over(self, error: AwaitHumansError) -> bool:
        """Whether this error ends the activity."""
        return self.left(error) <= 0


def _refused_since(memory: Memory, *, asked: bool) -> datetime:
    """Return when this activity was first refused because of a setting since it last succeeded in asking."""
    since: str | None = memory.get("refused_since")
    if since is None:
        since = activity.info().started_time.isoformat()
        memory.keep(asked=asked, refused_since=since)
    return datetime.fromisoformat(since)


def _ask_within(body: dict[str, Any]) -> float | None:
    """Return the seconds in which this question has to be asked, or None if the previous run may have asked it."""
    return None if CARRIED in body else float(body.get(ASK_WITHIN, body["timeout_seconds"]))


def _asked_at(memory: Memory) -> datetime:
    """Return when people's time began."""
    kept: str | None = memory.get("asked_at")
    return activity.info().scheduled_time if kept is None else datetime.fromisoformat(kept)


def _asked_before(memory: Memory) -> bool:
    """Whether an earlier attempt of this activity has asked the question."""
    info = activity.info()
    if memory.get("asked") is not None:
        return bool(memory.get("asked"))
    # No attempt has failed, so an attempt that ran until its start-to-close timeout had asked.
    waited = info.current_attempt_scheduled_time - info.scheduled_time
    return info.start_to_close_timeout is not None and waited >= info.start_to_close_timeout


def _was_reset(asked: Mapping[str, Any]) -> bool:
    """Whether the calling workflow, or an earlier run that handed its question on, was reset."""
    run_id = activity.info().workflow_run_id
    return bool(asked.get(ORIGINAL_RUN, run_id) != run_id)


async def _recorded_key(asked: Mapping[str, Any]) -> str | None:
    """Return the key in the recorded input of the activity that waits.

    It may differ from the key of the current question, since a deploy may have changed what the code asks.

    None: no activity is named, or it is not in the history.
    """
    if "activity_id" not in asked:
        return None
    client, workflow_id = activity.client(), str(activity.info().workflow_id)
    async for event in client.get_workflow_handle(workflow_id, run_id=asked["run_id"]).fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_id == asked["activity_id"]:
            (body,) = await client.data_converter.decode(scheduled.input.payloads, [dict[str, Any]])
            return str(body["idempotency_key"])
    return None


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 60 <= value <= MAX_TIMEOUT_SECONDS


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_carried(value: object) -> bool:
    """Whether a value is a boolean, or names the activity that waited in the previous run."""
    if not isinstance(value, Mapping):
        return isinstance(value, bool)
    named = cast("Mapping[object, object]", value)
    return sorted(map(str, named)) == ["activity_id", "run_id"] and all(map(_is_text, named.values()))


_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "timeout_seconds": (_is_time, f"a number from 60 to {MAX_TIMEOUT_SECONDS}"),
    "idempotency_key": (_is_text, "a string"),
    "task_id": (_is_text, "a string"),
    "activity_id": (_is_text, "a string"),
    "run_id": (_is_text, "a string"),
    ORIGINAL_RUN: (_is_text, "a string"),
    ASK_WITHIN: (_is_positive, "a positive number"),
    CARRIED: (_is_carried, "true, or an object with the strings activity_id and run_id"),
}
"""Checks of the fields that the activities read themselves. The server checks the other fields of a question."""


def _checked(body: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """Return the input of an activity after checking it. Null counts as left out, as callers may use any language.

    Raises:
        ApplicationError: InvalidTaskError; a required field is missing, or one has another type. It is not retried.
    """
    given = {name: value for name, value in body.items() if value is not None or name not in _FIELDS}
    wrong = [f"has no {name}" for name in required if given.get(name) is None]
    wrong += [
        f"has {name} {one_line(repr(given[name]))}, which is not {what}"
        for name, (fits, what) in _FIELDS.items()
        if name in given and not fits(given[name])
    ]
    if wrong:
        error = InvalidTaskError(f"the input {' and '.join(wrong)}: see docs/temporal-wire.md for its fields")
        raise failure(error, retried_for=0, attempt=activity.info().attempt)
    return given


def _caller() -> dict[str, str]:
    """Return the workflow that asks, or the standalone activity that asks without a workflow.

    Raises:
        ApplicationError: SettingsError; another activity was called without a workflow.
    """
    info = activity.info()
    if info.workflow_id is None and info.activity_type == AWAIT_HUMAN:
        from awaithumans_adapters.temporal.activities.standalone import (
            standalone_target,  # needs a newer SDK than the other modules
        )

        return standalone_target(info)
    if info.workflow_id is None:
        raise ApplicationError(
            f"this activity answers a workflow; it was called without one. Start {AWAIT_HUMAN} instead",
            type=SettingsError.__name__,
            non_retryable=True,
        )
    return {"namespace": str(info.namespace), "workflow_id": info.workflow_id}


def _route(target: dict[str, str], key: str) -> Route:
    """Return the route of the answer. It states whether this worker encodes payloads, so that the relay does so too."""
    return Route(ENGINE, target, key, encoded=activity.client().data_converter.payload_codec is not None)


def _asked_by(key: str) -> str:
    """Return the mark of the caller that a question was created for.

    A workflow has one mark in both modes and in all its runs.
    """
    caller = _caller()
    return mark_of(**caller, key=key) if "workflow_id" in caller else Route(ENGINE, caller, key).digest


def _shared_mark(key: str) -> str | None:
    """Return the mark of a task with this key that was created for this workflow.

    None for a key that is never shared.

    A key made by the mailbox is never shared, because it names one question of one workflow.
    """
    return _asked_by(key) if within(key) == key else None


async def _fitting(outcome: Outcome) -> dict[str, Any]:
    """Return the outcome in a form that this worker can return; see `limits.carried`."""
    return (await carried(outcome, activity.client().data_converter, _serialized_as())).value()


def _serialized_as() -> ActivitySerializationContext:
    """Return the context in which the SDK encodes the result of this activity."""
    info = activity.info()
    return ActivitySerializationContext(
        namespace=info.namespace or activity.client().namespace,
        activity_id=info.activity_id,
        activity_type=info.activity_type,
        activity_task_queue=info.task_queue,
        workflow_id=info.workflow_id,
        workflow_type=info.workflow_type,
        is_local=info.is_local,
    )


def _brief(outcome: Outcome) -> dict[str, Any]:
    """Return the part of an outcome that the workflow uses of a task that it no longer waits for."""
    return {"task_id": outcome.task_id, "status": outcome.status}
