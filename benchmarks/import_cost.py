"""What `import awaithumans_core` costs a process, beside `import httpx, pydantic`.

Each import runs in a new process, all sides in turn. The time is that of the import alone. The memory is that of the
process afterwards, so it includes the interpreter, which is the side `nothing`. Names are loaded at their first use,
and `await_human` loads the HTTP client with its first call. The import of `TaskClient` includes that.
"""

import asyncio
import sys

from benchmarks._meters import memory
from benchmarks.book.rows import Benchmark, Claim, Row
from benchmarks.book.run import Run

NOTHING, REFERENCE, PACKAGE = "nothing", "import httpx, pydantic", "import awaithumans_core"
NAME = "from awaithumans_core import await_human_sync"
WITH_CLIENT = "from awaithumans_core import TaskClient"
STATEMENTS = {NOTHING: "pass", **{each: each for each in (REFERENCE, PACKAGE, NAME, WITH_CLIENT)}}
TIMED = """
import sys, time
began = time.perf_counter()
{statement}
print(1000 * (time.perf_counter() - began), flush=True)
sys.stdin.read()
"""

TIME = Row(
    name="import-cost.time",
    title="Time of an import",
    unit="ms",
    reference=REFERENCE,
    claims=(
        Claim(side=NAME, bound="at most", value=0.5, to=REFERENCE),
        Claim(side=WITH_CLIENT, bound="at most", value=3.0, goal=1.33, to=REFERENCE),
    ),
)
MEMORY = Row(
    name="import-cost.memory",
    title="Memory after an import",
    unit="MB",
    reference=REFERENCE,
    claims=(
        Claim(side=NAME, bound="at most", value=0.6, to=REFERENCE),
        Claim(side=WITH_CLIENT, bound="at most", value=1.6, to=REFERENCE),
    ),
)


async def measure(run: Run) -> None:
    for statement in STATEMENTS.values():
        await import_in_new_process(statement)  # its files are in the page cache afterwards
    for _ in run.repeats():
        for side, statement in STATEMENTS.items():
            took, used = await import_in_new_process(statement)
            if side != NOTHING:
                run.record(TIME, side, took)
            run.record(MEMORY, side, used)


async def import_in_new_process(statement: str) -> tuple[float, float]:
    """Run an import in a new process. Return its milliseconds and the memory of the process in megabytes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TIMED.format(statement=statement)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    took = float(await process.stdout.readline())
    used = memory(process.pid)
    process.stdin.close()
    await process.wait()
    return took, used


BENCHMARK = Benchmark(
    name="import-cost",
    title="Importing the package",
    description=__doc__,
    rows=(TIME, MEMORY),
    measure=measure,
    repeats=15,
    minutes=2,
)
