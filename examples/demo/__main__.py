"""Three callers ask a person about a refund on real servers: a Temporal workflow, a LangGraph graph and a script.

python -m examples.demo             a scripted reviewer answers, one of the questions by e-mail
python -m examples.demo --human     you answer in the dashboard
"""

import argparse
import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from devservers import HumansServer, RelayServer, TemporalServer, started
from rich.markup import escape
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.temporal import HumanTasksPlugin
from awaithumans_core.safe_text import block
from awaithumans_relay.store import Store
from examples import langgraph_refund
from examples.demo.stage import MAIL_IDENTITY, REVIEWER, Stage, Timeline
from examples.temporal_refund import TASK_QUEUE, Refund, RefundWorkflow

ROOT = Path(__file__).resolve().parents[2]
HOW_FOUND = {
    "callback": "received the server's callback, stored the answer, acknowledged it, and woke the {caller}",
    "sweep": "found the answer in its sweep, stored it, and woke the {caller}",
    "registration": "had the answer already when the {caller} registered its wait, and woke it",
}


async def temporal_scene(stage: Stage) -> bool:
    stage.timeline.scene("1. A Temporal workflow asks")
    client = await Client.connect(stage.temporal.address, plugins=[HumanTasksPlugin()])
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[RefundWorkflow]):
        workflow = await client.start_workflow(
            RefundWorkflow.run,
            Refund(order="A-1001", amount=250, reviewer=REVIEWER),
            id=f"refund-{uuid.uuid4().hex[:8]}",
            task_queue=TASK_QUEUE,
        )
        stage.timeline.tell("workflow", f"{workflow.id} asks: Approve $250 refund for A-1001?")
        task = await stage.asked("A-1001")
        stage.timeline.tell("workflow", "sleeps without a poll, a connection or a thread")
        await answer(stage, task)
        result = await stage.until(workflow.result(), "the workflow waits")
    how = await stage.delivered(task["id"])
    stage.timeline.tell("relay", HOW_FOUND[how].format(caller="workflow"))
    stage.timeline.tell("workflow", f"continues with the typed answer: {result}")
    return bool(result.startswith(("paid", "declined") if stage.human else "paid"))


async def langgraph_scene(stage: Stage) -> bool:
    stage.timeline.scene("2. A LangGraph graph asks" + ("" if stage.human else ", and a person answers by e-mail"))
    thread: Any = {"configurable": {"thread_id": uuid.uuid4().hex[:8]}}
    question: langgraph_refund.State = {"order": "A-1002", "amount": 250.0, "reviewer": REVIEWER}
    if not stage.human:
        question["notify"] = [f"email+{MAIL_IDENTITY}:{REVIEWER}"]
    async with langgraph_refund.refunds() as graph:
        await graph.ainvoke(question, thread)
        name = thread["configurable"]["thread_id"]
        stage.timeline.tell("graph", f"thread {name} asks: Approve $250 refund for A-1002?")
        stage.timeline.tell("graph", "is interrupted, and the process that started it could end now")
        task = await stage.asked("A-1002")
        if stage.human:
            await answer(stage, task)
        else:
            button = await asyncio.wait_for(stage.click_in_mail("A-1002"), stage.patience)
            stage.timeline.tell(
                "reviewer", f"clicks the button {button!r} in the mail (the server sends no callback for such answers)"
            )
        how = await stage.until(stage.delivered(task["id"]), "the thread waits")
        stage.timeline.tell("relay", HOW_FOUND[how].format(caller="thread"))
        result = (await graph.aget_state(thread)).values.get("result")
    stage.timeline.tell("graph", f"continues in the relay's process: {result}")
    return result in ({"paid", "declined"} if stage.human else {"paid"}) and (stage.human or how == "sweep")


async def script_scene(stage: Stage) -> bool:
    stage.timeline.scene("3. A plain script asks")
    script = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "examples.script_refund",
        cwd=ROOT,
        env={**os.environ, "REVIEWER": REVIEWER},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        stage.timeline.tell(
            "script", "asks: Approve $250 refund for A-1003? and long-polls, because a script cannot be woken"
        )
        task = await stage.until(stage.asked("A-1003"), "the script starts")
        await answer(stage, task)
        output, errors = await stage.until(script.communicate(), "the script waits")
    finally:
        if script.returncode is None:
            script.kill()
    result = output.decode().strip()
    stage.timeline.tell("script", f"prints: {result or errors.decode().strip()}")
    return result in ({"paid", "declined"} if stage.human else {"paid"})


async def answer(stage: Stage, task: dict[str, Any]) -> None:
    if stage.human:
        stage.timeline.tell("reviewer", f"this is you; answer at {stage.humans.url}/task?id={task['id']}")
        return
    await asyncio.sleep(1.0)  # a person takes a moment to decide
    await stage.answer(task, {"approved": True})
    stage.timeline.tell("reviewer", "approves it through the server's API, as the dashboard does")


async def play(*, human: bool) -> bool:
    timeline = Timeline()
    timeline.console.print("[bold]awaithumans-workflows: three callers ask a person about a refund[/]")
    with tempfile.TemporaryDirectory(prefix="awaithumans-demo-") as name:
        folder = Path(name)
        secret = secrets.token_urlsafe(32)
        humans, temporal = HumansServer(folder / "server"), TemporalServer(folder / "temporal", ui=human)
        arguments = ["--temporal", temporal.address, "--graph", "refunds=examples.langgraph_refund:refunds"]
        checkpoints = str(folder / "checkpoints.db")
        relay = RelayServer(
            folder / "relay",
            humans,
            arguments,
            secret=secret,
            env={"CHECKPOINTS": checkpoints, "PYTHONPATH": str(ROOT)},
        )
        for each in (humans, temporal, relay):
            each.process.folder.mkdir(parents=True)
        langgraph_refund.CHECKPOINTS = checkpoints
        os.environ |= {
            "AWAITHUMANS_URL": humans.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
            "AWAITHUMANS_RELAY_URL": relay.url,
            "AWAITHUMANS_RELAY_SECRET": secret,
        }
        timeline.console.print("  starting the servers ...")
        async with started(humans, temporal, relay):
            timeline.console.print(
                f"  awaithumans server {humans.url}   Temporal {temporal.address}   relay {relay.url}"
            )
            waits = Store(f"sqlite:///{folder / 'relay' / 'awaithumans-relay.db'}")
            stage = Stage(humans, temporal, relay, waits, timeline, human)
            try:
                return await scenes(stage)
            except TimeoutError as late:
                log = escape(block(relay.process.output()[-1500:]))
                timeline.console.print(f"\n[bold red]{late}[/]. The end of the relay's log:\n{log}")
                return False
            finally:
                await waits.stop()


async def scenes(stage: Stage) -> bool:
    tell = stage.timeline.console.print
    if stage.human:
        email, password = await stage.make_operator()
        tell(
            f"\n  Log in at [bold]{stage.humans.url}/login[/] as [bold]{email}[/] with the password [bold]{password}[/]"
        )
        tell(
            f"  Watch the workflow at http://127.0.0.1:{stage.temporal.ui_port}. Ctrl-C stops the demo and its servers."
        )
    else:
        await stage.set_up_mail()
    results = [await temporal_scene(stage), await langgraph_scene(stage), await script_scene(stage)]
    good = all(results)
    tell(
        "\n[bold green]Each caller received its answer.[/]"
        if good
        else "\n[bold red]Not every caller received its answer.[/]"
    )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo", description="Three callers ask a person about a refund on real servers."
    )
    parser.add_argument("--human", action="store_true", help="you answer in the dashboard")
    arguments = parser.parse_args()
    logging.getLogger("temporalio").setLevel(logging.ERROR)

    async def run() -> bool:
        playing = asyncio.ensure_future(play(human=arguments.human))
        # Only the first signal cancels, so that a second one does not interrupt the clean-up.
        for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(stop, lambda: playing.cancelling() or playing.cancel())
        return await playing

    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        return 0 if asyncio.run(run()) else 1
    sys.stderr.write("\nstopped; no process is left running\n")
    return 130


if __name__ == "__main__":
    sys.exit(main())
