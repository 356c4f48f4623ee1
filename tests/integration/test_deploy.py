"""The deployments of examples/deploy, run as they are written."""

import asyncio
import re
import secrets
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]  # it ships no types
import pytest
from devservers import HumansServer, Process, free_port
from fastapi import FastAPI

from awaithumans_core import Route
from awaithumans_core.route import RouteSigner
from awaithumans_core.signing import SIGNATURE_HEADER, derive_webhook_key, sign
from awaithumans_relay import create_router
from awaithumans_relay.commands.terminal import EXIT_FAILED
from tests.support.people import People
from tests.support.relay import settings_for, uvicorn_process

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "examples" / "deploy"
SECRET = secrets.token_urlsafe(32)
PAYLOAD_KEY = secrets.token_urlsafe(32)


@asynccontextmanager
async def uvicorn(folder: Path, ready: str, *arguments: str) -> AsyncGenerator[tuple[str, Process]]:
    """Run uvicorn and yield the server's address once `ready` replies there."""
    port = free_port()
    process = Process(
        [sys.executable, "-m", "uvicorn", *arguments, "--port", str(port), "--no-access-log"],
        folder,
        {
            "AWAITHUMANS_URL": "http://127.0.0.1:9",
            "AWAITHUMANS_ADMIN_API_TOKEN": secrets.token_urlsafe(),
            "AWAITHUMANS_RELAY_SECRET": SECRET,
            "AWAITHUMANS_PAYLOAD_KEY": PAYLOAD_KEY,
            "TEMPORAL_ADDRESS": "127.0.0.1:9",
            "PYTHONPATH": str(ROOT / "examples" / "deploy"),
        },
    )
    process.start()
    try:
        await process.answers(f"http://127.0.0.1:{port}{ready}")
        yield f"http://127.0.0.1:{port}", process
    finally:
        process.stop()


async def call_back(relay: str, number: int) -> httpx.Response:
    """Post a callback on a new connection, so that any worker may receive it."""
    key = f"question-{number}"
    token = RouteSigner([SECRET]).issue(Route("temporal", {"namespace": "default", "workflow_id": key}, key))
    body = b'{"task_id": "%s", "idempotency_key": "%s", "status": "completed", "response": {}}' % ((key.encode(),) * 2)
    headers = {SIGNATURE_HEADER: sign(body, derive_webhook_key(PAYLOAD_KEY))}
    async with httpx.AsyncClient() as http:
        return await http.post(f"{relay}/callbacks/{token}", content=body, headers=headers)


async def waits(relay: str) -> dict[str, int]:
    async with httpx.AsyncClient() as http:
        found: dict[str, int] = (await http.get(f"{relay}/readyz")).json()["waits"]
        return found


async def test_relay_inside_another_app_stores_callbacks_under_its_prefix(tmp_path: Path) -> None:
    """The app's own routes work, and a callback under the relay's prefix is stored."""
    async with uvicorn(tmp_path, "/orders", "in_your_app:app") as (app, _):
        assert (await call_back(f"{app}/awaithumans", 1)).status_code == 200
        assert await waits(f"{app}/awaithumans") == {"answered": 1}


@pytest.mark.edges
async def test_graph_inside_another_app_continues_once_after_a_restart(
    humans: HumansServer, people: People, tmp_path: Path
) -> None:
    """The app is killed while a person is asked, and answers while it is down; the next start acts once."""
    port, order = free_port(), secrets.token_hex(4)
    url = f"http://127.0.0.1:{port}"
    settings = settings_for(humans, f"{url}/awaithumans")
    app = uvicorn_process(tmp_path, "graphs_in_your_app:app", port, settings, "--no-access-log")
    app.env = {
        **app.env,
        "AWAITHUMANS_URL": humans.url,
        "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
        "AWAITHUMANS_RELAY_URL": f"{url}/awaithumans",
        "PYTHONPATH": str(DEPLOY),
    }
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            app.start()
            await app.answers(f"{url}/awaithumans/readyz")
            asked = await http.post(f"/refunds/{order}", params={"amount": 250})
            assert asked.json() == f"asked about {order}"
            assert (await http.get(f"/refunds/{order}")).json() == "open"
            app.kill()
            await people.answer(f"Approve $250 refund for {order}?", {"approved": True})
            app.start()
            await app.answers(f"{url}/awaithumans/readyz")
            async with asyncio.timeout(120):
                while await waits(f"{url}/awaithumans"):  # delivered waits are not counted
                    await asyncio.sleep(0.2)
            assert (await http.get(f"/refunds/{order}")).json() == "paid"
    finally:
        app.stop()
    assert app.output().count(f"{order} is paid") == 1


@pytest.mark.edges
async def test_workers_on_one_file_store_each_wait_once(tmp_path: Path) -> None:
    """Two workers start on a new SQLite file and take the same callbacks at once; each makes one wait."""
    async with uvicorn(tmp_path, "/healthz", "my_relay:app", "--factory", "--workers", "2") as (relay, process):
        taken = await asyncio.gather(*(call_back(relay, number % 20) for number in range(40)))
        assert {answer.status_code for answer in taken} == {200}
        assert await waits(relay) == {"answered": 20}
        workers = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2


async def test_access_log_masks_route_tokens(tmp_path: Path) -> None:
    """At its most verbose uvicorn logs every path twice, with the route token masked."""
    token = RouteSigner([SECRET]).issue(
        Route("temporal", {"namespace": "default", "workflow_id": "question-1"}, "question-1")
    )
    async with uvicorn(tmp_path, "/healthz", "my_relay:app", "--factory", "--log-level", "trace") as (relay, process):
        assert (await call_back(relay, 1)).status_code == 200
    assert "/callbacks/********" in process.output()
    assert token not in process.output()


def test_image_installs_the_package_from_the_checkout() -> None:
    """The package is on no index, and everything that the image's build copies exists."""
    unit, image = ((DEPLOY / name).read_text() for name in ("awaithumans-relay.service", "Containerfile"))
    assert "install 'awaithumans-workflows" not in unit + image
    assert (DEPLOY / "../.." / "pyproject.toml").is_file()
    copied = [words[1:-1] for line in image.splitlines() if (words := line.split())[:1] == ["COPY"]]
    named = [name for words in copied for name in words if not words[0].startswith("--")]
    assert {"pyproject.toml", "core", "adapters", "callback_relay"} <= set(named)
    assert all((ROOT / name).exists() for name in named)
    assert "PATH=/opt/relay/bin:$PATH" in image


def test_wrong_settings_do_not_restart_the_unit() -> None:
    """The exit code in the unit is that of the command."""
    assert f"RestartPreventExitStatus={EXIT_FAILED}\n" in (DEPLOY / "awaithumans-relay.service").read_text()


def test_environment_file_lists_every_setting_of_a_relay() -> None:
    """Every setting is in the file without a value."""
    named = {line.partition("=")[0] for line in (DEPLOY / "relay.env.example").read_text().splitlines()}
    assert {"AWAITHUMANS_RELAY_URL", "AWAITHUMANS_RELAY_OPERATOR_TOKEN", "AWAITHUMANS_PUBLIC_URL"} <= named


async def test_database_is_argument_then_environment_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same order applies inside another application."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "ADMIN_API_TOKEN": "token",
        "RELAY_SECRET": SECRET,
        "PAYLOAD_KEY": PAYLOAD_KEY,
        "URL": "http://127.0.0.1:9",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    for named, given, kept in [(None, None, "awaithumans-relay.db"), ("b.db", None, "b.db"), ("b.db", "c.db", "c.db")]:
        monkeypatch.setenv("AWAITHUMANS_RELAY_DATABASE", f"sqlite:///{named}" if named else "")
        app = FastAPI()
        app.include_router(create_router([], database=f"sqlite:///{given}") if given else create_router([]))
        for old in tmp_path.glob("*.db*"):
            old.unlink()
        async with app.router.lifespan_context(app):
            assert {path.name for path in tmp_path.glob("*.db")} == {kept}


def test_container_installs_the_hashed_versions_of_the_constraints() -> None:
    """The container installs the tested versions; after a change of the constraints, run `make hashes`."""
    constraints = set((ROOT / "constraints.txt").read_text().splitlines())
    entries = (DEPLOY / "requirements.txt").read_text().replace("\\\n", " ").splitlines()
    pinned = [entry.split() for entry in entries]
    assert {words[0] for words in pinned} <= constraints
    assert all(len(words) > 1 and all(word.startswith("--hash=sha256:") for word in words[1:]) for words in pinned)
    needed = ("fastapi", "psycopg-binary", "temporalio", "uvicorn", "hatchling")
    assert {words[0].partition("==")[0] for words in pinned} >= set(needed)
    image = (DEPLOY / "Containerfile").read_text()
    installs = [line for line in image.splitlines() if "pip install" in line]
    assert all("--require-hashes -r requirements.txt" in line or "--no-deps" in line for line in installs)


def test_nginx_passes_callbacks_and_registrations_only() -> None:
    """The locations of nginx.conf pass callbacks and registrations, but neither operator API nor probes."""
    (passed,) = re.findall(r"location ~ (\S+) \{", (DEPLOY / "nginx.conf").read_text())
    for path in ("/callbacks/eyJlI.x-_y", "/waits/0f3a", "/waits/asked", "/waits/report"):
        assert re.search(passed, path), path
    for path in ("/waits", "/waits/", "/waits/redrive", "/waits/0f3a/redrive", "/operate", "/metrics", "/readyz"):
        assert not re.search(passed, path), path
