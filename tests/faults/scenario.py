"""A scenario: what is broken and healed, and the laws that hold all the while.

Callers ask about orders and wait. The fault begins, people answer half of the questions, and the fault ends. Then
people answer the rest. Each caller records its answer with a line in a file: these lines are the effects.
"""

import asyncio
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.faults import Fault
from tests.faults.stage import Caller, Stage
from tests.support.postgres import PostgresServer

BEFORE, DURING = range(6), range(6, 9)
"""Orders asked before the fault, and while it lasts."""
ANSWERED_DURING = range(3)
START_SECONDS, HEAL_SECONDS, COUNT_SECONDS = 240.0, 300.0, 60.0
"""Limits for a machine with much other work. The report has the seconds that it takes."""


@dataclass(frozen=True)
class Scenario:
    """A fault, and what happens then."""

    part: str
    """The part that fails, which is a heading of the report."""
    fault: str
    """What is done to it."""
    result: str
    """What the system does."""
    during: Fault
    """Begins the fault, and ends it."""
    caller: Caller = "workflow"
    asks: bool = False
    """Whether new callers ask while the fault lasts."""
    seconds: float = 10.0
    """Duration of the fault, in addition to what it does itself."""
    relays: int = 1
    postgres: bool = False
    """Whether relays keep their waits in PostgreSQL. Without it, they do in SQLite."""


@dataclass(frozen=True)
class Run:
    """How a scenario went."""

    name: str
    scenario: Scenario
    lasted: float = 0.0
    """Seconds from the beginning of the fault to its end."""
    healed: float = 0.0
    """Seconds from the end of the fault until the answers given while it lasted had their effects, and new questions
    were asked."""
    effects: int = 0
    problem: str = ""
    """What is against the laws, or has not healed."""


async def run(name: str, scenario: Scenario) -> Run:
    """Run a scenario on a stage of its own."""
    postgres = PostgresServer() if scenario.postgres or scenario.caller == "graph" else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(Path(folder), scenario.caller, relays=scenario.relays, postgres=postgres)
            return await _on(stage, name, scenario)
    finally:
        if postgres is not None:
            await asyncio.to_thread(postgres.stop)


async def _on(stage: Stage, name: str, scenario: Scenario) -> Run:
    times = Times()
    try:
        async with stage.running():
            problem = await _problem(stage, scenario, times)
            if problem:
                problem += f"\n{stage.report()}"
    except Exception as error:
        problem = f"{times.step}: {error!r}"
    lasted, healed = max(times.ended - times.began, 0.0), max(times.healed - times.ended, 0.0)
    return Run(name, scenario, lasted, healed, len(stage.asked), problem)


async def _problem(stage: Stage, scenario: Scenario, times: "Times") -> str:
    """Run the scenario; return what is against the laws or has not healed in time."""
    try:
        async with asyncio.timeout(START_SECONDS):
            await stage.ask(BEFORE)
        times.step, times.began = "the fault", time.monotonic()
        async with asyncio.timeout(START_SECONDS + HEAL_SECONDS):
            async with asyncio.TaskGroup() as group:
                async with scenario.during(stage):
                    group.create_task(stage.answer(ANSWERED_DURING))
                    asking = group.create_task(stage.ask(DURING if scenario.asks else ()))
                    await asyncio.sleep(scenario.seconds)
                    times.step, times.ended = "healing", time.monotonic()
                await asking
                await stage.until_effects(ANSWERED_DURING)
                times.healed = time.monotonic()
            times.step = "after the fault"
            await stage.answer(stage.asked)
            await stage.until_effects(stage.asked)
            await stage.until_settled()
    except TimeoutError:
        return ", ".join([f"not finished: {times.step}", *await _broken_laws(stage)])
    return ", ".join(await stage.broken_laws())


async def _broken_laws(stage: Stage) -> list[str]:
    """Return what is against the laws, or nothing if a part that is down makes it impossible to count."""
    with suppress(Exception):
        async with asyncio.timeout(COUNT_SECONDS):
            return await stage.broken_laws()
    return []


@dataclass
class Times:
    """How far a scenario is, and when its parts ended."""

    step: str = "start"
    began: float = 0.0
    ended: float = 0.0
    healed: float = 0.0
