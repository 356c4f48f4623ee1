"""Reads one thread of a LangGraph server on behalf of one question, and resumes it."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, cast

from httpx import HTTPStatusError
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.schema import Checkpoint, Run, Thread, ThreadState, ThreadTask

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import Untaken, task_ids
from awaithumans_adapters.langgraph.delivery.failed_runs import node_failed
from awaithumans_adapters.langgraph.delivery.history import SEARCH_SECONDS
from awaithumans_adapters.langgraph.delivery.resume_value import kept
from awaithumans_adapters.langgraph.names import (
    GROUP,
    NODE,
    RESUMED_WITH,
    is_ours,
    names_key,
    node_in,
    receipt_namespace,
)
from awaithumans_adapters.langgraph.server_engine.run import ChangesRun, RunOptions, changed, options_of
from awaithumans_adapters.langgraph.server_engine.target import RUN, target_of
from awaithumans_core.engine import TargetGone
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

AGAIN_SECONDS = 0.1
"""Seconds between two checks of a run or a thread that should have become idle and has not."""
CHECKPOINTS = 100
"""Number of checkpoints per page of the history, in which the question of an old route is searched for."""
MAX_RECEIPTS = 1000
"""Maximum number of receipts that are read.

It exceeds the number of nodes that ask one question in a thread.
"""
_AFTER: Mapping[object, Untaken] = {"loop": Untaken.CONTINUED, "update": Untaken.UPDATED}
"""State of an untaken question by the source of the checkpoint that followed its step. New input for other sources."""
UNDER_WAY: Final = ("running", "pending")


class ThreadUnknownError(Exception):
    """The server answers 404 for the thread: it does not exist, or is hidden from these credentials."""


class AssistantUnknownError(Exception):
    """The server answers 404 for a new run of a thread that it shows.

    The thread's assistant does not exist, or is hidden from these credentials.
    """


class ServerThread:
    """One thread of a server, read on behalf of one question.

    Args:
        client: Calls the server.
        route: The route of the question.
        headers: Returns the headers of each request.
        change: Changes the options of each run.
    """

    def __init__(
        self,
        client: LangGraphClient,
        route: Route,
        headers: Callable[[], Awaitable[Mapping[str, str]]],
        change: ChangesRun | None = None,
    ) -> None:
        self.target = target_of(route)
        self.id = route.target["thread_id"]
        self.assistant_id = route.target.get("assistant_id", "")
        self._key = route.idempotency_key
        self._asked_at = (route.asked_at or {}).get("")
        self._asking_run = (route.caller or {}).get(RUN)
        self._client = client
        self._headers = headers
        self._change = change

    async def busy(self) -> bool:
        """Whether a run of the thread is active.

        Raises:
            ThreadUnknownError: the server does not know the thread.
        """
        return (await self._thread())["status"] == "busy"

    async def wait_until_idle(self) -> None:
        """Wait until no run of the thread is active. Errors are those of `busy`."""
        while await self.busy() and (runs := await self._under_way()):
            await self.wait_for_run(runs[0]["run_id"])

    async def wait_for_run(self, run_id: str) -> None:
        """Wait for the end of a run, whatever its result."""
        while True:
            run = await self._run(run_id)
            if run is None or run["status"] not in UNDER_WAY:
                return
            await self._client.runs.join(  # pyright: ignore[reportUnknownMemberType]  # a bare dict
                self.id, run_id, headers=await self._headers()
            )
            await asyncio.sleep(AGAIN_SECONDS)  # a run that was cut off is retried under the same id

    async def waiting(self) -> set[str]:
        """Return the ids of the interrupts that wait for the answer, without those whose node has taken it.

        They are the interrupts that show the question. A node that asks several people at once shows one question at a
        time and takes each answer by its key. So if the question is not shown, they are the interrupts of the node that
        asks it.
        """
        ours = {each["id"]: each["value"] for each in (await self._state())["interrupts"] if is_ours(each["value"])}
        node = node_in(self._key, self.id)
        shown = {each: value for each, value in ours.items() if names_key(value, self._key)} or {
            each: value for each, value in ours.items() if value[NODE] == node
        }
        if not shown:
            return set()
        taken = await self.taken()
        return {interrupt_id for interrupt_id, value in shown.items() if value.get(NODE) not in taken}

    async def taken(self, *, delete_stale: bool = True) -> set[str]:
        """Return the nodes that have taken the answer, and delete receipts of runs that were rolled back.

        Such a receipt does not count, and would make the node refuse the answer of its next run.

        Args:
            delete_stale: Whether to delete them. If not, nothing on the server is changed.
        """
        return await self._taken(self._key, delete_stale=delete_stale)

    async def asked(self) -> bool:
        """Whether the question was ever shown.

        The route names its checkpoint. For routes of earlier releases the history is searched, for `SEARCH_SECONDS`. A
        question that was asked before the part that was read counts as not asked yet.
        """
        threads, headers = self._client.threads, await self._headers()
        if self._asked_at is not None:
            named = {"thread_id": self.id, "checkpoint_ns": "", "checkpoint_id": self._asked_at}
            try:
                return self._shown_in(
                    [await threads.get_state(self.id, checkpoint=cast("Checkpoint", named), headers=headers)]
                )
            except HTTPStatusError as refused:
                if refused.response.status_code == 404:  # retention has removed the checkpoint
                    return False
                raise
        until, before = time.monotonic() + SEARCH_SECONDS, None
        while states := await threads.get_history(self.id, limit=CHECKPOINTS, before=before, headers=headers):
            if self._shown_in(states):
                return True
            if len(states) < CHECKPOINTS or time.monotonic() > until:
                return False
            before = states[-1]["checkpoint"]
        return False

    def _shown_in(self, states: Iterable[ThreadState]) -> bool:
        tasks = (task for state in states for task in state["tasks"])
        return any(names_key(shown["value"], self._key) for task in tasks for shown in task["interrupts"])

    async def untaken(self) -> Untaken:
        """Return the state of the question if the thread has never shown it and its answer was not taken.

        A server does not list the questions that a node has opened. So a question is found by the task of its node,
        which its key names. A question whose key the caller has chosen counts as not opened.
        """
        node = node_in(self._key, self.id)
        if node is None:
            return Untaken.NOT_RECORDED
        graph, path = node.rpartition("|")[0], task_ids(node)
        state = await self._reached(path[-1], graph)
        around = await self._reached(path[0], "") if graph and state is Untaken.OPEN else Untaken.NOT_RECORDED
        if around not in (Untaken.OPEN, Untaken.NOT_RECORDED):
            return around if around is Untaken.UPDATED else Untaken.REPLACED
        return state

    async def _reached(self, task_id: str, graph: str) -> Untaken:
        """Return how far the graph with this checkpoint namespace has come since its step with this task."""
        within = cast("Checkpoint", {"checkpoint_ns": graph}) if graph else None
        newer: ThreadState | None = None
        history = await self._client.threads.get_history(
            self.id, limit=CHECKPOINTS, checkpoint=within, headers=await self._headers()
        )
        for state in history:
            task = next((task for task in state["tasks"] if task["id"] == task_id), None)
            if task is None:
                newer = state
            elif newer is None:
                return Untaken.OPEN if task.get("result") is None else _continued(task)
            else:
                after = _AFTER.get((newer["metadata"] or {}).get("source"), Untaken.REPLACED)
                return _continued(task) if after is Untaken.CONTINUED else after
        return Untaken.NOT_RECORDED

    async def questions(self) -> int:
        """Return the number of questions of this package that the thread shows."""
        return sum(is_ours(shown["value"]) for shown in (await self._state())["interrupts"])

    async def failure(self) -> str | None:
        """Return the failure of the last run, as text for an operator, or None if it did not fail."""
        thread = cast("Mapping[str, Any]", await self._thread())
        if thread["status"] != "error":
            return None
        return "; ".join(_failures(await self._state())) or f"the graph failed ({thread.get('error')})"

    async def nodes_failed_with_answer(self) -> str | None:
        """Return, as text, a node of the current step that failed after it had the answer to another question."""
        state = await self._state()
        for task, failed in zip((task for task in state["tasks"] if task["error"]), _failures(state), strict=True):
            for value in (shown["value"] for shown in task["interrupts"] if is_ours(shown["value"])):
                key = value["idempotency_key"]
                if key != self._key and value.get(NODE) in await self._taken(key):
                    return failed
        return None

    async def resume(self, waiting: set[str], outcome: Outcome) -> str | None:
        """Start the run that brings the answer, unless another run was started first. Return its id, or None.

        The server stores each step before the next one begins (durability "sync"), unless the run that asked chose
        "exit". It has no way to store the answer in advance of the run, so the node does: it records in the server's
        store that it has its answer before it continues.
        """
        answers = dict.fromkeys(waiting, kept(outcome).value())
        return await self._start({RESUMED_WITH: self._key}, command={"resume": answers})

    async def run_on(self) -> str | None:
        """Start a run that continues where the last one failed, unless another was started first.

        Return its id, or None.
        """
        return await self._start({}, input=None)

    async def check_taken(self, resumed: set[str], run_id: str) -> None:
        """Raise if one of the interrupts that were resumed still waits.

        Raises:
            TargetGone: the node asks another question now.
            RuntimeError: the run ended before the node came to its question.
        """
        if not resumed & await self.waiting():
            return
        failures = "; ".join(_failures(await self._state()))
        if "(QuestionChangedError(" in failures:
            raise TargetGone(failures)
        raise RuntimeError(f"run {run_id} ended before the node came to its question: {failures or 'see the server'}")

    async def _start(self, mark: Mapping[str, str], **what: Any) -> str | None:
        options = await changed(self._change, self.target, {"durability": "sync"} | await self._asked_with())
        metadata: dict[str, Any] = {**(options.pop("metadata", None) or {}), **mark}
        try:
            run = await self._client.runs.create(
                self.id,
                self.assistant_id,
                **options,
                **what,
                metadata=metadata,
                multitask_strategy="reject",
                headers=await self._headers(),
            )
        except HTTPStatusError as refused:
            if refused.response.status_code == 409:
                await asyncio.sleep(AGAIN_SECONDS)
                return None
            if refused.response.status_code == 404:
                await self._thread()
                raise AssistantUnknownError from refused
            raise
        return run["run_id"]

    async def _taken(self, key: str, *, delete_stale: bool = True) -> set[str]:
        namespace = receipt_namespace(self.id, key)
        nodes: set[str] = set()
        found = await self._client.store.search_items(namespace, limit=MAX_RECEIPTS, headers=await self._headers())
        for receipt in found["items"]:
            if await self._run(receipt["value"]["run_id"]) is not None:
                nodes.add(receipt["value"][NODE])
            elif delete_stale:
                await self._thread()  # if the thread itself is no longer shown, the run was not rolled back
                await self._client.store.delete_item(namespace, receipt["key"], headers=await self._headers())
        return nodes

    async def _asked_with(self) -> RunOptions:
        """Return the options of the run that asked, or of the last run if that one was deleted or is not known."""
        run = await self._run(self._asking_run) if self._asking_run else None
        if run is None:
            last = cast("Mapping[str, Any]", (await self._state())["metadata"] or {}).get("run_id")
            run = await self._run(last) if last else None
        return options_of(run or {})

    async def _thread(self) -> Thread:
        try:
            return await self._client.threads.get(self.id, headers=await self._headers())
        except HTTPStatusError as refused:
            if refused.response.status_code == 404:
                raise ThreadUnknownError from refused
            if refused.response.status_code == 422:
                raise TargetGone(f"{self.id!r} is no thread of a LangGraph server: {refused}") from refused
            raise

    async def _state(self) -> ThreadState:
        return await self._client.threads.get_state(self.id, headers=await self._headers())

    async def _under_way(self) -> list[Run]:
        runs, headers = self._client.runs, await self._headers()
        found = [await runs.list(self.id, status=status, limit=1, headers=headers) for status in UNDER_WAY]
        return [run for some in found for run in some]

    async def _run(self, run_id: str) -> Mapping[str, Any] | None:
        """Return the record of a run, or None if it was deleted. A rollback deletes a run with all it has done."""
        try:
            found = await self._client.runs.get(self.id, run_id, headers=await self._headers())
            return cast("Mapping[str, Any]", found)
        except HTTPStatusError as refused:
            if refused.response.status_code != 404:
                raise
            return None


def _continued(task: ThreadTask) -> Untaken:
    """The state of an untaken question whose node has finished: a quorum in the node shows in its last interrupt."""
    grouped = any(is_ours(shown["value"]) and GROUP in shown["value"] for shown in task["interrupts"])
    return Untaken.DECIDED if grouped else Untaken.CONTINUED


def _failures(state: ThreadState) -> list[str]:
    return [node_failed(task["name"], task["error"]) for task in state["tasks"] if task["error"]]
