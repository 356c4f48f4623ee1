"""Many waits at once hold no connections while nothing happens, and each gets its own answer."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, TemporalServer
from temporalio.client import WorkflowExecutionStatus

from tests.support.callers import TemporalCaller
from tests.support.connections import established
from tests.support.people import People
from tests.support.relay import running_relay

WAITS, ANSWERED, AT_ONCE = 60, 12, 10
"""Far more waits than a connection pool has connections; the benchmarks measure the maximum per process."""


@pytest.mark.edges
@pytest.mark.timeout(400)
async def test_open_waits_hold_no_connection(
    temporal: TemporalServer, people: People, humans: HumansServer, tmp_path: Path
) -> None:
    """While many workflows wait, no connection to the awaithumans server outlives a check of the sweep."""
    asker = TemporalCaller(temporal.address)
    async with running_relay([asker.engine], humans, tmp_path) as relay, asker.ready(relay.settings):
        asked: list[Any] = []
        async with aclosing(People(humans)) as watcher:
            while len(asked) < WAITS:  # in batches: on a busy machine that many first workflow tasks would time out
                asked += await asyncio.gather(*(asker.ask("crowd?") for _ in range(AT_ONCE)))
                tasks = await watcher.find("crowd?", count=len(asked))
        seen: list[set[str]] = []
        for _ in range(6):
            seen.append(set(established(humans.port)))
            await asyncio.sleep(1)
        assert set.intersection(*seen) == set()
        assert min(map(len, seen)) == 0
        assert (await relay.store.queries.counts())["open"] == WAITS
        # All of them wait; exactly the workflows whose question is answered continue.
        by_id = {each.name: each.handle for each in asked}
        answered = [by_id.pop(task["idempotency_key"].split(":")[2]) for task in tasks[:ANSWERED]]
        await asyncio.gather(*(people.complete(task["id"], {"approved": True}) for task in tasks[:ANSWERED]))
        told = await asyncio.gather(*(asyncio.wait_for(handle.result(), 60) for handle in answered))
        assert all(each["approved"] for each in told)
        states = [(await handle.describe()).status for handle in by_id.values()]
        assert set(states) == {WorkflowExecutionStatus.RUNNING}
        await asyncio.gather(*(handle.terminate() for handle in by_id.values()))
