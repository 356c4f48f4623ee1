"""The write queue of the store: in which order the relay writes."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

import pytest
from sqlalchemy import Connection

from awaithumans_relay.store.database.write_queue import (
    CALM_SECONDS,
    LATER_BATCH,
    LATER_SECONDS,
    PATIENCE_SECONDS,
    Write,
    WriteQueue,
)


def nothing(_: Connection, items: Sequence[None]) -> Sequence[None]:
    return items


def write(*, later: bool, waited: float = 0.0) -> Write:
    made = Write(nothing, None, Future[None](), "", None, later=later)
    made.since -= waited
    return made


async def test_acknowledgements_are_written_first() -> None:
    """A write that holds a connection open comes before earlier ones that do not."""
    queue = WriteQueue()
    later, now = write(later=True), write(later=False)
    queue.put(later)
    queue.put(now)
    assert queue.batch() == [now]
    assert await asyncio.to_thread(queue.batch) == [later]


def test_long_waiting_writes_alternate_with_acknowledgements() -> None:
    """Writes that yield are done a few at a time while acknowledgements keep coming."""
    queue = WriteQueue()
    queue.put(write(later=False))
    queue.batch()
    for _ in range(2 * LATER_BATCH):
        queue.put(write(later=True, waited=PATIENCE_SECONDS))
    queue.put(write(later=False))
    first, second, third = queue.batch(), queue.batch(), queue.batch()
    assert [len(first), len(second), len(third)] == [LATER_BATCH, 1, LATER_BATCH]
    assert not second[0].later


@pytest.mark.parametrize(
    ("acknowledged", "behind"), [([0.0], 0.0), ([0.0, 0.01], 0.01 + CALM_SECONDS), ([0.0, 0.01, 1.0], 1.0)]
)
def test_single_acknowledgement_delays_no_delivery(acknowledged: list[float], behind: float) -> None:
    """Its delivery continues at once, and waits for a pause only while acknowledgements come close together."""
    now = 0.0
    queue = WriteQueue(clock=lambda: now)
    for moment in acknowledged:
        now = moment
        queue.put(write(later=False))
        assert not queue.batch()[0].later
    this = write(later=True)
    this.since = now
    queue.put(this)
    now = behind
    assert queue.batch() == [this]


@pytest.mark.parametrize(("took", "until"), [(0.01, 0.05), (0.0, LATER_SECONDS)])
async def test_deliveries_ending_close_together_are_written_together(took: float, until: float) -> None:
    """Later ones may join for four times as long as the last write took, also without acknowledgements.

    They may join for a moment in any case, because a transaction costs more than its content.
    """
    now = 0.0
    queue = WriteQueue(clock=lambda: now)
    first, second, third = (write(later=True) for _ in range(3))
    for each in (first, second, third):
        each.since = now
    queue.put(first)
    assert queue.batch() == [first]
    queue.put(second)
    now = took
    pending = asyncio.create_task(asyncio.to_thread(queue.batch))
    await asyncio.sleep(0.2)
    assert not pending.done()
    queue.put(third)
    now = until + 0.0001
    assert await pending == [second, third]


def test_yielding_writes_keep_a_share_of_the_time() -> None:
    """While acknowledgements come in, such a write waits for up to four times as long as it has used the writer."""
    now = 100.0
    queue = WriteQueue(clock=lambda: now)
    queue.put(write(later=False), write(later=False))
    queue.batch()
    waited = [write(later=True) for _ in range(2 * LATER_BATCH)]
    for each in waited:
        each.since = now - PATIENCE_SECONDS
    queue.put(*waited)
    assert queue.batch() == waited[:LATER_BATCH]
    now += 0.01
    for acknowledged in (0.0, 0.02, 0.0399):
        now = 100.01 + acknowledged
        queue.put(write(later=False))
        assert not queue.batch()[0].later
    now = 100.06
    queue.put(write(later=False))
    assert queue.batch() == waited[LATER_BATCH:]


def test_slow_write_does_not_delay_the_next() -> None:
    """After the database was locked for a minute, the next write is done soon."""
    now = 0.0
    queue = WriteQueue(clock=lambda: now)
    first, second = write(later=True), write(later=True)
    first.since, second.since = 0.0, 60.0
    queue.put(first)
    assert queue.batch() == [first]
    queue.put(second)
    began = time.monotonic()
    now = 60.0

    def later() -> None:
        nonlocal now
        now = 60.0 + PATIENCE_SECONDS

    threading.Timer(0.1, later).start()
    assert queue.batch() == [second]
    assert time.monotonic() - began < 5


def test_closed_queue_returns_its_content_and_then_nothing() -> None:
    """A queue that is closed returns what it holds, and then nothing."""
    queue = WriteQueue()
    queue.put(write(later=True))
    queue.close()
    assert [len(queue.batch()), len(queue.batch())] == [1, 0]
