"""The central promise, run over every engine: an answer is never lost, misdirected or acted on twice.

All parts are real: the awaithumans server, the relay on a port, the Temporal dev server, SQLite checkpoints and the
LangGraph server.
"""

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest
from devservers import HumansServer

from awaithumans_core import HumanTask, Outcome, TargetGone, TargetNotReady
from awaithumans_core.signing import derive_webhook_key, sign
from tests.support.callers import Caller, GraphCaller, OpenQuestion, SyncGraphCaller, TemporalCaller, ThreadGraphCaller
from tests.support.langgraph_server import ServedCaller
from tests.support.people import People
from tests.support.relay import RunningRelay, Server, running_relay
from tests.support.workflows import Decision

ENGINES = [
    "temporal-signal",
    "temporal-activity",
    "langgraph-async",
    pytest.param("langgraph-thread", marks=pytest.mark.edges),
    "langgraph-sync",
    pytest.param("langgraph-server", marks=pytest.mark.edges),
]
GRAPH_CALLERS = {
    "langgraph-async": GraphCaller,
    "langgraph-thread": ThreadGraphCaller,
    "langgraph-sync": SyncGraphCaller,
}
PATIENCE = 30


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """Return the name of an engine and the server of its callers, which is started on first use."""
    kind = request.param.partition("-")[0]
    server = "langgraph_server" if request.param == "langgraph-server" else "temporal" if kind == "temporal" else None
    return request.param, server and request.getfixturevalue(server)


@pytest.fixture(scope="module")
async def caller_and_relay(
    engine: tuple[str, Any], humans: HumansServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[tuple[Caller, RunningRelay]]:
    folder = tmp_path_factory.mktemp("contract")
    name, server = engine
    if name.startswith("temporal"):
        caller: Caller = TemporalCaller(server.address, name.removeprefix("temporal-"))
        async with running_relay([caller.engine], humans, folder) as relay, caller.ready(relay.settings):
            yield caller, relay
        return
    if name == "langgraph-server":
        caller = ServedCaller(server)
        async with (
            running_relay([caller.engine], humans, folder, settings=server.settings, port=server.relay_port) as relay,
            caller.ready(relay.settings),
        ):
            yield caller, relay
        return
    graph = GRAPH_CALLERS[name](folder)
    async with (
        graph.prepared(),
        running_relay([graph.engine], humans, folder) as relay,
        graph.ready(relay.settings),
    ):
        yield graph, relay


@pytest.fixture
def caller(caller_and_relay: tuple[Caller, RunningRelay]) -> Caller:
    return caller_and_relay[0]


@pytest.fixture
def relay(caller_and_relay: tuple[Caller, RunningRelay]) -> RunningRelay:
    return caller_and_relay[1]


async def told(asked: OpenQuestion) -> dict[str, Any]:
    return await asyncio.wait_for(asked.result(), PATIENCE)


async def call_back(
    relay: RunningRelay, humans: HumansServer, asked: OpenQuestion, task: dict[str, Any], **fields: Any
) -> None:
    """Post a signed callback at once; the server's own, up to 5 s later, is then a duplicate."""
    key = task["idempotency_key"]
    body = json.dumps({"task_id": task["id"], "idempotency_key": key, "response": None, **fields}).encode()
    token = relay.settings.signer().issue(asked.route(key))
    headers = {"X-Awaithumans-Signature": sign(body, derive_webhook_key(humans.payload_key))}
    async with httpx.AsyncClient(base_url=relay.url) as http:
        assert (await http.post(f"/callbacks/{token}", content=body, headers=headers)).status_code == 200


Answer = Callable[[OpenQuestion, dict[str, Any]], Awaitable[dict[str, Any]]]


@pytest.fixture
def answer(relay: RunningRelay, humans: HumansServer, people: People, question: str) -> Answer:
    """Return a function that answers the question on the server and posts the callback at once."""

    async def give(asked: OpenQuestion, response: dict[str, Any]) -> dict[str, Any]:
        task = await people.answer(question, response)
        await call_back(
            relay, humans, asked, task, status="completed", response=response, completed_by_email="anna@example.com"
        )
        return task

    return give


async def test_answer_arrives_typed_and_is_acted_on_once(
    caller: Caller, relay: RunningRelay, people: People, question: str
) -> None:
    """A person's answer arrives typed, with who gave it, and is acted on once."""
    asked = await caller.ask(question, payload={"order": "A-1"})
    task = await people.answer(question, {"approved": True})
    assert await told(asked) == {"approved": True, "by": "anna@example.com"}
    await relay.wait_for(task["id"], "delivered")
    assert caller.acts[asked.name] == 1
    assert task["form_definition"]["fields"][0]["kind"] == "switch"


async def test_no_arrives_as_no(caller: Caller, answer: Answer, question: str) -> None:
    """A no is an answer, and arrives as no."""
    asked = await caller.ask(question)
    await answer(asked, {"approved": False})
    assert (await told(asked))["approved"] is False


async def test_answer_by_mail_is_found_by_the_sweep(
    caller: Caller, relay: RunningRelay, people: People, question: str
) -> None:
    """An answer by mail sends no callback; the sweep finds it on its schedule."""
    asked = await caller.ask(
        question,
        notify=[await people.mail_address()],
        form={"version": 1, "fields": [{"kind": "switch", "name": "approved", "label": question, "required": True}]},
    )
    (task,) = await people.find(question)
    await people.click_in_mail(question)
    assert (await told(asked))["approved"] is True
    (wait,) = await relay.wait_for(task["id"], "delivered")
    assert wait.found_by == "sweep"
    assert wait.answered_at is not None
    # The check is due after 5 s or 5 % of the wait's age; add the sweeper's tick and a slow machine.
    assert wait.answered_at - wait.created_at < 60


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("timed_out", "TaskTimeoutError"),
        ("verification_exhausted", "VerificationExhaustedError"),
        ("cancelled", "TaskCancelledError"),
    ],
)
async def test_end_without_an_answer_is_a_typed_error(
    caller: Caller, relay: RunningRelay, humans: HumansServer, people: People, question: str, status: str, error: str
) -> None:
    """Each end without an answer raises its own typed error in the caller's code."""
    asked = await caller.ask(question)
    (task,) = await people.find(question)
    await call_back(relay, humans, asked, task, status=status)
    assert (await told(asked))["error"] == error
    assert caller.acts[asked.name] == 1


async def test_deleted_task_is_a_typed_error(
    caller: Caller, relay: RunningRelay, people: People, question: str
) -> None:
    """A confirmed deletion raises its own typed error in the caller's code, and no task is created again."""
    asked = await caller.ask(question)
    (task,) = await people.find(question)
    await relay.wait_for(task["id"], "open")
    await people.delete(task["id"])
    await relay.confirm_deletion(task["id"])
    assert (await told(asked))["error"] == "TaskNotFoundError"
    (wait,) = await relay.wait_for(task["id"], "delivered")
    assert wait.found_by == "missing"
    assert caller.acts[asked.name] == 1
    assert await people.find(question, count=0) == []


async def test_task_cancelled_on_the_server_wakes_the_caller(caller: Caller, people: People, question: str) -> None:
    """An operator who cancels the task wakes the caller through the server's own callback."""
    asked = await caller.ask(question)
    (task,) = await people.find(question)
    await people.cancel(task["id"])
    assert (await told(asked))["error"] == "TaskCancelledError"


async def test_answer_that_does_not_fit_is_an_error(caller: Caller, answer: Answer, question: str) -> None:
    """An answer that does not fit the response class is an error, never an approval."""
    asked = await caller.ask(question)
    await answer(asked, {"approved": "maybe"})
    assert (await told(asked))["error"] == "ResponseSchemaError"


async def test_invalid_answer_is_asked_for_again(
    caller: Caller, relay: RunningRelay, humans: HumansServer, answer: Answer, people: People, question: str
) -> None:
    """With `max_reasks` the person learns what was wrong and is asked again; the second answer is acted on."""
    asked = await caller.ask(question, max_reasks=1, payload={"amount": 250})
    first = await answer(asked, {"approved": "maybe"})
    again = await people.by_key(f"{first['idempotency_key']}:reask:1")
    assert again["task"].startswith(question)
    assert "Approved: Input should be a valid boolean" in again["task"]
    assert again["payload"] == first["payload"]
    await people.complete(again["id"], {"approved": True})
    await call_back(
        relay, humans, asked, again, status="completed", response={"approved": True}, completed_by_email="b@example.com"
    )
    assert await told(asked) == {"approved": True, "by": "b@example.com"}
    assert caller.acts[asked.name] == 1


OWN = {"assign_to": "anna@example.com", "only_assignee": True}
FOUR_EYES = {"not_by": ["Anna+1@Example.com"]}


@pytest.mark.edges
@pytest.mark.parametrize("rule", [OWN, FOUR_EYES], ids=["only_assignee", "not_by"])
async def test_answer_of_another_person_is_asked_for_again(
    caller: Caller, relay: RunningRelay, humans: HumansServer, people: People, question: str, rule: dict[str, Any]
) -> None:
    """A yes of a person who may not answer is not acted on; the yes of one who may is, once."""
    wrong, right = ("mallory@example.com", "anna@example.com") if rule is OWN else ("anna@example.com", "b@example.com")
    asked = await caller.ask(question, max_reasks=1, **rule)
    (first,) = await people.find(question)
    yes: dict[str, Any] = {"status": "completed", "response": {"approved": True}}
    await people.complete(first["id"], yes["response"], by=wrong)
    await call_back(relay, humans, asked, first, **yes, completed_by_email=wrong)
    again = await people.by_key(f"{first['idempotency_key']}:reask:1")
    assert caller.acts[asked.name] == 0
    assert wrong not in again["task"]
    await people.complete(again["id"], yes["response"], by=right)
    await call_back(relay, humans, asked, again, **yes, completed_by_email=right)
    assert await told(asked) == {"approved": True, "by": right}
    assert caller.acts[asked.name] == 1


@pytest.mark.edges
async def test_answer_of_an_unknown_person_is_an_error(
    caller: Caller, relay: RunningRelay, humans: HumansServer, people: People, question: str
) -> None:
    """Without reasks the caller gets the typed error, and never the answer."""
    asked = await caller.ask(question, **OWN)
    (task,) = await people.find(question)
    await people.http.post(f"/api/tasks/{task['id']}/complete", json={"response": {"approved": True}})
    await call_back(relay, humans, asked, task, status="completed", response={"approved": True})
    assert (await told(asked))["error"] == "AnswererNotAllowedError"


async def test_invalid_answer_after_max_reasks_is_an_error(
    caller: Caller, relay: RunningRelay, humans: HumansServer, answer: Answer, people: People, question: str
) -> None:
    """When the last reask brings no usable answer, the caller gets the error."""
    asked = await caller.ask(question, max_reasks=1)
    first = await answer(asked, {"approved": "maybe"})
    again = await people.by_key(f"{first['idempotency_key']}:reask:1")
    await people.complete(again["id"], {})
    await call_back(relay, humans, asked, again, status="completed", response={})
    assert (await told(asked))["error"] == "ResponseSchemaError"
    assert caller.acts[asked.name] == 1


async def test_key_of_an_ended_task_returns_its_answer(
    caller: Caller, answer: Answer, people: People, question: str
) -> None:
    """Asking with the key of an ended task returns the stored answer without another wait."""
    key = f"shared-{question}"
    first = await caller.ask(question, idempotency_key=key)
    await answer(first, {"approved": True})
    second = await caller.ask(question, idempotency_key=key)
    assert await told(first) == await told(second)
    assert len(await people.find(question)) == 1


async def test_callers_of_one_open_question_both_get_the_answer(caller: Caller, answer: Answer, question: str) -> None:
    """Two callers that share an open question both get its answer."""
    key = f"shared-{question}"
    askers = [await caller.ask(question, idempotency_key=key) for _ in range(2)]
    await answer(askers[0], {"approved": True})
    assert [(await told(asked))["approved"] for asked in askers] == [True, True]


async def test_concurrent_deliveries_are_acted_on_once(caller: Caller, people: People, question: str) -> None:
    """Two concurrent deliveries of one answer, and a later third, make the caller act once."""
    asked = await caller.ask(question)
    (task,) = await people.find(question)
    outcome = Outcome(
        task_id=task["id"], status="completed", response={"approved": True}, idempotency_key=task["idempotency_key"]
    )
    route = asked.route(task["idempotency_key"])
    await asyncio.gather(caller.engine.deliver(route, outcome), caller.engine.deliver(route, outcome))
    assert (await told(asked))["approved"] is True
    try:
        await caller.engine.deliver(route, outcome)
    except TargetGone as gone:
        assert "ended" in str(gone)  # noqa: PT017 - it may have been delivered, or the caller may have ended
    assert caller.acts[asked.name] == 1


async def test_repeated_registration_after_the_delivery_acts_once(
    caller: Caller, relay: RunningRelay, answer: Answer, humans: HumansServer, question: str
) -> None:
    """However often the holder of the route token registers the delivered wait, the caller acts once."""
    asked = await caller.ask(question)
    task = await answer(asked, {"approved": True})
    assert (await told(asked))["approved"] is True
    await relay.wait_for(task["id"], "delivered")
    server = Server(relay, humans)
    for _ in range(3):
        reply = await server.register(asked.route(task["idempotency_key"]), task["id"])
        assert reply.status_code == 200
    await relay.wait_for(task["id"], "delivered")
    await server.http.aclose()
    assert caller.acts[asked.name] == 1


async def test_outcome_of_another_question_is_not_taken(
    caller: Caller, answer: Answer, people: People, question: str
) -> None:
    """An outcome of another question, delivered to this caller, is not taken as its answer."""
    asked = await caller.ask(question)
    await people.find(question)
    foreign = Outcome(task_id="x", status="completed", response={"approved": True}, idempotency_key="another")
    try:
        await caller.engine.deliver(asked.route("another"), foreign)
    except TargetNotReady as early:
        assert asked.name in str(early)  # noqa: PT017 - a workflow's mailbox accepts it and keeps it separate
    assert caller.acts[asked.name] == 0
    await answer(asked, {"approved": False})
    assert (await told(asked))["approved"] is False


async def test_answer_to_an_unknown_target_is_not_delivered(caller: Caller, question: str) -> None:
    """An answer to an unknown target is parked or retried, never counted as delivered, and starts nothing."""
    asked = await caller.ask(question)
    real = asked.route("k")
    nobody = replace(
        real, target={part: "nobody" if part != "namespace" else name for part, name in real.target.items()}
    )
    outcome = Outcome(task_id="x", status="completed", response={"approved": True}, idempotency_key="k")
    with pytest.raises((TargetGone, TargetNotReady)):
        await caller.engine.deliver(nobody, outcome)


async def test_question_that_the_server_refuses_is_an_error_at_once(caller: Caller, question: str) -> None:
    """A refusal at create is an error at once, with the server's message."""
    asked = await caller.ask(question, task_metadata={"k": 1})
    answer = await told(asked)
    assert answer["error"] == "TaskRejectedError"
    assert "task_metadata" in answer["message"]


async def test_wait_of_an_ended_caller_is_cancelled_by_the_sweep(
    caller: Caller, relay: RunningRelay, people: People, question: str
) -> None:
    """After a terminated workflow or new input on a thread, the sweep cancels the task."""
    asked = await caller.ask(question)
    (task,) = await people.find(question)
    await relay.check_now(task["id"])  # the caller still waits: the sweep cancels nothing
    await relay.until_checked(task["id"])
    assert (await people.task(task["id"]))["status"] == "created"
    await asked.stop_waiting()
    await relay.check_now(task["id"])
    (wait,) = await relay.wait_for(task["id"], "delivered")
    assert (await people.task(task["id"]))["status"] == "cancelled"
    assert "has ended" in (wait.last_error or "") or "new input" in (wait.last_error or "")


async def test_answer_to_an_ended_caller_is_parked(
    caller: Caller, relay: RunningRelay, humans: HumansServer, people: People, question: str
) -> None:
    """An answer given before the sweep runs is parked with a reason and moves nothing."""
    response = {"approved": True}
    for words in (f"{question} ({attempt})" for attempt in range(10)):
        asked = await caller.ask(words)
        (task,) = await people.find(words)
        await relay.check_now(task["id"], after=300.0)
        await asked.stop_waiting()
        with suppress(httpx.HTTPStatusError):  # a check under way was faster, and has cancelled the task
            await people.complete(task["id"], response)
            break
    await call_back(relay, humans, asked, task, status="completed", response=response)
    (wait,) = await relay.wait_for(task["id"], "parked")
    assert wait.outcome is not None
    assert wait.outcome.response == {"approved": True}
    assert "has ended" in (wait.last_error or "") or "new input" in (wait.last_error or "")
    assert caller.acts[asked.name] == 0


def nested(depth: int) -> Any:
    inner: Any = "the end"
    for _ in range(depth):
        inner = [inner]
    return inner


Errors = frozenset[str | None]
LEFT_OUT, TAKEN, MISFIT = Errors({"ResponseMissingError"}), Errors({None}), Errors({"ResponseSchemaError"})
ODD_ANSWERS: dict[str, tuple[dict[str, Any], Errors]] = {
    "a NUL": ({"note": "a\0b"}, TAKEN),
    "half a character": ({"note": "a\ud83d"}, TAKEN),
    "half a character in a name": ({"\ud83d": "a"}, TAKEN | MISFIT),
    "250 levels": ({"note": nested(250)}, LEFT_OUT),
    "300 levels": ({"note": nested(300)}, LEFT_OUT),
    "no number": ({"note": math.nan}, LEFT_OUT),
    "infinite": ({"note": math.inf}, LEFT_OUT),
    "more than 64 bits": ({"note": 10**30}, LEFT_OUT | MISFIT),
    "150 levels": ({"note": nested(150)}, MISFIT),
}
"""Content of a response beside its yes, and the caller's result: an answer or a typed error."""


@pytest.mark.edges
async def test_content_that_an_engine_cannot_carry_is_reported_missing(
    caller: Caller, relay: RunningRelay, people: People, humans: HumansServer, question: str
) -> None:
    """The caller is woken and learns that content is missing."""
    asked = {name: await caller.ask(f"{name}: {question}") for name in ODD_ANSWERS}
    for name, (odd, _) in ODD_ANSWERS.items():
        (task,) = await people.find(f"{name}: {question}")
        response = {"approved": True} | odd
        await call_back(relay, humans, asked[name], task, status="completed", response=response)
    made = {name: await told(each) for name, each in asked.items()}
    errors = {name: each.get("error") for name, each in made.items()}
    assert {name for name, (_, fits) in ODD_ANSWERS.items() if errors[name] not in fits} == set(), errors


@pytest.mark.edges
async def test_unusual_answer_given_before_the_question_reaches_the_caller(
    caller: Caller, people: People, question: str
) -> None:
    """The caller reads an ended task itself, and carries as much of the answer as its engine can."""
    key = f"odd {question}"
    body = HumanTask(task=question, response_schema=Decision, idempotency_key=key).body()
    task = (await people.http.post("/api/tasks", json=body)).json()
    await people.complete(task["id"], {"approved": True, "note": nested(230), "more": 10**30})
    assert (await told(await caller.ask(question, idempotency_key=key)))["error"] in LEFT_OUT | MISFIT
