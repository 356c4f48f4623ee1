"""What happens to the questions of a development server: asked, answered, delivered.

The server's list has the questions of all callers, and the relay's table shows which workflow or thread waits for one.
Both are read every second, in bounded amounts. Nothing else depends on it: an event that is missed is a missing line.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.status import TERMINAL
from awaithumans_relay.dev.screen import Screen
from awaithumans_relay.store import Wait, WaitState

TICK_SECONDS = 0.5
"""Least seconds between two reads of the list."""
REST = 10
"""A read of the list that takes longer than usual is followed by a pause of this many times its duration."""
PAGE = 50
"""Tasks in one read of the list."""
MAX_PAGES = 4
"""Maximum number of reads of the list in one tick."""
MAX_LINES = 10
"""Maximum number of lines of one kind in one tick; the others are counted."""
MAX_SINGLE_READS = 5
"""Maximum number of tasks that are read one by one in one tick, because they are older than those of the list."""
MAX_WAITS = 50
"""Maximum number of tasks whose waits are read in one tick."""
REGISTERED_WITHIN = 1.0
"""Seconds in which a workflow or a thread registers its question with the relay. A script never does."""
MAX_KNOWN = 10_000
"""Maximum number of tasks that are remembered. The oldest are forgotten first."""

_ENDS = {
    "completed": "answered",
    "timed_out": "timed out",
    "cancelled": "cancelled",
    "verification_exhausted": "exhausted",
    "rejected": "rejected",
}
"""Status of a task -> kind of the event."""
_FINISHED = {WaitState.DELIVERED, WaitState.PARKED}
_CALLERS = {"workflow_id": "workflow", "thread_id": "thread"}
"""Names in the target of a route -> what they name."""


@dataclass
class Question:
    """A task of the server, and what was printed about it."""

    text: str
    status: str
    first_seen: float
    asked: bool = False
    """Whether it was reported as asked, or is older than this run."""
    delivery_due: bool = False
    """Whether a caller waits for it at the relay, and has not received the answer."""


class Questions:
    """Prints one line for each event.

    Args:
        people: A client of the server's API, with the token.
        waits_of: Returns the relay's waits for a task.
        screen: Where it prints.
        clock: Seconds, for the time since a task was first seen.
    """

    def __init__(
        self,
        people: httpx.AsyncClient,
        waits_of: Callable[[str], Awaitable[Iterable[Wait]]],
        screen: Screen,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._people = people
        self._waits_of = waits_of
        self._screen = screen
        self._clock = clock
        self._known: dict[str, Question] = {}

    @property
    def open(self) -> int:
        """The number of questions without an answer."""
        return sum(question.status not in TERMINAL for question in self._known.values())

    def text_of(self, task_id: str) -> str | None:
        """Return the text of a question."""
        known = self._known.get(task_id)
        return None if known is None else known.text

    async def begin(self) -> None:
        """Note the questions of earlier runs, which are not reported as asked."""
        for task in await self._newest():
            question = self._note(task)
            question.asked = True
            waits = await self._waits_of(str(task["id"]))
            question.delivery_due = any(wait.state not in _FINISHED for wait in waits)

    async def run(self) -> None:
        """Report what happens until the task is cancelled."""
        while True:
            begun = time.monotonic()
            with suppress(httpx.HTTPError, SQLAlchemyError, OSError):  # another part reports that a server has ended
                await self.tick()
            await asyncio.sleep(max(TICK_SECONDS, REST * (time.monotonic() - begun)))

    async def tick(self) -> None:
        """Report what has happened since the last tick."""
        lines: list[tuple[str, str, str, str | None]] = []
        tasks = await self._newest()
        listed = {str(task["id"]) for task in tasks}
        older = [each for each, known in self._known.items() if known.status not in TERMINAL and each not in listed]
        for task_id in older[:MAX_SINGLE_READS]:
            self._known[task_id] = self._known.pop(task_id)  # others are next
            tasks.append(await self._read(f"/api/tasks/{task_id}"))
        for task in tasks:
            task_id = str(task["id"])
            if task_id not in self._known:
                self._note(task)
            question = self._known[task_id]
            if not question.asked and not await self._asked(task, question, lines):
                continue
            if task["status"] != question.status:
                question.status = str(task["status"])
                if kind := _ENDS.get(question.status):
                    lines.append((kind, question.text, _person(task) if kind == "answered" else "", None))
        await self._report_deliveries(lines)
        self._print(lines)
        for oldest in list(self._known)[: max(0, len(self._known) - MAX_KNOWN)]:
            del self._known[oldest]

    def _note(self, task: Mapping[str, Any]) -> Question:
        question = Question(str(task["task"]), str(task["status"]), self._clock())
        self._known[str(task["id"])] = question
        return question

    async def _asked(self, task: Mapping[str, Any], question: Question, lines: list[Any]) -> bool:
        """Report a new question once it is known who asks. Returns whether it was reported."""
        waits = list(await self._waits_of(str(task["id"])))
        if not waits and self._clock() - question.first_seen < REGISTERED_WITHIN:
            return False
        caller = _caller(waits[0]) if waits else "script"
        address = f"{str(self._people.base_url).rstrip('/')}/task?id={task['id']}"
        lines.append(("asked", question.text, ", ".join(filter(None, (caller, _assignee(task)))), address))
        question.asked, question.delivery_due, question.status = True, bool(waits), "created"
        return True

    async def _report_deliveries(self, lines: list[Any]) -> None:
        due = [(each, known) for each, known in self._known.items() if known.delivery_due and known.status in TERMINAL]
        for task_id, question in due[:MAX_WAITS]:
            waits = list(await self._waits_of(task_id))
            if not all(wait.state in _FINISHED for wait in waits):
                continue
            question.delivery_due = False
            if question.status == "completed":
                lines.extend(
                    ("delivered", question.text, f"to {_caller(wait)}", None)
                    for wait in waits
                    if wait.state == WaitState.DELIVERED and not wait.caller_gone
                )

    def _print(self, lines: Iterable[tuple[str, str, str, str | None]]) -> None:
        by_kind: dict[str, int] = {}
        for kind, text, note, link in lines:
            by_kind[kind] = by_kind.get(kind, 0) + 1
            if by_kind[kind] <= MAX_LINES:
                self._screen.event(kind, text, note, link=link)
        for kind, number in by_kind.items():
            if number > MAX_LINES:
                self._screen.event(kind, f"and {number - MAX_LINES:,} more")

    async def _newest(self) -> list[dict[str, Any]]:
        """Return the newest tasks, oldest first: a page, and further ones while all of their tasks are new."""
        found: dict[str, dict[str, Any]] = {}
        for page in range(MAX_PAGES):
            tasks = await self._read("/api/tasks", limit=PAGE, offset=page * PAGE)
            found |= {str(task["id"]): task for task in tasks}
            if len(tasks) < PAGE or any(str(task["id"]) in self._known for task in tasks):
                break
        return list(reversed(found.values()))

    async def _read(self, path: str, **query: int) -> Any:
        return (await self._people.get(path, params=query)).raise_for_status().json()


def _caller(wait: Wait) -> str:
    """Return which workflow or thread waits."""
    target = wait.route.target
    return next((f"{what} {target[name]}" for name, what in _CALLERS.items() if name in target), wait.route.engine)


def _assignee(task: Mapping[str, Any]) -> str:
    name = task.get("assigned_to_display_name") or task.get("assigned_to_email")
    return f"for {name}" if name else ""


def _person(task: Mapping[str, Any]) -> str:
    name = task.get("completed_by_display_name") or task.get("completed_by_email") or "API"
    channel = task.get("completed_via_channel")
    return f"by {name}, {channel}" if channel else f"by {name}"
