"""Errors on their way over Temporal's wall: an activity's failure out, the same typed error back in."""

from temporalio.exceptions import ActivityError, ApplicationError

from awaithumans_core import errors
from awaithumans_core.errors import AwaitHumansError, RequestRefusedError


def failure(error: AwaitHumansError, *, asked_before: bool = False) -> ApplicationError:
    """What an activity raises. Refusals fail at once, with the server's words; everything else is tried again.

    A worker that lacks a setting is mended by its operator, who sees the message in the Temporal UI; workflows wait.
    So does a question that has been asked and whose task cannot be read just now, for instance with a token that was
    revoked.
    """
    final = isinstance(error, RequestRefusedError) and not asked_before
    return ApplicationError(str(error), type=type(error).__name__, non_retryable=final)


def typed(failed: ActivityError) -> BaseException:
    """The error the activity stands for, born again on the workflow's side; any other failure as it is."""
    cause = failed.cause
    kind = getattr(errors, cause.type or "", None) if isinstance(cause, ApplicationError) else None
    if isinstance(cause, ApplicationError) and isinstance(kind, type) and issubclass(kind, AwaitHumansError):
        return kind(cause.message)
    return failed
