"""A workflow file as a user writes it: it names `await_human` and nothing that the plugin would have to let through."""

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
