"""Read the list of ended tasks, page by page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from awaithumans_core.flow.replies import insist, read_records, refusal
from awaithumans_core.flow.steps import Call, Flow, Notice, Patience, Reply
from awaithumans_core.outcome import Outcome

FIRST_PAGE = 25
MAX_PAGE_TASKS = 200
"""How many tasks a page of the list holds: at first, and at most (the server's limit)."""

READS_A_PAGE = 6
"""How many tasks can be read one by one at the cost of a page of 200 (measured: 24 ms of the server against 4 ms)."""

HEAVY_PAGE_BYTES = 1_000_000
"""A page that weighs more is halved: lists hold whole payloads, of up to 5 MB each."""


def ended(created: Sequence[datetime], page: int, patience: Patience) -> Flow[tuple[int, datetime | None]]:
    """`GET /api/tasks?terminal=true`: notice the ended tasks among which those created at these moments (UTC) may be.

    The list is newest first and holds whole payloads, so pages are small at first and grow while they stay light. Pages
    are turned while that costs less than reading one by one the tasks that are older than what was listed. A task that
    ends while pages are turned moves others to later ones: some are noticed twice, none is left out.

    Args:
        created: When the tasks were created that are waited for.
        page: How many tasks the first page may hold: `FIRST_PAGE`, then what the last look returned.
        patience: For each page.

    Returns:
        How many tasks a page of the next look may hold, and how far back the list was read: tasks created at that
        moment or before may have ended all the same. None: all of it was read.

    Raises:
        RequestRefusedError: this token lists nothing.
        ServerUnreachableError: no list within the patience; as `UnexpectedReplyError`, this server has none.
    """
    offset = turned = 0
    while True:
        listed = yield from ended_page(offset, page, patience)
        for outcome in listed.ended:
            yield Notice(outcome)
        offset, turned, page = offset + listed.covered, turned + 1, listed.next_size
        if not listed.full:
            return page, None
        older = sum(listed.reached is None or moment <= listed.reached for moment in created)  # several may share one
        if older <= turned * READS_A_PAGE:
            return page, listed.reached or _LATEST


_LATEST = datetime.max.replace(tzinfo=UTC)
"""How far back a page reaches of which no task could be read: any task may have ended."""


@dataclass(frozen=True, slots=True)
class EndedPage:
    """A page of the list of ended tasks."""

    ended: Sequence[Outcome]
    """Newest first, by when they were created; without those that cannot be read."""
    full: bool
    """Whether there may be more after it."""
    next_size: int
    """How many tasks the next page may hold, by what this one weighed."""
    covered: int
    """How many places further the next page begins; 0 if this one was too large and is read again in smaller ones."""

    @property
    def reached(self) -> datetime | None:
        """When the last task on it was created."""
        return next((outcome.created_at for outcome in reversed(self.ended) if outcome.created_at is not None), None)


def ended_page(offset: int, size: int, patience: Patience) -> Flow[EndedPage]:
    """`GET /api/tasks?terminal=true`: `size` tasks from this place on, `FIRST_PAGE` at first, then `next_size`."""
    call = Call("GET", "/api/tasks", params={"terminal": "true", "limit": size, "offset": offset})
    reply = yield from insist(call, patience, _page)
    if isinstance(reply, Reply):
        raise refusal(reply)
    if reply is None:  # a single task that is too large is left out, as one that cannot be read
        return EndedPage([], full=True, next_size=max(1, size // 2), covered=0 if size > 1 else 1)
    listed, held, weight = reply
    full, covered = held >= size, size
    if weight > HEAVY_PAGE_BYTES:
        size = max(1, size // 2)
    elif full and weight < HEAVY_PAGE_BYTES / 4:
        size = min(MAX_PAGE_TASKS, size * 2)
    return EndedPage(listed, full, size, covered)


def _page(reply: Reply) -> tuple[list[Outcome], int, int] | None:
    """The records of a page that can be read, how many there are, and its bytes; None: it was too large to read."""
    return None if reply.cut else (*read_records(reply), len(reply.body))
