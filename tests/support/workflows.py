"""Workflows of the tests. A module of its own: workflow sandboxes load the file their workflow is in."""

import asyncio
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import workflow

from awaithumans_adapters.temporal import await_human
from awaithumans_core import AwaitHumansError

TASK_QUEUE = "tests"


class Decision(BaseModel):
    approved: bool
    note: str | None = None


@workflow.defn
class Ask:
    """Asks once, acts once, and tells what it made of the answer."""

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
class AskUncaught:
    """Lets the error of `await_human` fail the workflow."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> bool:
        decision: Decision = await await_human(response_schema=Decision, **options)
        return decision.approved


@workflow.defn
class AskSeveral:
    """Two people one after the other, then two at once."""

    @workflow.run
    async def run(self, name: str) -> list[bool]:
        first = await await_human(task=f"{name}: first?", response_schema=Decision)
        second = await await_human(task=f"{name}: second?", response_schema=Decision)
        both = await asyncio.gather(
            await_human(task=f"{name}: left?", response_schema=Decision),
            await_human(task=f"{name}: right?", response_schema=Decision),
        )
        return [first.approved, second.approved, *(decision.approved for decision in both)]


@workflow.defn
class AskImpatiently:
    """Stops waiting by itself, before anybody answers."""

    @workflow.run
    async def run(self, options: dict[str, Any]) -> str:
        try:
            async with asyncio.timeout(2):
                await await_human(response_schema=Decision, **options)
        except TimeoutError:
            return "went on without an answer"
        return "answered"


WORKFLOWS = [Ask, AskUncaught, AskSeveral, AskImpatiently]
