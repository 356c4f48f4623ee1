"""Ask, settle, and ask again when the answer does not fit: one rule for every caller.

The server accepts any response, so an answer may not fit the response class. With `max_reasks` the person is asked
again, with a text that names the problems. Without it, a person is asked again once if a field that people type does
not fit. The key of the re-ask is derived from the first one, so a repeated call, on replay or after a restart, finds
the same tasks in the same order. A question that is answered by a person whose answer is not accepted is asked again in
the same way.
"""

from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

from awaithumans_core.errors import AnswererNotAllowedError, ResponseSchemaError
from awaithumans_core.form import typed_fields
from awaithumans_core.form.problems import shown_problems
from awaithumans_core.outcome import Outcome, settle
from awaithumans_core.task import HumanTask
from awaithumans_core.temporal_patches import applies

T = TypeVar("T")

ANOTHER_PERSON = "it was given by a person whose answer is not accepted"
"""Text of a re-ask about an answer that is not accepted. It does not name the answerer, whose name may be any text."""

ONCE_MORE = "Fill in all fields again"
"""Advice of a re-ask. The form starts empty."""

LAST = "This is the last time: fill in all fields again"
"""Advice of a re-ask after which the person is not asked again."""


def attempts(question: HumanTask[T]) -> Generator[HumanTask[T], Outcome, tuple[T, Outcome]]:
    """Yield each question to ask, receive its outcome, and return the answer with its outcome.

    Raises:
        QuestionEndedError: the error that `settle` raises for the last outcome.
        AnswererNotAllowedError: the last answer was given by a person whose answer is not accepted.
    """
    current, key, reasks = question, question.idempotency_key, 0
    while True:
        outcome = yield current
        if not reasks:  # an adapter may have named the question itself; then only the outcome knows its key
            key = outcome.idempotency_key or key
        try:
            question.answerers.check(outcome)
            return settle(outcome, question.response_schema), outcome
        except (ResponseSchemaError, AnswererNotAllowedError) as invalid:
            allowed = _allowed(question, invalid)
            if reasks >= allowed:
                raise
            reasks += 1
            problems = invalid.problems if isinstance(invalid, ResponseSchemaError) else (ANOTHER_PERSON,)
            shown = shown_problems(problems, question.body()["form_definition"])
            current = current.again(f"{key}:reask:{reasks}", shown, advice=ONCE_MORE if reasks < allowed else LAST)


def _allowed(question: HumanTask[T], invalid: ResponseSchemaError | AnswererNotAllowedError) -> int:
    """Return the maximum number of re-asks.

    A caller who gave none gets one if a field that people type does not fit, because people mistype. A workflow that
    was recorded before this rule existed did not ask again, and does not when it is replayed.
    """
    if question.max_reasks is not None:
        return question.max_reasks
    refused = invalid.refused_fields if isinstance(invalid, ResponseSchemaError) else ()
    mistyped = typed_fields(question.response_schema).intersection(refused)
    return 1 if mistyped and applies("awaithumans-typed-answers-are-asked-again") else 0


async def answered(question: HumanTask[T], ask: Callable[[HumanTask[T]], Awaitable[Outcome]]) -> tuple[T, Outcome]:
    """Drive `attempts` with an async `ask`."""
    steps = attempts(question)
    current = next(steps)
    try:
        while True:
            current = steps.send(await ask(current))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time


def answered_sync(question: HumanTask[T], ask: Callable[[HumanTask[T]], Outcome]) -> tuple[T, Outcome]:
    """Drive `attempts` with an `ask` that blocks."""
    steps = attempts(question)
    current = next(steps)
    try:
        while True:
            current = steps.send(ask(current))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time
