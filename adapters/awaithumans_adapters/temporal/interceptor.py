"""What happens around a workflow's own code: its mailbox is set up first, carried from run to run, and emptied last."""

import asyncio
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.worker import (
    ContinueAsNewInput,
    ExecuteWorkflowInput,
    HandleSignalInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

with workflow.unsafe.imports_passed_through():
    from awaithumans_adapters.temporal.mailbox import Mailbox
    from awaithumans_adapters.temporal.names import HEADER, SIGNAL
    from awaithumans_adapters.temporal.workflow import free


class HumanTasksInterceptor(Interceptor):
    """`HumanTasksPlugin` adds it."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: A002 - the SDK's name
        """As the SDK has it."""
        return _Inbound


class _Inbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_Outbound(outbound))

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:  # noqa: A002
        carried = input.headers.get(HEADER)
        if carried is not None:
            Mailbox.here().inherit(workflow.payload_converter().from_payload(carried, dict[str, Any]))
        try:
            result = await super().execute_workflow(input)
        except (Exception, asyncio.CancelledError) as error:
            # Anything else suspends the run, which goes on once it is mended.
            if isinstance(error, asyncio.CancelledError) or workflow.is_failure_exception(error):
                await _free_all()
            raise
        await _free_all()
        return result

    async def handle_signal(self, input: HandleSignalInput) -> None:  # noqa: A002
        # A workflow's dynamic handler takes every signal that has no handler of its own yet.
        if input.signal == SIGNAL and workflow.get_signal_handler(SIGNAL) is None:  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            Mailbox.here().receive(_argument(input.args))
        else:
            await super().handle_signal(input)


class _Outbound(WorkflowOutboundInterceptor):
    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:  # noqa: A002
        carried = None if _mailbox() is None else Mailbox.here().carried()
        if carried is not None:
            input.headers = {**input.headers, HEADER: workflow.payload_converter().to_payload(carried)}
        super().continue_as_new(input)


def _mailbox() -> object:
    return workflow.get_signal_handler(SIGNAL)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # the SDK's bare Callable


def _argument(args: Any) -> Any:
    """What the signal carries; a dynamic handler gets its name and raw values."""
    held = args[-1] if args else None
    if isinstance(held, list | tuple):
        held = held[0] if held else None  # pyright: ignore[reportUnknownVariableType]
    payload = getattr(held, "payload", None)  # pyright: ignore[reportUnknownArgumentType]
    return held if payload is None else workflow.payload_converter().from_payload(payload, dict[str, Any])  # pyright: ignore[reportUnknownVariableType]


async def _free_all() -> None:
    """Nobody works for a run that has ended."""
    if _mailbox() is None:
        return
    mailbox = Mailbox.here()
    await asyncio.gather(*(free(asked) for asked in (*mailbox.inherited, *mailbox.open)))
