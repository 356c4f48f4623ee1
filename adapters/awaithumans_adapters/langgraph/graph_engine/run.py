"""Runs a thread: gives it the answer, or continues it, and finds out whose fault a failure was.

Law: each start of a run is recorded before the graph runs, and only after the checkpointer has accepted a write.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from itertools import chain
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.constants import START, TAG_HIDDEN
from langgraph.errors import GraphRecursionError, InvalidUpdateError, UnknownInterruptError, is_invalid_resume
from langgraph.types import Command, Interrupt

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import answers_of
from awaithumans_adapters.langgraph.delivery.failed_runs import GraphFailedError
from awaithumans_adapters.langgraph.delivery.resume_value import kept
from awaithumans_adapters.langgraph.graph_engine.events import Events, GraphEvent
from awaithumans_adapters.langgraph.graph_engine.stored_thread.answers import StoredAnswers, Waiting
from awaithumans_adapters.langgraph.graph_engine.stored_thread.question import Question
from awaithumans_adapters.langgraph.graph_engine.stored_thread.step import Step, not_applied
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import StoredThread
from awaithumans_adapters.langgraph.internals import (
    INTERRUPT,
    RESUME,
    STRICT_RESUME,
    bound_config,
    node_tags,
)
from awaithumans_adapters.langgraph.names import is_ours
from awaithumans_adapters.langgraph.unmodified.interrupt_question import resume_with
from awaithumans_core.engine import TargetGone
from awaithumans_core.errors import QuestionChangedError
from awaithumans_core.outcome import Outcome
from awaithumans_core.runs import RunRecord
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.langgraph")


class ThreadRun:
    """Runs one thread to deliver the answer to one question.

    Args:
        thread: The thread.
        question: The question.
        step: The current step of the thread.
        runs: Where each run is recorded before it starts.
        events: Receives the stream parts while the thread runs.
        context: Returns the runtime context of each run.
    """

    def __init__(
        self,
        thread: StoredThread,
        question: Question,
        step: Step,
        runs: RunRecord,
        events: Events | None,
        context: Callable[[], Awaitable[Any]],
    ) -> None:
        self._thread = thread
        self._question = question
        self._step = step
        self._runs = runs
        self._events = events
        self._context = context

    async def resume(self, waiting: Sequence[Waiting], outcome: Outcome) -> None:
        """Give the answer to every interrupt that waits for it, and run the thread.

        First the answer is stored (see `stored_thread.answers`), then the start of the run is recorded, then the graph
        runs.

        Errors are those of `_run`.
        """
        carried = kept(outcome, self._thread.saver.serde)
        answers = {each.shown.id: _resume_value(each.shown, carried) for each in waiting}
        # A node that failed before its first question may be run again any number of times: it had no answer to act on.
        settled = await self._step.failed() and not any(each.answers for each in waiting)
        position, context = await self._position(), await self._context()
        for each in waiting:
            await self._thread.write(each.config, each.writes(answers[each.shown.id]), each.task_id)
        await self._runs.start(position, settled=settled)
        result = await self._run(Command(resume=answers), context, StoredAnswers(waiting))
        if self._ended(result):
            return
        saved = await self._thread.latest()
        # A step whose results were not applied holds the results of its tasks. Without pending writes nothing more has
        # to be read.
        if saved and saved.pending_writes and not_applied(await self._thread.state_at(saved.config)):
            await self.run_on(settled=True)

    async def run_on(self, *, settled: bool) -> None:
        """Continue from the last checkpoint, once the checkpointer has accepted a write and the start is recorded.

        Errors are those of `_run`.

        Args:
            settled: As in `StartedRuns.after_start`. It is always true if every task of the step has stored its result,
                because then no node runs before the next checkpoint is stored.
        """
        self._thread.drop_cache()  # the answers that are written once more must be the latest ones
        settled = settled or not_applied(await self._thread.state())
        position, context = await self._position(), await self._context()
        await self._rewrite_answers()
        await self._runs.start(position, settled=settled)
        await self._run(None, context)

    async def _position(self) -> str:
        """Return a fingerprint of the thread's progress: its checkpoints, and the finished tasks of each."""
        reached = [
            (
                where.get("checkpoint_ns", ""),
                where.get("checkpoint_id"),
                sorted(task.id for task in level.tasks if task.result is not None),
            )
            for level in await self._thread.levels()
            for where in [level.config.get("configurable", {})]
        ]
        return hashlib.sha256(json.dumps(reached).encode()).hexdigest()

    async def _rewrite_answers(self) -> None:
        """Write the answers of one task of the current step once more, to prove that the checkpointer can be written.

        This changes nothing that a reader of the thread can see. A task without answers gets an empty list.
        """
        saved = await self._thread.latest()
        tasks = (await self._thread.state()).tasks
        if saved is not None and tasks:
            await self._thread.write(saved.config, [(RESUME, answers_of(saved, tasks[0].id))], tasks[0].id)

    async def _run(self, command: Command[Any] | None, context: Any, stored: StoredAnswers | None = None) -> Any:
        """Run the thread to its end or its next question, and return the graph's result.

        Args:
            command: The input of the run.
            context: The runtime context of the run.
            stored: The answers in the command that were stored in advance.

        Raises:
            TargetGone: the node does not take this answer, or asks another question now (`QuestionChangedError`).
            GraphFailedError: the graph itself failed, after it had taken the answer.
            Exception: the graph has not taken the answer. A node may fail before it comes to its question again.
        """
        graph = self._thread.graph
        config = self._thread.end_cache(_strict(self._thread.config) if stored else self._thread.config, stored)
        try:
            if self._events is not None:
                return await self._run_streamed(command, config, context, self._events)
            if self._thread.saver_is_sync:
                invoked = asyncio.to_thread(graph.invoke, command, config, durability="sync", context=context)
                return await _to_its_end(invoked)
            return await graph.ainvoke(command, config, durability="sync", context=context)
        except QuestionChangedError as changed:
            await self._take_back(stored, changed)
            raise TargetGone(str(changed)) from changed
        except asyncio.CancelledError:
            if _cancelled_from_outside():
                raise
            cancelled = RuntimeError("a node was cancelled from within")
            await self._take_back(stored, cancelled)
            await self._raise_failure(cancelled, of_graph=True)
        except Exception as failure:
            await self._take_back(stored, failure)
            if is_invalid_resume(failure):
                raise TargetGone(f"the node does not take this answer, and still waits for one: {failure}") from failure
            await self._raise_failure(failure)

    async def _run_streamed(
        self, command: Command[Any] | None, config: RunnableConfig, context: Any, events: Events
    ) -> None:
        """Run the thread as `ainvoke` does, which streams as well, and emit the stream parts as events."""
        options: Any = {
            "stream_mode": events.modes,
            "subgraphs": True,
            "durability": "sync",
            "context": context,
        }
        graph, name, thread_id = self._thread.graph, self._thread.name, self._thread.id
        if not self._thread.saver_is_sync:
            async with aclosing(cast("AsyncGenerator[Any]", graph.astream(command, config, **options))) as stream:
                async for namespace, mode, data in stream:
                    await events.emit(GraphEvent(name, thread_id, mode, data, tuple(namespace)))
            return
        loop = asyncio.get_running_loop()

        def stream_all() -> None:
            for namespace, mode, data in graph.stream(command, config, **options):
                event = GraphEvent(name, thread_id, mode, data, tuple(namespace))
                asyncio.run_coroutine_threadsafe(events.emit(event), loop).result()

        await _to_its_end(asyncio.to_thread(stream_all))

    async def _take_back(self, stored: StoredAnswers | None, failure: Exception) -> None:
        """Remove stored answers that no node has taken, so that they are delivered again."""
        if stored is None:
            return
        refused = isinstance(failure, UnknownInterruptError) or is_invalid_resume(failure)
        for each in stored.not_written() if refused else stored.not_taken():
            await self._thread.write(each.config, each.writes(), each.task_id)

    def _ended(self, result: Any) -> bool:
        """Whether the result of a run proves that it met no question, and so has ended."""
        if not isinstance(result, dict) or INTERRUPT in result:
            return False
        graph = self._thread.graph
        asking = [tags for name, tags in node_tags(graph).items() if name != START]  # START is always hidden
        tagged = [self._thread.config.get("tags"), bound_config(graph).get("tags"), *asking]
        tags = chain.from_iterable(each or () for each in tagged)
        return TAG_HIDDEN not in tags  # the questions of a hidden node are not part of the result

    async def _raise_failure(self, failure: Exception, *, of_graph: bool = False) -> None:
        """Raise `GraphFailedError` if the graph itself failed after it had the answer, or else the failure unchanged.

        In the other cases the answer is untaken or the run is unfinished.

        Args:
            failure: The exception that the run raised.
            of_graph: Whether the failure is known to be the graph's own.

        Raises:
            GraphFailedError: the graph failed after it had taken the answer.
            Exception: `failure`, in all other cases.
        """
        recorded_in = await self._question.recorded_in()
        taken = await self._question.answered_in(recorded_in) is not None and not await self._question.waiting()
        if not taken or not (of_graph or await self._is_failure_of_graph(failure)):
            raise failure
        logger.error(
            "graph %s failed after thread %s had taken the answer", self._thread.name, self._thread.id, exc_info=failure
        )
        failures = await self._step.failures() or f"the graph failed ({failure!r})"
        raise GraphFailedError(failures, failure) from failure

    async def _is_failure_of_graph(self, failure: Exception) -> bool:
        """Whether the graph itself failed, and not the checkpointer.

        Either the thread has recorded the failure, or the graph has exceeded a limit of its own or made an invalid
        update.
        """
        return isinstance(failure, GraphRecursionError | InvalidUpdateError) or bool(await self._step.failures())


async def _to_its_end(in_thread: Coroutine[Any, Any, Any]) -> Any:
    """Wait for a worker thread, even if the wait is cancelled: the thread's work cannot be cancelled."""
    running = asyncio.ensure_future(in_thread)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _strict(config: RunnableConfig) -> RunnableConfig:
    """Make a resume fail if its interrupt has disappeared since the thread was read.

    Older LangGraph releases ignore this.
    """
    return {**config, "configurable": {**config.get("configurable", {}), STRICT_RESUME: True}}


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _resume_value(shown: Interrupt, outcome: Outcome) -> Any:
    """Return the value with which an interrupt is resumed."""
    return outcome.value() if is_ours(shown.value) else resume_with(shown, outcome)
