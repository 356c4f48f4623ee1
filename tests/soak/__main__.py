"""python -m tests.soak [--waits 2000] [--kills 60] [--seed N]: the soak at full size; exit status 1 when it fails."""

import argparse
import asyncio
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from devservers import TemporalServer, started

from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans
from tests.soak import ATTACKED, CALM, KILLED, MEMORY_MB, Soak
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
        f"parked: {soak.parked}; refused: {soak.refused}\n" + hostile(soak)
    )
    return soak.holds


def hostile(soak: Soak) -> str:
    """What the stranger did and achieved."""
    seen = soak.seen
    rate = soak.hostile_sent / seen.seconds if seen.seconds else 0.0
    killed = max(soak.peaks[number] for number in KILLED)
    return (
        f"hostile requests: {soak.hostile_sent} ({rate:.0f}/s; {dict(seen.sent)}), replies {dict(seen.statuses)}, "
        f"{seen.unreachable} while the relay was dead, {seen.dropped} dropped; accepted: {seen.accepted}\n"
        f"peak memory (MB): calm {soak.peaks[CALM]:.1f}, attacked {soak.peaks[ATTACKED]:.1f} "
        f"({soak.more_memory:+.1f}, at most {MEMORY_MB:+.0f}), attacked and killed {killed:.1f}"
    )


def arguments() -> Soak:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Two relays, killed at random.")
    parser.add_argument("--waits", type=int, default=2000, help="workflows that wait (2000)")
    parser.add_argument("--kills", type=int, default=60, help="relays killed, at most (60)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of a run to repeat")
    parser.add_argument("--hostile", type=float, default=200.0, help="hostile requests a second (200); 0: none")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    return Soak(options.waits, options.kills, options.seed, options.hostile)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left running
    sys.exit(0 if asyncio.run(run(arguments())) else 1)
