"""A plain script asks a person on a server, asynchronously and synchronously."""

import asyncio

from pydantic import BaseModel

from awaithumans_core import await_human, await_human_sync


class Decision(BaseModel):
    approved: bool


if __name__ == "__main__":
    assert asyncio.run(await_human(task="Pay back?", response_schema=Decision)) == Decision(approved=True)
    assert await_human_sync(task="Pay back?", response_schema=Decision) == Decision(approved=True)
