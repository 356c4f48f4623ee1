"""Converts errors between activities and workflows: an activity's failure out, the same typed error back in.

What follows from an error depends on its cause alone:

    QUESTION  fails at once
    SETTING   is retried at growing intervals, for at most the question's time; then it fails
    OUTAGE    is retried as Temporal's retry policy has it: while the question is not asked yet, for as long as asking
        may take; then for as long as it lasts
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Literal, cast

from pydantic_core import PydanticSerializationError, to_jsonable_python
from temporalio.exceptions import ActivityError, ApplicationError, ApplicationErrorCategory

from awaithumans_core import errors
from awaithumans_core.declared_facts import declared_facts
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.failure_cause import Cause, cause_of
from awaithumans_core.flow import SAME_KEY
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff

SettingErrors = Literal["retry", "fail"]
"""Effect of a wrong or missing setting on a workflow: it waits until the setting is corrected, or fails at once."""

SETTING_BACKOFF = Backoff(first=5.0, factor=2.0, most=300.0)
"""Intervals between attempts while a setting is wrong."""

WHAT_NEXT = "This is retried until the setting is corrected"
"""Last sentence of the message of an attempt that failed because of a setting."""

_LIMIT = ", or the question's time is over"

OUTAGE_BACKOFF = Backoff(first=1.0, factor=2.0, most=30.0)
"""Intervals near the end of the time for asking, so that the last attempt is not made after that time."""


def failure(error: AwaitHumansError, *, retried_for: float, attempt: int) -> ApplicationError:
    """Return the error that an activity raises: the text of `error`, its type, and its facts as details.

    The text is without the code, which the workflow's error adds again from the failure's type.

    Args:
        error: What happened.
        retried_for: Seconds for which it is still retried. 0 ends the activity.
        attempt: Number of this attempt of the activity, from 1.
    """
    final = retried_for <= 0
    waits = not final and cause_of(error) is Cause.SETTING
    backoff = SETTING_BACKOFF if waits else OUTAGE_BACKOFF
    bounded = waits or 0 < retried_for <= OUTAGE_BACKOFF.most
    return ApplicationError(
        f"{error.text}. {WHAT_NEXT}{_LIMIT if math.isfinite(retried_for) else ''}" if waits else error.text,
        facts(error),
        type=type(error).__name__,
        non_retryable=final,
        next_retry_delay=timedelta(seconds=min(backoff.delay(attempt), retried_for)) if bounded else None,
        # Thousands of workflows may fail because of one wrong setting. The activities log it, instead of each attempt.
        category=ApplicationErrorCategory.BENIGN if waits else ApplicationErrorCategory.UNSPECIFIED,
    )


def not_asked(key: str, seconds: float, why: str) -> errors.QuestionNotAskedError:
    """Return the error for a question that could not be asked within this number of seconds."""
    return errors.QuestionNotAskedError(
        f"the question was not asked within {seconds:.0f} s, so no person will answer it ({key}; last: "
        f"{why.removesuffix(SAME_KEY)}). Ask again under another idempotency_key, or give ask_within more time"
    )


def typed(failed: ActivityError) -> BaseException:
    """Return the typed error behind an activity's failure, with its facts, or any other failure unchanged."""
    cause = failed.cause
    kind = getattr(errors, cause.type or "", None) if isinstance(cause, ApplicationError) else None
    if isinstance(cause, ApplicationError) and isinstance(kind, type) and issubclass(kind, AwaitHumansError):
        held: object = next(iter(cause.details), None)
        given = cast("Mapping[str, Any]", held) if isinstance(held, Mapping) else dict[str, Any]()
        error = kind(cause.message)
        for fact in declared_facts(kind):
            with suppress(KeyError, ValueError):  # another release may write this fact in another form, or not at all
                setattr(error, fact.name, _read_fact(fact.name, given[fact.name]))
        return error
    return failed


def facts(error: AwaitHumansError) -> dict[str, Any]:
    """Return the facts of an error that can be represented in JSON."""
    given: dict[str, Any] = {}
    for name, value in error.facts().items():
        try:
            given[name] = to_jsonable_python(value)
        except PydanticSerializationError:
            continue
    return given


def _read_fact(name: str, value: Any) -> Any:
    """Return a fact as its error declares it: from JSON, an outcome is a mapping and a tuple is a list."""
    if name == "outcome":
        return Outcome.model_validate(value)
    return tuple(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
