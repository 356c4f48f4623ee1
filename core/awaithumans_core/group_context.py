"""The group decision to which a question belongs. It connects `quorum` and `escalate` with the adapters.

Most callers wait in place. A LangGraph node does not: it is interrupted, and runs again with the next answer. So a call
that cannot wait suspends its question here, and the group goes on with the answers it has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal


@dataclass(eq=False)
class Group:
    """One call of `quorum` or `escalate`."""

    kind: Literal["quorum", "escalate"]
    """Which of the two was called."""
    suspended: list[tuple[Exception, Callable[[], Awaitable[None]]]] = field(
        default_factory=list[tuple[Exception, Callable[[], Awaitable[None]]]]
    )
    """What each suspended call raised, and what cancels its question."""

    def suspend(self, interrupt: Exception, cancel: Callable[[], Awaitable[None]]) -> None:
        """Report that a question has no answer yet and that its call cannot wait for one.

        Args:
            interrupt: What the call raises. `quorum` raises it when it cannot decide without this answer.
            cancel: Cancels the question once the group has decided. Must not raise.
        """
        self.suspended.append((interrupt, cancel))

    def is_suspended(self, failure: BaseException) -> bool:
        """Whether this is what a suspended call raised."""
        return any(failure is interrupt for interrupt, _ in self.suspended)

    async def cancel_suspended(self) -> None:
        """Cancel the questions of all suspended calls."""
        await asyncio.gather(*(cancel() for _, cancel in self.suspended))


_CURRENT: ContextVar[Group | None] = ContextVar("awaithumans_group", default=None)


def current_group() -> Group | None:
    """The group decision that this call asks for, if any."""
    return _CURRENT.get()


@contextmanager
def deciding(kind: Literal["quorum", "escalate"]) -> Generator[Group]:
    """The calls of this block ask for one group decision."""
    group, around = Group(kind), _CURRENT.get()
    _CURRENT.set(group)
    try:
        yield group
    finally:
        if _CURRENT.get() is group:  # a workflow that is evicted ends in another context
            _CURRENT.set(around)
