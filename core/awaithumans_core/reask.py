"""Ask, settle, and ask again when the answer does not fit: one rule for every caller.

The server takes any response, so an answer may lack the shape that was asked for. With `max_reasks` the person is asked
again and told what was wrong, under a key derived from the first one: whoever repeats the call, on replay or after a
restart, meets the same tasks in the same order.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

from awaithumans_core.errors import ResponseSchemaError
from awaithumans_core.outcome import Outcome, settle
from awaithumans_core.task import HumanTask

T = TypeVar("T")


def attempts(question: HumanTask[T]) -> Generator[HumanTask[T], Outcome, tuple[T, Outcome]]:
    """Yields what to ask, is sent how that ended, returns the answer and its outcome.

    Raises:
        QuestionEndedError: whatever `settle` says of the last outcome.
    """
    asked, key, reasks = question, question.idempotency_key, 0
    while True:
        outcome = yield asked
        if not reasks:  # an adapter may have named the question itself; then only the outcome knows its key
            key = outcome.idempotency_key or key
        try:
            return settle(outcome, question.response_schema), outcome
        except ResponseSchemaError as invalid:
            if reasks == question.max_reasks:
                raise
            reasks += 1
            asked = asked.again(f"{key}:reask:{reasks}", invalid.problems)


async def answered(question: HumanTask[T], ask: Callable[[HumanTask[T]], Awaitable[Outcome]]) -> tuple[T, Outcome]:
    """Drive `attempts` with an async `ask`."""
    steps = attempts(question)
    asked = next(steps)
    try:
        while True:
            asked = steps.send(await ask(asked))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time


def answered_sync(question: HumanTask[T], ask: Callable[[HumanTask[T]], Outcome]) -> tuple[T, Outcome]:
    """Drive `attempts` with an `ask` that blocks."""
    steps = attempts(question)
    asked = next(steps)
    try:
        while True:
            asked = steps.send(ask(asked))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time
