"""The wait of a plain script. It asks and shows its progress. A stopped one leaves its question open or cancels it."""

from typing import Any, TypeVar

from awaithumans_core.client import SyncTaskClient, TaskClient
from awaithumans_core.errors import AnswererNotAllowedError, AwaitHumansError
from awaithumans_core.group_decisions import is_not_needed
from awaithumans_core.outcome import Outcome
from awaithumans_core.progress import INTERRUPTS, progress_of
from awaithumans_core.reask import answered, answered_sync
from awaithumans_core.task import HumanTask

T = TypeVar("T")

WITHDRAW_SECONDS = 5.0
"""Seconds that a stopped script spends on cancelling its question.

The time is short because a user who pressed Ctrl-C wants the prompt back.
"""


async def answer(
    question: HumanTask[T], server_url: str | None, api_key: str | None, *, progress: bool, cancel_on_interrupt: bool
) -> tuple[T, Outcome]:
    """Ask the question, wait, and return the typed answer and how the task ended. See `await_human`."""
    async with TaskClient(server_url, api_key, patience=WITHDRAW_SECONDS) as client:
        with progress_of(question, client.settings, shown=progress) as telling:

            async def ask(asked: HumanTask[Any]) -> Outcome:
                telling.asks(asked)
                try:
                    outcome = await client.ask(
                        asked, on_status=telling.tell, on_pause=telling.trouble, poll_seconds=telling.poll_seconds
                    )
                except AnswererNotAllowedError as refused:  # `answered` checks it again, and may re-ask
                    outcome = refused.outcome
                return telling.ends(outcome)

            try:
                decision, outcome = await answered(question, ask)
            except INTERRUPTS as stop:
                if cancel_on_interrupt or is_not_needed(stop):
                    telling.withdrawn(await _withdrawn(client, telling.asked))
                else:
                    telling.left_open()
                raise stop.with_traceback(None) from None  # its place in the HTTP client is of no use to a reader
    return decision, outcome


def answer_sync(
    question: HumanTask[T], server_url: str | None, api_key: str | None, *, progress: bool, cancel_on_interrupt: bool
) -> tuple[T, Outcome]:
    """Ask like `answer`, but block the calling thread."""
    with (
        SyncTaskClient(server_url, api_key, patience=WITHDRAW_SECONDS) as client,
        progress_of(question, client.settings, shown=progress) as telling,
    ):

        def ask(asked: HumanTask[Any]) -> Outcome:
            telling.asks(asked)
            try:
                outcome = client.ask(
                    asked, on_status=telling.tell, on_pause=telling.trouble, poll_seconds=telling.poll_seconds
                )
            except AnswererNotAllowedError as refused:  # `answered` checks it again, and may re-ask
                outcome = refused.outcome
            return telling.ends(outcome)

        try:
            decision, outcome = answered_sync(question, ask)
        except INTERRUPTS as stop:
            if cancel_on_interrupt:
                telling.withdrawn(_withdrawn_sync(client, telling.asked))
            else:
                telling.left_open()
            raise stop.with_traceback(None) from None  # its place in the HTTP client is of no use to a reader
    return decision, outcome


async def _withdrawn(client: TaskClient, question: HumanTask[Any]) -> Outcome | None:
    """Cancel the question and return how it ended; None if the server could not be reached or refused."""
    try:
        return await client.withdraw(question)
    except AwaitHumansError:
        return None


def _withdrawn_sync(client: SyncTaskClient, question: HumanTask[Any]) -> Outcome | None:
    try:
        return client.withdraw(question)
    except AwaitHumansError:
        return None
