"""The soak in small: two relays on one PostgreSQL, killed while answers arrive twice and out of order."""

from pathlib import Path

from examples.demo.servers import TemporalServer

from tests.soak import Soak
from tests.support.postgres import PostgresServer
from tests.support.servers import FakeServer


async def test_relays_killed_at_random_lose_and_double_nothing(
    fake: FakeServer, temporal: TemporalServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Sixty workflows, each answered up to three times, relays killed three times: sixty effects, each its own."""
    soak = Soak(waits=60, kills=3, seed=6, lease_seconds=2.0, pause=(0.1, 0.5))
    await soak.run(tmp_path, fake, temporal, postgres.database())
    assert (soak.lost, soak.doubled, soak.swapped, soak.refused) == (0, 0, 0, [])
    assert soak.killed >= 1
    assert soak.sent >= 60
