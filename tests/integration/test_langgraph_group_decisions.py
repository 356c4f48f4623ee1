"""`quorum` and `escalate` in a LangGraph node: the promises of tests/contract/test_group_decisions.py, for threads."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from awaithumans_adapters.langgraph import await_human, escalate
from awaithumans_adapters.langgraph.delivery.checkpoint_reader import questions
from awaithumans_adapters.langgraph.delivery.rules import DECIDED
from awaithumans_core import (
    InvalidTaskError,
    Outcome,
    SettingsError,
    Step,
    TargetGone,
    TaskRejectedError,
    quorum,
)
from awaithumans_core import escalate as escalate_in_place
from tests.support.graph_bench import Bench, State
from tests.support.workflows import Decision

pytestmark = pytest.mark.edges

ANNA, BEN, CARLA = PEOPLE = ["anna@example.com", "ben@example.com", "carla@example.com"]
ENDED = "2026-01-01T00:00:00Z"


def ask_of(bench: Bench, **more: Any) -> Any:
    """Return a function that asks a person by address."""

    async def ask(*, assign_to: Any, **options: Any) -> Any:
        return await await_human(
            task=f"{assign_to} {bench.thread_id}",
            response_schema=Decision,
            human_tasks=bench.human_tasks,
            assign_to=assign_to,
            **{**more.get(str(assign_to), {}), **options},
        )

    return ask


async def ends(bench: Bench, person: Any, approved: bool | None, status: str = "timed_out") -> None:  # noqa: FBT001
    """Deliver the person's yes or no; for None, the question ends with this status."""
    task = await bench.task(str(person))
    key = task["idempotency_key"]
    how: dict[str, Any] = (
        {"status": status}
        if approved is None
        else {"status": "completed", "response": {"approved": approved}, "completed_by_email": str(person)}
    )
    outcome = Outcome.model_validate({"task_id": task["id"], "idempotency_key": key, **how})
    await bench.engine.deliver(bench.route_of(key), outcome)


async def two_of_three(bench: Bench, ask: Any = None, **options: Any) -> None:
    async def node(state: State) -> State:
        verdict = await quorum(2, PEOPLE, ask or ask_of(bench), yes=lambda answer: answer.approved, **options)
        return {"answers": [(vote.said, verdict.reached) for vote in verdict.votes]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)


async def votes(bench: Bench) -> list[tuple[str, bool]]:
    return [tuple(vote) for vote in (await bench.compiled.aget_state(bench.config)).values["answers"]]


async def status(bench: Bench, person: str) -> str:
    return str((await bench.task(person))["status"])


@pytest.mark.parametrize("order", [(CARLA, ANNA, BEN), (ANNA, BEN, CARLA), (BEN, CARLA, ANNA)])
async def test_quorum_is_reached_by_enough_yes_votes(bench: Bench, order: tuple[str, ...]) -> None:
    """Two approvals decide in any order; the third task is cancelled, and a late answer is parked."""
    await two_of_three(bench)
    first, second, third = order
    await ends(bench, first, approved=True)
    assert bench.acts == []
    assert await status(bench, third) == "created"
    await ends(bench, second, approved=True)
    assert await votes(bench) == [("yes", True)] * 2
    assert await status(bench, third) == "cancelled"
    assert await bench.engine.orphaned(await bench.route(third)) == DECIDED
    with pytest.raises(TargetGone, match="has decided"):
        await ends(bench, third, approved=True)
    await ends(bench, second, approved=True)
    assert bench.acts == ["act"]


async def test_quorum_is_decided_beside_a_waiting_node(bench: Bench) -> None:
    """The third task is cancelled, and a late answer parked, while another node of the step waits."""

    async def decides(state: State) -> State:
        verdict = await quorum(2, PEOPLE, ask_of(bench), yes=lambda answer: answer.approved)
        return {"answers": [("quorum", verdict.reached)]}

    async def waits(state: State) -> State:
        return {"answers": [("beside", (await bench.ask("beside")).approved)]}

    bench.graph(decides=decides, waits=waits)
    await bench.compiled.ainvoke({"answers": []}, bench.config)
    for person in (CARLA, BEN):
        await ends(bench, person, approved=True)
    assert await bench.engine.orphaned(await bench.route(ANNA)) == DECIDED
    with pytest.raises(TargetGone, match="has decided"):
        await ends(bench, ANNA, approved=True)
    await bench.give("beside", True)
    assert await bench.answers() == {("quorum", True), ("beside", True)}
    assert bench.acts == ["act"]


async def test_vote_may_consist_of_two_questions(bench: Bench) -> None:
    """The node waits for the questions that a vote needs, and the others are cancelled."""

    async def ask(*, assign_to: str, **options: Any) -> Any:
        votes = [ask_of(bench)(assign_to=f"{part} {assign_to}", **options) for part in ("law", "cost")]
        (law, outcome), (cost, _) = await asyncio.gather(*votes)
        return Decision(approved=law.approved and cost.approved), outcome

    async with asyncio.timeout(30):
        await two_of_three(bench, ask, groups=True, count_unnamed=True)
    for question in (f"cost {CARLA}", f"law {ANNA}", f"law {CARLA}", f"cost {ANNA}"):
        assert bench.acts == []
        await bench.give(question, approved=True)
    assert await votes(bench) == [("yes", True)] * 2
    assert [await status(bench, f"{part} {BEN}") for part in ("law", "cost")] == ["cancelled"] * 2


async def test_quorum_fails_once_it_cannot_be_reached(bench: Bench) -> None:
    """Two refusals of three decide against it."""
    await two_of_three(bench)
    await ends(bench, BEN, approved=False)
    await ends(bench, CARLA, approved=False)
    assert await votes(bench) == [("no", False)] * 2
    assert await status(bench, ANNA) == "cancelled"


async def test_question_without_an_answer_is_no_yes(bench: Bench) -> None:
    """A timeout and a cancellation end a quorum that needs these votes."""
    await two_of_three(bench)
    await ends(bench, CARLA, approved=True)
    await ends(bench, ANNA, approved=None)
    await ends(bench, BEN, approved=None, status="cancelled")
    assert await votes(bench) == [("nothing", False)] * 2


async def test_refused_question_cancels_the_other_tasks(bench: Bench) -> None:
    """A question that the server refuses raises an error, and the other tasks are cancelled."""
    with pytest.raises(TaskRejectedError):
        await two_of_three(bench, ask_of(bench, **{BEN: {"task_metadata": {"k": 1}}}))
    listed = (await bench.people.http.get("/api/tasks", params={"limit": 200})).json()
    asked = [task["status"] for task in listed if bench.thread_id in task["idempotency_key"]]
    assert asked == ["cancelled"] * 2


async def test_quorum_with_keys_takes_answers_in_any_order(bench: Bench) -> None:
    """Questions with the caller's keys are answered in any order, and unneeded ones are cancelled."""
    await two_of_three(bench, idempotency_key=f"release {bench.thread_id}")
    await ends(bench, CARLA, approved=True)
    await ends(bench, BEN, approved=True)
    assert await votes(bench) == [("yes", True)] * 2
    assert await status(bench, ANNA) == "cancelled"


async def test_reasks_keep_their_question_in_any_order(bench: Bench) -> None:
    """Reasks for answers of other people come in the order of the answers, each under its own question."""
    again = {person: {"max_reasks": 1} for person in PEOPLE}
    await two_of_three(bench, ask_of(bench, **again), only_assignee=True)
    for person in (CARLA, ANNA):
        task = await bench.task(person)
        outcome = {"status": "completed", "response": {"approved": True}, "completed_by_email": "mallory@example.com"}
        key = task["idempotency_key"]
        await bench.engine.deliver(
            bench.route_of(key), Outcome.model_validate({"task_id": task["id"], "idempotency_key": key, **outcome})
        )
    for person in (ANNA, CARLA):
        key = f"{(await bench.task(person))['idempotency_key']}:reask:1"
        task = await bench.people.by_key(key)
        outcome = {"status": "completed", "response": {"approved": True}, "completed_by_email": person}
        await bench.engine.deliver(
            bench.route_of(key), Outcome.model_validate({"task_id": task["id"], "idempotency_key": key, **outcome})
        )
    assert await votes(bench) == [("yes", True)] * 2
    assert await status(bench, BEN) == "cancelled"


async def test_quorum_killed_after_the_deciding_answer_is_finished_once(bench: Bench) -> None:
    """If the relay is killed between storing the answer and running the node, the node runs once later."""
    await two_of_three(bench)
    await ends(bench, BEN, approved=True)
    saved = await bench.saver.aget_tuple(bench.config)
    ((task_id, _),) = questions(saved, None)
    given = next(value for task, channel, value in saved.pending_writes if channel == "__resume__" and task == task_id)
    task = await bench.task(CARLA)
    answer = Outcome.model_validate(
        {
            "task_id": task["id"],
            "idempotency_key": task["idempotency_key"],
            "status": "completed",
            "response": {"approved": True},
            "completed_by_email": CARLA,
        }
    )
    await bench.saver.aput_writes(saved.config, [("__resume__", [*given, answer.value()])], task_id)
    await ends(bench, CARLA, approved=True)
    assert await votes(bench) == [("yes", True)] * 2
    assert bench.acts == ["act"]


# --- escalate

HOUR = timedelta(hours=1)
STEPS = [Step(ANNA), Step(BEN, after=HOUR), Step(CARLA, after=2 * HOUR)]


async def escalates(bench: Bench, steps: list[Step] = STEPS, escalation: Any = escalate) -> None:
    async def node(state: State) -> State:
        otherwise = Decision(approved=False)
        decision = await escalation(ask_of(bench), steps, within=4 * HOUR, otherwise=otherwise)
        return {"answers": [("otherwise" if decision is otherwise else "answer", decision.approved)]}

    bench.graph(node=node)
    await bench.compiled.ainvoke({"answers": []}, bench.config)


async def test_escalation_asks_the_next_person_after_a_timeout(bench: Bench) -> None:
    """The delivery of a timeout begins the next step, and earlier people can still answer."""
    await escalates(bench)
    assert (await bench.task(ANNA))["timeout_seconds"] == 3600
    await ends(bench, ANNA, approved=None)
    second = await bench.task(str([ANNA, BEN]))
    assert second["assign_to"]["emails"] == [ANNA, BEN]
    assert bench.acts == []
    await ends(bench, [ANNA, BEN], approved=True)
    assert await bench.answers() == {("answer", True)}


async def test_escalation_without_answers_ends_with_the_default(bench: Bench) -> None:
    """After the last timeout `otherwise` is the decision."""
    await escalates(bench)
    for people in (ANNA, [ANNA, BEN], PEOPLE):
        assert bench.acts == []
        await ends(bench, people, approved=None)
    assert await bench.answers() == {("otherwise", False)}


async def test_pool_is_asked_in_a_step_of_its_own(bench: Bench) -> None:
    """A pool is asked by itself, and so are the people after it."""
    pool = {"pool": "leads"}
    await escalates(bench, [Step(ANNA), Step(pool, after=HOUR)])
    await ends(bench, ANNA, approved=None)
    assert (await bench.task(str(pool)))["assign_to"] == pool


async def test_step_shorter_than_a_minute_is_refused(bench: Bench) -> None:
    """The escalation is refused before its first task if a later step is impossible."""
    with pytest.raises(InvalidTaskError, match="a step has 30 s"):
        await escalates(bench, [Step(ANNA), Step(BEN, after=30)])
    assert await bench.people.find(f"{ANNA} {bench.thread_id}", count=0) == []


async def test_escalate_of_the_core_is_refused_in_a_node(bench: Bench) -> None:
    """It raises `SettingsError`, which names the function for nodes, before a task is created."""
    with pytest.raises(SettingsError, match=r"import escalate from awaithumans_adapters\.langgraph"):
        await escalates(bench, escalation=partial(escalate_in_place))
    assert await bench.people.find(f"{ANNA} {bench.thread_id}", count=0) == []
