"""Pictures of dashboard, operator's page, Temporal's UI and terminals: one question in each state, on real servers."""

import secrets
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from devservers import HumansServer, TemporalServer, free_port, tool
from examples.temporal_refund import TASK_QUEUE, Decision, Refund, RefundWorkflow
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from playwright.async_api import Browser, Page
from pydantic import SecretStr
from temporalio.client import Client
from temporalio.worker import Worker

from awaithumans_adapters.langgraph import GraphEngine, await_human
from awaithumans_adapters.temporal import HumanTasksPlugin, TemporalEngine
from awaithumans_core import Engine, HumanTasks
from tests.browser.dashboard import REVIEWER, Dashboard
from tests.browser.terminal import Terminal, draw
from tests.docs.pages import ROOT, python
from tests.support.people import People
from tests.support.relay import RunningRelay, changed, running_relay, settings_for

IMAGES = ROOT / "docs/images"
WIDTH, HEIGHT = 1200, 660
TEMPORAL_WIDTH = 1400
"""Width from which Temporal's UI shows a workflow's facts in columns."""
SHOWN = {"approved": True, "note": "The parcel arrived broken."}

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


class State(TypedDict):
    order: str
    amount: float
    approved: NotRequired[bool]


class Scene:
    """The callers of the pictures: Temporal workflows and LangGraph threads that wait, were answered, or failed."""

    def __init__(self, humans: HumansServer, temporal: TemporalServer) -> None:
        self.port = free_port()
        self.operator_token = secrets.token_urlsafe(32)
        settings = settings_for(humans, f"http://127.0.0.1:{self.port}")
        self.settings = changed(settings, relay_operator_token=SecretStr(self.operator_token))
        self._temporal = temporal
        self._human_tasks = HumanTasks(self.settings)
        self._people = People(humans)
        self._environment = {
            "AWAITHUMANS_URL": humans.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
            "AWAITHUMANS_RELAY_DATABASE": "sqlite:///relay.db",
        }
        self._graph = self._make_graph()

    @asynccontextmanager
    async def played(self, humans: HumansServer, folder: Path) -> AsyncGenerator[RunningRelay]:
        """Run the relay and the worker, and yield the relay once each question is in its state."""
        engines: list[Engine] = [
            TemporalEngine(lambda: Client.connect(self._temporal.address)),
            GraphEngine({"refunds": self._graph}),
        ]
        client = await Client.connect(self._temporal.address, plugins=[HumanTasksPlugin(self.settings)])
        async with (
            running_relay(engines, humans, folder, settings=self.settings, port=self.port) as relay,
            Worker(client, task_queue=TASK_QUEUE, workflows=[RefundWorkflow]),
        ):
            try:
                await self._play(client, relay)
                yield relay
            finally:
                await self._people.aclose()

    async def take_terminals(self, folder: Path) -> None:
        """Keep pictures of a script that waits, of its answer, and of the relay's list of waits."""
        script = Terminal()
        (folder / "ask.py").write_text(_script())
        async with script.running([sys.executable, "ask.py"], folder, self._environment):
            await script.shows("/task?id=")
            draw("$ python ask.py\n" + script.screen(), "python ask.py", IMAGES / "terminal-waiting")
            (task,) = await self._people.find("Refund $250 for order A-1001?")
            await self._people.complete(task["id"], {"approved": True}, by=REVIEWER)
            await script.shows("paid")
        draw("$ python ask.py\n" + script.screen(), "python ask.py", IMAGES / "terminal-answered")
        waits = Terminal()
        async with waits.running([tool("awaithumans-relay"), "waits"], folder, self._environment):
            await waits.shows("refund-A-1001")
        draw("$ awaithumans-relay waits\n" + waits.screen(), "awaithumans-relay waits", IMAGES / "terminal-waits")

    async def _play(self, client: Client, relay: RunningRelay) -> None:
        await self._ask_in_graph("A-1001", 120)
        await self._answer("A-1001", 120, relay, "parked")
        handle = await self._ask_in_workflow(client, "A-1002", 80)
        await relay.wait_for((await self._task("A-1002", 80))["id"], "open")
        await handle.terminate()
        await self._answer("A-1002", 80, relay, "parked")
        await self._ask_in_workflow(client, "A-1003", 45)
        await self._answer("A-1003", 45, relay, "delivered")
        await self._ask_in_graph("A-1004", 20)
        await relay.wait_for((await self._task("A-1004", 20))["id"], "open")
        await self._ask_in_workflow(client, "A-1005", 250)
        await relay.wait_for((await self._task("A-1005", 250))["id"], "open")

    async def _ask_in_workflow(self, client: Client, order: str, amount: float) -> Any:
        refund = Refund(order=order, amount=amount, reviewer=REVIEWER)
        return await client.start_workflow(RefundWorkflow.run, refund, id=f"refund-{order}", task_queue=TASK_QUEUE)

    async def _ask_in_graph(self, order: str, amount: float) -> None:
        thread: Any = {"configurable": {"thread_id": f"refund-{order}"}}
        await self._graph.ainvoke({"order": order, "amount": amount}, thread)

    async def _task(self, order: str, amount: float) -> dict[str, Any]:
        (task,) = await self._people.find(_question(order, amount))
        return task

    async def _answer(self, order: str, amount: float, relay: RunningRelay, state: str) -> None:
        task = await self._task(order, amount)
        await self._people.complete(task["id"], SHOWN, by=REVIEWER)
        await relay.check_now(task["id"])
        await relay.wait_for(task["id"], state)

    def _make_graph(self) -> Any:
        async def review(state: State) -> dict[str, bool]:
            decision = await await_human(
                task=_question(state["order"], state["amount"]),
                payload={"order": state["order"], "amount": state["amount"]},
                response_schema=Decision,
                timeout_seconds=24 * 3600,
                assign_to=REVIEWER,
                human_tasks=self._human_tasks,
            )
            return {"approved": decision.approved}

        def pay(state: State) -> None:
            raise ConnectionError(f"the bank refused the payment for {state['order']}")

        builder = StateGraph(State)
        builder.add_node("review", review)
        builder.add_node("pay", pay)
        builder.add_edge(START, "review")
        builder.add_edge("review", "pay")
        return builder.compile(checkpointer=InMemorySaver())


async def take_pages(dashboard: Dashboard, scene: Scene, relay: RunningRelay, ui_port: int) -> None:
    """Keep the pictures of all pages. Those that follow the reader's colour scheme are taken in both."""
    await _take_dashboard(dashboard, scene)
    browser = dashboard.page.context.browser
    assert browser is not None
    password = scene.operator_token
    await _in_both(browser, "operator-page", lambda page: _open_operator_page(page, relay), password=password)
    await _in_both(browser, "temporal-ui", lambda page: _open_temporal(page, ui_port), width=TEMPORAL_WIDTH)


async def _take_dashboard(dashboard: Dashboard, scene: Scene) -> None:
    """Take the list of tasks and one task. The dashboard is dark in both colour schemes."""
    page = dashboard.page
    await page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
    await dashboard.open_list()
    await page.get_by_text(_question("A-1005", 250)).first.wait_for()
    await page.screenshot(path=IMAGES / "dashboard-list.png")
    await page.get_by_text(_question("A-1005", 250)).first.click()
    await page.get_by_role("button", name="Submit Response").wait_for()
    await page.screenshot(path=IMAGES / "dashboard-task.png")


async def _in_both(
    browser: Browser,
    name: str,
    opens: Callable[[Page], Awaitable[None]],
    *,
    password: str | None = None,
    width: int = WIDTH,
) -> None:
    for scheme in SCHEMES:
        context = await browser.new_context(
            color_scheme=scheme,
            http_credentials={"username": "operator", "password": password} if password else None,
            locale="en-GB",
            timezone_id="UTC",
            viewport={"width": width, "height": HEIGHT},
        )
        page = await context.new_page()
        await opens(page)
        await page.screenshot(path=IMAGES / f"{name}-{scheme}.png", full_page=True)
        await context.close()


async def _open_operator_page(page: Page, relay: RunningRelay) -> None:
    await page.goto(f"{relay.url}/operate")
    await page.locator("#waits tbody tr").first.wait_for()


async def _open_temporal(page: Page, ui_port: int) -> None:
    await page.goto(f"http://127.0.0.1:{ui_port}/namespaces/default/workflows/refund-A-1005")
    await page.get_by_role("tab", name="User Metadata").click()
    await page.frame_locator("iframe").get_by_text("Waiting for").first.wait_for()


def _script() -> str:
    """The script of the tutorial."""
    (block,) = (block for block in python("tutorials/script.md") if block.title == "ask.py")
    return block.text


def _question(order: str, amount: float) -> str:
    return f"Approve ${amount:g} refund for {order}?"
