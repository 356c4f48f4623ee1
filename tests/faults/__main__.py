"""python -m tests.faults [--short] [--only TEXT]: run the scenarios, and write docs/reliability.md after a full run.

The exit status is 1 if a law is broken or a fault does not heal.
"""

import argparse
import asyncio
import importlib
import os
import pkgutil
import signal
import sys
import time

from tests.faults import scenarios
from tests.faults.report import PAGE, page
from tests.faults.scenario import Run, Scenario, run
from tests.faults.stage import ROOT

SHORT = ("relay_killed_with_only_copies", "network_worker_to_server_replies_lost", "postgres_crashed")
"""The scenarios of CI (at most three minutes)."""


def found(only: str) -> dict[str, Scenario]:
    """Return the scenarios whose name contains this text, by name."""
    names = [each.name for each in pkgutil.iter_modules(scenarios.__path__) if only in each.name]
    return {name: importlib.import_module(f"{scenarios.__name__}.{name}").SCENARIO for name in names}


async def run_all(chosen: dict[str, Scenario], at_once: int) -> list[Run]:
    """Run the scenarios, and print a line for each."""
    slots = asyncio.Semaphore(at_once)

    async def one(name: str, scenario: Scenario) -> Run:
        async with slots:
            began = time.monotonic()
            done = await run(name, scenario)
        result = "FAILED" if done.problem else "ok"
        print(
            f"{name:42} {result:6} fault {done.lasted:5.1f} s, healed after {done.healed:5.1f} s, "
            f"{done.effects} effects, {time.monotonic() - began:5.0f} s in all",
            flush=True,
        )
        if done.problem:
            print(done.problem, flush=True)
        return done

    return await asyncio.gather(*(one(name, scenario) for name, scenario in chosen.items()))


def main() -> int:
    """Read the arguments; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--short", action="store_true", help=f"only {', '.join(SHORT)}")
    parser.add_argument("--only", default="", metavar="TEXT", help="scenarios whose name contains this")
    parser.add_argument("--at-once", type=int, default=1, metavar="N", help="scenarios at the same time (1)")
    options = parser.parse_args()
    chosen = {name: each for name, each in found(options.only).items() if not options.short or name in SHORT}
    began, load = time.monotonic(), os.getloadavg()[0]
    runs = asyncio.run(run_all(chosen, options.at_once))
    failed = [each.name for each in runs if each.problem]
    print(f"{len(runs)} scenarios, {len(failed)} failures, {time.monotonic() - began:.0f} s", *failed, sep="\nfailed: ")
    if not (failed or options.short or options.only):
        PAGE.write_text(page(runs, load))
        print(f"written: {PAGE.relative_to(ROOT)}")
    return 1 if failed or not runs else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left running
    sys.exit(main())
