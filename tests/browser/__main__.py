"""python -m tests.browser: a person's way in a real browser; exit status 1 on failure.

Starts the awaithumans server, Temporal's dev server and a relay, opens the dashboard in headless Chromium, and answers
questions there: every type of a field, and those of a workflow, a LangGraph thread and an agent's tool call. Then it
checks the mails and the Slack modal that the server renders. The table of types is compared with docs/form-types.md.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from devservers import HumansServer, TemporalServer, started

from tests.browser.answers import Answers
from tests.browser.channels import check_channels
from tests.browser.dashboard import MISSING, chromium, reviewing
from tests.browser.flows import Flows
from tests.browser.table import TABLE, written
from tests.support.people import People
from tests.support.relay import settings_for


async def run(*, write: bool) -> list[str]:
    """Run everything. Returns what is wrong."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "humans").mkdir()
        humans, temporal = HumansServer(folder / "humans"), TemporalServer(folder)
        async with started(humans, temporal), reviewing(humans) as dashboard:
            people, settings = People(humans), settings_for(humans, "http://127.0.0.1:1")
            try:
                answers = Answers(dashboard, settings)
                cells = await answers.run()
                wrong = [*answers.failures, *await check_channels(humans, people, settings)]
                await Flows(dashboard, humans, people).run(temporal, folder)
            finally:
                await people.aclose()
    if write:
        TABLE.write_text(written(cells))
    elif not TABLE.exists() or TABLE.read_text() != written(cells):
        wrong.append(
            f'{TABLE} is not what this run has found; run: make test-browser ARGS="--write" and read the change'
        )
    return wrong


def main() -> None:
    """Run everything and print what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser", description="A person's way in a real browser.")
    parser.add_argument("--write", action="store_true", help=f"write the table of types to {TABLE}")
    given = parser.parse_args()
    if chromium() is None:
        sys.exit(MISSING)
    began = time.monotonic()
    wrong = asyncio.run(run(write=given.write))
    for line in wrong:
        print(line, file=sys.stderr)
    print(f"browser: {len(wrong)} faults, {time.monotonic() - began:.0f} s")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
