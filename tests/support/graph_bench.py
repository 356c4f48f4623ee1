"""A graph under test, and a caller that asks and delivers without a relay in between."""

import operator
import uuid
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph

from awaithumans_adapters.langgraph import GraphEngine, await_human
from awaithumans_core import HumanTasks, Outcome, Route
from awaithumans_relay.store import Store
from tests.support.people import People
from tests.support.workflows import Decision


class State(TypedDict, total=False):
    answers: Annotated[list[tuple[str, bool]], operator.add]
    round: int


class Bench:
    """A graph under test and its engine, with a caller that asks without a relay in between."""

    def __init__(self, saver: Any, human_tasks: HumanTasks, people: People) -> None:
        self.saver = saver
        self.human_tasks = human_tasks
        self.people = people
        self.thread_id = uuid.uuid4().hex
        self.config: Any = {"configurable": {"thread_id": self.thread_id}}
        self.acts: list[str] = []
        self.store: Store | None = None
        """The store of registered routes. If None, routes are made here without `asked_at`, as by earlier releases."""

    def graph(self, **nodes: Any) -> None:
        """Return a graph of parallel nodes, followed by `act`, which counts."""
        builder = StateGraph(State)
        for name, node in nodes.items():
            builder.add_node(name, node)
            builder.add_edge(START, name)
            builder.add_edge(name, "act")
        builder.add_node("act", self.act)
        builder.add_edge("act", END)
        self.use(builder)

    def use(self, builder: Any, **options: Any) -> None:
        self.run(builder.compile(checkpointer=self.saver), **options)

    def run(self, compiled: Any, **options: Any) -> None:
        self.compiled = compiled
        self.engine = GraphEngine({"bench": compiled}, **options)

    def act(self, state: State) -> State:
        self.acts.append("act")
        return {}

    async def ask(self, question: str) -> Decision:
        return await await_human(
            task=f"{question} {self.thread_id}", response_schema=Decision, human_tasks=self.human_tasks
        )

    async def task(self, question: str) -> dict[str, Any]:
        """Return the newest task with this question."""
        return (await self.people.find(f"{question} {self.thread_id}"))[0]

    async def give(self, question: str, approved: bool, *, redriven: bool = False) -> None:  # noqa: FBT001
        """Deliver an answer as the relay would, by itself or at an operator's request."""
        task = await self.task(question)
        await self.deliver(task["idempotency_key"], approved, task_id=task["id"], redriven=redriven)

    def route_of(self, key: str) -> Route:
        return Route("langgraph", dict(self.config["configurable"]), key)

    async def route(self, question: str) -> Route:
        """Return the route of the answer to the newest task with this question."""
        task = await self.task(question)
        return await self.registered(task["idempotency_key"], task["id"])

    async def registered(self, key: str, task_id: str) -> Route:
        """Return the route that the node has registered for this question."""
        waits = await self.store.queries.find(task_id) if self.store is not None else []
        return next((wait.route for wait in waits if wait.route.idempotency_key == key), self.route_of(key))

    async def deliver(
        self,
        key: str,
        approved: bool | None,  # noqa: FBT001
        task_id: str = "t",
        *,
        redriven: bool = False,
    ) -> None:
        """Deliver yes or no, or a timeout if it is None."""
        now = "2026-01-01T00:00:00Z"  # long ago, because the age of an answer must not matter
        ended = (
            {"status": "timed_out", "timed_out_at": now}
            if approved is None
            else {"status": "completed", "response": {"approved": approved}, "completed_at": now}
        )
        outcome = Outcome.model_validate({"task_id": task_id, "idempotency_key": key, **ended})
        bring = self.engine.redrive if redriven else self.engine.deliver
        await bring(await self.registered(key, task_id), outcome)

    async def answers(self) -> set[tuple[str, bool]]:
        return {tuple(answer) for answer in (await self.compiled.aget_state(self.config)).values["answers"]}
