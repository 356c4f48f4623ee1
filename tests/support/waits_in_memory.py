"""Waits of a relay in memory, on the event loop's clock, which may jump (`time_travel`)."""

import asyncio
import random
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

from awaithumans_core import Outcome, Route
from awaithumans_core.deleted_tasks import RULE, Census, Missing, Rule
from awaithumans_core.schedule import JITTER, YOUNG_SECONDS, Budget, first_to_check, interval, next_check
from awaithumans_relay.store import Store, Wait, WaitState
from awaithumans_relay.store.table.missing_tasks import Review
from awaithumans_relay.store.waits.due_for_check import Checks, Neighbour, Shortfall
from awaithumans_relay.store.waits.intake import Intake
from awaithumans_relay.store.waits.missing_tasks import MissingTasks

MONTH = 30 * 24 * 3600.0


class ChecksInMemory(Checks):
    """Open waits in memory, each of its age and at a random moment between two checks."""

    def __init__(self, ages: Sequence[float]) -> None:
        self.clock = loop_time
        self.waits: dict[str, Wait] = {}
        self._due: list[tuple[float, int]] = []
        self._planned: dict[str, float] = {}
        self._budget: Budget | None = None
        chance = random.Random(5)  # noqa: S311 - spreads waits, guards nothing
        for number, age in enumerate(ages):
            check = next_check(now=0.0, created_at=-age, deadline_at=MONTH) * (chance.random() if age else 1.0)
            self.waits[str(number)] = _wait(number, -age, MONTH, check)
            self._planned[str(number)] = check
            self._due.append((check, number))
        self._due.sort()
        self._by_age = sorted((wait.created_at, task_id) for task_id, wait in self.waits.items())

    def _plan(self, wait: Wait | Neighbour, due: float) -> None:
        if wait.task_id not in self.waits:
            return
        old = (self._planned[wait.task_id], int(wait.task_id))
        del self._due[bisect_left(self._due, old)]
        self._planned[wait.task_id] = due
        insort(self._due, (due, int(wait.task_id)))

    def remove(self, task_id: str) -> None:
        """Remove a wait that is answered."""
        del self._due[bisect_left(self._due, (self._planned.pop(task_id), int(task_id)))]
        self._by_age = [each for each in self._by_age if each[1] != task_id]

    async def claim(self, limit: int) -> list[Wait]:
        now = self.clock()
        young, old = list[Wait](), list[Wait]()
        for at, number in self._due:
            if at > now or min(len(young), len(old)) >= limit:
                break
            wait = self.waits[str(number)]
            (young if now - wait.created_at < YOUNG_SECONDS else old).append(wait)
        found = first_to_check(young, old, limit)
        for wait in found:
            self._plan(wait, next_check(now=now, created_at=wait.created_at, deadline_at=wait.deadline_at))
        return found

    async def next_due(self) -> float | None:
        return self._due[0][0] if self._due else None

    async def settle(self, share: float, spent: float) -> float:
        now = self.clock()
        self._budget = self._budget or Budget.full(now, share)
        self._budget.refill(now)
        self._budget.spend(spent)
        return self._budget.left

    async def standing(self, created_at: float, limit: int) -> tuple[int, list[Neighbour]]:
        place = bisect_left(self._by_age, (created_at, "~"))
        below = self._by_age[max(0, place - limit) : place]
        return len(self._by_age) - place, [
            Neighbour(name, "", created, MONTH, self._planned[name], missing=False) for created, name in below[::-1]
        ]

    async def unanswered(self, task_ids: Sequence[str]) -> list[Wait]:
        return [self.waits[name] for name in task_ids if name in self.waits]

    async def checked(self, seen: Sequence[Wait | Neighbour]) -> None:
        now, share = self.clock(), 1 - random.uniform(0, JITTER)  # noqa: S311 - spreads load, guards nothing
        for wait in seen:
            self._plan(wait, now + interval(now - wait.created_at) * share)

    async def postpone(self, missed: Sequence[Wait], seconds: float) -> None:
        for wait in missed:
            self._plan(wait, self.clock() + seconds)

    def missing(self, task_id: str, seconds: float) -> None:
        """Schedule the next check of a wait whose task the server does not know."""
        self._plan(self.waits[task_id], self.clock() + seconds)

    async def oldest_open(self) -> float | None:
        return None

    async def shortfall(self) -> Shortfall:
        return Shortfall()


class MissingTasksInMemory(MissingTasks):
    """Counts the readings of missing tasks, and ends no wait, as while the database of the server is in doubt."""

    def __init__(self, checks: ChecksInMemory) -> None:
        self.clock = loop_time
        self._checks = checks
        self._missing: dict[str, Missing] = {}

    async def any(self) -> bool:
        return False

    async def record(self, task_id: str, rule: Rule = RULE) -> Missing | None:
        if task_id not in self._checks.waits:
            return None
        known, now = self._missing.get(task_id), self.clock()
        missing = self._missing[task_id] = Missing(now) if known is None else known.again(now)
        if not rule.confirmed(missing, now):
            self._checks.missing(task_id, rule.recheck_seconds)
        return missing

    async def record_seen(self, seen: Mapping[str, float]) -> None:
        for task_id in seen:
            self._missing.pop(task_id, None)

    async def review(self, task_id: str, rule: Rule = RULE) -> Review:
        return Review(Census(len(self._missing), len(self._missing)), doubted=True)


class IntakeInMemory(Intake):
    """Records each answer with the time when it was found, and removes its wait."""

    def __init__(self, checks: ChecksInMemory) -> None:
        self.found: dict[str, float] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._checks = checks

    async def answer(self, outcome: Outcome, *, found_by: str, route: Route | None = None) -> list[str]:
        wait = self._checks.waits.get(outcome.task_id)
        if wait is None or wait.route.idempotency_key != outcome.idempotency_key:
            return []
        del self._checks.waits[outcome.task_id]
        self._checks.remove(outcome.task_id)
        self.found[outcome.task_id] = loop_time()
        self.outcomes[outcome.task_id] = outcome
        return ["nobody"]


class StoreInMemory(Store):
    """A store of open waits in memory, on the event loop's clock. Its database is never opened."""

    def __init__(self, ages: Sequence[float]) -> None:
        super().__init__("sqlite:///never-opened.db", clock=loop_time)
        self.checks: ChecksInMemory = ChecksInMemory(ages)
        self.intake: IntakeInMemory = IntakeInMemory(self.checks)
        self.missing_tasks = MissingTasksInMemory(self.checks)


def loop_time() -> float:
    """Return the seconds of the running event loop."""
    return asyncio.get_running_loop().time()


def _wait(number: int, created: float, deadline: float, check: float) -> Wait:
    return Wait(
        task_id=str(number),
        route=Route("nobody", {}, str(number)),
        state=WaitState.OPEN,
        created_at=created,
        deadline_at=deadline,
        next_check_at=check,
        outcome=None,
        found_by=None,
        answered_at=None,
        attempts=0,
        not_ready_since=None,
        delivered_at=None,
        redriven_at=None,
        last_error=None,
    )
