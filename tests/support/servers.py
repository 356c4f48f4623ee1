"""The two task servers under one contract: the real one and `FakeHumans`, which must behave alike."""

from pathlib import Path
from typing import Protocol

import httpx

from awaithumans_core.testing import FakeHumans


class TaskServer(Protocol):
    """A task server on a port."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def payload_key(self) -> str: ...
    @property
    def mail(self) -> Path: ...

    def people(self) -> httpx.AsyncClient:
        """Return a client of the server's API, as the dashboard uses it."""
        ...


class FakeServer:
    """A `FakeHumans` on a port and in real time."""

    def __init__(self, fake: FakeHumans, url: str, folder: Path) -> None:
        self.fake = fake
        self.url = url
        self.token = fake.token
        self.payload_key = fake.payload_key
        self.mail = folder / "mail"

    def people(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60.0)
