"""A workflow file as users write it, which imports `await_human` and nothing that needs a sandbox exception."""

from pydantic import BaseModel
from temporalio import workflow

from awaithumans_adapters.temporal import await_human


class Decision(BaseModel):
    approved: bool


@workflow.defn
class AskPlainly:
    @workflow.run
    async def run(self, question: str) -> bool:
        return (await await_human(task=question, response_schema=Decision)).approved
