"""`awaithumans-relay dev` as a process: callers without variables, signals, kills, and two projects at once."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from devservers import free_port

from awaithumans_core.discovery import running_instance

pytestmark = [pytest.mark.edges]

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 240.0

ASKS = """
from awaithumans_core import await_human_sync
from pydantic import BaseModel

class Decision(BaseModel):
    approved: bool

question = "Approve $250 from a script?"
print(await_human_sync(task=question, payload={}, response_schema=Decision, timeout_seconds=900, idempotency_key="one"))
"""

STARTS_A_WORKFLOW = """
import asyncio, sys
from temporalio.client import Client
from temporalio.worker import Worker
from awaithumans_adapters.temporal import HumanTasksPlugin
from examples.temporal_refund import Refund, RefundWorkflow

async def main():
    client = await Client.connect(sys.argv[1], plugins=[HumanTasksPlugin()])
    refund = Refund(order="A-1001", amount=250, reviewer="anna@example.com")
    async with Worker(client, task_queue="q", workflows=[RefundWorkflow]):
        print(await client.execute_workflow(RefundWorkflow.run, refund, id="refund-1", task_queue="q"))

asyncio.run(main())
"""

STARTS_A_THREAD = """
import asyncio
from examples.langgraph_refund import refunds

async def main():
    async with refunds() as graph:
        thread = {"configurable": {"thread_id": "thread-1"}}
        await graph.ainvoke({"order": "A-1002", "amount": 250.0, "reviewer": "anna@example.com"}, thread)
        while not (result := (await graph.aget_state(thread)).values.get("result")):
            await asyncio.sleep(0.2)
        print(result)

asyncio.run(main())
"""


class Dev:
    """A running `awaithumans-relay dev`, and callers in its project without variables."""

    def __init__(self, folder: Path, process: "subprocess.Popen[bytes]", environment: dict[str, str]) -> None:
        self.folder = folder
        self.process = process
        self.environment = environment
        self.marker = f"DEV_MARK={folder}"

    def shown(self) -> str:
        return (self.folder / "shown.txt").read_text()

    async def shows(self, pattern: str) -> "re.Match[str]":
        until = time.monotonic() + LIMIT_SECONDS
        while not (found := re.search(pattern, self.shown())):
            assert time.monotonic() < until, f"{pattern!r} is not in:\n{self.shown()}"
            assert self.process.poll() is None or re.search(pattern, self.shown()), self.shown()
            await asyncio.sleep(0.1)
        return found

    def caller(self, code: str, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", code, *arguments]
        environment = {name: value for name, value in self.environment.items() if name != "DEV_MARK"}
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, text=True)

    def people(self) -> httpx.AsyncClient:
        dev = json.loads((self.folder / ".awaithumans/dev.json").read_text())
        return httpx.AsyncClient(
            base_url=dev["server_url"],
            headers={"Authorization": f"Bearer {dev['api_token']}"},
            timeout=60.0,
            trust_env=False,
        )

    async def answer(self, link: str) -> None:
        body: dict[str, Any] = {"response": {"approved": True}, "completed_by_email": "anna@example.com"}
        async with self.people() as people:
            url = f"/api/tasks/{link.partition('id=')[2]}/complete"
            (await people.post(url, json=body | {"completed_via_channel": "dashboard"})).raise_for_status()

    def processes(self) -> list[str]:
        """Return what still runs of it: the processes that inherited the marker."""
        found: list[str] = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.marker.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text())
        return found

    async def ends(self) -> int:
        until = time.monotonic() + LIMIT_SECONDS
        while (code := self.process.poll()) is None or self.processes():
            assert time.monotonic() < until, (self.processes(), self.shown())
            await asyncio.sleep(0.1)
        return code


@contextmanager
def dev(folder: Path, *arguments: str, ports: bool = True) -> Generator[Dev]:
    """Start the command in a project. Free ports are named, because others may choose the usual ones meanwhile."""
    folder.mkdir(exist_ok=True)
    given = ["--port", "--server-port", "--temporal-port"] if ports else []
    flags = [part for flag in given for part in (flag, str(free_port()))]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWAITHUMANS_", "TEMPORAL_"))
    }
    environment = inherited | {
        "HOME": str(folder),
        "DEV_MARK": str(folder),
        "PYTHONPATH": str(ROOT),
        "CHECKPOINTS": str(folder / "checkpoints.db"),
    }
    command = [sys.executable, "-m", "awaithumans_relay.cli", "dev", *flags, *arguments]
    with (folder / "shown.txt").open("wb") as shown:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=shown, stderr=subprocess.STDOUT, start_new_session=True
        )
    running = Dev(folder, process, environment)
    try:
        yield running
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


async def test_callers_without_variables_get_their_answers_and_ctrl_c_leaves_nothing(project: Path) -> None:
    """A script, a workflow and a thread ask; each step is a line; after Ctrl-C no process and no file is left."""
    with dev(project, "--graph", "refunds=examples.langgraph_refund:refunds") as running:
        temporal = (await running.shows(r"Temporal +(127\.0\.0\.1:\d+)"))[1]
        await running.shows("Ctrl-C stops all")
        callers = [
            (running.caller(ASKS), r"asked +Approve \$250 from a script\?  \(script\)  (\S+)", "approved=True"),
            (
                running.caller(STARTS_A_WORKFLOW, temporal),
                r"asked .*A-1001\?  \(workflow refund-1, for anna@example\.com\)  (\S+)",
                "paid, decided by anna@example.com",
            ),
            (running.caller(STARTS_A_THREAD), r"asked .*A-1002\?  \(thread thread-1, .*\)  (\S+)", "paid"),
        ]
        for caller, asked, result in callers:
            await running.answer((await running.shows(asked))[1])
            assert (await asyncio.to_thread(caller.communicate, timeout=LIMIT_SECONDS))[0].strip() == result
        assert running.shown().count("by anna@example.com, dashboard") == 3
        await running.shows(r"delivered .*A-1001\?  \(to workflow refund-1\)")
        await running.shows(r"delivered .*A-1002\?  \(to thread thread-1\)")
        running.process.send_signal(signal.SIGINT)
        assert await running.ends() == 0
        assert "Stopped. No process is left running." in running.shown()
        assert not (project / ".awaithumans/dev.json").exists()


async def test_killed_run_is_recognised_and_its_questions_are_kept(project: Path) -> None:
    """After SIGKILL its servers end, its file is not used, and the next run has the question that was open."""
    with dev(project) as killed:
        await killed.shows("Ctrl-C stops all")
        caller = killed.caller(ASKS)
        link = (await killed.shows(r"asked .*script\)  (\S+)"))[1]
        caller.kill()
        caller.communicate()
        killed.process.kill()
        await killed.ends()
    assert (project / ".awaithumans/dev.json").exists()
    assert running_instance(project) is None
    with dev(project, ports=False) as running:
        await running.shows("waiting for an answer: 1")
        await running.answer(link)
        with running.caller(ASKS) as again:
            assert again.communicate(timeout=LIMIT_SECONDS)[0].strip() == "approved=True"
        await running.shows(r"answered +Approve \$250 from a script\?")


async def test_projects_run_beside_each_other_and_each_runs_once(project: Path, tmp_path: Path) -> None:
    """A second run in a project names the addresses of the first one; a run in another project starts."""
    with dev(project) as first, dev(tmp_path / "other") as other:
        await first.shows("Ctrl-C stops all")
        await other.shows("Ctrl-C stops all")
        again = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "awaithumans_relay.cli", "dev"],
            cwd=project,
            env=first.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        relay = json.loads((project / ".awaithumans/dev.json").read_text())["relay_url"]
        assert (again.returncode, relay in again.stderr) == (2, True), again.stderr
        for running in (first, other):
            running.process.terminate()
            assert await running.ends() == 0


async def test_server_that_dies_ends_the_command_with_its_log(project: Path) -> None:
    """The exit code is not 0, the end of the server's log is shown, and the other servers are stopped."""
    with dev(project) as running:
        await running.shows("Ctrl-C stops all")
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                ours = running.marker.encode() in (process / "environ").read_bytes().split(b"\0")
                if ours and b"start-dev" in (process / "cmdline").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        assert await running.ends() == 1
        assert "the Temporal dev server has ended (signal 9)" in running.shown()
        assert not (project / ".awaithumans/dev.json").exists()


async def test_graph_that_cannot_be_loaded_ends_the_command(project: Path) -> None:
    """The error names the flag, and nothing is left running."""
    with dev(project, "--graph", "refunds=no_such_module:graph") as running:
        assert await running.ends() == 2
        assert "--graph refunds=no_such_module:graph: No module named" in running.shown()
