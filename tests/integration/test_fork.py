"""Clients used before a fork, on the real server: each process gets the answers to its own questions."""

import asyncio
import json
import os
import sys
import uuid
from contextlib import aclosing

import httpx
import pytest
from devservers import HumansServer

from awaithumans_core import HumanTask, SettingsError, SyncTaskClient, TaskClient
from awaithumans_core.testing import FakeHumans
from tests.support import forks
from tests.support.engines import CollectingEngine
from tests.support.people import People
from tests.support.relay import running_relay
from tests.support.workflows import Decision


@pytest.fixture(scope="module")
async def reports(humans: HumansServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """Return what each caller received, by name."""
    run = uuid.uuid4().hex
    names = {f"{run}:{name}": forks.answer_to(name) for name in forks.EVERYBODY} | {f"{run}:first": 0}
    async with (
        running_relay([CollectingEngine("shelf")], humans, tmp_path_factory.mktemp("fork")) as relay,
        aclosing(People(humans)) as people,
    ):
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWAITHUMANS_")},
            "RUN": run,
            "AWAITHUMANS_URL": humans.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
            "AWAITHUMANS_RELAY_URL": relay.settings.relay(),
            "AWAITHUMANS_RELAY_SECRET": relay.settings.relay_secret[0].get_secret_value(),
        }

        async def answer() -> None:
            """Answer the questions as they appear, those of the children first."""
            late = {key for key in names if key.endswith("thread")}
            open_keys = set(names)
            while open_keys:
                listed = (await people.http.get("/api/tasks", params={"limit": 100, "terminal": "false"})).json()
                asked = {task["idempotency_key"]: task["id"] for task in listed} if listed else {}
                for key in sorted(open_keys & asked.keys(), key=late.__contains__):
                    if key not in late or f"{run}:sync" not in open_keys:
                        await people.complete(asked[key], {"number": names[key]})
                        open_keys.remove(key)
                await asyncio.sleep(0.1)

        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.forks"),
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        answering = asyncio.create_task(answer())
        try:
            out, err = await asyncio.wait_for(program.communicate(), 90)
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            if program.returncode is None:
                program.kill()
    assert program.returncode == 0, f"{out.decode()}\n{err.decode()}"
    found: dict[str, list[object]] = {}
    for line in out.decode().splitlines():
        said = json.loads(line)
        found.setdefault(said["name"], []).append(said["came"])
    return found


@pytest.mark.parametrize("name", forks.EVERYBODY)
async def test_every_process_gets_its_own_answer(reports: dict[str, list[object]], name: str) -> None:
    """Forked children, pool workers and a parent with held polls each get their own answers."""
    assert reports.get(name) == [forks.answer_to(name)]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_transport_of_the_caller_is_refused_in_a_forked_child(kind: str) -> None:
    """A caller's transport can be neither recreated nor shared, so the child gets a typed error."""
    humans = FakeHumans()
    with humans.serving() as url:
        task = HumanTask(task="Approve?", response_schema=Decision, timeout_seconds=900)
        client: TaskClient | SyncTaskClient
        if kind == "sync":
            client = SyncTaskClient(url, humans.token, transport=httpx.HTTPTransport())
            client.create(task)
        else:
            client = TaskClient(url, humans.token, transport=httpx.AsyncHTTPTransport())
            asyncio.run(client.create(task))
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            try:
                if isinstance(client, SyncTaskClient):
                    client.create(task)
                else:
                    asyncio.run(client.create(task))
            except SettingsError as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        said = os.read(read, 1000).decode()
        os.close(read)
        assert "create the client in the child" in said
        if isinstance(client, SyncTaskClient):
            client.close()
