"""Creates a task for every interrupt at which a graph that does not know this package pauses.

This module creates the tasks, and `graph_engine.run` resumes the threads in the relay. Both read what an interrupt
asks with `interrupt_question`. LangGraph reports an interrupt to its callbacks when a run has ended, but not if the
caller leaves the stream there or its process dies. In these cases the relay creates the task, see `adoption`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent
from langgraph.types import Interrupt
from pydantic import BaseModel

from awaithumans_adapters.langgraph.default_human_tasks import replacement
from awaithumans_adapters.langgraph.names import ENGINE, GRAPH, is_ours
from awaithumans_adapters.langgraph.unmodified.interrupt_question import key_of, question_of
from awaithumans_core.errors import SettingsError
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.route import Route
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import MAX_TASK_CHARS, HumanTask, TaskOptions

ADOPT_WITHIN = 5.0
"""Seconds for which the relay retries requests while it asks about one interrupt.

After that a later round tries again.
"""
MAX_NOTED = 10_000
"""Maximum number of asked questions that a handler remembers, so that the relay does not ask them repeatedly."""


class PeopleOptions(TypedDict, total=False):
    """Options for whom to ask and how long they have; as in `HumanTask`."""

    timeout_seconds: float | timedelta
    assign_to: str | Sequence[str] | Mapping[str, Any] | None
    notify: str | Sequence[str] | None
    verifier: Mapping[str, Any] | BaseModel | None
    redact_payload: bool
    task_metadata: Mapping[str, str] | None


class _Anything(BaseModel):
    answer: str


def check_options(options: Mapping[str, Any]) -> None:
    """Check the options when they are given, so that errors do not appear only when a person is to be asked.

    Raises:
        SettingsError: an option is unknown.
        InvalidTaskError: an option has a value that no question can have.
    """
    known = TaskOptions.__annotations__.keys()
    if unknown := sorted(options.keys() - known):
        raise SettingsError(f"unknown options: {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    HumanTask(task="?", response_schema=_Anything, **options)


class HumanInterrupts(GraphCallbackHandler):
    """A callback handler that asks a person at every interrupt at which a graph pauses.

    Tool calls that `HumanInTheLoopMiddleware` holds back are approved, edited, rejected or answered. An interrupt with
    a `response_schema` is answered in a form with its fields. Any other interrupt is answered with a text. The relay
    resumes the thread with the value that the node expects. Interrupts of `await_human` of this package already have a
    task. The graph needs a thread_id, and a checkpointer that is shared by the relay and the process that asks. Without
    them the thread cannot be resumed.

    Add the handler to the relay's graph as well (`graph.with_config(callbacks=[people])`). The relay then also asks
    about interrupts that were reported to no callback, because the caller left the stream, its process died, or the
    awaithumans server was unreachable. It asks with the options of its own handler.

    Args:
        question: The question for an interrupt. Default: its text, or that of its `question` or `message`. Line breaks
            and control characters become visible escapes, and it is shortened to 500 characters.
        human_tasks: Settings and connections. Default: from the environment, when the first interrupt arrives.
        options: As in `HumanTask`: timeout_seconds, assign_to, notify, verifier, redact_payload, task_metadata.

    The run that paused raises what `HumanTasks.open` raises, and `InvalidTaskError` for an interrupt whose value is not
    JSON. The interrupt is saved in these cases too, and `graph.invoke(None, config)` asks again.

    Example:
        graph.invoke(given, {"configurable": {"thread_id": "1"}, "callbacks": [HumanInterrupts(assign_to="ops@x.org")]})
    """

    raise_error = True  # an interrupt without a task must not look like a question that waits for a person

    def __init__(
        self,
        *,
        question: Callable[[Interrupt], str] | None = None,
        human_tasks: HumanTasks | None = None,
        **options: Unpack[PeopleOptions],
    ) -> None:
        check_options(options)
        if chosen := [name for name in ("only_assignee", "not_by") if name in options]:
            raise SettingsError(
                f"{' and '.join(chosen)}: HumanInterrupts cannot check who answered, because the relay resumes the "
                "graph. Use HumanApproval, or await_human in the node"
            )
        self._question = question
        self._human_tasks = human_tasks
        self._options = options
        self._targets: dict[UUID, dict[str, str]] = {}
        self._opened: dict[str, None] = {}

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Remember the thread of this run, because the event of an interrupt names the run and not the thread."""
        if metadata and metadata.get("thread_id"):
            self._targets[run_id] = {name: str(metadata[name]) for name in ("thread_id", GRAPH) if metadata.get(name)}

    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **_: Any) -> None:
        """Forget the thread of a run that has ended."""
        self._targets.pop(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Forget the thread of a run that has failed."""
        self._targets.pop(run_id, None)

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """Create a task for each interrupt of a foreign node. Doing so again is harmless."""
        for shown in event.interrupts:
            if not is_ours(shown.value):
                asked_at = {"|".join(event.checkpoint_ns): event.checkpoint_id}
                self._ask(shown, self._targets.get(event.run_id) if event.run_id else None, asked_at)

    def _ask(self, shown: Interrupt, target: Mapping[str, str] | None, asked_at: Mapping[str, str]) -> None:
        if target is None:
            raise SettingsError("HumanInterrupts needs a graph that is run with a thread_id, or nobody can resume it")
        body, route = self._question_about(shown, target, asked_at)
        # An interrupt is shown again whenever another one of its thread is answered. Its key names all that the node
        # asks. People and the text of `question` come from the application, and stay as they were in the first task.
        self._opener().open_sync(body, route, same_words=False)
        self._note(route.idempotency_key)

    async def adopt(self, shown: Interrupt, target: Mapping[str, str]) -> bool:
        """Create a task for a pending interrupt that was reported to no callback. Doing so again is harmless.

        Args:
            shown: The interrupt, as stored in the checkpoint.
            target: `thread_id`, and `graph_id` if the thread's config names one.

        Returns:
            Whether the question was asked now. False: this handler has asked it before.

        Raises:
            AwaitHumansError: as in `HumanTasks.open`, with `ServerUnreachableError` after a few seconds.
            InvalidTaskError: the value of the interrupt is not JSON.
        """
        body, route = self._question_about(shown, target)
        if route.idempotency_key in self._opened:
            return False
        await self._opener().open(body, route, same_words=False, within=ADOPT_WITHIN)
        self._note(route.idempotency_key)
        return True

    def _question_about(
        self, shown: Interrupt, target: Mapping[str, str], asked_at: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], Route]:
        default = question_of(shown, redacted=bool(self._options.get("redact_payload")))
        question = HumanTask(
            task=one_line(self._question(shown), MAX_TASK_CHARS) if self._question else default.task,
            payload=default.payload,
            response_schema=default.response_schema,
            idempotency_key=key_of(shown, target["thread_id"]),
            **self._options,
        )
        return question.body(), Route(ENGINE, target, question.idempotency_key, asked_at=asked_at)

    def _opener(self) -> HumanTasks:
        if (of_test := replacement()) is not None:
            return of_test
        if self._human_tasks is None:
            self._human_tasks = HumanTasks()
        return self._human_tasks

    def _note(self, key: str) -> None:
        self._opened[key] = None
        if len(self._opened) > MAX_NOTED:
            self._opened.pop(next(iter(self._opened)), None)
