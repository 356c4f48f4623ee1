"""Read the list of ended tasks, page by page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from awaithumans_core.flow.replies import insist, read_records, refusal
from awaithumans_core.flow.steps import Call, Flow, Notice, Patience, Reply
from awaithumans_core.outcome import Outcome

FIRST_PAGE = 25
MAX_PAGE_TASKS = 200
"""Number of tasks on a page of the list: on the first page, and at most (the server's limit)."""

READS_A_PAGE = 6
"""Number of single reads that cost the server as much as a page of 200 tasks (measured: 24 ms and 4 ms)."""

LIST_SECONDS = 5.0
"""Timeout of a page in seconds. A list that takes longer costs more than it saves."""

HEAVY_PAGE_BYTES = 1_000_000
"""Size in bytes above which the next page is halved, since a list contains whole payloads of up to 5 MB each."""


def ended(created: Sequence[datetime], page: int, patience: Patience) -> Flow[tuple[int, datetime | None]]:
    """`GET /api/tasks?terminal=true`: notice the ended tasks, as far back as a page may contain one of the given tasks.

    The list is newest first and holds whole payloads, so pages are small at first and grow while they stay light. Pages
    are read while that costs less than reading the tasks one by one that are older than the last page. A task that ends
    meanwhile moves others to later pages: some are noticed twice, none is left out.

    Args:
        created: Creation times (UTC) of the tasks that are waited for.
        page: Maximum number of tasks on the first page: `FIRST_PAGE`, then what the last check returned.
        patience: Limit of the retries for each page.

    Returns:
        The maximum number of tasks on a page of the next check, and the time back to which the list was read. Tasks
        created at that time or before may have ended as well. None: the whole list was read.

    Raises:
        RequestRefusedError: this token may not list tasks.
        ServerUnreachableError: there was no list within the patience. It is an `UnexpectedReplyError` if this server
            has no such list.
    """
    offset = turned = 0
    while True:
        listed = yield from ended_page(offset, page, patience)
        for outcome in listed.tasks:
            yield Notice(outcome)
        offset, turned, page = offset + listed.covered, turned + 1, listed.next_size
        if not listed.full:
            return page, None
        older = sum(listed.reached is None or moment <= listed.reached for moment in created)  # several may share one
        if older <= turned * READS_A_PAGE:
            return page, listed.reached or _LATEST


_LATEST = datetime.max.replace(tzinfo=UTC)
"""Time that a page reaches back to if none of its tasks could be read. Any task may have ended."""


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
    """`GET /api/tasks?terminal=true`: `size` tasks from this offset, `FIRST_PAGE` at first, then `next_size`."""
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
