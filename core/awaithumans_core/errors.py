"""Every error of this package, grouped by who can act on it.

    AwaitHumansError
      QuestionEndedError            the people's side: the question is over, without a usable answer
        TaskTimeoutError              nobody answered before the deadline
          QuestionNotAskedError         the question could not be asked in time, so nobody was asked
        TaskCancelledError            an agent or an operator cancelled the task
        VerificationExhaustedError    the verifier rejected every attempt
        ResponseSchemaError           a person answered, but not in the shape that was asked for
        ResponseMissingError          the task is completed and its answer is not there (redacted, or erased)
        AnswererNotAllowedError       another person answered than the question accepts an answer from
      RequestRefusedError           the caller's side: mend the call or its credentials, then call again
        InvalidTaskError              the question is malformed; nothing was sent
        QuestionChangedError          under its key, or at its place in the node, a person was asked something else
        TaskRejectedError             the server refused to create the task (4xx)
        AuthenticationError           401: no token, or a wrong one
        PermissionDeniedError         403: the token may not see this task
        TaskNotFoundError             404: there is no such task. Also a QuestionEndedError: a task that was deleted
                                      on the server is an end without an answer
      ServerUnreachableError        the operator's side: no usable reply until the time was up; the task is not lost
        UnexpectedReplyError          something answered, but it is not the API that was called
      SettingsError                 something is not configured; the text names the variable
      CallbackRejectedError         a callback that proves nothing: carries the HTTP status to answer with
        EngineUnknownError            a wait for an engine that the relay does not have
        TooManyWaitsError             a route has as many unanswered waits as it may have

Facts are attributes, the text says what to do next, `code` is stable across releases, and every error survives
pickling.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from awaithumans_core.safe_text import block, one_line

ENGINE_UNKNOWN = "ENGINE_UNKNOWN"
"""Code of a relay that does not have the engine a wait is registered for."""


class AwaitHumansError(Exception):
    """Base of every error this package raises on purpose."""

    code: ClassVar[str] = "AWAITHUMANS_ERROR"
    """Stable, upper case, safe to match on and to log."""

    task_id: str | None = None
    """The task it is about, once there is one."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(self._safe(message))
        for name, value in facts.items():
            setattr(self, name, value)

    @staticmethod
    def _safe(message: str) -> str:
        """The message, safe to show: it may quote questions, answers and replies."""
        return one_line(message)


class QuestionEndedError(AwaitHumansError):
    """The question is over and there is no usable answer."""

    code = "QUESTION_ENDED"
    outcome: Any = None
    """The `Outcome` it ended with: status, who, when, which channel."""


class TaskTimeoutError(QuestionEndedError):
    """Nobody answered before the task's deadline."""

    code = "TASK_TIMED_OUT"


class QuestionNotAskedError(TaskTimeoutError):
    """The server or the relay was unreachable for as long as asking may take, so no person was asked."""

    code = "QUESTION_NOT_ASKED"


class TaskCancelledError(QuestionEndedError):
    """An agent or an operator cancelled the task."""

    code = "TASK_CANCELLED"


class VerificationExhaustedError(QuestionEndedError):
    """The verifier rejected the answers until its attempts ran out."""

    code = "VERIFICATION_EXHAUSTED"


class ResponseSchemaError(QuestionEndedError):
    """A person answered, but the answer does not have the shape that was asked for."""

    code = "RESPONSE_INVALID"
    problems: tuple[str, ...] = ()
    """What is wrong, a line a field: `approved: Input should be a valid boolean`."""


class ResponseMissingError(QuestionEndedError):
    """The task is completed, yet its answer is gone: erased after another receiver took it."""

    code = "RESPONSE_MISSING"


class AnswererNotAllowedError(QuestionEndedError):
    """A person answered from whom the question accepts no answer (`only_assignee`, `not_by`, `quorum`)."""

    code = "ANSWERER_NOT_ALLOWED"
    answered_by: str | None = None
    """The e-mail address that is recorded for the answer. None: none is."""
    allowed: tuple[str, ...] | None = None
    """Whose answer is accepted. None: every person's, except those in `not_by`."""
    not_by: tuple[str, ...] = ()
    """Whose answer is not accepted."""


class RequestRefusedError(AwaitHumansError):
    """The server understood the request and said no; the same request will fail again."""

    code = "REQUEST_REFUSED"
    status_code: int | None = None
    """HTTP status of the refusal."""
    server_code: str | None = None
    """The server's own error code, for instance `TASK_NOT_FOUND`."""
    from_api: bool = True
    """Whether the refusal has the form of the API that was called. False: a proxy or another service answered."""


class InvalidTaskError(RequestRefusedError, ValueError):
    """The question is malformed; nothing was sent."""

    code = "TASK_INVALID"


class QuestionChangedError(RequestRefusedError):
    """The person was asked something else than what is asked now under the same key, or at the same place in a node.

    The answer is not taken, because it was not given to this question. It stays on the server.
    """

    code = "QUESTION_CHANGED"
    differs: Sequence[str] = ()
    """The parts that differ, by the names of the options: `task`, `payload`, `assign_to`, `response_schema`,
    `idempotency_key`. In a Temporal workflow only the key is compared, which is derived from text, payload and people.
    """


class TaskRejectedError(RequestRefusedError):
    """The server refused to create the task."""

    code = "TASK_REJECTED"


class AuthenticationError(RequestRefusedError):
    """No token, or one that is not accepted (401)."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(RequestRefusedError):
    """The caller is neither operator, admin nor assignee (403)."""

    code = "PERMISSION_DENIED"


class TaskNotFoundError(RequestRefusedError, QuestionEndedError):
    """There is no such task (404); a caller that waits gets this once it is confirmed that the task was deleted."""

    code = "TASK_NOT_FOUND"


class ServerUnreachableError(AwaitHumansError):
    """No usable reply until the time was up. The task, if it was created, still stands on the server."""

    code = "SERVER_UNREACHABLE"
    url: str | None = None
    """What could not be reached."""
    attempts: int = 0
    """How often it was tried."""
    retry_after: float = 0.0
    """Seconds of rest that the last reply has asked for."""


class UnexpectedReplyError(ServerUnreachableError):
    """Something answered that is not the API that was called: a redirect, a proxy's page, another service."""

    code = "UNEXPECTED_REPLY"


class SettingsError(AwaitHumansError):
    """A setting is missing or malformed; the text names it and says how to set it."""

    code = "SETTINGS"

    @staticmethod
    def _safe(message: str) -> str:
        return block(message)  # each wrong setting has a line


class CallbackRejectedError(AwaitHumansError):
    """A callback that proves nothing. Nothing of it was stored."""

    code = "CALLBACK_REJECTED"
    http_status: int = 401
    """What to answer: 401 no proof, 403 proof of something else, 413 too large, 422 malformed,
    408 too slow, 429 too many waits, 503 no room for it now.
    """


class EngineUnknownError(CallbackRejectedError):
    """A wait for an engine that this relay does not have."""

    code = ENGINE_UNKNOWN
    http_status = 422


class TooManyWaitsError(CallbackRejectedError):
    """A route has as many unanswered waits as it may have: a route is one question, which has one task at a time."""

    code = "TOO_MANY_WAITS"
    http_status = 429
