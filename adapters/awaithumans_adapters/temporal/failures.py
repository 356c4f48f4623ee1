"""Errors on their way over Temporal's wall: an activity's failure out, the same typed error back in.

What follows from an error depends on its cause, and on nothing else:

    QUESTION  fails at once
    SETTING   is retried at growing intervals, for at most the question's time; then it fails
    OUTAGE    is retried as Temporal's retry policy has it: while the question is not asked yet, for as long as asking
              may take; then for as long as it lasts
"""

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, cast

from pydantic_core import PydanticSerializationError, to_jsonable_python
from temporalio.exceptions import ActivityError, ApplicationError, ApplicationErrorCategory

from awaithumans_core import errors
from awaithumans_core.cause import Cause, cause_of
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.flow import SAME_KEY
from awaithumans_core.retry import Backoff

SettingErrors = Literal["retry", "fail"]
"""What a wrong or missing setting does to a workflow: it waits until the setting is corrected, or fails at once."""

SETTING_BACKOFF = Backoff(first=5.0, factor=2.0, most=300.0)
"""Between two attempts while a setting is wrong."""

WHAT_NEXT = "This is retried until the setting is corrected"
"""Ends the message of an attempt that failed because of a setting."""

_LIMIT = ", or the question's time is over"

OUTAGE_BACKOFF = Backoff(first=1.0, factor=2.0, most=30.0)
"""Near the end of the time in which a question has to be asked, so that the last attempt does not come after it."""


def failure(error: AwaitHumansError, *, retried_for: float, attempt: int) -> ApplicationError:
    """What an activity raises: the error's text, its type, and its facts as details.

    Args:
        error: What happened.
        retried_for: Seconds for which it is still retried; 0 ends the activity.
        attempt: Which attempt of the activity this was, from 1 on.
    """
    final = retried_for <= 0
    waits = not final and cause_of(error) is Cause.SETTING
    backoff = SETTING_BACKOFF if waits else OUTAGE_BACKOFF
    bounded = waits or 0 < retried_for <= OUTAGE_BACKOFF.most
    return ApplicationError(
        f"{error}. {WHAT_NEXT}{_LIMIT if math.isfinite(retried_for) else ''}" if waits else str(error),
        facts(error),
        type=type(error).__name__,
        non_retryable=final,
        next_retry_delay=timedelta(seconds=min(backoff.delay(attempt), retried_for)) if bounded else None,
        # Thousands of workflows may meet one wrong setting: the activities log it, and not each attempt.
        category=ApplicationErrorCategory.BENIGN if waits else ApplicationErrorCategory.UNSPECIFIED,
    )


def not_asked(key: str, seconds: float, why: str) -> errors.QuestionNotAskedError:
    """The error about a question that could not be asked within so many seconds."""
    return errors.QuestionNotAskedError(
        f"the question was not asked within {seconds:.0f} s, so nobody will answer it ({key}; last: "
        f"{why.removesuffix(SAME_KEY)}). Ask again under another idempotency_key, or give ask_within more time"
    )


def typed(failed: ActivityError) -> BaseException:
    """The error the activity stands for, with its facts, on the workflow's side; any other failure as it is."""
    cause = failed.cause
    kind = getattr(errors, cause.type or "", None) if isinstance(cause, ApplicationError) else None
    if isinstance(cause, ApplicationError) and isinstance(kind, type) and issubclass(kind, AwaitHumansError):
        held: object = next(iter(cause.details), None)
        given = dict(cast("Mapping[str, Any]", held)) if isinstance(held, Mapping) else dict[str, Any]()
        return kind(cause.message, **{name: given[name] for name in _declared(kind) & given.keys()})
    return failed


def facts(error: AwaitHumansError) -> dict[str, Any]:
    """The attributes an error was given, those that are JSON."""
    given: dict[str, Any] = {}
    for name, value in vars(error).items():
        try:
            given[name] = to_jsonable_python(value)
        except PydanticSerializationError:
            continue
    return given


def _declared(kind: type[AwaitHumansError]) -> set[str]:
    """The facts an error of this kind may carry."""
    return {name for above in kind.__mro__ for name in vars(above).get("__annotations__", {})} - {"code"}
