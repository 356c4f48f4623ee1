"""Three callers ask, a person answers in the dashboard, and each caller goes on with the very values."""

import asyncio
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict

from devservers import HumansServer, TemporalServer, free_port
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine, HumanApproval, HumanInterrupts, await_human
from awaithumans_core import HumanTasks
from tests.browser.dashboard import REVIEWER, Dashboard, Entry
from tests.support.callers import TemporalCaller
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay, settings_for
from tests.support.scripted_model import calling
from tests.support.workflows import TASK_QUEUE, AskFor, Decision

PAYLOAD = {"customer": {"name": "Ann", "address": {"city": "Paris"}}, "items": [{"sku": "A-1", "price": 12.5}]}
ROWS = ["customer / name: Ann", "customer / address / city: Paris", "items [1] / sku: A-1", "items [1] / price: 12.5"]
LETTER = "Dear Ann,\n\nyour refund is on its way."


class State(TypedDict, total=False):
    answer: Any


class Flows:
    """The callers, the reviewer who answers them, and what went wrong."""

    def __init__(self, dashboard: Dashboard, humans: HumansServer, people: People) -> None:
        self._dashboard = dashboard
        self._people = people
        self._humans = humans
        self._port = free_port()
        self._settings = settings_for(humans, f"http://127.0.0.1:{self._port}")
        self._human_tasks = HumanTasks(self._settings)
        self._thread: Any = {"configurable": {"thread_id": uuid.uuid4().hex}}
        self._agent_thread: Any = {"configurable": {"thread_id": uuid.uuid4().hex}}
        self._paid: list[tuple[str, Decimal, str]] = []
        self._review_thread: Any = {"configurable": {"thread_id": uuid.uuid4().hex}}
        arguments = {"order": "A-1", "amount": "250", "letter": LETTER}
        approval = HumanApproval(["refund"], human_tasks=self._human_tasks, assign_to=REVIEWER)
        small = [{"order": f"A-{number}", "amount": "5", "letter": "x"} for number in (1, 2)]
        self._graph, self._agent = self._make_graph(), self._make_agent(approval, arguments)
        self._reviewed = self._make_agent(HumanInTheLoopMiddleware(interrupt_on={"refund": True}), *small)

    async def run(self, temporal: TemporalServer, folder: Path) -> None:
        """Run all three. Raises AssertionError for the first that does not go on with what the person entered."""
        caller = TemporalCaller(temporal.address)
        graphs = {"graph": self._graph, "agent": self._agent, "reviewed": self._reviewed}
        engines = [caller.engine, GraphEngine(graphs)]
        async with running_relay(engines, self._humans, folder, settings=self._settings, port=self._port) as relay:
            async with caller.ready(relay.settings):
                await self._workflow(caller, relay)
            await self._graph.ainvoke({}, self._thread)
            await self._answer("LangGraph asks?", "thread", {"approved": "No", "note": "too early"}, relay)
            await _until_idle(self._graph, self._thread)
            answer = (await self._graph.aget_state(self._thread)).values["answer"]
            _expect("the thread", answer, {"approved": False, "note": "too early"})
            await self._tool_call(relay)
            await self._review(relay)

    async def _workflow(self, caller: TemporalCaller, relay: RunningRelay) -> None:
        options = {"task": "Temporal asks?", "payload": PAYLOAD, "assign_to": REVIEWER, "via": "signal"}
        handle = await caller.client.start_workflow(
            AskFor.run, args=[options, "Decision"], id=f"browser-{uuid.uuid4().hex}", task_queue=TASK_QUEUE
        )
        await self._answer("Temporal asks?", "workflow", {"approved": "Yes", "note": "fine"}, relay)
        _expect("the workflow", await handle.result(), {"approved": True, "note": "fine"})

    async def _tool_call(self, relay: RunningRelay) -> None:
        await self._agent.ainvoke({"messages": [HumanMessage("please")]}, self._agent_thread)
        entered = {"decision": "Edit", "new_amount": "12,50", "new_letter": f"{LETTER}\n\nBob"}
        await self._answer("May the agent run refund?", "tool-call", entered, relay, rows=["arguments / order: A-1"])
        await _until_idle(self._agent, self._agent_thread)
        _expect("the tool", self._paid, [("A-1", Decimal("12.50"), f"{LETTER}\n\nBob")])
        self._paid.clear()

    async def _review(self, relay: RunningRelay) -> None:
        """Two calls that LangChain's own middleware holds back: one is approved, one is rejected."""
        asks = HumanInterrupts(human_tasks=self._human_tasks, assign_to=REVIEWER)
        config = {**self._review_thread, "callbacks": [asks]}
        await self._reviewed.ainvoke({"messages": [HumanMessage("please")]}, config)
        entered = {"decision_1": "Approve", "decision_2": "Reject", "message_2": "too much"}
        rows = ["action_requests [1] / args / order: A-1", "action_requests [2] / args / order: A-2"]
        await self._answer("May the agent run refund, refund?", "review", entered, relay, rows=rows)
        await _until_idle(self._reviewed, self._review_thread)
        _expect("the reviewed tool", self._paid, [("A-1", Decimal(5), "x")])

    async def _answer(
        self, question: str, name: str, entered: Mapping[str, Entry], relay: RunningRelay, rows: list[str] | None = None
    ) -> None:
        (task,) = await self._people.find(question)
        await self._dashboard.open(task["id"])
        shown = await self._dashboard.rows()
        missing = [row for row in (ROWS if rows is None else rows) if row not in shown]
        _expect(f"rows of {name} that are missing in {shown}", missing, [])
        for field in task["form_definition"]["fields"]:
            if field.get("name"):
                await self._dashboard.fill(field, entered.get(field["name"]))
        await self._dashboard.screenshot(name)
        await self._dashboard.submit()
        await relay.check_now(task["id"])

    def _make_graph(self) -> Any:
        async def ask(state: State) -> State:
            answer = await await_human(
                task="LangGraph asks?",
                payload=PAYLOAD,
                assign_to=REVIEWER,
                response_schema=Decision,
                human_tasks=self._human_tasks,
            )
            return {"answer": answer.model_dump()}

        builder = StateGraph(State)
        builder.add_node("ask", ask)
        builder.add_edge(START, "ask")
        return builder.compile(checkpointer=InMemorySaver())

    def _make_agent(self, gate: Any, *calls: dict[str, str]) -> Any:
        def refund(order: str, amount: Decimal, letter: str) -> str:
            """Pay a refund and write a letter about it."""
            self._paid.append((order, amount, letter))
            return "paid"

        return create_agent(calling("refund", *calls), [refund], middleware=[gate], checkpointer=InMemorySaver())


async def _until_idle(graph: Any, config: Any) -> None:
    async with asyncio.timeout(60):
        while (await graph.aget_state(config)).tasks:
            await asyncio.sleep(0.1)


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")
