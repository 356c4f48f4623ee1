"""A wait is parked only after two consecutive reads of its thread, also when a run was started before them."""

import json
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from awaithumans_adapters.langgraph import GraphEngine, LangGraphServerEngine
from awaithumans_adapters.langgraph.delivery.checkpoint_reader import Untaken
from awaithumans_adapters.langgraph.delivery.classification import Fact, Snapshot
from awaithumans_adapters.langgraph.graph_engine import deliveries
from awaithumans_adapters.langgraph.graph_engine.facts import GraphFacts
from awaithumans_core import Outcome, Route

KEY = "order-1"
NODE = "ask:00000000-0000-0000-0000-000000000000"
ROUTE = Route(
    "langgraph-server", {"thread_id": "t", "assistant_id": "a"}, KEY, asked_at={"": "the checkpoint that asked"}
)
OUTCOME = Outcome(task_id="1", status="completed", response={"approved": True}, idempotency_key=KEY)
QUESTION = {"id": "i", "value": {"awaithumans": 1, "idempotency_key": KEY, "checkpoint_ns": NODE}}
RECEIPT = {"key": "r", "value": {"run_id": "run", "checkpoint_ns": NODE}}


def state_with(*interrupts: Any) -> dict[str, Any]:
    tasks = [{"id": "1", "name": "ask", "error": None, "interrupts": interrupts, "result": None}]
    return {"interrupts": interrupts, "tasks": tasks, "metadata": {}, "next": [], "values": {}}


class ThreadApi(BaseHTTPRequestHandler):
    """The endpoints of a LangGraph server that a delivery calls, for one idle thread."""

    server: "OneThread"

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        match self.path.partition("?")[0].strip("/").split("/")[2:]:
            case []:
                self.server.reads += 1
                self.reply({"thread_id": "t", "status": "idle"})
            case ["state"]:
                self.reply(state_with(*([QUESTION] if self.server.shown else [])))
            case ["state", *_]:
                self.reply(state_with(QUESTION))
            case _:
                self.reply({}, 200 if self.server.run_stored else 404)

    def do_POST(self) -> None:
        self.server.requests.append(self.path)
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/runs"):
            self.reply({"detail": "the thread is busy"}, 409)
        elif self.path == "/store/items/search":
            self.reply({"items": [RECEIPT] if self.server.answered else []})
        else:
            self.reply(state_with(QUESTION))

    def do_DELETE(self) -> None:
        self.server.requests.append(f"DELETE {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.reply({})

    def reply(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class OneThread(ThreadingHTTPServer):
    """A server whose thread shows the question in its second read only, and has the answer from the fourth on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ThreadApi)
        self.reads = 0
        self.run_stored = True
        self.requests: list[str] = []

    @property
    def shown(self) -> bool:
        return self.reads == 2

    @property
    def answered(self) -> bool:
        return self.reads >= 4


@pytest.fixture
def server() -> Generator[OneThread]:
    server = OneThread()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def test_server_thread_is_read_twice_after_a_refused_run(server: OneThread) -> None:
    """Superseded, then shown, then a refused run, then superseded once more: the next read finds the answer taken."""
    engine = LangGraphServerEngine(f"http://127.0.0.1:{server.server_port}")
    await engine.deliver(ROUTE, OUTCOME)
    await engine.aclose()
    assert "/threads/t/runs" in server.requests
    assert server.answered


async def test_check_of_a_thread_deletes_no_receipt(server: OneThread) -> None:
    """A delivery deletes the receipt of a run that was rolled back. A check for an operator changes nothing."""
    server.run_stored, server.reads = False, 3
    engine = LangGraphServerEngine(f"http://127.0.0.1:{server.server_port}")
    assert "shows thread 't' and its receipts" in await engine.check_thread(ROUTE)
    await engine.aclose()
    assert "/store/items/search" in server.requests
    assert not [request for request in server.requests if request.startswith("DELETE")]


class State(TypedDict):
    pass


SUPERSEDED = {"shown_by": (), "answered": False, "ever_shown": True, "queued": False, "node_missing": False}
READS: list[dict[str, Any]] = [
    {**SUPERSEDED, "untaken": Untaken.REPLACED},
    {**SUPERSEDED, "queued": True, "shows_answered": True},
    {**SUPERSEDED, "untaken": Untaken.REPLACED},
    {"shown_by": (), "answered": True, "stopped_in": ()},
]
"""Superseded, then a question that a run has to show, then superseded once more, then answered."""


async def test_graph_thread_is_read_twice_after_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that should show the question is followed by two reads before the wait is parked."""
    reads, runs = iter(READS), 0

    class Scripted(GraphFacts):
        async def read(self, fact: Fact, found: Snapshot) -> Snapshot:
            assert fact is Fact.THREAD
            return found._replace(exists=True, **next(reads))

    def ask(_: Any) -> None:
        nonlocal runs
        runs += 1
        interrupt("the question of another node")

    builder: Any = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    graph: Any = builder.compile(checkpointer=InMemorySaver())
    await graph.ainvoke({}, {"configurable": {"thread_id": "t"}})
    monkeypatch.setattr(deliveries, "GraphFacts", Scripted)
    await GraphEngine({"graph": graph}).deliver(Route("langgraph", {"thread_id": "t"}, KEY), OUTCOME)
    assert runs == 2
    assert not list(reads)
