"""A virtual clock, on which waiting takes no time.

Its time does not move while anything happens. Once nothing has happened for a moment, it jumps to the next planned
event, like the autojump clock of trio. Planned events are a person's answer, a deadline and a client's pause. The end
of a long poll is not one: the poll is answered when its task ends, or when a jump has passed the end of the poll. So a
month passes within one poll.
"""

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakSet

from awaithumans_core.clock import steady

QUIET_SECONDS = 0.01
"""Real seconds without any activity before time jumps."""

EXPECTED_ACTION_SECONDS = 0.5
"""Real seconds without any activity before time jumps while an action is expected.

A client that was woken, or got a reply, acts next. Time during which the process was kept from running, or was busy
itself, does not count.
"""

SLICE_SECONDS = 0.01
"""Real seconds between two checks of whether the process gets to run, while an action is expected."""

STARVED_SECONDS = 20.0
"""Maximum real seconds that do not count, since a process may be busy with something else for ever."""

PASSES = 5
"""Number of times that the event loops are waited for before a jump, since what one loop sends, another receives."""

ITERATIONS = 10
"""Number of iterations of each event loop in each pass, since a task that is woken may wake another one."""

ITERATIONS_SECONDS = 5
"""Maximum real seconds to wait for these iterations, since a blocked event loop never completes them."""


_process_seconds = time.process_time
"""CPU seconds of this process. A reference, so that no library that freezes time in tests replaces it."""


@dataclass(order=True)
class _Sleeper:
    until: float
    order: int
    wake: Callable[[], None] = field(compare=False)
    expects_action: bool = field(compare=False)
    """Whether an action of the sleeper is expected once it is woken."""
    loop: asyncio.AbstractEventLoop | None = field(compare=False)
    """The event loop in which it sleeps. None: it blocks a thread."""
    woken: bool = field(default=False, compare=False)


class VirtualClock:
    """Virtual time for `FakeHumans` and its clients. It is safe to share between threads and event loops.

    The clock does not notice work that does not use it. Script the people before the question is asked. A test that
    does other work between asking and answering uses `auto=False` and moves time by `advance`.

    Args:
        auto: Jump when nothing happens. False: only `advance` moves time.
        quiet: Real seconds without anything happening before a jump.

    Example:
        >>> clock = VirtualClock(auto=False)
        >>> clock.advance(30 * 24 * 3600)
        >>> clock.now()
        2592000.0
    """

    def __init__(self, *, auto: bool = True, quiet: float = QUIET_SECONDS) -> None:
        self._auto = auto
        self._quiet = quiet
        self._now = 0.0
        self._sleepers: list[_Sleeper] = []
        self._order = itertools.count()
        self._busy = 0
        self._expected_actions = 0
        self._last_activity = steady()
        self._starved = 0.0
        self._state = threading.Condition()
        self._jumper: threading.Thread | None = None
        self._listeners: list[Callable[[], None]] = []
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def now(self) -> float:
        """Return the seconds since the clock was made. Time does not jump while the calling event loop has work."""
        with self._state, suppress(RuntimeError):  # in a thread without a loop
            self._loops.add(asyncio.get_running_loop())
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until this number of seconds has passed on this clock."""
        self.expected_action_done()
        await self._sleep(seconds, expects_action=True)

    def sleep_sync(self, seconds: float) -> None:
        """Block the calling thread until this number of seconds has passed on this clock."""
        self.expected_action_done()
        woken = threading.Event()
        with self._sleeping(seconds, woken.set, expects_action=True):
            woken.wait()

    async def alarm(self, seconds: float) -> None:
        """Wait like `sleep`, for the fake server itself: no action is expected afterwards."""
        await self._sleep(seconds, expects_action=False)

    async def _sleep(self, seconds: float, *, expects_action: bool) -> None:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(woken.set)

        with self._sleeping(seconds, wake, expects_action=expects_action, loop=loop):
            await woken.wait()

    def expected_action_done(self) -> None:
        """Record that an expected action was done."""
        with self._state:
            self._expected_actions = max(0, self._expected_actions - 1)
            self._record_activity()

    def expect_action(self) -> None:
        """Record that an action is expected next: a request, or a sleep."""
        with self._state:
            self._expected_actions += 1
            self._record_activity()

    def advance(self, seconds: float) -> None:
        """Move time by this number of seconds. Sleepers that are due are woken in order, and see the new time.

        Raises:
            ValueError: time does not go back.
        """
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds} s: time does not go back")
        with self._state:
            until = self._now + seconds
            while self._sleepers and self._sleepers[0].until <= until:
                self._jump()
            self._now = until
        self._notify()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Register a function that is called after every move of time."""
        self._listeners.append(listener)

    @contextmanager
    def busy(self) -> Generator[None]:
        """Context manager within which time does not move."""
        with self._state:
            self._busy += 1
        try:
            yield
        finally:
            with self._state:
                self._busy -= 1
                self._record_activity()

    @contextmanager
    def idle(self) -> Generator[None]:
        """Lift `busy` for this block, so that time may pass. Use only inside `busy`."""
        with self._state:
            self._busy -= 1
            self._record_activity()
        try:
            yield
        finally:
            with self._state:
                self._busy += 1

    @contextmanager
    def _sleeping(
        self,
        seconds: float,
        wake: Callable[[], None],
        *,
        expects_action: bool,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Generator[None]:
        with self._state:
            sleeper = _Sleeper(self._now + max(0.0, seconds), next(self._order), wake, expects_action, loop)
            heapq.heappush(self._sleepers, sleeper)
            self._record_activity()
            if self._auto and self._jumper is None:
                self._jumper = threading.Thread(target=self._jump_when_quiet, name="virtual-clock", daemon=True)
                self._jumper.start()
        try:
            yield
        finally:
            with self._state:
                if not sleeper.woken:
                    self._sleepers.remove(sleeper)
                    heapq.heapify(self._sleepers)

    def _record_activity(self) -> None:
        self._last_activity = steady()
        self._starved = 0.0
        self._state.notify_all()

    def _jump_when_quiet(self) -> None:
        while True:
            with self._state:
                while self._sleepers and (left := self._left()) > 0:
                    self._wait(left)
                if not self._sleepers:
                    self._jumper = None
                    return
                last_activity = self._last_activity
                loops = {*self._loops, *(sleeper.loop for sleeper in self._sleepers if sleeper.loop is not None)}
            _wait_for_loops([loop for loop in loops if loop.is_running()])
            with self._state:
                if self._busy or self._last_activity != last_activity or not self._sleepers:
                    continue
                self._expected_actions = 0  # an action that is still expected has had time enough
                self._jump()
                self._record_activity()
            self._notify()

    def _left(self) -> float:
        """Return the real seconds until a jump is allowed."""
        quiet = self._quiet
        if self._expected_actions:
            quiet = max(quiet, EXPECTED_ACTION_SECONDS) + min(self._starved, STARVED_SECONDS)
        return quiet if self._busy else self._last_activity + quiet - steady()

    def _wait(self, seconds: float) -> None:
        """Wait for activity, at most this long, and note the time in which an expected action could not be done.

        On a busy machine the thread that acts next may not run for a while. Then this thread wakes late as well, or
        the process computes all the time.
        """
        if not self._expected_actions:
            self._state.wait(seconds)
            return
        began, computed = steady(), _process_seconds()
        if not self._state.wait(min(seconds, SLICE_SECONDS)):
            passed = steady() - began
            if passed > 2 * SLICE_SECONDS or _process_seconds() - computed > passed / 10:
                self._starved += passed

    def _jump(self) -> None:
        self._now = max(self._now, self._sleepers[0].until)
        while self._sleepers and self._sleepers[0].until <= self._now:
            sleeper = heapq.heappop(self._sleepers)
            sleeper.woken = True
            self._expected_actions += sleeper.expects_action
            sleeper.wake()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()


def _wait_for_loops(loops: Collection[asyncio.AbstractEventLoop]) -> None:
    """Wait for iterations of these event loops, so that work which was ready there is done, also on a slow machine."""
    until = steady() + ITERATIONS_SECONDS
    for _ in range(PASSES):
        for done in [_iterations_done(loop) for loop in loops]:
            done.wait(max(0.0, until - steady()))


def _iterations_done(loop: asyncio.AbstractEventLoop) -> threading.Event:
    """Return an event that is set once this loop has run `ITERATIONS` more iterations, or has ended."""
    done = threading.Event()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            done.set()

    try:
        loop.call_soon_threadsafe(turn, ITERATIONS)
    except RuntimeError:  # it has ended meanwhile
        done.set()
    return done
