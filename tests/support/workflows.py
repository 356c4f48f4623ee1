"""Workflows of the tests, in a module of their own because workflow sandboxes load the file of their workflow."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from awaithumans_adapters.temporal import ActivityOptions, HumanTaskActivities, await_human
from awaithumans_core import (
    AwaitHumansError,
    HumanTask,
    Outcome,
    QuestionChangedError,
    ResponseSchemaError,
    Step,
    Verdict,
    escalate,
    quorum,
    settle,
)
from awaithumans_core import await_human as script_await_human
from awaithumans_core.form import currency

TASK_QUEUE = "tests"


class Decision(BaseModel):
    approved: bool
    note: str | None = None


@workflow.defn
class Ask:
    """Ask once, act once, and return the decision or the error."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> dict[str, Any]:
        try:
            decision, outcome = await await_human(response_schema=Decision, return_outcome=True, **options)
            told = {"approved": decision.approved, "by": outcome.completed_by_email}
        except AwaitHumansError as error:
            told = {"error": type(error).__name__, "message": str(error)}
        await workflow.execute_activity(
            "act", workflow.info().workflow_id, start_to_close_timeout=timedelta(seconds=10)
        )
        return told


@workflow.defn
class AskForFacts:
    """Return the error of `await_human` with its facts, and the start and end time."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> dict[str, Any]:
        began = workflow.now()
        told: dict[str, Any] = {"error": None}
        try:
            await await_human(response_schema=Decision, **options)
        except AwaitHumansError as error:
            names = ("task_id", "status_code", "server_code", "url", "attempts")
            told = {"error": type(error).__name__} | {name: getattr(error, name, None) for name in names}
        return told | {"began": began.isoformat(), "ended": workflow.now().isoformat()}


class Amount(BaseModel):
    """Another response class than `Decision`."""

    amount: float


@workflow.defn
class AskFor:
    """Ask for one of two response classes, and return the answer or the differing parts."""

    @workflow.run
    async def run(self, options: dict[str, Any], response: Literal["Decision", "Amount"]) -> dict[str, Any]:
        schema = Decision if response == "Decision" else Amount
        try:
            answer: BaseModel = await await_human(response_schema=schema, **options)
        except QuestionChangedError as changed:
            return {"differs": list(changed.differs)}
        return answer.model_dump()


@workflow.defn
class AskUncaught:
    """Let the error of `await_human` fail the workflow."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> bool:
        decision: Decision = await await_human(response_schema=Decision, **options)
        return decision.approved


@workflow.defn
class AskSeveral:
    """Ask two people one after the other, then two at once."""

    @workflow.run
    async def run(self, name: str, via: Literal["signal", "activity"] = "signal") -> list[bool]:
        first = await await_human(task=f"{name}: first?", response_schema=Decision, via=via)
        second = await await_human(task=f"{name}: second?", response_schema=Decision, via=via)
        both = await asyncio.gather(
            await_human(task=f"{name}: left?", response_schema=Decision, via=via),
            await_human(task=f"{name}: right?", response_schema=Decision, via=via),
        )
        return [first.approved, second.approved, *(decision.approved for decision in both)]


@workflow.defn
class AskImpatiently:
    """Stop waiting before any answer."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> str:
        try:
            async with asyncio.timeout(2):
                await await_human(response_schema=Decision, **options)
        except TimeoutError:
            return "went on without an answer"
        return "answered"


@workflow.defn
class AskAcrossRuns:
    """Keep a question open through a given number of runs."""

    def __init__(self) -> None:
        self.goes_on = False

    @workflow.signal
    def go_on(self) -> None:
        self.goes_on = True

    @workflow.run
    async def run(self, options: dict[str, Any], run: int = 1) -> list[Any]:
        asking: asyncio.Task[tuple[Decision, Outcome]] = asyncio.create_task(
            await_human(response_schema=Decision, return_outcome=True, **options)
        )
        await workflow.wait_condition(lambda: asking.done() or self.goes_on)
        if self.goes_on:
            workflow.continue_as_new(args=[options, run + 1])
        decision, outcome = await asking
        return [run, decision.approved, outcome.completed_by_email]


@workflow.defn
class AskBesideADynamicHandler:
    """Handle every signal dynamically, and continue as new with an open question."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    @workflow.signal(dynamic=True)
    def anything(self, name: str, args: Sequence[RawValue]) -> None:
        self.taken.append(name)

    @workflow.run
    async def run(self, options: dict[str, Any], run: int = 1) -> list[Any]:
        if run == 2:
            await workflow.sleep(2)  # the answer may arrive before the next run asks
        asking = asyncio.create_task(await_human(response_schema=Decision, **options))
        await workflow.wait_condition(lambda: asking.done() or bool(self.taken))
        if not asking.done() and run == 1:
            workflow.continue_as_new(args=[options, 2])
        return [(await asking).approved, self.taken]


@workflow.defn
class AskNamedAndUnnamed:
    """Ask one question twice, once with its own key, and ask in another order in the next run."""

    def __init__(self) -> None:
        self.goes_on = False

    @workflow.signal
    def go_on(self) -> None:
        self.goes_on = True

    @workflow.run
    async def run(self, options: dict[str, Any], run: int = 1) -> dict[str, bool]:
        keys = {"named": {"idempotency_key": options["task"]}, "unnamed": {}}
        order = list(keys) if run == 1 else list(keys)[::-1]
        asking: dict[str, asyncio.Task[Decision]] = {
            name: asyncio.create_task(await_human(response_schema=Decision, **options, **keys[name])) for name in order
        }
        await workflow.wait_condition(lambda: self.goes_on or all(task.done() for task in asking.values()))
        if self.goes_on:
            workflow.continue_as_new(args=[options, run + 1])
        return {name: (await task).approved for name, task in asking.items()}


@workflow.defn
class AskThenForget:
    """Continue as new with an open question; the next run ends, or fails once, or asks again."""

    @workflow.run
    async def run(self, options: dict[str, Any], then: str, run: int = 1) -> str:
        if run == 1:
            asking = asyncio.create_task(await_human(response_schema=Decision, **options))
            await workflow.sleep(1)
            assert not asking.done()
            workflow.continue_as_new(args=[options, then, 2])
        if then == "asks again":
            if workflow.info().attempt == 1:
                raise ApplicationError("something else went wrong")
            return "yes" if (await await_human(response_schema=Decision, **options)).approved else "no"
        return then


@workflow.defn
class AskOnQueue:
    """Ask with a task queue for the activities, then wait, or continue as new and end."""

    @workflow.run
    async def run(self, options: dict[str, Any], queue: str, then: str = "waits", run: int = 1) -> bool | None:
        if run == 2:
            return None
        activities = ActivityOptions(task_queue=queue)
        asking = asyncio.create_task(await_human(response_schema=Decision, activities=activities, **options))
        if then == "ends":
            await workflow.sleep(1)
            workflow.continue_as_new(args=[options, queue, then, 2])
        decision: Decision = await asking
        return decision.approved


@workflow.defn(name="Mended")
class CountsWrongly:
    """A quorum with a bug in the workflow's own code."""

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> bool:
        return bool(await _two_of_three(question, via, lambda decision: decision.aproved))


@workflow.defn(name="Mended")
class CountsRightly:
    """The workflow of `CountsWrongly` after the bug was fixed."""

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> bool:
        return bool(await _two_of_three(question, via, lambda decision: decision.approved))


async def _two_of_three(question: str, via: str, yes: Callable[[Any], bool]) -> Verdict[Decision]:
    people = ["a@example.com", "b@example.com", "c@example.com"]
    return await quorum(2, people, partial(await_human, task=question, response_schema=Decision, via=via), yes=yes)


@workflow.defn
class AskLikeAScript:
    """Call the `await_human` of scripts, which is an error in a workflow."""

    @workflow.run
    async def run(self, question: str) -> bool:
        return (await script_await_human(task=question, response_schema=Decision)).approved


@workflow.defn
class AskInChild:
    """Ask in a child workflow."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = await workflow.execute_child_workflow(Ask.run, options)
        return told


@workflow.defn
class AskAndEnd:
    """End in one of several ways while the question is open."""

    @workflow.run
    async def run(self, options: dict[str, Any], end: str) -> str:
        asking = asyncio.create_task(await_human(response_schema=Decision, **options))
        await workflow.sleep(1)
        if end == "fails" and workflow.info().attempt == 1:
            raise ApplicationError("something else went wrong")
        if end == "is asked again":
            return "approved" if (await asking).approved else "declined"
        return end


@workflow.defn
class AskBarely:
    """Call the waiting activity directly."""

    @workflow.run
    async def run(self, question: str) -> dict[str, Any]:
        body = HumanTask(task=question, response_schema=Decision, idempotency_key="unused").body()
        del body["idempotency_key"]
        outcome = await workflow.execute_activity_method(
            HumanTaskActivities.await_human, body, start_to_close_timeout=timedelta(seconds=5)
        )
        return {"approved": settle(Outcome.model_validate(outcome), Decision).approved}


@workflow.defn
class AskLocally:
    """Call one of the activities as a local activity, with a question or a task id."""

    @workflow.run
    async def run(self, about: str, activity: str) -> dict[str, Any]:
        question = HumanTask(task=about, response_schema=Decision, idempotency_key=f"local: {about}")
        argument = about if activity == "awaithumans.close_wait" else question.body()
        made: dict[str, Any] = await workflow.execute_local_activity(
            activity, argument, result_type=dict[str, Any], start_to_close_timeout=timedelta(seconds=5)
        )
        return made


@workflow.defn
class AskUnderAnyKey:
    """Use a key in the code that earlier releases treated as no key."""

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> bool:
        return (await await_human(task=question, response_schema=Decision, via=via, idempotency_key="unnamed")).approved


@workflow.defn
class AskHugely:
    """Ask about a payload that is too large for Temporal."""

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> bool:
        document = {"text": "x" * 2_000_000}
        return (await await_human(task=question, response_schema=Decision, payload=document, via=via)).approved


@workflow.defn
class AskAboutADocument:
    """Ask about a document of this size, and return the answer and the length of its note."""

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"], size: int) -> list[Any]:
        decision = await await_human(task=question, response_schema=Decision, payload={"text": "x" * size}, via=via)
        return [decision.approved, len(decision.note or "")]


@workflow.defn
class AskTwoOfThree:
    """Ask a quorum from a workflow."""

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> list[Any]:
        verdict = await quorum(
            2,
            ["a@example.com", "b@example.com", "c@example.com"],
            partial(await_human, task=question, response_schema=Decision, via=via),
            yes=lambda decision: decision.approved,
        )
        return [verdict.reached, *(vote.said for vote in verdict.votes)]


@workflow.defn
class AskUpTheLadder:
    """Ask an escalation from a workflow."""

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> Decision:
        return await escalate(
            partial(await_human, task=question, response_schema=Decision, via=via, recheck=timedelta(days=10)),
            [Step("a@example.com"), Step("b@example.com", after=timedelta(hours=4))],
            within=timedelta(days=2),
            otherwise=Decision(approved=False, note="nobody answered"),
        )


class Payment(BaseModel):
    """What a person types: an amount of money."""

    amount: Annotated[Decimal, currency("EUR")]


@workflow.defn
class AskForMoney:
    """Asks for an amount without a re-ask, and returns it, or the problems of the answer."""

    options: ClassVar[dict[str, Any]] = {"max_reasks": 0}

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> list[str]:
        try:
            answer = await await_human(task=question, response_schema=Payment, via=via, **self.options)
        except ResponseSchemaError as refused:
            return list(refused.problems)
        return [str(answer.amount)]


@workflow.defn
class AskForMoneyAgain(AskForMoney):
    """Asks for an amount with the re-asks that are the default."""

    options: ClassVar[dict[str, Any]] = {}

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> list[str]:
        return await super().run(question, via)


@workflow.defn(name="AskForMoney")
class AskForMoneyByTheNextRelease(AskForMoneyAgain):
    """Asks as `AskForMoney` after a deploy that left the number of re-asks to the default."""

    @workflow.run
    async def run(self, question: str, via: Literal["signal", "activity"]) -> list[str]:
        return await super().run(question, via)


@workflow.defn(name="AskUncaught")
class AskUncaughtReworded(AskUncaught):
    """The workflow `AskUncaught` after a deployment that changed the question."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> bool:
        return await super().run({**options, "task": f"{options['task']} (in other words)"})


@workflow.defn(name="AskAcrossRuns")
class AskAcrossRunsReworded(AskAcrossRuns):
    """The workflow `AskAcrossRuns` after a deployment that changed the question."""

    @workflow.run
    async def run(self, options: dict[str, Any], run: int = 1) -> list[Any]:
        return await super().run({**options, "task": f"{options['task']} (in other words)"}, run)


class Case(BaseModel):
    """A payload."""

    reference: str


class CaseWithDefault(Case):
    """The payload after a deployment that added a field."""

    urgent: bool = False


@workflow.defn
class AskByRelease:
    """Ask a question whose text and payload differ between releases."""

    sides = ("left", "right")

    def __init__(self) -> None:
        self.goes_on = self.answered = False

    @workflow.signal
    def go_on(self) -> None:
        self.goes_on = True

    @workflow.query
    def is_answered(self) -> bool:
        return self.answered

    def question(self, task: str) -> dict[str, Any]:
        return {"task": task, "payload": {"case": Case(reference="7").model_dump(), "tags": ["a", "b"]}}

    @workflow.run
    async def run(self, asked: dict[str, Any], how: dict[str, Any], run: int = 1) -> dict[str, Any]:
        options: dict[str, Any] = {**asked, **self.question(asked["task"])}
        if how.get("both"):
            tasks = [f"{asked['task']} {side}" for side in self.sides]
            questions: list[dict[str, Any]] = [{**asked, "task": task} for task in tasks]
            both: dict[str, asyncio.Task[Decision]] = {
                side: asyncio.create_task(await_human(response_schema=Decision, **question))
                for side, question in zip(self.sides, questions, strict=True)
            }
            await workflow.wait_condition(lambda: self.goes_on or all(each.done() for each in both.values()))
            if self.goes_on and "gives up" not in how:
                workflow.continue_as_new(args=[asked, how, run + 1])
            if self.goes_on:
                both.pop(how["gives up"]).cancel()
            return {side: (await each).approved for side, each in both.items()}
        if run == 2 and how.get("forgets"):
            return {}
        if how.get("across"):
            asking = asyncio.create_task(await_human(response_schema=Decision, return_outcome=True, **options))
            await workflow.wait_condition(lambda: asking.done() or self.goes_on)
            if self.goes_on:
                workflow.continue_as_new(args=[asked, how, run + 1])
            decision, outcome = await asking
            return {"approved": decision.approved, "reworded": outcome.reworded}
        options |= {"may_reword": how["may_reword"]} if "may_reword" in how else {}
        told: dict[str, Any]
        try:
            decision, outcome = await await_human(response_schema=Decision, return_outcome=True, **options)
            told = {"approved": decision.approved, "reworded": outcome.reworded}
        except QuestionChangedError as changed:
            told = {"error": type(changed).__name__, "differs": list(changed.differs)}
        self.answered = True
        if "then_waits" in how:
            await workflow.sleep(how["then_waits"])
        return told


@workflow.defn
class AskUnderOneKey:
    """Ask two questions with one key, and return for each the answer or the differing parts."""

    def __init__(self) -> None:
        self.ended = 0

    @workflow.query
    def has_ended(self) -> int:
        return self.ended

    @workflow.run
    async def run(self, options: dict[str, Any], first: str, second: str) -> list[Any]:
        asking = asyncio.create_task(self.ask({**options, "task": first}))
        await workflow.sleep(1)
        refused = await self.ask({**options, "task": second})
        self.ended = 1
        return [await asking, refused]

    async def ask(self, options: dict[str, Any]) -> Any:
        try:
            decision: Decision = await await_human(response_schema=Decision, **options)
        except QuestionChangedError as changed:
            return list(changed.differs)
        return decision.approved


@workflow.defn(name="AskByRelease")
class AskReworded(AskByRelease):
    """A release with another text and the reverse order of two questions."""

    sides = ("right", "left")

    def question(self, task: str) -> dict[str, Any]:
        return {**super().question(task), "task": f"{task} (in other words)"}

    @workflow.run
    async def run(self, asked: dict[str, Any], how: dict[str, Any], run: int = 1) -> dict[str, Any]:
        return await super().run(asked, how, run)


@workflow.defn(name="AskByRelease")
class AskWithAFieldMore(AskByRelease):
    """A release whose payload model has an additional field with a default."""

    def question(self, task: str) -> dict[str, Any]:
        asked = super().question(task)
        return {**asked, "payload": {**asked["payload"], "case": CaseWithDefault(reference="7").model_dump()}}

    @workflow.run
    async def run(self, asked: dict[str, Any], how: dict[str, Any], run: int = 1) -> dict[str, Any]:
        return await super().run(asked, how, run)


@workflow.defn(name="AskByRelease")
class AskInAnotherOrder(AskByRelease):
    """A release in which `list(set(...))` has another order because of another hash seed."""

    def question(self, task: str) -> dict[str, Any]:
        asked = super().question(task)
        return {**asked, "payload": {**asked["payload"], "tags": ["b", "a"]}}

    @workflow.run
    async def run(self, asked: dict[str, Any], how: dict[str, Any], run: int = 1) -> dict[str, Any]:
        return await super().run(asked, how, run)


RELEASES: dict[str, type] = {
    "first": AskByRelease,
    "reworded": AskReworded,
    "a field more": AskWithAFieldMore,
    "another order of a set": AskInAnotherOrder,
}
"""One workflow in the code of several releases."""


@workflow.defn
class AskAndGiveUp:
    """Stop waiting, and then end, continue without the answer, or make the same call again."""

    @workflow.run
    async def run(self, options: dict[str, Any], then: Literal["ends", "goes on", "asks again"]) -> Any:
        began = workflow.now()
        try:
            async with asyncio.timeout(2):
                await await_human(response_schema=Decision, **options)
        except TimeoutError:
            took = (workflow.now() - began).total_seconds()
        else:
            return "answered"
        if then == "asks again":
            return (await await_human(response_schema=Decision, **options)).approved
        if then == "goes on":
            await workflow.sleep(60)
        return took


@workflow.defn
class AskMany:
    """Ask a number of questions in one gather."""

    @workflow.run
    async def run(self, question: str, count: int, via: Literal["signal", "activity"]) -> list[int]:
        decisions = await asyncio.gather(
            *(
                await_human(task=f"{question} {place}", payload={"place": place}, response_schema=Decision, via=via)
                for place in range(count)
            )
        )
        return [place for place, decision in enumerate(decisions) if decision.approved]


WORKFLOWS: list[type] = [
    Ask,
    AskFor,
    AskForFacts,
    AskForMoney,
    AskForMoneyAgain,
    AskUncaught,
    AskSeveral,
    AskImpatiently,
    AskAcrossRuns,
    AskBesideADynamicHandler,
    AskNamedAndUnnamed,
    AskThenForget,
    AskOnQueue,
    AskLikeAScript,
    AskInChild,
    AskAndEnd,
    AskBarely,
    AskLocally,
    AskUnderAnyKey,
    AskUnderOneKey,
    AskAboutADocument,
    AskHugely,
    AskTwoOfThree,
    AskUpTheLadder,
    AskMany,
    AskAndGiveUp,
]
