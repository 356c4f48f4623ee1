"""A thread with an event loop of its own, on which an engine runs its graphs.

Law: all code that touches a graph or its checkpointer runs on this loop, because a checkpointer such as
`AsyncSqliteSaver` belongs to the loop on which it was opened. All code of the caller, which is the relay's store and
the application's hooks, runs on the caller's loop. So a node that blocks its loop delays other runs of this engine, and
no callback.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from threading import Lock, Thread
from typing import Any, Self, TypeVar

from awaithumans_core.runs import RunRecord

T = TypeVar("T")

Loop = asyncio.AbstractEventLoop


class GraphThread:
    """Runs the graphs of a `GraphEngine` in a separate thread, so that a blocking node does not block callbacks.

    The thread starts with its first use. An async checkpointer must be opened on its event loop, with
    `enter_async_context`. The thread closes it when it ends.

    Example:
        async with GraphThread() as thread:
            graph = await thread.enter_async_context(open_graph())  # an async context manager
            engine = GraphEngine({"refunds": graph}, thread=thread)
    """

    def __init__(self) -> None:
        self._running: tuple[Thread, Loop, Callable[[], None]] | None = None
        self._starting = Lock()
        self._entered = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def loop(self) -> Loop:
        """The thread's event loop. Reading this property starts the thread."""
        with self._starting:
            # A forked process has a copy of this object but not the thread.
            if self._running is None or not self._running[0].is_alive():
                self._running = _start()
            return self._running[1]

    async def run(self, work: Coroutine[Any, Any, T], *, to_its_end: bool = False) -> T:
        """Run a coroutine on the thread's event loop, and return its result or raise its exception.

        Args:
            work: The coroutine. It is cancelled if the caller is.
            to_its_end: Whether a cancelled caller waits until the coroutine has ended.
        """
        return await run_on(self.loop, work, to_its_end=to_its_end)

    @property
    def started(self) -> bool:
        """Whether the thread runs in this process."""
        return self._running is not None and self._running[0].is_alive()

    async def enter_async_context(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter a context manager on the thread's event loop. `aclose` exits it, in the same task that entered it.

        Args:
            manager: The context manager; for instance, it opens a checkpointer or a graph.
        """
        return await self._entered.enter_async_context(self.within(manager))

    @asynccontextmanager
    async def within(self, manager: AbstractAsyncContextManager[T]) -> AsyncGenerator[T]:
        """Enter a context manager on the thread's event loop, and exit it at the end of the block, in the same task."""
        loop = self.loop
        entered: Future[T] = Future()
        leave = asyncio.Event()

        async def hold() -> None:
            async with manager as value:
                entered.set_result(value)
                await leave.wait()

        holding = asyncio.create_task(run_on(loop, hold(), to_its_end=True))
        waiting = asyncio.wrap_future(entered)
        either: list[asyncio.Future[Any]] = [holding, waiting]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            holding.cancel()
            await asyncio.wait([holding])
            raise
        if not waiting.done():
            await holding  # raises the reason why it was not entered
        try:
            yield waiting.result()
        finally:
            loop.call_soon_threadsafe(leave.set)
            await holding

    async def aclose(self) -> None:
        """Exit the entered contexts, cancel running coroutines and end the thread. Waits for a node that blocks."""
        try:
            await self._entered.aclose()
        finally:
            if self._running is not None:
                thread, loop, stop = self._running
                self._running = None
                loop.call_soon_threadsafe(stop)
                await asyncio.to_thread(thread.join)


async def run_on(loop: Loop, work: Coroutine[Any, Any, T], *, to_its_end: bool = False) -> T:
    """Run a coroutine on an event loop, which may belong to another thread. Arguments as for `GraphThread.run`.

    Raises:
        RuntimeError: that event loop is closed.
    """
    if loop is asyncio.get_running_loop():
        return await work
    ended: Future[T] = Future()
    task: asyncio.Task[T] | None = None

    def start() -> None:
        nonlocal task
        task = loop.create_task(work)
        task.add_done_callback(lambda done: _pass_on(done, ended))

    def cancel() -> None:
        if task is not None:
            task.cancel()

    try:
        loop.call_soon_threadsafe(start)
    except RuntimeError:
        work.close()
        raise
    waiting = asyncio.wrap_future(ended)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if not waiting.done():
            loop.call_soon_threadsafe(cancel)
            if to_its_end:
                await asyncio.wait([waiting])
        raise


class RunsOfCaller:
    """Makes a record of runs that is kept on its caller's event loop usable from another one.

    Args:
        runs: The record.
        caller: The caller's event loop.
    """

    def __init__(self, runs: RunRecord, caller: Loop) -> None:
        self._runs = runs
        self._caller = caller

    @property
    def started(self) -> bool:
        """Whether a run was started, as in `RunRecord.started`."""
        return self._runs.started

    async def start(self, position: str, *, settled: bool) -> None:
        """Record the start of a run on the caller's event loop, as in `RunRecord.start`."""
        await run_on(self._caller, self._runs.start(position, settled=settled), to_its_end=True)


def _start() -> tuple[Thread, Loop, Callable[[], None]]:
    """Start a thread with an event loop. Return both, and a function that stops them when called in that loop."""
    made: Future[tuple[Loop, Callable[[], None]]] = Future()
    thread = Thread(target=_main, args=[made], name="awaithumans-graphs", daemon=True)
    thread.start()
    return thread, *made.result()


def _main(made: "Future[tuple[Loop, Callable[[], None]]]") -> None:
    with asyncio.Runner() as runner:  # cancels what still runs when the block ends
        loop, stopped = runner.get_loop(), False

        def stop() -> None:
            nonlocal stopped
            stopped = True
            loop.stop()

        made.set_result((loop, stop))
        while not stopped:
            # asyncio re-raises these out of the loop; the caller receives them through its future
            with suppress(SystemExit, KeyboardInterrupt):
                loop.run_forever()


def _pass_on(done: "asyncio.Task[T]", ended: "Future[T]") -> None:
    if done.cancelled():
        ended.cancel()
    elif (failure := done.exception()) is not None:
        ended.set_exception(failure)
    else:
        ended.set_result(done.result())
