"""What a relay reports about itself to `awaithumans-relay doctor` on the machine of a worker.

Law: the report holds no secret, no question and no answer, and its size is bounded. It is given only to holders of the
relay secret. Addresses are shown without user names and passwords.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.engine import Engine, Serves
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.safe_text import one_line
from awaithumans_core.settings import Settings
from awaithumans_relay.availability.server_check import server_problem
from awaithumans_relay.monitoring.observer import Observer
from awaithumans_relay.store import Store
from awaithumans_relay.store.errors import public_reason

T = TypeVar("T")

PART_SECONDS = 6.0
"""Maximum seconds for each part of the report. The parts are collected at the same time."""
REPORT_EVERY_SECONDS = 2.0
"""Minimum seconds between two collections. Requests in between get the last report."""
MAX_ENGINES = 50
MAX_SERVED = 100
"""Maximum number of names that are reported for one engine."""
MAX_TEXT_CHARS = 600
"""Maximum length of each text in the report."""


class EngineReport(BaseModel):
    """An engine of the relay."""

    name: str
    state: str
    """`ok`, `failing`, or `unknown` while there was no reason to use it."""
    serves: list[str] = []
    """The Temporal namespaces or graphs whose callers it wakes. Empty: not known, or not limited."""


class RelayReport(BaseModel):
    """Body of `GET /waits/report`. Later releases may add fields."""

    version: str
    """The release of awaithumans-workflows."""
    engines: list[EngineReport]
    server_url: str
    """The address at which the relay reads the awaithumans server."""
    server_problem: str | None = None
    """Why the relay cannot read tasks there, and what to do. null: it can."""
    store_problem: str | None = None
    """Why the relay cannot store answers now. null: it can."""
    callback_verified_at: datetime | None = None
    """When a callback of the server was last verified with the relay's webhook key, since the relay started."""
    callback_refused_at: datetime | None = None
    """When a callback to a valid URL was last refused because of its signature, since the relay started."""


class Reporter:
    """Collects the report of one relay.

    Args:
        engines: The engines of the relay, by name.
        settings: The settings of the relay.
        store: The waits.
        observer: Has recorded the events of the relay.
    """

    def __init__(self, engines: Mapping[str, Engine], settings: Settings, store: Store, observer: Observer) -> None:
        self._engines = engines
        self._settings = settings
        self._store = store
        self._observer = observer
        self._collected_at = float("-inf")
        self._last: RelayReport | None = None

    async def report(self) -> RelayReport:
        """Return the report. It is collected anew at most every `REPORT_EVERY_SECONDS`."""
        now = asyncio.get_running_loop().time()
        if self._last is None or now >= self._collected_at + REPORT_EVERY_SECONDS:
            self._last, self._collected_at = await self._collect(), now
        return self._last

    async def _collect(self) -> RelayReport:
        names = sorted(self._engines)[:MAX_ENGINES]
        (server, store), served = await asyncio.gather(
            asyncio.gather(self._server(), self._store_problem()),
            asyncio.gather(*(_served(self._engines[name]) for name in names)),
        )
        states = self._observer.health.engines
        callbacks = self._observer.signatures
        return RelayReport(
            version=version("awaithumans-workflows"),
            engines=[
                EngineReport(name=_short(name), state=states[name].state, serves=[_short(each) for each in shown])
                for name, shown in zip(names, served, strict=True)
            ],
            server_url=self._settings.url,
            server_problem=server,
            store_problem=store,
            callback_verified_at=callbacks.verified_at,
            callback_refused_at=callbacks.refused_at,
        )

    async def _server(self) -> str | None:
        try:
            problem = await _in_time(server_problem(self._settings))
        except AwaitHumansError as wrong:
            return _short(str(wrong))
        except TimeoutError:
            return f"{self._settings.url} did not answer the relay within {PART_SECONDS:g} s"
        return None if problem is None else _short(problem)

    async def _store_problem(self) -> str | None:
        try:
            await _in_time(self._store.readiness.check())
        except (SQLAlchemyError, OSError) as trouble:
            return _short(public_reason(trouble))
        return None


async def _served(engine: Engine) -> Sequence[str]:
    """Return what an engine serves; nothing while it cannot be determined. The engine's state shows that."""
    if not isinstance(engine, Serves):
        return []
    try:
        return sorted(await _in_time(engine.serves()))[:MAX_SERVED]
    except Exception:  # any error of an engine; its own check reports it
        return []


async def _in_time(part: Awaitable[T]) -> T:
    async with asyncio.timeout(PART_SECONDS):
        return await part


def _short(text: str) -> str:
    return one_line(text, MAX_TEXT_CHARS)
