"""python -m tests.soak [--waits 2000] [--kills 60] [--seed N]: the soak at full size; exit status 1 when it fails."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from examples.demo.servers import TemporalServer, started

from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans
from tests.soak import Soak
from tests.support.postgres import PostgresServer
from tests.support.servers import FakeServer


async def run(soak: Soak) -> bool:
    humans, postgres = FakeHumans(clock=SystemClock()), PostgresServer()
    try:
        with tempfile.TemporaryDirectory() as name, humans.serving() as url:
            folder = Path(name)
            temporal = TemporalServer(folder / "temporal")
            async with started(temporal):
                server = FakeServer(humans, url, folder)
                await soak.run(folder, server, temporal, postgres.database())
    finally:
        postgres.stop()
    print(
        f"{soak.waits} waits, {soak.sent} callbacks acknowledged, {soak.broken} attempts broken, "
        f"{soak.killed} relays killed, {soak.seconds:.0f} s\n"
        f"effects lost / doubled / swapped: {soak.lost} / {soak.doubled} / {soak.swapped}; "
        f"parked: {soak.parked}; refused: {soak.refused}"
    )
    return (soak.lost, soak.doubled, soak.swapped, soak.parked, soak.refused) == (0, 0, 0, 0, [])


def arguments() -> Soak:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Two relays, killed at random.")
    parser.add_argument("--waits", type=int, default=2000, help="workflows that wait (2000)")
    parser.add_argument("--kills", type=int, default=60, help="relays killed, at most (60)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of a run to repeat")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    return Soak(options.waits, options.kills, options.seed)


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(run(arguments())) else 1)
