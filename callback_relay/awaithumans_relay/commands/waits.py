"""`awaithumans-relay waits`: lists the waits, their callers and ages, and their problems."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from awaithumans_core.safe_text import one_line
from awaithumans_core.settings import Settings
from awaithumans_relay.commands.existing_waits import existing_store
from awaithumans_relay.store import WaitState
from awaithumans_relay.web.wait_view import WaitView, ago

STYLES = {
    WaitState.OPEN: "blue",
    WaitState.ANSWERED: "yellow",
    WaitState.DELIVERED: "green",
    WaitState.PARKED: "bold red",
}
WHOLE_IDS_FROM = 80
"""Minimum terminal width in columns at which a task id is on one line, to be copied. In a narrower one it is folded.
"""
ID_CHARS = 32
ERROR_CHARS = 1000
"""Maximum characters of an error in the table, which notes the cut. `--json` has all of it."""


async def show(
    database: str, states: Sequence[WaitState], engine: str | None, *, limit: int, offset: int, as_json: bool
) -> None:
    """Print the waits, newest first."""
    review_url = Settings.load().review_url
    async with existing_store(database) as store:
        found = await store.queries.listed(states=states, engine=engine, limit=limit, offset=offset)
        counts = await store.queries.counts(engine=engine)
    waits = [WaitView.of(wait, review_url) for wait in found]
    if as_json:
        print(json.dumps([wait.model_dump(mode="json") for wait in waits], indent=2))  # noqa: T201 - the result
        return
    console = Console(highlight=False, markup=False, emoji=False)
    if waits:
        console.print(_table(waits, datetime.now(UTC), console.width))
    summary = ", ".join(f"{counts[state]:,} {state}" for state in WaitState if counts.get(state))
    matching = sum(counts.get(state, 0) for state in states or WaitState)
    no_waits = f"no waits for the engine {engine!r}" if engine else "no waits"
    console.print(f"{len(waits):,} of {matching:,} shown; {summary}" if summary else no_waits)


def _table(waits: Sequence[WaitView], now: datetime, width: int) -> Table:
    # The edges are padded. Without padding Rich folds the last column two letters too late, and cuts them off.
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("State", no_wrap=True)
    table.add_column("Age", no_wrap=True)
    # `min_width` is not used: Rich ignores it when it distributes the width, and cuts the excess off the last column.
    table.add_column("Task and caller", overflow="fold", width=ID_CHARS if width >= WHOLE_IDS_FROM else None)
    table.add_column("Last error", overflow="fold")
    for wait in waits:
        target = ", ".join(f"{name} {value}" for name, value in sorted(wait.target.items()))
        caller = f"{wait.engine}: {target}" if target else wait.engine
        table.add_row(
            Text.assemble((wait.state, STYLES[wait.state]), ("\ncaller gone" if wait.caller_gone else "", "dim")),
            ago(wait.created_at, now),
            Text.assemble(one_line(wait.task_id), (f"\n{one_line(caller)}", "dim")),
            Text(_shortened(wait.last_error or "")),
        )
    return table


def _shortened(error: str) -> str:
    text = one_line(" ".join(error.split()), ERROR_CHARS)
    return f"{text} (--json has all of it)" if text.endswith("…") else text
