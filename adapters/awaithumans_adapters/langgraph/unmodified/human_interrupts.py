"""People for graphs whose nodes do not know us: every interrupt such a graph pauses at becomes a task.

The asking side; `thread` is the relay's. Both read what an interrupt asks with `foreign`. LangGraph reports an
interrupt to its callbacks when a run has ended, and not when the caller leaves the stream there or its process dies;
then the relay asks, see `adoption`.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict, Unpack
from uuid import UUID

from langgraph.callbacks import GraphCallbackHandler, GraphInterruptEvent
from langgraph.types import Interrupt
from pydantic import BaseModel

from awaithumans_adapters.langgraph.names import ENGINE, GRAPH, is_ours
from awaithumans_adapters.langgraph.unmodified.interrupt_question import key_of, question_of
from awaithumans_core.errors import SettingsError
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.route import Route
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import MAX_TASK_CHARS, HumanTask, TaskOptions

ADOPT_WITHIN = 5.0
"""Seconds for which the relay repeats requests while it asks about one interrupt; it comes back to it."""
MAX_NOTED = 10_000
"""Questions that a handler remembers to have asked, so that the relay does not ask them again and again."""


class PeopleOptions(TypedDict, total=False):
    """Who is asked, and how long they have; as in `HumanTask`."""

    timeout_seconds: float | timedelta
    assign_to: str | Sequence[str] | Mapping[str, Any] | None
    notify: str | Sequence[str] | None
    verifier: Mapping[str, Any] | BaseModel | None
    redact_payload: bool
    task_metadata: Mapping[str, str] | None


class _Anything(BaseModel):
    answer: str


def check_options(options: Mapping[str, Any]) -> None:
    """Let what cannot be asked with be found where it is written, and not when somebody is to be asked.

    Raises:
        SettingsError: an option nobody knows.
        InvalidTaskError: a value that no question can have.
    """
    known = TaskOptions.__annotations__.keys()
    if unknown := sorted(options.keys() - known):
        raise SettingsError(f"unknown options: {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    HumanTask(task="?", response_schema=_Anything, **options)


class HumanInterrupts(GraphCallbackHandler):
    """A callback handler that asks a person at every interrupt a graph pauses at.

    Tool calls that `HumanInTheLoopMiddleware` holds back are approved, edited, rejected or answered; an interrupt with
    a `response_schema` is answered in a form with its fields; any other takes a text. The relay resumes the thread with
    what the node expects. Interrupts of our own `await_human` have their task already. The graph needs a thread_id, and
    a checkpointer that asker and relay share: without one nobody can resume it.

    Give it to the relay's graph as well (`graph.with_config(callbacks=[people])`): the relay then also asks about
    interrupts that were reported to no callback, because the caller left the stream, its process died, or the
    awaithumans server was unreachable. It asks with its own options.

    Args:
        question: The question for an interrupt. Default: its text, or that of its `question` or `message`. Line breaks
            and control characters become visible escapes, and it is shortened to 500 characters.
        human_tasks: Settings and connections. Default: from the environment, when the first interrupt comes.
        options: As in `HumanTask`: timeout_seconds, assign_to, notify, verifier, redact_payload, task_metadata.

    Raises, from the run that paused: what `HumanTasks.open` raises, `InvalidTaskError` for an interrupt whose value is
    not JSON. The interrupt is saved all the same, and `graph.invoke(None, config)` asks again.

    Example:
        graph.invoke(given, {"configurable": {"thread_id": "1"}, "callbacks": [HumanInterrupts(assign_to="ops@x.org")]})
    """

    raise_error = True  # what nobody has been asked must not look like a question that waits

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
        self._asked: dict[str, None] = {}

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Remember whose run this is: the event of an interrupt names the run and not the thread."""
        if metadata and metadata.get("thread_id"):
            self._targets[run_id] = {name: str(metadata[name]) for name in ("thread_id", GRAPH) if metadata.get(name)}

    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **_: Any) -> None:
        """Forget it."""
        self._targets.pop(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Forget it."""
        self._targets.pop(run_id, None)

    def on_interrupt(self, event: GraphInterruptEvent) -> None:
        """Ask a person about each interrupt that is not our own. Asking again is harmless."""
        for shown in event.interrupts:
            if not is_ours(shown.value):
                asked_at = {"|".join(event.checkpoint_ns): event.checkpoint_id}
                self._ask(shown, self._targets.get(event.run_id) if event.run_id else None, asked_at)

    def _ask(self, shown: Interrupt, target: Mapping[str, str] | None, asked_at: Mapping[str, str]) -> None:
        if target is None:
            raise SettingsError("HumanInterrupts needs a graph that is run with a thread_id, or nobody can resume it")
        body, route = self._question_about(shown, target, asked_at)
        # An interrupt is shown again whenever another one of its thread is answered. Its key names all that the node
        # asks; people and the text of `question` are the application's, and stay as they were asked first.
        self._opener().open_sync(body, route, same_words=False)
        self._note(route.idempotency_key)

    async def adopt(self, shown: Interrupt, target: Mapping[str, str]) -> bool:
        """Ask about a pending interrupt that was reported to no callback. Asking again is harmless.

        Args:
            shown: The interrupt, as the checkpoint has it.
            target: `thread_id`, and `graph_id` if the thread's config names one.

        Returns:
            Whether it was asked now. False: this handler has asked it before.

        Raises:
            What `HumanTasks.open` raises, `ServerUnreachableError` after a few seconds; InvalidTaskError.
        """
        body, route = self._question_about(shown, target)
        if route.idempotency_key in self._asked:
            return False
        await self._opener().open(body, route, same_words=False, within=ADOPT_WITHIN)
        self._note(route.idempotency_key)
        return True

    def _question_about(
        self, shown: Interrupt, target: Mapping[str, str], asked_at: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], Route]:
        asked = question_of(shown)
        question = HumanTask(
            task=one_line(self._question(shown), MAX_TASK_CHARS) if self._question else asked.task,
            payload=asked.payload,
            response_schema=asked.response_schema,
            idempotency_key=key_of(shown, target["thread_id"]),
            **self._options,
        )
        return question.body(), Route(ENGINE, target, question.idempotency_key, asked_at=asked_at)

    def _opener(self) -> HumanTasks:
        if self._human_tasks is None:
            self._human_tasks = HumanTasks()
        return self._human_tasks

    def _note(self, key: str) -> None:
        self._asked[key] = None
        if len(self._asked) > MAX_NOTED:
            self._asked.pop(next(iter(self._asked)), None)
