"""The relay of an `awaithumans-relay dev`, as far as discovery asks it, and a server that records what it receives."""

import json
import secrets
import socket
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from awaithumans_core import discovery
from awaithumans_core.discovery import DevInstance, announce, proof_of


def project_in_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder in the home directory, and the working directory."""
    monkeypatch.setenv("HOME", str(home))
    folder = home / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def announced(instance: DevInstance, project: Path) -> DevInstance:
    """An instance that another process has announced in the project."""
    announce(instance, project)
    discovery.file._written_here.clear()
    return instance


def unused_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def dev_instance(relay_url: str | None = None, **fields: Any) -> DevInstance:
    """An instance with secrets of its own."""
    return DevInstance.model_validate(
        {
            "server_url": f"http://127.0.0.1:{unused_port()}",
            "api_token": secrets.token_urlsafe(32),
            "relay_url": relay_url or f"http://127.0.0.1:{unused_port()}",
            "relay_secret": secrets.token_urlsafe(32),
        }
        | fields
    )


class Listener(ThreadingHTTPServer):
    """A server on a free port that records every byte of its requests.

    It answers like the relay of `secret`, at its own address or at `proven_url`. Without one it answers 404.
    """

    daemon_threads = True

    def __init__(self, secret: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secret = secret
        self.redirect: str | None = None
        self.proven_url = self.url
        self.received: list[str] = []

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Listener

    def do_GET(self) -> None:
        self.server.received.append(f"{self.requestline}\n{self.headers}")
        place = urlsplit(self.path)
        if self.server.redirect is not None:
            self.send_response(307)
            self.send_header("Location", self.server.redirect + self.path)
            self.end_headers()
        elif self.server.secret is None or place.path != "/dev/instance":
            self.send_error(404)
        else:
            (challenge,) = parse_qs(place.query)["challenge"]
            body = json.dumps({"proof": proof_of(self.server.secret, self.server.proven_url, challenge)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Print nothing."""


@contextmanager
def listening(secret: str | None = None) -> Generator[Listener]:
    """Run a listener."""
    with Listener(secret) as listener:
        thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            listener.shutdown()
            thread.join()
