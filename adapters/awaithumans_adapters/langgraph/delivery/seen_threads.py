"""Remembers the threads that an engine has seen, to tell a deleted thread from one that never existed.

A thread without checkpoints may not have started yet, or may be in another database. A thread counts as deleted only if
this process has seen it with checkpoints and later found none at two checks.
"""

from collections import OrderedDict

MAX_REMEMBERED = 100_000
"""Maximum number of threads that one engine remembers."""

DELETED = "the thread was deleted: it had checkpoints and has none"


class SeenThreads:
    """The threads that one engine has seen: the latest `MAX_REMEMBERED` of them."""

    def __init__(self) -> None:
        self._missing: OrderedDict[str, int] = OrderedDict()
        """Number of checks at which each thread was missing since it was last seen."""

    def was_deleted(self, thread_id: str, *, exists: bool) -> bool:
        """Record whether a thread exists now, and return whether it was deleted.

        Args:
            thread_id: The thread.
            exists: Whether it has a checkpoint now.
        """
        if exists:
            self._missing[thread_id] = 0
            self._missing.move_to_end(thread_id)
            if len(self._missing) > MAX_REMEMBERED:
                self._missing.popitem(last=False)
            return False
        if thread_id not in self._missing:
            return False
        self._missing[thread_id] += 1
        return self._missing[thread_id] > 1
