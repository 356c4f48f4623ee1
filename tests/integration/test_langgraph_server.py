"""Threads of a real LangGraph server: busy, failing, superseded, answered twice, and left by a killed relay."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, RelayServer, free_port, started
from fastapi import FastAPI
from httpx import ConnectError

from awaithumans_adapters.langgraph import LangGraphServerEngine, ServerTarget
from awaithumans_adapters.langgraph.delivery.classification import Case, read_case
from awaithumans_adapters.langgraph.delivery.rules import CONTINUED, DECIDED, UPDATED
from awaithumans_adapters.langgraph.server_engine.facts import ServerFacts
from awaithumans_core import HumanTasks, Outcome, Route, SettingsError, TargetGone, TargetNotReady
from awaithumans_core.engine import RelayNotReady
from awaithumans_relay.store import Store
from tests.support import served_graphs
from tests.support.langgraph_server import LangGraphServer, ServedCaller
from tests.support.people import People
from tests.support.relay import RunningRelay, served

ROOT = Path(__file__).resolve().parents[2]


class Bench:
    """A thread of the server, two engines that can resume it, and a person whose answers need no relay."""

    def __init__(self, server: LangGraphServer, people: People) -> None:
        self.client = server.client()
        self.engine, self.other = LangGraphServerEngine(server.url), LangGraphServerEngine(server.url)
        self.people = people
        self._acts = server.acts
        self.name = uuid.uuid4().hex[:8]
        self.question = f"{self.name}?"

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.engine.aclose()
        await self.other.aclose()

    async def ask(self, graph: str = "one", *more: str, wait: bool = True, **options: Any) -> None:
        if not hasattr(self, "thread_id"):
            self.thread_id = (await self.client.threads.create())["thread_id"]
        state: dict[str, Any] = {"name": self.name, "questions": [self.question, *more], "answers": []}
        run = await self.client.runs.create(self.thread_id, graph, input=state, **options)
        self.assistant_id, self.run_id = run["assistant_id"], run["run_id"]
        if wait:
            await self.client.runs.join(self.thread_id, run["run_id"])

    async def answer(self, approved: bool, question: str | None = None) -> tuple[Route, Outcome]:  # noqa: FBT001
        (task,) = await self.people.find(question or self.question)
        key = task["idempotency_key"]
        outcome = Outcome(task_id=task["id"], status="completed", response={"approved": approved}, idempotency_key=key)
        target = {"thread_id": self.thread_id, "assistant_id": self.assistant_id}
        return Route("langgraph-server", target, key, caller={"run_id": self.run_id}), outcome

    async def give(self, approved: bool, question: str | None = None) -> None:  # noqa: FBT001
        await self.engine.deliver(*await self.answer(approved, question))

    async def values(self) -> Any:
        return (await self.client.threads.get_state(self.thread_id))["values"]

    def directed(self, do: str) -> Path:
        """Direct the nodes by a file until it is removed."""
        file = self._acts.with_name(f"{self.name}-{do}")
        file.touch()
        return file

    def did(self, what: str) -> int:
        return self._acts.read_text().splitlines().count(f"{self.name} {what}") if self._acts.exists() else 0

    async def until(self, what: str) -> None:
        async with asyncio.timeout(60):
            while not self.did(what):
                await asyncio.sleep(0.05)


@pytest.fixture
async def bench(served_relay: RunningRelay, langgraph_server: LangGraphServer, people: People) -> AsyncGenerator[Bench]:
    made = Bench(langgraph_server, people)
    yield made
    await made.aclose()


async def test_sync_node_asks_and_gets_its_answer(
    served_relay: RunningRelay, langgraph_server: LangGraphServer, people: People
) -> None:
    """A sync node asks and records its answer, as an async one does."""
    asker = ServedCaller(langgraph_server, "ask_sync")
    async with asker.ready(served_relay.settings):
        asked = await asker.ask("sync?")
        (task,) = await people.find("sync?")
        key = task["idempotency_key"]
        outcome = Outcome(task_id=task["id"], status="completed", response={"approved": True}, idempotency_key=key)
        for _ in range(2):
            await asker.engine.deliver(asked.route(key), outcome)
        assert (await asked.result())["approved"] is True
        assert asker.acts[asked.name] == 1


async def test_langgraph_api_version_names_a_served_run(bench: Bench, served_relay: RunningRelay) -> None:
    """This metadata name shows a node that a server runs it; without it the route would name the other engine."""
    await bench.ask()
    (task,) = await bench.people.find(bench.question)
    (wait,) = await served_relay.store.queries.find(task["id"])
    assert wait.route.engine == "langgraph-server"


async def test_run_without_a_thread_is_refused(bench: Bench) -> None:
    """A stateless run could not be resumed, so it raises an error before a task is created."""
    state: dict[str, Any] = {"name": bench.name, "options": {"task": bench.question}}
    values: Any = await bench.client.runs.wait(None, "ask", input=state)
    assert values["told"]["error"] == "SettingsError"
    assert await bench.people.find(bench.question, count=0) == []


@pytest.mark.edges
async def test_question_in_an_error_handler_is_refused(bench: Bench) -> None:
    """The server does not show the question of an error handler, so no task is created."""
    await bench.ask("handles")
    run: Any = await bench.client.runs.get(bench.thread_id, bench.run_id)
    assert run["status"] == "error"
    assert await bench.people.find(bench.question, count=0) == []


async def test_parallel_questions_one_in_a_subgraph_get_their_own_answers(bench: Bench) -> None:
    """Each answer reaches its own question, in any order."""
    inner = f"{bench.name} inner?"
    await bench.ask("two", inner)
    await bench.give(False, inner)
    await bench.give(False, inner)
    assert bench.did("acts") == 0
    await bench.give(True)
    answers = {tuple(answer) for answer in (await bench.values())["answers"]}
    assert answers == {(bench.question, True), (inner, False)}
    assert bench.did("acts") == 1


async def test_gathered_questions_of_one_node_are_answered_in_any_order(bench: Bench) -> None:
    """The node shows one question at a time; the answer to the other is delivered at once, and once."""
    other = f"{bench.name} other?"
    await bench.ask("gathered", other)
    (shown,) = (await bench.client.threads.get_state(bench.thread_id))["interrupts"]
    first = shown["value"]["task"]
    hidden = {bench.question: other, other: bench.question}[first]
    for _ in range(2):
        await bench.give(False, hidden)
        assert bench.did("acts") == 0
        assert await bench.engine.orphaned((await bench.answer(True, first))[0]) is None
    await bench.give(True, first)
    assert {tuple(answer) for answer in (await bench.values())["answers"]} == {(first, True), (hidden, False)}
    assert bench.did("acts") == 1


@pytest.mark.edges
async def test_quorum_in_a_node_cancels_the_third_task(bench: Bench, people: People) -> None:
    """Two approvals of three decide in any order, the third task is cancelled, and the node acts once."""
    people_asked = ["anna", "ben", "carla"]
    await bench.ask("decides", *people_asked)
    for person in ("carla", "ben"):
        assert bench.did("acts") == 0
        await bench.give(True, f"{bench.name} {person}")
    assert (await bench.values())["answers"] == [["decided", True]]
    (unneeded,) = await people.find(f"{bench.name} anna")
    assert unneeded["status"] == "cancelled"
    route, outcome = await bench.answer(True, f"{bench.name} anna")
    assert await bench.engine.orphaned(route) == DECIDED
    with pytest.raises(TargetGone, match="has decided"):
        await bench.engine.deliver(route, outcome)
    assert bench.did("acts") == 1


@pytest.mark.edges
async def test_update_state_supersedes_an_open_question(bench: Bench) -> None:
    """A late answer to the superseded question is parked with the reason."""
    await bench.ask()
    route, outcome = await bench.answer(True)
    await bench.client.threads.update_state(bench.thread_id, {"tenant": "another"})
    assert await bench.engine.orphaned(route) == UPDATED
    with pytest.raises(TargetGone, match="update_state has replaced"):
        await bench.engine.deliver(route, outcome)


@pytest.mark.edges
@pytest.mark.parametrize("more", [(), ("other?",)], ids=["ended", "waits for another"])
async def test_swallowed_question_is_orphaned(bench: Bench, more: tuple[str, ...]) -> None:
    """A node that continues without its answer leaves an orphaned wait, and a late answer is parked."""
    others = [f"{bench.name} {question}" for question in more]
    await bench.ask("swallows", *others)
    for rounds in range(1 + len(others)):
        route, outcome = await bench.answer(True)
        assert await bench.engine.orphaned(route) == CONTINUED
        with pytest.raises(TargetGone) as gone:
            await bench.engine.deliver(route, outcome)
        assert gone.value.text == CONTINUED
        if rounds < len(others):
            assert await bench.engine.orphaned((await bench.answer(True, others[0]))[0]) is None
            await bench.give(False, others[0])
    assert [bench.did(what) for what in ("goes on", "acts")] == [len(others), 1]


async def test_answer_waits_for_a_running_branch(bench: Bench) -> None:
    """While a branch beside the question runs the answer waits, and the branch runs once."""
    slow = bench.directed("slow")
    await bench.ask(wait=False)
    answer = await bench.answer(True)
    await bench.until("slow")
    giving = [asyncio.create_task(engine.deliver(*answer)) for engine in (bench.engine, bench.other)]
    await asyncio.wait(giving, timeout=0.7)
    assert bench.did("goes on") == 0
    slow.unlink()
    await asyncio.gather(*giving)
    assert [bench.did(what) for what in ("slow", "goes on", "acts")] == [1, 1, 1]


async def test_answer_to_a_superseded_question_is_parked(bench: Bench) -> None:
    """New input replaces the interrupt, and the old answer is delivered to no question."""
    await bench.ask()
    old = await bench.answer(True)
    bench.question = f"{bench.name} again?"
    await bench.ask()
    with pytest.raises(TargetGone, match="moved on"):
        await bench.engine.deliver(*old)
    assert bench.did("goes on") == 0
    await bench.give(False)
    assert [tuple(answer) for answer in (await bench.values())["answers"]] == [(bench.question, False)]


async def test_answer_to_an_unknown_thread_is_tried_later(bench: Bench) -> None:
    """A missing thread is not ready, and no run is started for it."""
    await bench.ask()
    answer = await bench.answer(True)
    await bench.client.threads.delete(bench.thread_id)
    with pytest.raises(TargetNotReady, match=bench.thread_id):
        await bench.engine.deliver(*answer)
    assert bench.did("goes on") == 0


@pytest.mark.edges
async def test_question_of_a_deleted_thread_is_orphaned(bench: Bench) -> None:
    """A thread seen before and missing at two checks was deleted, and its answer is parked with that reason."""
    await bench.ask()
    route, outcome = await bench.answer(True)
    assert await bench.engine.orphaned(route) is None
    await bench.client.threads.delete(bench.thread_id)
    assert await bench.engine.orphaned(route) is None
    assert "deleted" in (await bench.engine.orphaned(route) or "")
    with pytest.raises(TargetGone, match="deleted"):
        await bench.engine.deliver(route, outcome)
    assert [await bench.other.orphaned(route) for _ in range(3)] == [None] * 3


@pytest.mark.edges
async def test_superseded_question_is_found_by_the_checkpoint_in_its_route(
    bench: Bench, served_relay: RunningRelay
) -> None:
    """It takes one read of the checkpoint that asked, however long the history is."""
    await bench.ask()
    (task,) = await bench.people.find(bench.question)
    (wait,) = await served_relay.store.queries.find(task["id"])
    assert wait.route.asked_at is not None
    assert await bench.engine.orphaned(wait.route) is None
    bench.question = f"{bench.name} again?"
    await bench.ask()
    assert "moved on" in (await bench.engine.orphaned(wait.route) or "")


@pytest.mark.edges
async def test_copied_thread_asks_its_own_question(bench: Bench, served_relay: RunningRelay) -> None:
    """The copy of a thread with an open question asks anew when it runs, and each takes its own answer."""
    await bench.ask()
    original, yes = await bench.answer(True)
    threads: Any = bench.client.threads
    thread_id = (await threads.copy(bench.thread_id))["thread_id"]
    run = await bench.client.runs.create(thread_id, "one", input=None)
    await bench.client.runs.join(thread_id, run["run_id"])
    tasks = await bench.people.find(bench.question, count=2)
    (own,) = [task for task in tasks if task["idempotency_key"] != original.idempotency_key]
    (wait,) = await served_relay.store.queries.find(own["id"])
    assert wait.route.target["thread_id"] == thread_id
    no = yes.model_copy(update={"idempotency_key": own["idempotency_key"], "response": {"approved": False}})
    await bench.engine.deliver(wait.route, no)
    await bench.engine.deliver(original, yes)
    answers = [(await threads.get_state(each))["values"] for each in (thread_id, bench.thread_id)]
    assert [each["answers"][0][1] for each in answers] == [False, True]


async def test_node_that_fails_before_its_question_gets_the_answer_later(bench: Bench) -> None:
    """A node that fails before its question has not taken the answer, so it is delivered again."""
    await bench.ask()
    stumble = bench.directed("stumble")
    with pytest.raises(RuntimeError, match="the shop is unreachable"):
        await bench.give(True)
    stumble.unlink()
    await bench.give(True)
    assert [bench.did(what) for what in ("goes on", "acts")] == [1, 1]


async def test_node_that_fails_after_the_answer_is_not_run_again(bench: Bench) -> None:
    """The wait keeps the error, no delivery runs the node again, and a redrive does once."""
    await bench.ask()
    broken = bench.directed("break")
    answer = await bench.answer(True)
    at_once = await asyncio.gather(bench.engine.deliver(*answer), bench.other.deliver(*answer), return_exceptions=True)
    assert all(isinstance(raised, TargetGone) for raised in at_once)
    with pytest.raises(TargetGone, match=r"node 'first' failed \(ZeroDivisionError"):
        await bench.engine.deliver(*answer)
    assert bench.did("goes on") == 1
    with pytest.raises(TargetGone, match="Fix it and redrive"):
        await bench.engine.redrive(*answer)
    assert bench.did("goes on") == 2
    broken.unlink()
    for _ in range(2):
        await bench.engine.redrive(*answer)
    await bench.engine.deliver(*answer)
    assert (bench.did("goes on"), bench.did("acts")) == (3, 1)


@pytest.mark.edges
async def test_check_reports_whether_the_server_is_reachable(bench: Bench) -> None:
    """The doctor's check wakes no caller, and fails for an unreachable server."""
    await bench.engine.check()
    away = LangGraphServerEngine("http://127.0.0.1:1")
    with pytest.raises(ConnectError):
        await away.check()
    await away.aclose()


async def test_engine_works_in_successive_event_loops(langgraph_server: LangGraphServer) -> None:
    """A restarted application, or a relay in its own thread, uses no connection of another loop."""
    engine = LangGraphServerEngine(langgraph_server.url)
    for _ in range(2):
        await asyncio.to_thread(lambda: asyncio.run(engine.check()))
        await engine.check()
    await engine.aclose()


async def test_server_refuses_a_second_resume(bench: Bench) -> None:
    """A relay that was delayed after its read cannot resume what another one has resumed."""
    await bench.ask()
    bench.directed("break")
    (route, outcome) = await bench.answer(True)
    (shown,) = (await bench.client.threads.get_state(bench.thread_id))["interrupts"]
    with pytest.raises(TargetGone):
        await bench.engine.deliver(route, outcome)
    late = await bench.client.runs.create(
        bench.thread_id,
        bench.assistant_id,
        command={"resume": {shown["id"]: outcome.value()}},
        metadata={"awaithumans_key": route.idempotency_key},
    )
    await bench.client.runs.join(bench.thread_id, late["run_id"])
    assert bench.did("goes on") == 1


async def test_failed_node_delays_the_answer_to_its_sibling(bench: Bench) -> None:
    """LangGraph reruns every unfinished node of a step, so the second answer waits until the first node is fixed."""
    inner = f"{bench.name} inner?"
    await bench.ask("two", inner)
    broken = bench.directed("break")
    with pytest.raises(TargetGone, match="node 'first' failed"):
        await bench.give(True)
    with pytest.raises(TargetNotReady, match="beside the question, node 'first' failed"):
        await bench.give(True, inner)
    broken.unlink()
    assert bench.did("goes on") == 1
    await bench.client.runs.wait(bench.thread_id, "two", input=None)
    await bench.give(True, inner)
    assert bench.did("acts") == 1


async def test_node_that_rewords_its_question_on_resume_gets_no_answer(bench: Bench) -> None:
    """The wait is parked with the difference; once the node asks the same again, it acts once."""
    await bench.ask()
    reworded = bench.directed("reword")
    with pytest.raises(TargetGone, match="differs in task"):
        await bench.give(True)
    assert bench.did("goes on") == 0
    reworded.unlink()
    await bench.give(True)
    assert [bench.did(what) for what in ("goes on", "acts")] == [1, 1]


async def test_run_retried_by_the_server_keeps_its_answer(bench: Bench) -> None:
    """If a run loses its worker the server restarts it, and the node still gets its answer."""
    await bench.ask()
    bench.directed("drop")
    await bench.give(True)
    assert [bench.did(what) for what in ("goes on", "acts")] == [2, 1]


@pytest.mark.parametrize(
    "given",
    [{"context": {"tenant": "acme"}}, {"config": {"configurable": {"tenant": "acme"}}}],
    ids=["context", "configurable"],
)
async def test_resumed_run_has_the_context_of_the_asking_run(bench: Bench, given: dict[str, Any]) -> None:
    """A node continues for the same tenant for which it asked."""
    await bench.ask(**given)
    await bench.give(True)
    assert (await bench.values())["tenant"] == "acme"


ASKED_WITH: dict[str, Any] = {
    "metadata": {"order": "4711"},
    "config": {"tags": ["refunds"], "recursion_limit": 17, "configurable": {"tenant": "acme"}},
    "interrupt_before": ["act"],
    "stream_mode": ["updates", "custom"],
    "stream_subgraphs": True,
    "stream_resumable": True,
    "durability": "exit",
}


def _stays(run: Any) -> dict[str, Any]:
    """Return the options of a run, from its record."""
    kwargs, config = run["kwargs"], run["kwargs"]["config"]
    names = ("webhook", "interrupt_before", "interrupt_after", "stream_mode", "subgraphs", "resumable", "durability")
    given = {name: kwargs[name] for name in names}
    own = {"tags": config["tags"], "recursion_limit": config["recursion_limit"], "order": run["metadata"].get("order")}
    return given | own | {"tenant": config["configurable"].get("tenant")}


async def test_resumed_run_keeps_the_options_of_the_asking_run(bench: Bench) -> None:
    """Webhook, limits, tags, metadata, breakpoints, streaming and durability are kept; both runs call the webhook."""
    calls: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    app = FastAPI()

    @app.post("/ended")
    async def ended(run: dict[str, Any]) -> None:
        calls.put_nowait(run)

    port = free_port()
    async with served(app, port, log_level="warning"):
        await bench.ask(**ASKED_WITH, webhook=f"http://127.0.0.1:{port}/ended")
        await bench.give(True)
        resumed, asked = await bench.client.runs.list(bench.thread_id)
        assert _stays(resumed) == _stays(asked)
        assert _stays(asked)["recursion_limit"] == 17
        assert (await bench.client.threads.get_state(bench.thread_id))["next"] == ["act"]
        async with asyncio.timeout(20):
            assert {(await calls.get())["run_id"] for _ in range(2)} == {asked["run_id"], resumed["run_id"]}
    assert bench.did("acts") == 0


async def test_continuation_is_streamed_by_the_server(bench: Bench) -> None:
    """A stream joined while the question is open shows the resumed run and no internal task."""
    await bench.ask(stream_mode=["updates", "tasks"])
    parts: list[Any] = []

    async def join() -> None:
        async for part in await bench.client.threads.join_stream(bench.thread_id):
            parts.append(part)
            if part.event.startswith("updates") and "act" in part.data:
                return

    joined = asyncio.create_task(join())
    await asyncio.sleep(0.2)
    await bench.give(True)
    async with asyncio.timeout(20):
        await joined
    updates = [part.data for part in parts if part.event == "updates"]
    assert [node for update in updates for node in update][-2:] == ["first", "act"]
    assert "awaithumans_open_wait" not in str(parts)


@pytest.mark.edges
async def test_hook_can_change_the_resumed_run(bench: Bench, langgraph_server: LangGraphServer) -> None:
    """The hook receives the target and the run's options, and its return value is used."""

    async def other(target: ServerTarget, options: dict[str, Any]) -> dict[str, Any]:
        assert target.thread_id == bench.thread_id
        assert options["config"]["tags"] == ["refunds"]
        return {**options, "metadata": {"order": "0815"}, "durability": "sync", "interrupt_before": None}

    await bench.ask(**ASKED_WITH)
    engine = LangGraphServerEngine(langgraph_server.url, run_options=other)
    await engine.deliver(*await bench.answer(True))
    await engine.aclose()
    runs: Any = await bench.client.runs.list(bench.thread_id)
    resumed = runs[0]
    assert _stays(resumed) | {"order": "0815"} == _stays(resumed)
    assert (bench.did("acts"), resumed["kwargs"]["durability"]) == (1, "sync")


@pytest.mark.edges
async def test_hook_cannot_change_the_answer(bench: Bench, langgraph_server: LangGraphServer) -> None:
    """An option that carries the answer is refused, and the thread keeps waiting."""
    await bench.ask()
    engine = LangGraphServerEngine(langgraph_server.url, run_options=lambda _, options: {**options, "command": {}})
    with pytest.raises(SettingsError, match=r"returned the options command: only config, context"):
        await engine.deliver(*await bench.answer(True))
    await engine.aclose()
    await bench.give(True)
    assert bench.did("acts") == 1


@pytest.mark.edges
async def test_threads_end_once_after_the_relay_is_killed(
    humans: HumansServer,
    langgraph_server: LangGraphServer,
    people: People,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One thread in the relay's process and one on the server have their answers when the relay is killed."""
    settings, folder = langgraph_server.settings, tmp_path / "relay"
    env = {"CHECKPOINTS": str(tmp_path / "threads.db"), "ACTS": str(langgraph_server.acts), "PYTHONPATH": str(ROOT)}
    served_relay = RelayServer(
        folder,
        humans,
        [
            *("--graph", "one=tests.support.served_graphs:one_on_disk", "--graph-context", "none"),
            *("--langgraph-server", langgraph_server.url),
        ],
        secret=settings.relay_secret[0].get_secret_value(),
        env=env,
        port=langgraph_server.relay_port,
    )
    for name in ("CHECKPOINTS", "ACTS"):
        monkeypatch.setenv(name, env[name])
    here, there = Bench(langgraph_server, people), Bench(langgraph_server, people)
    async with started(served_relay):
        watch = RunningRelay(served_relay.url, settings, Store(f"sqlite:///{folder / 'awaithumans-relay.db'}"))
        async with served_graphs.one_on_disk(HumanTasks(settings)) as graph:
            state = {"name": here.name, "questions": [here.question], "answers": []}
            await graph.ainvoke(state, {"configurable": {"thread_id": here.name}})
        await there.ask()
        holds = [bench.directed("hold") for bench in (here, there)]
        tasks = [(await people.answer(bench.question, {"approved": True}))["id"] for bench in (here, there)]
        for task_id, bench in zip(tasks, (here, there), strict=True):
            await watch.check_now(task_id)
            await bench.until("goes on")
        served_relay.kill()
        for hold in holds:
            hold.unlink()
        await served_relay.start()
        for task_id in tasks:
            await watch.wait_for(task_id, "delivered", seconds=40)
        await watch.store.stop()
    assert [bench.did("acts") for bench in (here, there)] == [1, 1]
    assert there.did("goes on") == 1, "the server's run must not depend on the relay"
    await here.aclose()
    await there.aclose()


# --- Cases that only a server has. Those of any thread are in test_langgraph_cases.py


async def case_of(engine: LangGraphServerEngine, route: Route, *, answer_known: bool = True) -> Case:
    """Read a thread as a delivery does, or as a check for orphans does, and return its case."""
    thread = await engine._thread(route)
    facts = ServerFacts(thread, engine._seen, engine._why_hidden, wait_until_idle=answer_known)
    case, _ = await read_case(facts, engine._unread_snapshot(thread, answer_known=answer_known), route.idempotency_key)
    return case


async def test_run_active_is_the_case_of_a_thread_that_runs(bench: Bench) -> None:
    """A check for orphans does not wait for a run, and an open wait is kept as long as there is one."""
    slow = bench.directed("slow")
    await bench.ask(wait=False)
    route, outcome = await bench.answer(True)
    await bench.until("slow")
    assert await case_of(bench.engine, route, answer_known=False) is Case.RUN_ACTIVE
    assert await bench.engine.orphaned(route) is None
    slow.unlink()
    assert await case_of(bench.engine, route) is Case.PENDING
    await bench.engine.deliver(route, outcome)
    assert await case_of(bench.engine, route) is Case.ANSWERED


async def test_hidden_is_the_case_of_a_thread_of_a_user_that_is_not_found(bench: Bench) -> None:
    """The server may hide it from the relay's credentials. The same thread without a user is not stored yet."""
    await bench.ask()
    route, outcome = await bench.answer(True)
    await bench.client.threads.delete(bench.thread_id)
    assert await case_of(bench.engine, route) is Case.NOT_YET
    of_user = replace(route, caller={"user": "alice"})
    assert await case_of(bench.engine, of_user) is Case.HIDDEN
    with pytest.raises(RelayNotReady, match="either they may not read it, or it was deleted"):
        await bench.engine.deliver(of_user, outcome)


async def test_lost_is_the_case_of_a_failed_thread_whose_question_is_not_stored(bench: Bench) -> None:
    """The wait is parked, because a redrive could not run the thread on from there."""
    await bench.ask()
    bench.directed("break")
    route, outcome = await bench.answer(True)
    with pytest.raises(TargetGone, match="node 'first' failed"):
        await bench.engine.deliver(route, outcome)
    assert await case_of(bench.engine, route) is Case.FAILED
    removed = replace(route, asked_at={"": str(uuid.uuid4())})
    assert await case_of(bench.engine, removed) is Case.LOST
    for attempt in (bench.engine.deliver, bench.engine.redrive):
        with pytest.raises(TargetGone, match=f"has lost what thread '{bench.thread_id}' was doing"):
            await attempt(removed, outcome)
    assert bench.did("goes on") == 1
