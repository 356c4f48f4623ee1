"""The node's side: ask, interrupt, go on with the answer.

Laws: the human task is created inside a LangGraph task, whose result the checkpointer remembers, so a resumed node does
not ask again; and the node goes on only with the answer to its own question. A resume that answers anything else is
passed over, and the thread keeps waiting.
"""

from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar, Unpack, cast, overload

from langgraph.errors import GraphInterrupt
from langgraph.func import task as langgraph_task  # pyright: ignore[reportMissingTypeStubs]  # typed, marked one folder up
from langgraph.types import interrupt

from awaithumans_adapters.langgraph import served
from awaithumans_adapters.langgraph.carried import kept
from awaithumans_adapters.langgraph.inside_temporal import refuse_in_activity, refuse_in_workflow
from awaithumans_adapters.langgraph.names import OPEN_WAIT, answer_to, interrupt_value
from awaithumans_adapters.langgraph.place import Place, answer_given, checkpointer, configured, next_place
from awaithumans_core.errors import QuestionChangedError, SettingsError
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.outcome import Outcome
from awaithumans_core.reask import answered, answered_sync
from awaithumans_core.route import Route
from awaithumans_core.task import HumanTask, TaskOptions, subject

T = TypeVar("T")


@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    return_outcome: Literal[False] = False,
    **options: Unpack[TaskOptions],
) -> T: ...
@overload
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    return_outcome: Literal[True],
    **options: Unpack[TaskOptions],
) -> tuple[T, Outcome]: ...
async def await_human(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
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
        return_outcome: Return `(answer, Outcome)`: who decided, when, on which channel.
        options: The other fields of `HumanTask`: payload, timeout_seconds (seconds or timedelta, 60 s to 30 days),
            assign_to, max_reasks, only_assignee, not_by, ...

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: it ended without an answer.
        TaskNotFoundError: the task was deleted on the server; the same call with its key asks anew.
        ResponseSchemaError: a person answered in another shape.
        AnswererNotAllowedError: a person answered whose answer is not accepted (`only_assignee`, `not_by`).
        TaskRejectedError, AuthenticationError, InvalidTaskError, SettingsError: the call or the settings must be
            mended.

    Example:
        async def review(state: State) -> dict[str, bool]:
            decision = await await_human(task="Approve $250 refund?", payload=state["refund"], response_schema=Decision)
            return {"approved": decision.approved}
    """
    question = HumanTask(task=task, response_schema=response_schema, **options)
    _resumable()

    async def ask(asked: HumanTask[Any]) -> Outcome:
        body, place = _body(asked, named=asked is not question or "idempotency_key" in options), next_place()
        opened = await _open(body, place, human_tasks)
        while opened["number"] != place.number:  # remembered of another call: a retried node's calls are counted on
            opened = await _open(body, place, human_tasks)
        outcome = _outcome(body, place, opened)
        await served.note_taken(opened["key"])
        return outcome

    decision, outcome = await answered(question, ask)
    return (decision, outcome) if return_outcome else decision


@overload
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    return_outcome: Literal[False] = False,
    **options: Unpack[TaskOptions],
) -> T: ...
@overload
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    return_outcome: Literal[True],
    **options: Unpack[TaskOptions],
) -> tuple[T, Outcome]: ...
def await_human_sync(
    *,
    task: str,
    response_schema: type[T],
    human_tasks: HumanTasks | None = None,
    return_outcome: bool = False,
    **options: Unpack[TaskOptions],
) -> T | tuple[T, Outcome]:
    """`await_human` for sync nodes."""
    question = HumanTask(task=task, response_schema=response_schema, **options)
    _resumable()

    def ask(asked: HumanTask[Any]) -> Outcome:
        body, place = _body(asked, named=asked is not question or "idempotency_key" in options), next_place()
        opened = _open_sync(body, place, human_tasks).result()
        while opened["number"] != place.number:
            opened = _open_sync(body, place, human_tasks).result()
        outcome = _outcome(body, place, opened)
        served.note_taken_sync(opened["key"])
        return outcome

    decision, outcome = answered_sync(question, ask)
    return (decision, outcome) if return_outcome else decision


def _resumable() -> None:
    """Raise unless this runs in a thread that can be resumed."""
    refuse_in_workflow()
    try:
        configurable = configured()
    except RuntimeError:  # outside of a graph
        configurable = {}
    if not configurable.get("thread_id") or configurable.get("__pregel_checkpointer") is None:
        refuse_in_activity()
        raise SettingsError(
            "await_human needs a graph compiled with a checkpointer and run with a thread_id: without them the thread "
            "cannot be resumed. graph = builder.compile(checkpointer=...); "
            "graph.ainvoke(..., {'configurable': {'thread_id': ...}})"
        )


def _body(question: HumanTask[Any], *, named: bool) -> dict[str, Any]:
    """What to ask. A question without a key of its own is named by its place."""
    body = question.body()
    if not named:
        del body["idempotency_key"]
    return body


_Opened: TypeAlias = dict[str, Any]
_Opens: TypeAlias = Callable[[dict[str, Any], Place, HumanTasks | None], T]
# Given a name, the decorator loses the types of what it decorates: it cannot infer them from the name alone.
_task = cast("Callable[[_Opens[Awaitable[_Opened]]], _Opens[Awaitable[_Opened]]]", langgraph_task(name=OPEN_WAIT))
_sync_task = cast("Callable[[_Opens[_Opened]], _Opens[Future[_Opened]]]", langgraph_task(name=OPEN_WAIT))


async def _opening(body: dict[str, Any], place: Place, human_tasks: HumanTasks | None) -> dict[str, Any]:
    asker, (named, route) = human_tasks or _from_environment(), _named(body, place)
    # A node whose run died before its checkpoint was written comes here again, and remembers nothing.
    outcome = await asker.open(named, route, same_words=_has_key(body))
    return _opened(outcome, named, place, asker)


def _opening_sync(body: dict[str, Any], place: Place, human_tasks: HumanTasks | None) -> dict[str, Any]:
    asker, (named, route) = human_tasks or _from_environment(), _named(body, place)
    outcome = asker.open_sync(named, route, same_words=_has_key(body))
    return _opened(outcome, named, place, asker)


# Not as decorators: the library builds a task anew on every call unless it finds the function under its own name.
_open, _open_sync = _task(_opening), _sync_task(_opening_sync)


def _has_key(body: Mapping[str, Any]) -> bool:
    """Whether the caller named the question. One that is named by its place may be worded anew on every run."""
    return "idempotency_key" in body


def _named(body: dict[str, Any], place: Place) -> tuple[dict[str, Any], Route]:
    """The body with its key, and where the answer must go."""
    key = body.get("idempotency_key") or place.key
    return {**body, "idempotency_key": key}, served.route(key)


def _opened(outcome: Outcome, body: dict[str, Any], place: Place, human_tasks: HumanTasks) -> dict[str, Any]:
    return {
        "number": place.number,
        "outcome": kept(outcome, checkpointer().serde).value(),
        "key": body["idempotency_key"],
        "subject": subject(body),
        "review_url": human_tasks.settings.review_url(outcome.task_id),
    }


def _outcome(body: Mapping[str, Any], place: Place, opened: Mapping[str, Any]) -> Outcome:
    """Interrupt until the answer to this question is there.

    LangGraph remembers what a node asked by the order of its calls. A node that comes to its questions in another
    order, or with other payloads, than when they were asked, must not go on with what was answered then.
    """
    key = opened["key"]
    if subject(body) != opened["subject"] or body.get("idempotency_key", key) != key:
        raise QuestionChangedError(
            f"on resume the node asks {body['task']!r} about something else than the person was asked (task "
            f"{opened['outcome']['task_id']}). A node runs again from its start: take what differs from run to run (a "
            "model's words, a time, an order) from the state, or make it in a LangGraph task"
        )
    standing = Outcome.model_validate(opened["outcome"])
    if standing.terminal and answer_given(key) is None:
        return standing
    shown = interrupt_value(
        question=body["task"],
        task_id=standing.task_id,
        key=key,
        review_url=opened["review_url"],
        node=place.node,
    )
    while True:
        try:
            answer = interrupt(shown)
        except GraphInterrupt:
            # Answers come in the order in which they were given. Where a node asks several people at once, the
            # interrupt of another question may have taken this one's.
            if (outcome := answer_given(key)) is not None:
                return outcome
            raise
        if (outcome := answer_to(answer, key)) is not None:
            return outcome


@cache
def _from_environment() -> HumanTasks:
    return HumanTasks()
