"""The logs of the relay's command hold no key, token, signature, password or answer at any level."""

import asyncio
import base64
import json
import secrets
import subprocess
from pathlib import Path

import httpx
import pytest
from devservers import Process, free_port, tool

from awaithumans_core import Route
from awaithumans_core.route import RouteSigner
from awaithumans_core.signing import derive_webhook_key, sign

ROUTE = Route("temporal", {"namespace": "default", "workflow_id": "w"}, "question-1")


async def test_debug_log_holds_no_secret(tmp_path: Path) -> None:
    """Accepted and refused requests, a failing sweep and a failing delivery log no secret at DEBUG."""
    secret, admin = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    root = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    derived = derive_webhook_key(root)
    signer = RouteSigner([secret])
    token, proof = signer.issue(ROUTE), signer.prove(ROUTE, "open")
    body = json.dumps(
        {"task_id": "t", "idempotency_key": "question-1", "status": "completed", "response": {"note": "hush-4711"}}
    ).encode()
    port = free_port()
    env = {
        "AWAITHUMANS_URL": f"http://127.0.0.1:{free_port()}",
        "AWAITHUMANS_ADMIN_API_TOKEN": admin,
        "AWAITHUMANS_PAYLOAD_KEY": root,
        "AWAITHUMANS_RELAY_SECRET": secret,
    }
    arguments = ["--port", str(port), "--temporal", "127.0.0.1:9", "--log-level", "debug"]
    relay = Process([tool("awaithumans-relay"), "serve", *arguments], tmp_path, env)
    relay.start()
    signed = {"X-Awaithumans-Signature": sign(body, derived)}
    try:
        await relay.answers(f"http://127.0.0.1:{port}/healthz")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            replies = [
                *[
                    await http.put(
                        "/waits/open", json={"timeout_seconds": 60}, headers={"Authorization": f"Bearer {bearer}"}
                    )
                    for bearer in (proof, token, admin)
                ],
                await http.post(f"/callbacks/{token}", content=body, headers=signed),
                await http.post(f"/callbacks/{token}x", content=body, headers=signed),
                await http.post(f"/callbacks/{token}", content=body + b" ", headers=signed),
            ]
            assert [reply.status_code for reply in replies] == [200, 401, 401, 200, 401, 401]
        async with asyncio.timeout(60):
            while "delivery failed" not in relay.output() and "temporal" not in relay.output():
                await asyncio.sleep(0.05)
    finally:
        await asyncio.to_thread(relay.stop)
    written = relay.output()
    assert "refused (401)" in written
    base64s = [base64.b64encode(derived).decode(), derived.hex()]
    for hidden in (secret, admin, root, *base64s, token, proof, signed["X-Awaithumans-Signature"][7:], "hush-4711"):
        assert hidden not in written


@pytest.mark.parametrize("scheme", ["postgresql", "nonsense"], ids=["away", "unknown"])
def test_database_password_is_not_logged(tmp_path: Path, scheme: str) -> None:
    """An unreachable or invalid database is named without its password."""
    env = {"PATH": "", "HOME": str(tmp_path), "AWAITHUMANS_RELAY_SECRET": secrets.token_urlsafe(32)}
    env |= {"AWAITHUMANS_PAYLOAD_KEY": secrets.token_urlsafe(32), "AWAITHUMANS_ADMIN_API_TOKEN": "t"}
    database = f"{scheme}://relay:hunter2@127.0.0.1:9/waits"
    command = [tool("awaithumans-relay"), "serve", "--port", "0", "--temporal", "127.0.0.1:9", "--database", database]
    ended = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0
    assert "127.0.0.1" in ended.stdout + ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
