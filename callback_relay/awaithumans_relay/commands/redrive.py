"""`awaithumans-relay redrive`: delivers parked answers once more. A running relay finds the change by itself."""

import sys

import typer
from rich.console import Console

from awaithumans_core.errors import SettingsError
from awaithumans_core.progress import is_terminal
from awaithumans_core.safe_text import one_line
from awaithumans_relay.commands.existing_waits import existing_store
from awaithumans_relay.dispatch.dispatcher import TICK_SECONDS
from awaithumans_relay.store import WaitState

EXIT_NOT_PARKED = 1
"""Exit code when the named task is not parked."""


async def redrive(database: str, task_id: str | None, engine: str | None, *, sure: bool) -> int:
    """Redrive the waits, print how many there were, and return the exit code."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    async with existing_store(database) as store:
        if task_id is None:
            if not (sure or is_terminal(sys.stdin)):
                raise SettingsError("--all asks for confirmation, which needs a terminal: add --yes")
            parked = (await store.queries.counts(engine=engine)).get(WaitState.PARKED, 0)
            if parked and not (sure or typer.confirm(f"Redrive {parked:,} parked {_waits(parked)}?")):
                console.print("nothing was redriven")
                return 0
        elif not (found := await store.queries.find(task_id)):
            raise SettingsError(f"there is no wait on task {task_id!r}; `awaithumans-relay waits` lists the waits")
        elif all(wait.state != WaitState.PARKED for wait in found):
            states = ", ".join(sorted({wait.state for wait in found}))
            console.print(f"task {one_line(task_id)} is not parked: it is {states}")
            return EXIT_NOT_PARKED
        redriven = await store.upkeep.redrive(task_id=task_id, engine=engine)
    if not redriven:
        console.print(f"nothing is parked for the engine {engine!r}" if engine else "nothing is parked")
        return 0
    console.print(
        f"redriven: {redriven:,} {_waits(redriven)}; a running relay delivers within {TICK_SECONDS:g} s, "
        "`awaithumans-relay waits` shows the result"
    )
    return 0


def _waits(count: int) -> str:
    return "wait" if count == 1 else "waits"
