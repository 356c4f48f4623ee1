"""Read the lists of ended and of open tasks, page by page.

A list is newest first and holds whole payloads, so pages grow only while they stay light. A task that ends meanwhile
moves others to later pages: some are read twice, none is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from awaithumans_core.flow.replies import insist, read_records, refusal
from awaithumans_core.flow.steps import Call, Flow, Patience, Reply
from awaithumans_core.outcome import Outcome

MAX_PAGE_TASKS = 200
"""Maximum number of tasks on a page of the list (the server's limit)."""

LIST_SECONDS = 5.0
"""Timeout of a page in seconds. A list that takes longer costs more than it saves."""

HEAVY_PAGE_BYTES = 1_000_000
"""Size in bytes above which the next page is halved, since a list contains whole payloads of up to 5 MB each."""


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of the list of ended tasks, or of the tasks in one status.

    Of each task it holds what an outcome holds. Payloads are dropped unread.
    """

    tasks: Sequence[Outcome]
    """The tasks that could be read, newest first by creation time."""
    full: bool
    """Whether there may be another page."""
    next_size: int
    """Maximum number of tasks on the next page, derived from the size of this one."""
    covered: int
    """Offset from this page to the next. 0: this page was too large, and is read again in smaller pages."""

    @property
    def reached(self) -> datetime | None:
        """The creation time of the last task on the page."""
        return next((outcome.created_at for outcome in reversed(self.tasks) if outcome.created_at is not None), None)


def ended_page(offset: int, size: int, patience: Patience) -> Flow[TaskPage]:
    """`GET /api/tasks?terminal=true`: at most `size` tasks from this offset."""
    return _task_page({"terminal": "true"}, offset, size, patience)


def open_page(status: str, offset: int, size: int, patience: Patience) -> Flow[TaskPage]:
    """`GET /api/tasks?status=`: `size` tasks in this status from this offset. One request takes one status."""
    return _task_page({"status": status}, offset, size, patience)


def _task_page(which: Mapping[str, str], offset: int, size: int, patience: Patience) -> Flow[TaskPage]:
    call = Call("GET", "/api/tasks", params={**which, "limit": size, "offset": offset}, timeout=LIST_SECONDS)
    reply = yield from insist(call, patience, _page)
    if isinstance(reply, Reply):
        raise refusal(reply, call)
    if reply is None:  # a single task that is too large is skipped, like one that cannot be read
        return TaskPage([], full=True, next_size=max(1, size // 2), covered=0 if size > 1 else 1)
    listed, held, weight = reply
    full, covered = held >= size, size
    if weight > HEAVY_PAGE_BYTES:
        size = max(1, size // 2)
    elif full and weight < HEAVY_PAGE_BYTES / 4:
        size = min(MAX_PAGE_TASKS, size * 2)
    return TaskPage(listed, full, size, covered)


def _page(reply: Reply) -> tuple[list[Outcome], int, int] | None:
    """Return the readable records of a page, its number of records, and its size. None: it was too large to read."""
    return None if reply.cut else (*read_records(reply), len(reply.body))
