"""Which question an answer belongs to, for every kind of caller.

A person decides about one question: its key, payload, text, assignee and response class. A caller that asks another
question under the same key, or at the same place in a node, does not get that answer.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypedDict

import pytest
from devservers import HumansServer, TemporalServer
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from pydantic import BaseModel, Field

from awaithumans_adapters.langgraph import GraphEngine, await_human, await_human_sync
from awaithumans_core import (
    HumanTask,
    HumanTasks,
    Outcome,
    QuestionChangedError,
    Route,
    SyncTaskClient,
    TargetGone,
    TaskClient,
)
from awaithumans_core import await_human as script_await_human
from awaithumans_core import await_human_sync as script_await_human_sync
from awaithumans_core.binding import PAYLOAD_DIGEST, payload_digest
from awaithumans_core.display.request import displayed
from awaithumans_core.task import AGAIN
from tests.support.callers import TemporalCaller
from tests.support.people import People
from tests.support.relay import RunningRelay
from tests.support.workflows import TASK_QUEUE, Amount, AskFor, Decision

pytestmark = pytest.mark.edges

Options = dict[str, Any]
Ask = Callable[[Options], Awaitable[Any]]

TEXT = "Refund $5?"
ASKED: Options = {
    "task": TEXT,
    "payload": {"order": "A-1"},
    "assign_to": "anna@example.com",
    "response_schema": Decision,
}


class Reworded(BaseModel):
    """The fields of `Decision`, but one has another meaning for the person who reads its label."""

    approved: bool = Field(title="Refuse it")
    note: str | None = None


CHANGES: dict[str, tuple[str, Options]] = {
    "text": ("task", {"task": "Refund $5,000,000?"}),
    "text that looks like a re-ask": ("task", {"task": f"{TEXT}{AGAIN}the amount is $5,000,000)"}),
    "payload": ("payload", {"payload": {"order": "A-2"}}),
    "order of a payload's list": ("payload", {"payload": {"order": "A-1", "items": ["b", "a"]}}),
    "assignee": ("assign_to", {"assign_to": "bob@example.com"}),
    "no assignee": ("assign_to", {"assign_to": None}),
    "response class": ("response_schema", {"response_schema": Amount}),
}
"""Changes by an attacker, a model or a new release, each with the name of the changed part."""
CALLERS = ["script", "script-sync", "batch", "batch-sync", "langgraph", "langgraph-sync", "signal", "activity"]


@pytest.fixture(scope="module")
async def temporal_caller(temporal: TemporalServer, registrar: RunningRelay) -> AsyncGenerator[TemporalCaller]:
    asker = TemporalCaller(temporal.address)
    async with asker.ready(registrar.settings):
        yield asker


def node_of(options: Options, human_tasks: HumanTasks, acts: list[Any], *, sync: bool) -> Any:
    """Return a node that asks and then acts."""
    given: Options = {**options, "human_tasks": human_tasks}

    async def asks(state: Options) -> Options:
        acts.append(await await_human(**given))
        return {}

    def asks_sync(state: Options) -> Options:
        acts.append(await_human_sync(**given))
        return {}

    return asks_sync if sync else asks


class State(TypedDict, total=False):
    done: bool


def graph_of(node: Any, saver: Any) -> Any:
    builder = StateGraph(State)
    builder.add_node("asks", node)
    builder.add_edge(START, "asks")
    return builder.compile(checkpointer=saver)


async def run(graph: Any, thread_id: str, *, sync: bool) -> None:
    config = {"configurable": {"thread_id": thread_id}}
    await (asyncio.to_thread(graph.invoke, {}, config) if sync else graph.ainvoke({}, config))


@pytest.fixture(params=CALLERS)
def ask(request: pytest.FixtureRequest, humans: HumansServer) -> Ask:
    """Return one way of asking; the caller passes every option."""
    caller: str = request.param
    registrar: RunningRelay | None = request.getfixturevalue("registrar") if caller.startswith("langgraph") else None
    workflows: TemporalCaller | None = (
        request.getfixturevalue("temporal_caller") if caller in ("signal", "activity") else None
    )
    address: Options = {"server_url": humans.url, "api_key": humans.token}

    async def ask_by_script(options: Options) -> Any:
        if caller == "script":
            return await script_await_human(**address, **options)
        return await asyncio.to_thread(lambda: script_await_human_sync(**address, **options))

    async def ask_by_client(options: Options) -> Any:
        if caller == "batch":
            async with TaskClient(humans.url, humans.token) as client:
                return (await client.wait_all([HumanTask(**options)]))[0].result()
        with SyncTaskClient(humans.url, humans.token) as client:
            return (await asyncio.to_thread(client.wait_all, [HumanTask(**options)]))[0].result()

    async def ask_by_graph(options: Options) -> Any:
        assert registrar is not None
        acts: list[Any] = []
        graph = graph_of(node_of(options, registrar.human_tasks(), acts, sync=caller != "langgraph"), InMemorySaver())
        await run(graph, uuid.uuid4().hex, sync=caller != "langgraph")
        return acts[0]

    async def ask_by_workflow(options: Options) -> Any:
        assert workflows is not None
        given = {**options, "via": caller}
        schema = given.pop("response_schema")
        made = await workflows.client.execute_workflow(
            AskFor.run, args=[given, schema.__name__], id=f"binding-{uuid.uuid4().hex}", task_queue=TASK_QUEUE
        )
        if "differs" in made:
            raise QuestionChangedError("in the workflow", differs=made["differs"])
        return schema(**made)

    by_kind = {"script": ask_by_script, "batch": ask_by_client, "langgraph": ask_by_graph}
    return by_kind.get(caller.removesuffix("-sync"), ask_by_workflow)


@pytest.fixture(scope="module")
async def answered_key(humans: HumansServer) -> str:
    """Return the key of a question that a person has answered with yes."""
    key = f"key-{uuid.uuid4().hex}"
    person = People(humans)
    async with TaskClient(humans.url, humans.token) as client:
        task = await client.create(HumanTask(**ASKED, idempotency_key=key))
    await person.complete(task.task_id, {"approved": True})
    await person.aclose()
    return key


async def test_shared_key_returns_the_answer_to_the_same_question(ask: Ask, answered_key: str) -> None:
    """The same key and question return the stored answer, whatever the timeout and the case of an address."""
    same = {**ASKED, "assign_to": {"emails": ["Anna@example.com"]}, "timeout_seconds": 900}
    assert await ask({**same, "idempotency_key": answered_key}) == Decision(approved=True)


async def test_shared_key_of_another_question_is_refused(ask: Ask, answered_key: str) -> None:
    """The same key with another question raises a typed error that names the changed part, without the answer."""

    async def refused(change: Options) -> list[str]:
        with pytest.raises(QuestionChangedError) as changed:
            await ask({**ASKED, **change, "idempotency_key": answered_key})
        return list(changed.value.differs)

    found = await asyncio.gather(*(refused(change) for _, change in CHANGES.values()))
    assert dict(zip(CHANGES, found, strict=True)) == {name: [part] for name, (part, _) in CHANGES.items()}


# --- payloads that people read as rows

NESTED: Options = {**ASKED, "payload": {"order": {"id": "A-1", "items": ["a", "b"]}}}


@pytest.mark.parametrize("layout", ["of this release", "of an earlier release", "of another release"])
async def test_shared_key_does_not_depend_on_the_layout_of_the_payload(
    ask: Ask, humans: HumansServer, people: People, layout: str
) -> None:
    """The record of another release, with or without rows, is the same question; another payload is another one."""
    key = f"key-{uuid.uuid4().hex}"
    body = HumanTask(**NESTED, idempotency_key=key).body()
    if layout == "of another release":
        schema = {**body["payload_schema"], PAYLOAD_DIGEST: payload_digest(body["payload"])}
        body |= {"payload": {"order": "A-1 with a and b"}, "payload_schema": schema}
    sent = displayed(body) if layout == "of this release" else body
    task = (await people.http.post("/api/tasks", json=sent)).raise_for_status().json()
    await people.complete(task["id"], {"approved": True})
    assert await ask({**NESTED, "idempotency_key": key}) == Decision(approved=True)
    with pytest.raises(QuestionChangedError) as changed:
        await ask({**NESTED, "payload": {"order": {"id": "A-2", "items": ["a", "b"]}}, "idempotency_key": key})
    assert list(changed.value.differs) == ["payload"]


# --- nodes, which run again from their start


class EarlierSaver(InMemorySaver):
    """Drop the question digests from checkpoints, as a node of an earlier release left them."""

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        kept = [(channel, _of_earlier_release(value)) for channel, value in writes]
        super().put_writes(config, kept, task_id, task_path)

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self.put_writes(config, writes, task_id, task_path)


def _of_earlier_release(value: Any) -> Any:
    if not isinstance(value, dict) or "subject" not in value:
        return value
    return {name: part for name, part in value.items() if name not in ("asked", "task")}


class Thread:
    """A graph with one node that asks and whose options each release can change; tests deliver its answers."""

    def __init__(self, registrar: RunningRelay, people: People, *, sync: bool) -> None:
        self.acts: list[Any] = []
        self.task: dict[str, Any] = {}
        self._relay, self._people, self._sync = registrar, people, sync
        self.saver = InMemorySaver()
        self._name = uuid.uuid4().hex

    def _release(self, options: Options) -> Any:
        return graph_of(node_of(options, self._relay.human_tasks(), self.acts, sync=self._sync), self.saver)

    async def ask(self, options: Options) -> None:
        """Ask the question with the first options."""
        await run(self._release(options), self._name, sync=self._sync)
        listed = (await self._people.http.get("/api/tasks", params={"limit": 50})).json()
        (self.task,) = [task for task in listed if self._name in task["idempotency_key"]]

    async def resume(self, options: Options) -> None:
        """Deliver a person's yes to a node that now has these options."""
        key = self.task["idempotency_key"]
        outcome = Outcome(task_id=self.task["id"], idempotency_key=key, status="completed", response={"approved": True})
        await GraphEngine({"asks": self._release(options)}).deliver(
            Route("langgraph", {"thread_id": self._name}, key), outcome
        )


@pytest.fixture(params=["async", "sync"])
def thread(request: pytest.FixtureRequest, registrar: RunningRelay, people: People) -> Thread:
    return Thread(registrar, people, sync=request.param == "sync")


REWORDED = {**CHANGES, "meaning of a field": ("response_schema", {"response_schema": Reworded})}


async def test_node_that_asks_another_question_on_resume_is_refused(thread: Thread) -> None:
    """A node that asks something else on resume gets no answer until it asks the approved question again."""
    await thread.ask(ASKED)
    for part, change in REWORDED.values():
        with pytest.raises(TargetGone, match=f"differs in {part} .*{thread.task['id']}.*may_reword=True"):
            await thread.resume({**ASKED, **change})
    assert thread.acts == []
    await thread.resume(ASKED)
    assert thread.acts == [Decision(approved=True)]


async def test_open_question_of_a_node_survives_another_default_timeout(thread: Thread) -> None:
    """A checkpoint of a release with another default holds the same question."""
    await thread.ask({**ASKED, "timeout_seconds": 900})
    await thread.resume(ASKED)
    assert thread.acts == [Decision(approved=True)]


async def test_node_may_opt_in_to_other_words(thread: Thread) -> None:
    """With `may_reword=True` the answer is taken although text, assignee or response class differ."""
    await thread.ask(ASKED)
    other = {"task": "Refund $6?", "assign_to": "bob@example.com", "response_schema": Reworded}
    await thread.resume({**ASKED, **other, "may_reword": True})
    assert thread.acts == [Reworded(approved=True)]


@pytest.mark.parametrize(
    ("first", "change"),
    [(ASKED, CHANGES["payload"][1]), ({**ASKED, "payload": None}, CHANGES["text"][1])],
    ids=["payload", "text without payload"],
)
async def test_may_reword_does_not_cover_the_payload(thread: Thread, first: Options, change: Options) -> None:
    """The payload, or the text of a question without a payload, must be unchanged in any case."""
    await thread.ask({**first, "may_reword": True})
    with pytest.raises(TargetGone, match="differs in"):
        await thread.resume({**first, **change, "may_reword": True})
    assert thread.acts == []


async def test_checkpoint_of_an_earlier_release_is_compared_by_its_payload(thread: Thread) -> None:
    """A thread that asked before an update gets its answer if the payload is unchanged."""
    thread.saver = EarlierSaver()
    await thread.ask(ASKED)
    with pytest.raises(TargetGone, match="differs in payload"):
        await thread.resume({**ASKED, **CHANGES["payload"][1]})
    await thread.resume({**ASKED, **CHANGES["text"][1]})
    assert thread.acts == [Decision(approved=True)]


async def test_reworded_question_does_not_block_the_answer_to_its_sibling(
    registrar: RunningRelay, people: People
) -> None:
    """A node that runs again takes the sibling's answer, and its reworded question keeps waiting."""
    acts: list[str] = []
    name, runs = uuid.uuid4().hex, iter(range(9))
    human_tasks = registrar.human_tasks()

    async def steady(state: State) -> State:
        await await_human(task=f"Steady {name}?", response_schema=Decision, human_tasks=human_tasks)
        acts.append("steady")
        return {}

    async def rewording(state: State) -> State:
        await await_human(task=f"Version {next(runs)} {name}?", response_schema=Decision, human_tasks=human_tasks)
        acts.append("rewording")
        return {}

    builder = StateGraph(State)
    for node, work in {"steady": steady, "rewording": rewording}.items():
        builder.add_node(node, work)
        builder.add_edge(START, node)
    graph = builder.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": name}}
    await graph.ainvoke({}, config)

    async def deliver(question: str) -> None:
        (task,) = await people.find(question)
        key = task["idempotency_key"]
        yes = Outcome(task_id=task["id"], idempotency_key=key, status="completed", response={"approved": True})
        await GraphEngine({"both": graph}).deliver(Route("langgraph", {"thread_id": name}, key), yes)

    await deliver(f"Steady {name}?")
    assert acts == ["steady"]
    (waiting,) = (await graph.aget_state(config)).interrupts
    assert waiting.value["task"] == f"Version 0 {name}?"
    with pytest.raises(TargetGone, match="differs in task"):
        await deliver(f"Version 0 {name}?")
    assert acts == ["steady"]
