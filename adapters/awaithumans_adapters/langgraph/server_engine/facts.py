"""Reads the facts by which a question of a thread on a LangGraph server is classified."""

from collections.abc import Awaitable, Callable
from typing import assert_never

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import Untaken
from awaithumans_adapters.langgraph.delivery.classification import Fact, Snapshot
from awaithumans_adapters.langgraph.delivery.seen_threads import SeenThreads
from awaithumans_adapters.langgraph.server_engine.thread import ServerThread, ThreadUnknownError


class ServerFacts:
    """Reads the facts of one thread for `read_case`.

    The server runs the runs of a thread one after another, and shows an interrupt only while no run is active. So there
    is no fact about nodes that run beside the question, and none about graphs other than the thread's own.

    Args:
        thread: The thread, on behalf of the question.
        seen: The threads that the engine has seen.
        hidden: Returns why a thread that is not found may be hidden, or an empty string.
        wait_until_idle: Whether to wait until no run is active before the thread is read.
    """

    def __init__(
        self,
        thread: ServerThread,
        seen: SeenThreads,
        hidden: Callable[[ServerThread], Awaitable[str]],
        *,
        wait_until_idle: bool,
    ) -> None:
        self.waiting: set[str] = set()
        """Ids of the interrupts that wait for the answer, as they were last read."""
        self._thread = thread
        self._seen = seen
        self._hidden = hidden
        self._wait_until_idle = wait_until_idle

    async def read(self, fact: Fact, found: Snapshot) -> Snapshot:
        """Return the snapshot with this fact added, or the snapshot of a thread that was deleted meanwhile."""
        try:
            return await self._read(fact, found)
        except ThreadUnknownError:
            return await self.not_found(found)

    async def not_found(self, found: Snapshot) -> Snapshot:
        """Return the snapshot of a thread that the server does not show."""
        hidden = await self._hidden(self._thread)
        deleted = not hidden and self._seen.was_deleted(self._thread.id, exists=False)
        not_yet = (
            f"{found.where} has no thread {self._thread.id!r}: it was deleted, belonged to a run without a thread, or "
            "is on another server"
        )
        return found._replace(exists=False, deleted=deleted, hidden=hidden, run_active=False, not_yet=not_yet)

    async def _read(self, fact: Fact, found: Snapshot) -> Snapshot:
        match fact:
            case Fact.THREAD:
                return await self._read_thread(found)
            case Fact.SHOWN:
                self.waiting = await self._thread.waiting()
                return found._replace(shown_by=(self._thread.id,) if self.waiting else ())
            case Fact.RUNNING_BESIDE:
                return found._replace(running_beside="")
            case Fact.FAILED_BESIDE:
                return found._replace(failed_beside=await self._thread.nodes_failed_with_answer() or "")
            case Fact.UNSTORED_BESIDE:
                return found._replace(unstored_beside="")
            case Fact.ANSWERED:
                return found._replace(answered=bool(await self._thread.taken()))
            case Fact.STOPPED | Fact.FAILED:
                failed = await self._thread.failure() or ""
                return found._replace(failed=failed, stopped_in=(self._thread.id,) if failed else ())
            case Fact.EVER_SHOWN:
                return found._replace(ever_shown=await self._thread.asked())
            case Fact.QUEUED | Fact.SHOWS_ANSWERED:
                return found._replace(queued=False, shows_answered=False)
            case Fact.NODE_MISSING:
                return found._replace(node_missing=False)
            case Fact.UNTAKEN:
                return await self._read_untaken(found)
            case Fact.OTHERS_SHOWN:
                return found._replace(others_shown=False)
            case Fact.REMOVED:
                return found._replace(removed=False)
            case Fact.NEXT_QUESTION:
                raise ValueError("a LangGraph server has no callbacks that could fail after a run")
            case _:
                assert_never(fact)

    async def _read_thread(self, found: Snapshot) -> Snapshot:
        active = False
        if self._wait_until_idle:
            await self._thread.wait_until_idle()
        else:
            active = await self._thread.busy()
        self._seen.was_deleted(self._thread.id, exists=True)
        return found._replace(exists=True, deleted=False, hidden="", run_active=active)

    async def _read_untaken(self, found: Snapshot) -> Snapshot:
        """Read the state of the question from the history of the thread, which does not distinguish its branches.

        The steps that follow the step of a question that was shown may be those of a fork. So if the node of such a
        question seems to have finished without its answer, the question counts as replaced.
        """
        state = await self._thread.untaken()
        if found.ever_shown and state not in (Untaken.DECIDED, Untaken.UPDATED):
            state = Untaken.REPLACED
        return found._replace(untaken=state)
