"""`await_human` inside a LangGraph node.

It creates the task, interrupts the node, and returns the answer when the node is resumed.

Laws: the human task is created inside a LangGraph task, whose result the checkpointer stores, so a resumed node does
not create it again. The node continues only with the answer to its own question, in the words in which it was asked. A
resume value that answers any other question is ignored, and the thread keeps waiting.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar, Unpack, cast, overload

from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt

from awaithumans_adapters.langgraph.default_human_tasks import default_human_tasks
from awaithumans_adapters.langgraph.delivery.resume_value import kept
from awaithumans_adapters.langgraph.internals import CHECKPOINTER
from awaithumans_adapters.langgraph.names import (
    ENGINE,
    GROUP,
    NODE,
    OPEN_WAIT,
    answer_to,
    answered_key,
    interrupt_value,
    thread_mark,
)
from awaithumans_adapters.langgraph.node import server_receipts
from awaithumans_adapters.langgraph.node.call_site import check_async_call, check_group, check_sync_call
from awaithumans_adapters.langgraph.node.hidden_task import HiddenCall
from awaithumans_adapters.langgraph.node.position import (
    Position,
    answer_given,
    checkpointer,
    configured,
    is_stored,
    next_position,
    passed_over,
)
from awaithumans_adapters.langgraph.node.temporal_guard import refuse_in_activity, refuse_in_workflow
from awaithumans_core.binding import differences, parts_asked
from awaithumans_core.errors import AwaitHumansError, QuestionChangedError, SettingsError
from awaithumans_core.group_context import current_group
from awaithumans_core.group_decisions import is_not_needed
from awaithumans_core.human_tasks import CLOSE_PATIENCE_SECONDS, HumanTasks
from awaithumans_core.outcome import Outcome
from awaithumans_core.reask import answered, answered_sync
from awaithumans_core.route import Route
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.task import HumanTask, TaskOptions, subject

T = TypeVar("T")

logger = safe_logger("awaithumans.langgraph")


@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    may_reword: bool = False,
    return_outcome: Literal[False] = False,
    **options: Unpack[TaskOptions],
) -> T: ...
@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    may_reword: bool = False,
    return_outcome: Literal[True],
    **options: Unpack[TaskOptions],
) -> tuple[T, Outcome]: ...
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    may_reword: bool = False,
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """Ask a person from an async node and return the typed answer, in whatever process the thread is resumed.

    The thread is interrupted and holds no resources. The relay resumes it when the answer arrives. As with every
    interrupt, the node runs again from its start on resume. Put side effects that must not happen twice after this
    call, or into a LangGraph task.

    Args:
        task: The question, one line, as the reviewer reads it.
        response_schema: The type of the answer: a pydantic model, a dataclass or a TypedDict.
        human_tasks: Settings and connections. Default: one instance per process, from the environment.
        may_reword: Whether to accept the answer although text, assignee or response class differ from those with which
            the person was asked, for instance after a release that changes them. The node runs again with the answer,
            so this can happen. The payload, or the text of a question without payload, must be equal in any case.
            Default: a difference raises `QuestionChangedError`.
        return_outcome: Return `(answer, Outcome)`: who decided, when, on which channel.
        options: The other fields of `HumanTask`: payload, timeout_seconds (seconds or timedelta, 60 s to 30 days),
            assign_to, max_reasks, only_assignee, not_by, ...

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: the task ended without an answer.
        TaskNotFoundError: the task was deleted on the server. The same call with its key creates a new task.
        ResponseSchemaError: the answer does not fit the response schema.
        AnswererNotAllowedError: the person who answered is not allowed to (`only_assignee`, `not_by`).
        QuestionChangedError: the question asked now is not the one that the person answered. The answer is not taken.
        TaskRejectedError, AuthenticationError, InvalidTaskError, SettingsError: the call or the settings must be
            fixed.

    Example:
        async def review(state: State) -> dict[str, bool]:
            decision = await await_human(task="Approve $250 refund?", payload=state["refund"], response_schema=Decision)
            return {"approved": decision.approved}
    """
    question = HumanTask(task=task, response_schema=response_schema, **options)
    check_resumable()
    check_async_call()
    check_group()
    shared = "idempotency_key" in options
    same_words = shared or not may_reword  # a task shared with another caller must be asked in equal words

    async def ask(asked: HumanTask[Any]) -> Outcome:
        body, position = _body(asked, named=asked is not question or shared), next_position()
        again, withdraw = (
            asked is not question,
            partial(_withdraw, body.get("idempotency_key", position.key), human_tasks),
        )
        asking = _Asking(body, position, human_tasks, same_words=same_words)
        try:
            opened = await _to_its_end(HiddenCall(_opening, asking))
            while not _of_this_call(opened, body, position, again=again):
                opened = await _to_its_end(HiddenCall(_opening, asking))
            outcome = _outcome(body, position, opened, may_reword=may_reword)
        except GraphInterrupt as interrupted:
            if (group := current_group()) is not None:
                group.suspend(interrupted, withdraw)
            raise
        except asyncio.CancelledError as stopped:
            if is_not_needed(stopped):
                await withdraw()
            raise
        await server_receipts.record_taken(opened["key"])
        return outcome

    decision, outcome = await answered(question, ask)
    return (decision, outcome) if return_outcome else decision


@overload
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    may_reword: bool = False,
    return_outcome: Literal[False] = False,
    **options: Unpack[TaskOptions],
) -> T: ...
@overload
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    may_reword: bool = False,
    return_outcome: Literal[True],
    **options: Unpack[TaskOptions],
) -> tuple[T, Outcome]: ...
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    may_reword: bool = False,
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """Ask a person from a sync node and return the typed answer. Arguments and errors are those of `await_human`."""
    question = HumanTask(task=task, response_schema=response_schema, **options)
    check_resumable()
    check_sync_call()
    shared = "idempotency_key" in options
    same_words = shared or not may_reword  # a task shared with another caller must be asked in equal words

    def ask(asked: HumanTask[Any]) -> Outcome:
        body, position = _body(asked, named=asked is not question or shared), next_position()
        again, asking = asked is not question, _Asking(body, position, human_tasks, same_words=same_words)
        opened = _open_sync(asking)
        while not _of_this_call(opened, body, position, again=again):
            opened = _open_sync(asking)
        outcome = _outcome(body, position, opened, may_reword=may_reword)
        server_receipts.record_taken_sync(opened["key"])
        return outcome

    decision, outcome = answered_sync(question, ask)
    return (decision, outcome) if return_outcome else decision


def _is_copied(key: str, position: Position) -> bool:
    """Whether a key was made for the same position in another thread, of which this thread is a copy.

    Records of earlier releases do not contain the thread, so the key is compared.
    """
    return key != position.key and key.startswith(f"{ENGINE}:") and key.endswith(f":{position.node}:{position.number}")


def check_resumable() -> None:
    """Raise unless the calling node runs in a thread that can be resumed.

    Raises:
        SettingsError: the code runs in a Temporal workflow, the graph has no checkpointer, the run has no thread_id, or
            the subgraph does not store checkpoints.
        ApplicationError: the graph cannot be resumed and runs in a Temporal activity.
    """
    refuse_in_workflow()
    try:
        configurable = configured()
    except RuntimeError:  # raised outside of a graph
        configurable = {}
    if not configurable.get("thread_id") or configurable.get(CHECKPOINTER) is None:
        refuse_in_activity()
        raise SettingsError(
            "await_human needs a graph compiled with a checkpointer and run with a thread_id: without them the thread "
            "cannot be resumed. graph = builder.compile(checkpointer=...); "
            "graph.ainvoke(..., {'configurable': {'thread_id': ...}})"
        )
    if not is_stored():
        raise SettingsError(
            "await_human is called in a subgraph that was compiled with checkpointer=False: it begins anew when the "
            "thread is resumed, and would ask another question each time. Compile it without that argument"
        )


def _body(question: HumanTask[Any], *, named: bool) -> dict[str, Any]:
    """Return the request body of a question, without an idempotency key unless the question is `named`.

    A question without a key of its own gets one made from its position.
    """
    body = question.body()
    if not named:
        del body["idempotency_key"]
    return body


_Opened: TypeAlias = dict[str, Any]


class _Asking:
    """Arguments of the LangGraph task that opens a wait.

    They are wrapped in an opaque object, so that tools which display a task's arguments do not reveal the question.
    """

    def __init__(
        self, body: dict[str, Any], position: Position, human_tasks: HumanTasks | None, *, same_words: bool
    ) -> None:
        self.body, self.position, self.human_tasks, self.same_words = body, position, human_tasks, same_words

    def __repr__(self) -> str:
        return "<question>"


def _open_sync(asking: _Asking) -> _Opened:
    call = HiddenCall(_opening_sync, asking)
    return cast("_Opened", call.future.result())


async def _opening(asking: _Asking) -> _Opened:
    asker, (named, route) = asking.human_tasks or default_human_tasks(), _named(asking.body, asking.position)
    # If the run dies before its checkpoint is written, the node comes here again without any record of its question.
    # `open` finds the existing task by its key.
    outcome = await asker.open(named, route, same_words=asking.same_words)
    return _opened(outcome, named, asking.position, asker, same_words=asking.same_words)


def _opening_sync(asking: _Asking) -> _Opened:
    asker, (named, route) = asking.human_tasks or default_human_tasks(), _named(asking.body, asking.position)
    outcome = asker.open_sync(named, route, same_words=asking.same_words)
    return _opened(outcome, named, asking.position, asker, same_words=asking.same_words)


_opening.__name__ = _opening_sync.__name__ = OPEN_WAIT  # names the task, also in checkpoints


def _of_this_call(opened: Mapping[str, Any], body: Mapping[str, Any], position: Position, *, again: bool) -> bool:
    """Whether LangGraph returned the record of this call, and not a stored record of another call.

    LangGraph's count of calls continues in a retried node. Questions that are asked again come in the order of their
    answers. The copy of a thread contains the records of the original's questions, whose answers go to the original.
    The copy therefore asks its own questions, unless the answer was already stored when it was copied.
    """
    if opened["number"] != position.number or (again and opened["key"] != body["idempotency_key"]):
        return False
    mark = thread_mark(position.thread_id)
    if opened.get("thread", mark) == mark and not _is_copied(opened["key"], position):
        return True
    return Outcome.model_validate(opened["outcome"]).terminal or answer_given(opened["key"]) is not None


def _named(body: dict[str, Any], position: Position) -> tuple[dict[str, Any], Route]:
    """Return the request body with its idempotency key, and the route of the answer."""
    key = body.get("idempotency_key") or position.key
    return {**body, "idempotency_key": key}, server_receipts.route(key, position.asked_in)


def _opened(
    outcome: Outcome, body: dict[str, Any], position: Position, human_tasks: HumanTasks, *, same_words: bool
) -> _Opened:
    """Return the record of a question that the checkpoint stores."""
    opened: _Opened = {
        "number": position.number,
        "thread": thread_mark(position.thread_id),
        "outcome": kept(outcome, checkpointer().serde).value(),
        "key": body["idempotency_key"],
        "subject": subject(body),
        "review_url": human_tasks.settings.review_url(outcome.task_id),
        "task": body["task"],
        NODE: position.node,
    }
    if current_group() is not None:
        opened[GROUP] = True
    # Without `same_words` the body was not compared with the task on the server, so the person may read other words.
    return opened | {"asked": dict(parts_asked(body))} if same_words else opened


def _outcome(body: Mapping[str, Any], position: Position, opened: Mapping[str, Any], *, may_reword: bool) -> Outcome:
    """Interrupt until the answer is available, and return it if it answers the question that is asked now.

    The question is compared only once there is an answer. The node also runs again when another of its questions is
    answered, and an error at that point would keep that answer from its own question.
    """
    standing, key = Outcome.model_validate(opened["outcome"]), opened["key"]
    if standing.terminal or answer_given(key) is not None:
        _check_same(body, opened, may_reword=may_reword)
    outcome = standing if standing.terminal and answer_given(key) is None else _answer(body, position, opened)
    _check_same(body, opened, may_reword=may_reword)
    return outcome


def _check_same(body: Mapping[str, Any], opened: Mapping[str, Any], *, may_reword: bool) -> None:
    """Raise if the question asked now differs from the one that the person was asked.

    LangGraph matches stored results to calls by the order of the calls, and the node runs again from its start. The
    node must not continue with an answer to another question, other words or another order. Checkpoints of earlier
    releases have no digest of the words.

    Raises:
        QuestionChangedError: the questions differ.
    """
    if not (differs := _differences(body, opened, may_reword=may_reword)):
        return
    task_id = opened["outcome"]["task_id"]
    asked = f", {opened['task']!r}" if "task" in opened else ""
    raise QuestionChangedError(
        f"on resume the node asks {body['task']!r}, which differs in {', '.join(differs)} from what the person was "
        f"asked (task {task_id}{asked}). The answer was not taken. A node runs again from its start: take what differs "
        "from run to run (a model's words, a time, an order) from the state, or make it in a LangGraph task. To take "
        "answers although text, people or response class have changed, pass may_reword=True",
        task_id=task_id,
        differs=differs,
    )


def _differences(body: Mapping[str, Any], opened: Mapping[str, Any], *, may_reword: bool) -> tuple[str, ...]:
    """Return the names of the parts in which the question asked now differs from the one that the person was asked."""
    differs = {} if may_reword else dict.fromkeys(differences(parts_asked(body), opened.get("asked", {})))
    if subject(body) != opened["subject"]:
        differs["payload" if body["payload"] else "task"] = None
    if body.get("idempotency_key", opened["key"]) != opened["key"]:
        differs["idempotency_key"] = None
    return tuple(differs)


def _answer(body: Mapping[str, Any], position: Position, opened: Mapping[str, Any]) -> Outcome:
    """Interrupt until the answer to the question at this position is available, and return it."""
    key = opened["key"]
    shown = interrupt_value(
        question=opened.get("task", body["task"]),
        task_id=opened["outcome"]["task_id"],
        key=key,
        review_url=opened["review_url"],
        node=position.node,
        group=GROUP in opened,
    )
    passed = passed_over()
    # LangGraph returns answers in the order in which they were given. In a node that asks several people at once, the
    # `interrupt()` of another question may already have received the answer to this one.
    while (outcome := answer_given(key) if key in passed else None) is None:
        try:
            answer = interrupt(shown)
        except GraphInterrupt:
            if (outcome := answer_given(key)) is not None:  # the node asks this question twice
                return outcome
            raise
        if (outcome := answer_to(answer, key)) is not None:
            return outcome
        passed.update(answered_key(answer))
    return outcome


async def _to_its_end(opening: HiddenCall) -> _Opened:
    """Await an opening, and return its record.

    A call that its group no longer needs waits for the opening to end before it is cancelled. Otherwise the task could
    be created after the question was withdrawn.
    """
    future: asyncio.Future[_Opened] = asyncio.ensure_future(opening.future)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError as stopped:
        if is_not_needed(stopped):
            await asyncio.wait([future], timeout=CLOSE_PATIENCE_SECONDS)
        if not future.cancel() and not future.cancelled():
            future.exception()  # retrieve the exception, so that asyncio does not log it
        raise


async def _withdraw(key: str, human_tasks: HumanTasks | None) -> None:
    """Cancel a question that its group no longer needs. If that fails, the relay cancels it later."""
    try:
        await (human_tasks or default_human_tasks()).withdraw(key, asked_by=server_receipts.route(key, {}).digest)
    except AwaitHumansError as failure:
        logger.warning("question %r is not needed any more and could not be cancelled: %s", key, failure)
