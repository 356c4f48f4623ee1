"""A clock on which waiting takes no time.

It stands still while anything happens, and jumps to the next thing that is due once nothing has happened for a moment:
an autojump clock, as trio's. Only what is planned is jumped to (a person's answer, a deadline, a client's pause). A
held poll is not: it is answered when its task ends, or when a jump has passed its time, so a month passes in one poll.
"""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from weakref import WeakSet

from awaithumans_core.clock import steady

QUIET_SECONDS = 0.01
"""How long (by the machine's clock) nothing must have happened before time jumps."""

EXPECTED_ACTION_SECONDS = 0.25
"""The same while somebody has been woken, or replied to, and is bound to do something next: a busy machine is slow."""

PASSES = 5
"""How often the event loops that use the clock are waited for before a jump: what one sends is for another to take."""

ITERATIONS = 10
"""How often a loop comes round in each pass: a task that is woken wakes another one."""

ITERATIONS_SECONDS = 5
"""How long that may take on a busy machine. A loop that is blocked does not come round."""


@dataclass(order=True)
class _Sleeper:
    until: float
    order: int
    wake: Callable[[], None] = field(compare=False)
    expects_action: bool = field(compare=False)
    """Whether it is bound to do something when it has been woken."""
    loop: asyncio.AbstractEventLoop | None = field(compare=False)
    """Where it sleeps; None: in a thread of its own."""
    woken: bool = field(default=False, compare=False)


class VirtualClock:
    """Give it to `FakeHumans` and to the clients that speak to it. Safe to share between threads and event loops.

    Time knows nothing of work that is done elsewhere. Script the people before the question is asked, or use
    `auto=False` and move time by `advance`, when a test takes its time between asking and answering.

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
        self._state = threading.Condition()
        self._jumper: threading.Thread | None = None
        self._listeners: list[Callable[[], None]] = []
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def now(self) -> float:
        """Seconds since the clock was made. Whose event loop asks is waited for before time jumps."""
        with self._state, suppress(RuntimeError):  # in a thread without a loop
            self._loops.add(asyncio.get_running_loop())
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until so much time has passed on this clock."""
        self.expected_action_done()
        await self._sleep(seconds, expects_action=True)

    def sleep_sync(self, seconds: float) -> None:
        """The same, blocking the calling thread."""
        self.expected_action_done()
        woken = threading.Event()
        with self._sleeping(seconds, woken.set, expects_action=True):
            woken.wait()

    async def alarm(self, seconds: float) -> None:
        """The same for the fake itself, of which nobody expects anything afterwards."""
        await self._sleep(seconds, expects_action=False)

    async def _sleep(self, seconds: float, *, expects_action: bool) -> None:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(woken.set)

        with self._sleeping(seconds, wake, expects_action=expects_action, loop=loop):
            await woken.wait()

    def expected_action_done(self) -> None:
        """Somebody has done what was expected of them."""
        with self._state:
            self._expected_actions = max(0, self._expected_actions - 1)
            self._record_activity()

    def expect_action(self) -> None:
        """Somebody is bound to do something next: send a request, or sleep."""
        with self._state:
            self._expected_actions += 1
            self._record_activity()

    def advance(self, seconds: float) -> None:
        """Let so much time pass, at once. What is due meanwhile is woken in its order, and sees the new time.

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
        """Call this after every move of time."""
        self._listeners.append(listener)

    @contextmanager
    def busy(self) -> Generator[None]:
        """Time stands still in here."""
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
        """Inside of `busy`: here nothing is done but waiting."""
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
        self._state.notify_all()

    def _jump_when_quiet(self) -> None:
        while True:
            with self._state:
                while self._sleepers and (left := self._left()) > 0:
                    self._state.wait(left)
                if not self._sleepers:
                    self._jumper = None
                    return
                last_activity = self._last_activity
                loops = {*self._loops, *(sleeper.loop for sleeper in self._sleepers if sleeper.loop is not None)}
            _wait_for_loops([loop for loop in loops if loop.is_running()])
            with self._state:
                if self._busy or self._last_activity != last_activity or not self._sleepers:
                    continue
                self._expected_actions = 0  # whoever still owes something has had the time for it
                self._jump()
                self._last_activity = steady()
            self._notify()

    def _left(self) -> float:
        """Real seconds until a jump may be made."""
        quiet = max(self._quiet, EXPECTED_ACTION_SECONDS) if self._expected_actions else self._quiet
        return quiet if self._busy else self._last_activity + quiet - steady()

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
    """Wait until these loops have come round: what was about to happen there has happened, however slow the machine."""
    until = steady() + ITERATIONS_SECONDS
    for _ in range(PASSES):
        for done in [_iterations_done(loop) for loop in loops]:
            done.wait(max(0.0, until - steady()))


def _iterations_done(loop: asyncio.AbstractEventLoop) -> threading.Event:
    """Set once this loop has come round so often, or has ended."""
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
