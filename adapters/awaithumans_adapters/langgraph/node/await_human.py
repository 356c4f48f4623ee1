"""The node's side: ask, interrupt, go on with the answer.

Laws: the human task is created inside a LangGraph task, whose result the checkpointer remembers, so a resumed node does
not ask again; and the node goes on only with the answer to its own question, as it was asked. A resume that answers
anything else is passed over, and the thread keeps waiting.
"""

import asyncio
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Literal, TypeAlias, TypeVar, Unpack, cast, overload

from langgraph.errors import GraphInterrupt
from langgraph.types import interrupt

from awaithumans_adapters.langgraph.delivery.resume_value import kept
from awaithumans_adapters.langgraph.internals import CHECKPOINTER
from awaithumans_adapters.langgraph.names import (
    ENGINE,
    GROUP,
    OPEN_WAIT,
    PLACE,
    answer_to,
    answered_key,
    interrupt_value,
    thread_mark,
)
from awaithumans_adapters.langgraph.node import server_receipts
from awaithumans_adapters.langgraph.node.call_site import check_async_call, check_group, check_sync_call
from awaithumans_adapters.langgraph.node.hidden_task import HiddenCall
from awaithumans_adapters.langgraph.node.position import (
    Place,
    answer_given,
    checkpointer,
    configured,
    is_stored,
    next_place,
    passed_over,
)
from awaithumans_adapters.langgraph.node.temporal_guard import refuse_in_activity, refuse_in_workflow
from awaithumans_core.binding import differences, parts_asked
from awaithumans_core.errors import AwaitHumansError, QuestionChangedError, SettingsError
from awaithumans_core.group_context import current_group
from awaithumans_core.group_decisions import NOT_NEEDED
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
    """Ask a person from an async node and go on with the typed answer, in whatever process the thread is resumed.

    The thread is interrupted and holds nothing; the relay resumes it when the answer comes. As with every interrupt,
    the node runs again from its start on resume: put what must not happen twice after this call, or into a LangGraph
    task.

    Args:
        task: The question, one line, as the reviewer reads it.
        response_schema: What the answer must look like: a pydantic model, a dataclass or a TypedDict.
        human_tasks: Settings and connections. Default: one for the process, from the environment.
        may_reword: The node runs again with the answer. Take it even if text, assignee or response class are not those
            that the person was asked with, for instance because a release changes them. The payload, or the text of
            a question without payload, must be the same in any case. Default: `QuestionChangedError`.
        return_outcome: Return `(answer, Outcome)`: who decided, when, on which channel.
        options: The other fields of `HumanTask`: payload, timeout_seconds (seconds or timedelta, 60 s to 30 days),
            assign_to, max_reasks, only_assignee, not_by, ...

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: it ended without an answer.
        TaskNotFoundError: the task was deleted on the server; the same call with its key asks anew.
        ResponseSchemaError: a person answered in another shape.
        AnswererNotAllowedError: a person answered whose answer is not accepted (`only_assignee`, `not_by`).
        QuestionChangedError: what is asked now is not what the person answered; the answer is not taken.
        TaskRejectedError, AuthenticationError, InvalidTaskError, SettingsError: the call or the settings must be
            mended.

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
    same_words = shared or not may_reword  # another caller's words are not this node's to change

    async def ask(asked: HumanTask[Any]) -> Outcome:
        body, place = _body(asked, named=asked is not question or shared), next_place()
        again, withdraw = asked is not question, partial(_withdraw, body.get("idempotency_key", place.key), human_tasks)
        asking = _Asking(body, place, human_tasks, same_words=same_words)
        try:
            opened = await _to_its_end(HiddenCall(_opening, asking))
            while not _of_this_call(opened, body, place, again=again):
                opened = await _to_its_end(HiddenCall(_opening, asking))
            outcome = _outcome(body, place, opened, may_reword=may_reword)
        except GraphInterrupt as interrupted:
            if (group := current_group()) is not None:
                group.suspend(interrupted, withdraw)
            raise
        except asyncio.CancelledError as stopped:
            if NOT_NEEDED in stopped.args:
                await withdraw()
            raise
        await server_receipts.note_taken(opened["key"])
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
    """`await_human` for sync nodes."""
    question = HumanTask(task=task, response_schema=response_schema, **options)
    check_resumable()
    check_sync_call()
    shared = "idempotency_key" in options
    same_words = shared or not may_reword  # another caller's words are not this node's to change

    def ask(asked: HumanTask[Any]) -> Outcome:
        body, place = _body(asked, named=asked is not question or shared), next_place()
        again, asking = asked is not question, _Asking(body, place, human_tasks, same_words=same_words)
        opened = _open_sync(asking)
        while not _of_this_call(opened, body, place, again=again):
            opened = _open_sync(asking)
        outcome = _outcome(body, place, opened, may_reword=may_reword)
        server_receipts.note_taken_sync(opened["key"])
        return outcome

    decision, outcome = answered_sync(question, ask)
    return (decision, outcome) if return_outcome else decision


def _is_copied(key: str, place: Place) -> bool:
    """Whether a key was made from this place in another thread. Earlier releases did not remember the thread."""
    return key != place.key and key.startswith(f"{ENGINE}:") and key.endswith(f":{place.node}:{place.number}")


def check_resumable() -> None:
    """Raise unless this runs in a thread that can be resumed."""
    refuse_in_workflow()
    try:
        configurable = configured()
    except RuntimeError:  # outside of a graph
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
    """What to ask. A question without a key of its own is named by its place."""
    body = question.body()
    if not named:
        del body["idempotency_key"]
    return body


_Opened: TypeAlias = dict[str, Any]


class _Asking:
    """What the task that asks is called with. Opaque: whatever shows a task's arguments does not show a question."""

    def __init__(self, body: dict[str, Any], place: Place, human_tasks: HumanTasks | None, *, same_words: bool) -> None:
        self.body, self.place, self.human_tasks, self.same_words = body, place, human_tasks, same_words

    def __repr__(self) -> str:
        return "<question>"


def _open_sync(asking: _Asking) -> _Opened:
    call = HiddenCall(_opening_sync, asking)
    return cast("_Opened", call.future.result())


async def _opening(asking: _Asking) -> _Opened:
    asker, (named, route) = asking.human_tasks or _from_environment(), _named(asking.body, asking.place)
    # A node whose run died before its checkpoint was written comes here again, and remembers nothing.
    outcome = await asker.open(named, route, same_words=asking.same_words)
    return _opened(outcome, named, asking.place, asker, same_words=asking.same_words)


def _opening_sync(asking: _Asking) -> _Opened:
    asker, (named, route) = asking.human_tasks or _from_environment(), _named(asking.body, asking.place)
    outcome = asker.open_sync(named, route, same_words=asking.same_words)
    return _opened(outcome, named, asking.place, asker, same_words=asking.same_words)


_opening.__name__ = _opening_sync.__name__ = OPEN_WAIT  # names the task, in checkpoints as well


def _of_this_call(opened: Mapping[str, Any], body: Mapping[str, Any], place: Place, *, again: bool) -> bool:
    """Whether LangGraph has returned what this call opened, and not what it remembers of another call.

    The calls of a retried node are counted on, and questions that are asked again come in the order of the answers. The
    copy of a thread remembers the questions of the original, whose answers go to the original: it asks its own, unless
    the answer was there when it was copied.
    """
    if opened["number"] != place.number or (again and opened["key"] != body["idempotency_key"]):
        return False
    mark = thread_mark(place.thread_id)
    if opened.get("thread", mark) == mark and not _is_copied(opened["key"], place):
        return True
    return Outcome.model_validate(opened["outcome"]).terminal or answer_given(opened["key"]) is not None


def _named(body: dict[str, Any], place: Place) -> tuple[dict[str, Any], Route]:
    """The body with its key, and where the answer must go."""
    key = body.get("idempotency_key") or place.key
    return {**body, "idempotency_key": key}, server_receipts.route(key, place.asked_in)


def _opened(
    outcome: Outcome, body: dict[str, Any], place: Place, human_tasks: HumanTasks, *, same_words: bool
) -> _Opened:
    """What the checkpoint keeps of a question."""
    opened: _Opened = {
        "number": place.number,
        "thread": thread_mark(place.thread_id),
        "outcome": kept(outcome, checkpointer().serde).value(),
        "key": body["idempotency_key"],
        "subject": subject(body),
        "review_url": human_tasks.settings.review_url(outcome.task_id),
        "task": body["task"],
        PLACE: place.node,
    }
    if current_group() is not None:
        opened[GROUP] = True
    # Where the words were not compared with the record of the task, they may not be those that the person reads.
    return opened | {"asked": dict(parts_asked(body))} if same_words else opened


def _outcome(body: Mapping[str, Any], place: Place, opened: Mapping[str, Any], *, may_reword: bool) -> Outcome:
    """Interrupt until the answer is there, and return it if it was given to the question that is asked now.

    The question is compared when there is an answer, and not before: the node also runs again when a question beside
    this one is answered, and an error would then keep that answer from its own node.
    """
    standing, key = Outcome.model_validate(opened["outcome"]), opened["key"]
    if standing.terminal or answer_given(key) is not None:
        _check_same(body, opened, may_reword=may_reword)
    outcome = standing if standing.terminal and answer_given(key) is None else _answer(body, place, opened)
    _check_same(body, opened, may_reword=may_reword)
    return outcome


def _check_same(body: Mapping[str, Any], opened: Mapping[str, Any], *, may_reword: bool) -> None:
    """Raise if the person was asked something else than what is asked now.

    LangGraph remembers what a node asked by the order of its calls, and the node runs again from its start. It must not
    go on with an answer to other questions, other words or another order. Checkpoints of earlier releases have no
    digest of the words.
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
    """The parts of what is asked now that are not those that the person was asked."""
    differs = {} if may_reword else dict.fromkeys(differences(parts_asked(body), opened.get("asked", {})))
    if subject(body) != opened["subject"]:
        differs["payload" if body["payload"] else "task"] = None
    if body.get("idempotency_key", opened["key"]) != opened["key"]:
        differs["idempotency_key"] = None
    return tuple(differs)


def _answer(body: Mapping[str, Any], place: Place, opened: Mapping[str, Any]) -> Outcome:
    """Interrupt until the answer to the question of this place is there."""
    key = opened["key"]
    shown = interrupt_value(
        question=opened.get("task", body["task"]),
        task_id=opened["outcome"]["task_id"],
        key=key,
        review_url=opened["review_url"],
        node=place.node,
        group=GROUP in opened,
    )
    passed = passed_over()
    # Answers come in the order in which they were given. Where a node asks several people at once, the interrupt of
    # another question may have taken this one's.
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
    """Await an opening. A call that its group no longer needs lets it end first: a task could follow its withdrawal."""
    future: asyncio.Future[_Opened] = asyncio.ensure_future(opening.future)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError as stopped:
        if NOT_NEEDED in stopped.args:
            await asyncio.wait([future], timeout=CLOSE_PATIENCE_SECONDS)
        if not future.cancel() and not future.cancelled():
            future.exception()  # retrieved, so that asyncio does not log it
        raise


async def _withdraw(key: str, human_tasks: HumanTasks | None) -> None:
    """Cancel a question that its group does not need; if that fails, the relay cancels it."""
    try:
        await (human_tasks or _from_environment()).withdraw(key, asked_by=server_receipts.route(key, {}).digest)
    except AwaitHumansError as failure:
        logger.warning("question %r is not needed any more and could not be cancelled: %s", key, failure)


@cache
def _from_environment() -> HumanTasks:
    return HumanTasks()
