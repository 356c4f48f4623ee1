"""Threads that an engine has seen, so that a deleted one is not mistaken for one that was never there.

A thread without checkpoints may not have begun, or may be in another database. Only one that this process has seen with
checkpoints, and twice without, was deleted.
"""

from collections import OrderedDict

REMEMBERED = 100_000
"""Threads that one engine remembers."""

DELETED = "the thread was deleted: it had checkpoints and has none"


class SeenThreads:
    """The threads that one engine has seen, the latest `REMEMBERED` of them."""

    def __init__(self) -> None:
        self._missing: OrderedDict[str, int] = OrderedDict()
        """How often each thread was missing since it was seen last."""

    def was_deleted(self, thread_id: str, *, exists: bool) -> bool:
        """Record whether a thread is there now; whether it was deleted.

        Args:
            thread_id: The thread.
            exists: Whether it has a checkpoint now.
        """
        if exists:
            self._missing[thread_id] = 0
            self._missing.move_to_end(thread_id)
            if len(self._missing) > REMEMBERED:
                self._missing.popitem(last=False)
            return False
        if thread_id not in self._missing:
            return False
        self._missing[thread_id] += 1
        return self._missing[thread_id] > 1
