"""The relay with TLS, on certificates made for the run."""

import asyncio
import secrets
import ssl
from pathlib import Path

import httpx
import pytest
from devservers import Process, free_port, tool

from tests.support.authority import Authority


async def test_only_clients_with_a_certificate_are_accepted(tmp_path: Path) -> None:
    """A client without a certificate of the authority, or without TLS, is refused."""
    authority, port = Authority(tmp_path), free_port()
    (certificate, key), client = authority.issue("relay"), authority.issue("client")
    tls = ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(key), "--ssl-ca-certs", str(authority.file)]
    env = {
        "AWAITHUMANS_RELAY_SECRET": secrets.token_urlsafe(32),
        "AWAITHUMANS_PAYLOAD_KEY": secrets.token_urlsafe(32),
        "AWAITHUMANS_ADMIN_API_TOKEN": "t",
    }
    serve = [tool("awaithumans-relay"), "serve", "--port", str(port), "--temporal", "127.0.0.1:9", *tls]
    relay = Process(serve, tmp_path / "relay", env)
    relay.start()
    known, unknown = (ssl.create_default_context(cafile=authority.file) for _ in range(2))
    known.load_cert_chain(*client)
    url = f"https://localhost:{port}/healthz"
    try:
        async with httpx.AsyncClient(verify=known) as http, asyncio.timeout(60):
            while True:
                try:
                    assert (await http.get(url)).status_code == 200
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        async with httpx.AsyncClient(verify=unknown) as stranger:
            with pytest.raises(httpx.TransportError):
                await stranger.get(url)
            with pytest.raises(httpx.TransportError):
                await stranger.get(url.replace("https", "http"))
    finally:
        await asyncio.to_thread(relay.stop)
