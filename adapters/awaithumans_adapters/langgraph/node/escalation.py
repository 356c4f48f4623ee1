"""`escalate` for LangGraph nodes. Its timers are the questions' own timeouts, which the relay delivers like answers."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import TypeVar

from awaithumans_core.answerers import addresses
from awaithumans_core.errors import InvalidTaskError, QuestionEndedError
from awaithumans_core.group_decisions import Person, Step, schedule, step_key

T = TypeVar("T")

SHORTEST_SECONDS = 60
"""Minimum duration of a question, in seconds."""


async def escalate(
    ask: Callable[..., Awaitable[T]],
    steps: Sequence[Step],
    *,
    within: float | timedelta,
    otherwise: T,
    idempotency_key: str | None = None,
) -> T:
    """Ask the people of the first step, later those of the next step too, and so on. The first answer counts.

    This is `escalate` of awaithumans_core with one difference, because no timer runs while a thread waits: each step
    asks one question, which times out when the next step begins. It is assigned to the people of this step and of the
    earlier ones, so they can still answer. People named by user id, pool or role are asked in their own step only.

    Args:
        ask: `await_human` of awaithumans_adapters.langgraph with all arguments except `assign_to` and
            `timeout_seconds`.
        steps: Whom to ask and when, in this order, at least a minute apart.
        within: The total time: seconds or a timedelta. Each timeout adds the time that the relay takes to notice it.
        otherwise: The decision if no answer was given.
        idempotency_key: Names the decision. The key of each question is made from it.

    Returns:
        The first answer, or `otherwise`.

    Raises:
        InvalidTaskError: there are no steps, they are not in order, or one is shorter than a minute.
        AwaitHumansError: the questions cannot be asked at all.

    Example:
        decision = await escalate(
            partial(await_human, task="Refund $250?", response_schema=Decision),
            [Step("anna@example.com"), Step("lead@example.com", after=timedelta(hours=4))],
            within=timedelta(days=1),
            otherwise=Decision(approved=False),
        )
    """
    whole, starts = schedule(steps, within)
    lasts = [end - start for start, end in pairwise([*starts, whole])]
    if short := [seconds for seconds in lasts if seconds < SHORTEST_SECONDS]:
        raise InvalidTaskError(f"a step has {short[0]:g} s until the next one begins: people need a minute")
    asked: list[Person] = []
    for number, (step, seconds) in enumerate(zip(steps, lasts, strict=True)):
        asked = [*asked, step.assign_to] if step.assign_to is not None else asked
        options = {"assign_to": _together(asked, step.assign_to), **step.options, **step_key(idempotency_key, number)}
        try:
            return await ask(timeout_seconds=seconds, **options)
        except QuestionEndedError:
            continue
    return otherwise


def _together(asked: Sequence[Person], now: Person | None) -> Person | list[str] | None:
    """Return the people of all steps so far if e-mail addresses name them all, otherwise those of the current step."""
    emails = [_emails(person) for person in asked]
    together = list(dict.fromkeys(email for each in emails for email in each or ()))
    return together if now is not None and len(together) > 1 and None not in emails else now


def _emails(person: Person) -> tuple[str, ...] | None:
    if isinstance(person, str):
        return (person,)
    return addresses(person) if set(person) <= {"email", "emails"} else None
