"""Record the missing histories of this release."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from devservers import HumansServer, TemporalServer, started

from tests.histories import FOLDER, RELEASE
from tests.histories.cases import NAMES, played, stage


async def record() -> None:
    missing = [name for name in NAMES if not (FOLDER / RELEASE / f"{name}.json").exists()]
    (FOLDER / RELEASE).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        humans, temporal = HumansServer(Path(scratch, "humans")), TemporalServer(Path(scratch))
        async with started(humans, temporal):
            for name in missing:
                folder = Path(scratch, name)
                folder.mkdir()
                async with stage(humans, temporal.address, folder, name) as where:
                    history = await played(name, where)
                (FOLDER / RELEASE / f"{name}.json").write_text(json.dumps(history, indent=1) + "\n")
                print(f"recorded {RELEASE}/{name}")


if __name__ == "__main__":
    if sys.argv[1:] != ["record"]:
        sys.exit(__doc__)
    asyncio.run(record())
