"""Cancels the open questions of a thread that its application abandons."""

from collections.abc import Mapping
from typing import Any

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import open_tasks
from awaithumans_adapters.langgraph.graph_engine.graphs import Graphs
from awaithumans_adapters.langgraph.graph_engine.stored_thread.thread import StoredThread
from awaithumans_adapters.langgraph.names import ENGINE, GRAPH, graph_in, is_ours
from awaithumans_adapters.langgraph.unmodified.interrupt_question import key_of
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans.langgraph")


async def cancel_questions(graphs: Graphs, thread_id: str, human_tasks: HumanTasks) -> list[Outcome]:
    """Cancel the open questions of a thread, and return how each of them ended; see `GraphEngine.cancel_thread`."""
    ended = dict[str, Outcome]()
    for name in graphs:
        thread = graphs.thread(name, thread_id)
        questions = await _open_questions(thread)
        metadata: Mapping[str, Any] = (await thread.state()).metadata or {}
        graph_id = {GRAPH: str(metadata[GRAPH])} if GRAPH in metadata else {}
        for key, task_id in questions.items():
            if key not in ended:
                mark = Route(ENGINE, {"thread_id": thread_id, **graph_id}, key).digest
                ended[key] = await _cancel(human_tasks, key, task_id, mark, shared=graph_in(key, thread_id) is None)
                logger.info("task %s of thread %s: %s", ended[key].task_id, thread_id, ended[key].status)
    return list(ended.values())


async def _open_questions(thread: StoredThread) -> dict[str, str | None]:
    """Return the unanswered questions of the current step: task ids by key, None for a foreign node's question."""
    snapshot, found = await thread.state(), dict[str, str | None]()
    async for saved in thread.current_step():
        found |= open_tasks(saved)
    foreign = [shown for shown in snapshot.interrupts if not is_ours(shown.value)]
    return found | {key_of(shown, thread.id): None for shown in foreign}


async def _cancel(human_tasks: HumanTasks, key: str, task_id: str | None, mark: str, *, shared: bool) -> Outcome:
    if task_id is None:
        return await human_tasks.withdraw(key, asked_by=mark)
    return await human_tasks.close(task_id, asked_by=(lambda _: mark) if shared else None)
