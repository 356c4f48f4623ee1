"""Interceptor around a workflow's code: it installs the mailbox, hands it from run to run, and frees open questions."""

import asyncio
from typing import Any, ClassVar, NoReturn

from temporalio import workflow
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    HandleQueryInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

with workflow.unsafe.imports_passed_through():
    from awaithumans_adapters.temporal.activities.options import ActivityOptions, chosen
    from awaithumans_adapters.temporal.names import DESCRIPTIONS, HEADER
    from awaithumans_adapters.temporal.workflow.mailbox import Mailbox
    from awaithumans_adapters.temporal.workflow.search_attribute import Listing
    from awaithumans_adapters.temporal.workflow.signal_mode import freed, freeing


class HumanTasksInterceptor(Interceptor):
    """Prepares each workflow run for `await_human`. `HumanTasksPlugin` and `HumanTasksWorkflowPlugin` add it.

    Args:
        activities: How workflows schedule the activities.
        list_assignees: Whether workflows set the search attribute.
    """

    def __init__(self, activities: ActivityOptions | None = None, *, list_assignees: bool = False) -> None:
        self.activities = chosen(activities)
        self.list_assignees = list_assignees

    def same_as(self, other: "HumanTasksInterceptor") -> bool:
        """Whether both interceptors configure workflows in the same way."""
        return (self.activities, self.list_assignees) == (other.activities, other.list_assignees)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: A002 - the SDK's name
        """Return the interceptor class for workflows, as the SDK requires.

        The class carries the options into the sandbox, where it is instantiated for each run.
        """
        options, listed = self.activities, self.list_assignees

        class Configured(_Inbound):
            activities = options
            list_assignees = listed

        return Configured


class _Inbound(WorkflowInboundInterceptor):
    activities: ClassVar[ActivityOptions]
    list_assignees: ClassVar[bool]

    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))
        # This must come before any signal: a dynamic handler of the workflow's own takes every signal without a
        # handler.
        Mailbox(activities=self.activities, listing=Listing(wanted=self.list_assignees)).install()

    async def handle_query(self, input: HandleQueryInput) -> Any:  # noqa: A002 - the SDK's name
        """Add the descriptions of handlers that are set while a workflow runs. The SDK has no argument for them."""
        result = await super().handle_query(input)
        if isinstance(result, WorkflowMetadata) and Mailbox.found() is not None:
            definitions = (*result.definition.signal_definitions, *result.definition.query_definitions)
            for each in definitions:
                each.description = each.description or DESCRIPTIONS.get(each.name, "")
        return result

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        mailbox, carried = Mailbox.found(), input.headers.get(HEADER)
        # A retried run has the header of the failed run, whose questions were already cancelled.
        if mailbox is not None and carried is not None and workflow.info().attempt == 1:
            mailbox.inherit(workflow.payload_converter().from_payload(carried, dict[str, Any]))
        try:
            result = await super().execute_workflow(input)
        except (Exception, asyncio.CancelledError) as error:
            # Any other exception suspends the run, which continues once the cause is fixed.
            if isinstance(error, asyncio.CancelledError) or workflow.is_failure_exception(error):
                await _free_all(mailbox)
            raise
        await _free_all(mailbox)
        return result


class _Outbound(WorkflowOutboundInterceptor):
    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:  # noqa: A002
        mailbox = Mailbox.found()
        carried = None
        if mailbox is not None:
            mailbox.list_assignees()  # the next run inherits the search attribute
            carried = mailbox.carried()
        if carried is not None:
            input.headers = {**input.headers, HEADER: workflow.payload_converter().to_payload(carried)}
        super().continue_as_new(input)


async def _free_all(mailbox: Mailbox | None) -> None:
    """Cancel the open questions of a run that has ended, so that no person works on them in vain.

    This is also called when a worker evicts a run from its cache, although the run continues elsewhere. The SDK then
    raises when an activity is started. The activities are therefore started before anything else, so that no coroutine
    is left that was never awaited.
    """
    if mailbox is not None:
        mailbox.list_assignees()
        mailbox.closed = True
        # An activity whose result is not awaited is dropped with the run. So for "request", too, the relay cancels the
        # task.
        open_ = [wait for wait in (*mailbox.inherited, *mailbox.open) if wait.on_cancel == "wait"]
        await freed(*[freeing(mailbox, wait) for wait in open_])
