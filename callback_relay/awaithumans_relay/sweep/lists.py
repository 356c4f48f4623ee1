"""Checks many waits with one request: by pages of the server's lists of open and of ended tasks.

The rules are in `awaithumans_core.schedule`. A list is a hint: its rows are facts, and a missing row proves nothing.
"""

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from awaithumans_core import flow
from awaithumans_core.client import TaskClient
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.flow import Patience
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.schedule import SOON_SHARE, Costs, Ended, ListCost, OpenPage, Reads, Standing, best_way, interval
from awaithumans_core.schedule.costs import SLOW_SECONDS, in_order, octave
from awaithumans_core.schedule.ways import pages_of
from awaithumans_relay.monitoring.metrics import Metrics
from awaithumans_relay.store import Wait
from awaithumans_relay.store.waits.due_for_check import Checks, Neighbour
from awaithumans_relay.sweep.found_answers import FoundAnswers
from awaithumans_relay.sweep.meter import Meter
from awaithumans_relay.sweep.seen_tasks import CREATED, SeenTasks

logger = safe_logger("awaithumans.relay")

MAX_NEIGHBOURS = 400
"""Maximum number of waits for which one choice of a way looks ahead."""
MAX_CHOICES = 4
"""Maximum number of choices for the waits of one claim. What these do not serve is read."""
ORDER_SECONDS = 2.0
"""Seconds by which the order of registrations may differ from that of the tasks, at the ends of a page."""
READS_SECONDS = 2.0
"""Seconds for which old waits are read without a new choice, after reads were the cheapest way for one of about their
age.
"""


class OnSeen(Protocol):
    """Called with a task that a list shows as open, and its waits."""

    def __call__(self, outcome: Outcome, waits: list[Wait]) -> None:
        """Take note of the task."""
        ...


class Lists:
    """Reads pages of tasks, and records what they show.

    Args:
        checks: The open waits.
        client: Reads the lists. It should give up at once (`patience=0`).
        meter: The budget of all requests.
        costs: What requests take.
        answers: Stores the answers that are found.
        seen: What was seen of open tasks.
        metrics: Counts the pages.
        on_answer: Called after answers were stored.
        on_seen: Called with each open task on a page.
    """

    def __init__(
        self,
        checks: Checks,
        client: TaskClient,
        meter: Meter,
        costs: Costs,
        answers: FoundAnswers,
        seen: SeenTasks,
        metrics: Metrics,
        *,
        on_answer: Callable[[], None],
        on_seen: OnSeen,
    ) -> None:
        self._checks = checks
        self._client = client
        self._meter = meter
        self._costs = costs
        self._answers = answers
        self._seen = seen
        self._metrics = metrics
        self._on_answer = on_answer
        self._on_seen = on_seen
        self._reading = asyncio.Lock()
        self._reads_until: dict[tuple[str, int], float] = {}
        """Until when old waits are read without a new choice, by the status of their tasks and the octave of their age.
        """

    async def serve(self, claimed: Sequence[Wait]) -> tuple[list[Wait], set[str]]:
        """Check as many of these due waits as lists can show more cheaply than reads.

        Returns the waits that are to be read, and the ids of the tasks that a list did not show in their places.
        """
        rest, hinted = list[Wait](), set[str]()
        if self._reading.locked():  # a slow list delays no other check
            return list(claimed), hinted
        async with self._reading:
            groups: dict[tuple[bool, str], list[Wait]] = {}
            now = self._checks.clock()
            for wait in claimed:
                young = interval(now - wait.created_at) < 60
                groups.setdefault((young, self._seen.status(wait.task_id)), []).append(wait)
            for (young, status), waits in groups.items():
                left = sorted(waits, key=lambda wait: -wait.created_at)
                for _ in range(MAX_CHOICES):
                    if not young:
                        left = self._without_reads(left, status, rest, now)
                    if not left:
                        break
                    if (after := await self._serve_first(left, status, rest, hinted)) is not None:
                        left = after
                    elif young:
                        break
                    else:
                        self._reads_until[status, octave(now - left[0].created_at)] = _now() + READS_SECONDS
                rest += left
        return rest, hinted

    def _without_reads(self, due: list[Wait], status: str, rest: list[Wait], now: float) -> list[Wait]:
        """Move the waits of the ages for which reads are cheapest to `rest`, and return the others."""
        left = list[Wait]()
        for wait in due:
            until = self._reads_until.get((status, octave(now - wait.created_at)), -math.inf)
            (rest if _now() < until else left).append(wait)
        return left

    async def _serve_first(self, due: list[Wait], status: str, rest: list[Wait], hinted: set[str]) -> list[Wait] | None:
        """Check the first of these waits, and others with it, by a list, and return those that it does not reach.

        Those that it should have shown are added to `rest` and `hinted`. None: reading the first one is cheaper.
        """
        now = _now()
        listed = self._costs.open(status)
        if not listed.usable(now):
            return None
        neighbours, rank = await self._neighbours(due, status)
        standing = self._standing(due, neighbours, rank, status)
        way = best_way(self._costs, standing, now)
        if isinstance(way, Reads):
            return None
        if isinstance(way, Ended):
            return await self._read_ended(way, due, neighbours)
        return await self._read_open(way, status, due, neighbours, standing, rest, hinted)

    async def _neighbours(self, due: list[Wait], status: str) -> tuple[list[Neighbour], int]:
        """Return the open waits in this status from the first one downward, and how many are younger."""
        rank, below = await self._checks.standing(due[0].created_at, MAX_NEIGHBOURS)
        if status == CREATED:
            return below, rank
        claimed = {wait.task_id for wait in due}  # few tasks are in another status, so their ranks are not known
        return [each for each in below if each.task_id in claimed or self._seen.status(each.task_id) == status], 0

    def _standing(self, due: list[Wait], neighbours: list[Neighbour], rank: int, status: str) -> Standing:
        now = self._checks.clock()
        claimed = {wait.task_id for wait in due}
        soon = now + SOON_SHARE * interval(now - due[0].created_at)
        return Standing(
            rank=rank,
            due=[each.task_id in claimed or each.next_check_at <= soon for each in neighbours],
            proved=[
                not each.missing and self._seen.proved(each.task_id, now, now - each.created_at) for each in neighbours
            ],
            ages=[now - each.created_at for each in neighbours],
            status=status,
        )

    async def page(self, status: str | None, offset: int, size: int) -> flow.TaskPage | None:
        """Read a page of the tasks in this status, or of the ended ones. None: the list cannot be used."""
        listed = self._costs.ended if status is None else self._costs.open(status)
        if not listed.usable(_now(), offset):
            return None
        size = min(size, listed.largest)
        steps = (
            flow.ended_page(offset, size, Patience(0))
            if status is None
            else flow.open_page(status, offset, size, Patience(0))
        )
        began = _now()
        try:
            with self._meter.request(listed.seconds(size, offset)) as took:
                page = await self._client.run(steps)
                seconds = took()
        except AwaitHumansError as error:  # a check of a task logs what concerns the server, at a higher level
            listed.failed(_now())
            logger.info("list of tasks cannot be read: %s", error)
            return None
        self._metrics.page_read("ended" if status is None else "open")
        listed.took(size, offset, seconds, page.next_size, self._costs, _now())
        if _now() - began > SLOW_SECONDS:
            listed.slow(offset, _now())
        created = [task.created_at.timestamp() for task in page.tasks if task.created_at is not None]
        if not in_order(created):
            listed.failed(_now())
            logger.info("list of tasks is not used for a while: it is not sorted by creation time")
            return None
        return page

    async def _read_open(
        self,
        way: OpenPage,
        status: str,
        due: list[Wait],
        neighbours: list[Neighbour],
        standing: Standing,
        rest: list[Wait],
        hinted: set[str],
    ) -> list[Wait] | None:
        page = await self.page(status, way.offset, way.size)
        if page is None:
            return None
        listed = self._costs.open(status)
        shown = await self._join(page.tasks)
        self._note_share(listed, way.offset, page.tasks, shown, neighbours, standing.rank)
        seen = [wait for _, waits in shown.values() for wait in waits]
        now = self._checks.clock()
        for outcome, waits in shown.values():
            for wait in waits:
                self._seen.open(outcome, wait, now, listed=True)
            self._on_seen(outcome, waits)
        if not seen and page.full:
            return None
        registered = [wait.created_at for wait in seen]
        lowest = min(registered, default=math.inf) + ORDER_SECONDS if page.full else -math.inf
        highest = max(registered, default=-math.inf) - ORDER_SECONDS if way.offset else math.inf

        def in_range(wait: Wait | Neighbour) -> bool:
            return lowest < wait.created_at < highest and wait.task_id not in shown

        claimed = {wait.task_id for wait in due}
        absent = [each for each in neighbours if each.task_id not in claimed and in_range(each)]
        if len(absent) > len(seen):  # so many that the page is in doubt; they are checked on their schedule
            absent = []
        await self._checks.checked([*seen, *absent])
        others = await self._checks.unanswered([each.task_id for each in absent])
        not_shown = [wait for wait in [*due, *others] if wait.state == "open" and in_range(wait)]
        rest += not_shown
        hinted |= {wait.task_id for wait in not_shown}
        left = [wait for wait in due if wait.task_id not in shown and not in_range(wait)]
        if left[:1] == due[:1]:  # its place was estimated wrongly, so it is read
            rest.append(left.pop(0))
        return left

    def _note_share(
        self,
        listed: ListCost,
        offset: int,
        tasks: Sequence[Outcome],
        shown: Mapping[str, object],
        neighbours: list[Neighbour],
        rank: int,
    ) -> None:
        """Learn what share of the list is ours: from the place of a task of ours, else from the tasks on the page."""
        ranks = {each.task_id: rank + place for place, each in enumerate(neighbours)}
        places = [
            (ranks[task.task_id], offset + place)
            for place, task in enumerate(tasks)
            if task.task_id in shown and task.task_id in ranks
        ]
        if offset and places:
            younger, place = places[len(places) // 2]
            listed.joined(younger + 1, place + 1)
        elif offset and not shown:
            listed.missed(rank, beyond=not tasks)
        elif not offset:
            listed.joined(len(shown), len(tasks))

    async def _join(self, tasks: Sequence[Outcome]) -> Mapping[str, tuple[Outcome, list[Wait]]]:
        """Return the open tasks of a page that our waits are for, by id. Their keys must be those of the waits."""
        by_id = {task.task_id: task for task in tasks if not task.terminal}
        shown: dict[str, tuple[Outcome, list[Wait]]] = {}
        for wait in await self._checks.unanswered(list(by_id)):
            task = by_id[wait.task_id]
            if wait.state == "open" and task.idempotency_key == wait.route.idempotency_key:
                shown.setdefault(task.task_id, (task, []))[1].append(wait)
        return shown

    async def _read_ended(self, way: Ended, due: list[Wait], neighbours: list[Neighbour]) -> list[Wait] | None:
        reached = await self.read_ended(way.rows)
        if reached is None:
            return None
        now = self._checks.clock()

        def postponed(wait: Wait | Neighbour) -> bool:
            proved = self._seen.proved(wait.task_id, now, now - wait.created_at)
            return proved and self._seen.created_after(wait.task_id, reached)

        claimed = {wait.task_id for wait in due}
        horizon = now + SOON_SHARE * interval(now - due[0].created_at)
        others = [each for each in neighbours if each.task_id not in claimed and each.next_check_at <= horizon]
        both: list[Wait | Neighbour] = [*due, *others]
        served = [wait for wait in both if postponed(wait)]
        for wait in served:
            self._seen.postponed(wait.task_id, now)
        await self._checks.checked(served)
        return [wait for wait in due if wait not in served]

    async def read_ended(self, rows: float) -> float | None:
        """Read the newest rows of the list of ended tasks, and store the answers that have waits.

        Returns the creation time of the last row, by the server's clock. None: the list cannot be used.
        """
        offset, reached, full = 0, float("inf"), True
        for size in pages_of(rows):
            page = await self.page(None, offset, size)
            if page is None:
                return None
            await self.take(page.tasks)
            offset += page.covered
            if page.reached is not None:
                reached = page.reached.timestamp()
            if not (full := page.full):
                break
        self._note_density(self._costs.ended, offset, reached, full=full)
        return reached

    def _note_density(self, ended: ListCost, rows: int, reached: float, *, full: bool) -> None:
        """Learn how many tasks end that are younger than a given age, and how far back the list goes."""
        age = self._checks.clock() - (reached + (self._seen.lag or 0.0))
        if not full:
            ended.ended_at(max(0.0, age), _now())
        if rows and 0 < age < math.inf:
            ended.per_second = rows / age

    async def take(self, ended: Sequence[Outcome]) -> int:
        """Store the answers that have waits, and return how many were not known.

        A completion without its response is left to a check of the task itself, which is not postponed.
        """
        for outcome in ended:
            if not outcome.answered:
                self._seen.ended(outcome.task_id)
        asking: dict[tuple[str, str | None], list[Wait]] = {}
        for wait in await self._checks.unanswered([outcome.task_id for outcome in ended]):
            asking.setdefault((wait.task_id, wait.route.idempotency_key), []).append(wait)
        news = [
            (outcome, asking[which])
            for outcome in ended
            if outcome.answered and (which := (outcome.task_id, outcome.idempotency_key)) in asking
        ]
        found = await asyncio.gather(*(self._answers.record(outcome, waits, ahead=True) for outcome, waits in news))
        for outcome, _ in news:
            self._seen.ended(outcome.task_id)
            self._costs.ended.confirmed(_now(), right=True)
        if news:
            self._on_answer()
        return sum(found)


def _now() -> float:
    return asyncio.get_running_loop().time()
