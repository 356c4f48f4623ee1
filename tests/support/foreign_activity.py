"""A workflow that asks no person and waits for an activity of its owner."""

from datetime import timedelta

from temporalio import activity, workflow

PAY = "pay"


@workflow.defn
class Pays:
    """A workflow that waits until its payment is completed from outside."""

    @workflow.run
    async def run(self) -> object:
        return await workflow.execute_activity(
            PAY, activity_id="human:payment", start_to_close_timeout=timedelta(minutes=5)
        )


@activity.defn(name=PAY)
async def pay() -> None:
    """Leave the completion to a payment service."""
    activity.raise_complete_async()
