"""Every error of this package, grouped by who can act on it.

    AwaitHumansError
      QuestionEndedError            the people's side: the question is over, without a usable answer
        TaskTimeoutError              no person answered before the deadline
          QuestionNotAskedError         the question could not be asked in time, so no person saw it
        TaskCancelledError            an agent or an operator cancelled the task
        VerificationExhaustedError    the verifier rejected every attempt
        ResponseSchemaError           a person answered, but not in the shape that was asked for
        ResponseMissingError          the task is completed, but its answer is missing (redacted, or erased)
        AnswererNotAllowedError       the answer is from a person whose answer the question does not accept
      RequestRefusedError           the caller's side: fix the call or its credentials, then call again
        InvalidTaskError              the question is malformed; nothing was sent
        QuestionChangedError          under its key, or at its place in the node, another question was asked before
        TaskRejectedError             the server refused to create the task (4xx)
        AuthenticationError           401: no token, or a wrong one
        PermissionDeniedError         403: the token may not see this task
        TaskNotFoundError             404: there is no such task. Also a QuestionEndedError, because a task that was
                                      deleted on the server has ended without an answer
      ServerUnreachableError        the operator's side: no usable reply in time; the task is not lost
        UnexpectedReplyError          the reply is not from the API that was called
      SettingsError                 a setting is missing or malformed; the text names the variable
      CallbackRejectedError         a callback without valid proof; carries the HTTP status of the reply
        EngineUnknownError            a wait for an engine that the relay does not have
        TooManyWaitsError             a route has reached its limit of unanswered waits

The text of an error names the next step. `code` is stable across releases, and docs/reference/errors has a page for
each. `str(error)` is the text and the code, `... [TASK_TIMED_OUT]`. `error.text` and `error.args` hold the text alone.

Facts are fields of the class: keyword arguments of the constructor, and attributes of the error. A type checker knows
them, so a misspelled fact is found before the program runs. They survive pickling, copying, and the way from a Temporal
activity to its workflow.
"""

from collections.abc import Sequence
from dataclasses import InitVar, field
from typing import Any, ClassVar

from awaithumans_core.declared_facts import declared_facts, declares_facts
from awaithumans_core.safe_text import block, one_line

ENGINE_UNKNOWN = "ENGINE_UNKNOWN"
"""Error code with which a relay refuses a wait for an engine that it does not have."""


@declares_facts
class AwaitHumansError(Exception):
    """Base of every error this package raises on purpose."""

    message: InitVar[str] = field(kw_only=False)

    code: ClassVar[str] = "AWAITHUMANS_ERROR"
    """Stable code of the error, in upper case. It is safe to match on and to log."""

    task_id: str | None = None
    """Id of the task that the error is about; None if there is no task yet."""

    def __post_init__(self, message: str) -> None:
        # str() of an error becomes a text in a failure of Temporal, or in code that raises it again.
        self.args = (self._safe(str(message).removesuffix(f" [{self.code}]")),)

    def __str__(self) -> str:
        return f"{self.text} [{self.code}]"

    @property
    def text(self) -> str:
        """What happened and what to do, without the code."""
        return super().__str__()

    def facts(self) -> dict[str, Any]:
        """Return the facts that differ from their defaults, by name."""
        known = {fact.name: fact.default for fact in declared_facts(type(self))}
        return {name: getattr(self, name) for name, default in known.items() if getattr(self, name) != default}

    @staticmethod
    def _safe(message: str) -> str:
        """Return the message in a form that is safe to show, since it may quote questions, answers and replies."""
        return one_line(message)


@declares_facts
class QuestionEndedError(AwaitHumansError):
    """The question is over and there is no usable answer."""

    code = "QUESTION_ENDED"
    outcome: Any = None
    """The `Outcome` of the task: its status, who ended it, when, and on which channel."""


class TaskTimeoutError(QuestionEndedError):
    """No person answered before the task's deadline."""

    code = "TASK_TIMED_OUT"


class QuestionNotAskedError(TaskTimeoutError):
    """The server or the relay stayed unreachable for the whole time that asking may take, so no person was asked."""

    code = "QUESTION_NOT_ASKED"


class TaskCancelledError(QuestionEndedError):
    """An agent or an operator cancelled the task."""

    code = "TASK_CANCELLED"


class VerificationExhaustedError(QuestionEndedError):
    """The verifier rejected the answers until its attempts ran out."""

    code = "VERIFICATION_EXHAUSTED"


@declares_facts
class ResponseSchemaError(QuestionEndedError):
    """A person answered, but the answer does not have the shape that was asked for."""

    code = "RESPONSE_INVALID"
    problems: tuple[str, ...] = ()
    """The problems, one line per field, for instance `approved: Input should be a valid boolean`."""
    refused_fields: tuple[str, ...] = ()
    """The names of the fields that do not fit. Empty if the answer does not fit as a whole."""


class ResponseMissingError(QuestionEndedError):
    """The task is completed, but its answer is missing: it was erased after another receiver took it."""

    code = "RESPONSE_MISSING"


@declares_facts
class AnswererNotAllowedError(QuestionEndedError):
    """The answer is from a person whose answer the question does not accept (`only_assignee`, `not_by`, `quorum`)."""

    code = "ANSWERER_NOT_ALLOWED"
    answered_by: str | None = None
    """The e-mail address that is recorded for the answer. None: no address is recorded."""
    allowed: tuple[str, ...] | None = None
    """The people whose answer is accepted. None: everyone, except those in `not_by`."""
    not_by: tuple[str, ...] = ()
    """The people whose answer is not accepted."""


@declares_facts
class RequestRefusedError(AwaitHumansError):
    """The server understood the request and refused it. The same request will fail again."""

    code = "REQUEST_REFUSED"
    status_code: int | None = None
    """The HTTP status of the refusal."""
    server_code: str | None = None
    """The server's own error code, for instance `TASK_NOT_FOUND`."""
    from_api: bool = True
    """Whether the refusal has the form of the API that was called. False: a proxy or another service answered."""


class InvalidTaskError(RequestRefusedError, ValueError):
    """The question is malformed; nothing was sent."""

    code = "TASK_INVALID"


@declares_facts
class QuestionChangedError(RequestRefusedError):
    """The person was asked a different question before, under the same key or at the same place in a node.

    Its answer is not accepted, because it was not given to this question. It stays on the server.
    """

    code = "QUESTION_CHANGED"
    differs: Sequence[str] = ()
    """Names of the options that differ: `task`, `payload`, `assign_to`, `response_schema`, `idempotency_key`.

    In a Temporal workflow only the key is compared, which is derived from text, payload and people.
    """


class TaskRejectedError(RequestRefusedError):
    """The server refused to create the task."""

    code = "TASK_REJECTED"


class AuthenticationError(RequestRefusedError):
    """The token is missing or not accepted (401)."""

    code = "UNAUTHENTICATED"


class PermissionDeniedError(RequestRefusedError):
    """The caller is neither operator, admin nor assignee (403)."""

    code = "PERMISSION_DENIED"


@declares_facts
class TaskNotFoundError(RequestRefusedError, QuestionEndedError):
    """There is no such task (404). A waiting caller gets this error once the deletion of the task is confirmed."""

    code = "TASK_NOT_FOUND"


@declares_facts
class ServerUnreachableError(AwaitHumansError):
    """There was no usable reply before the time was up. The task, if it was created, still exists on the server."""

    code = "SERVER_UNREACHABLE"
    url: str | None = None
    """The URL that could not be reached."""
    attempts: int = 0
    """The number of attempts."""
    retry_after: float = 0.0
    """Seconds to wait before the next attempt, as the last reply requested (`Retry-After`)."""


class UnexpectedReplyError(ServerUnreachableError):
    """The reply is not from the API that was called: it is a redirect, a proxy's page, or from another service."""

    code = "UNEXPECTED_REPLY"


@declares_facts
class SettingsError(AwaitHumansError):
    """A setting is missing or malformed. The text names it and explains how to set it."""

    code = "SETTINGS"
    missing: tuple[str, ...] = ()
    """The variables that are not set, for instance `AWAITHUMANS_RELAY_SECRET`. Empty if the problem is another one."""

    @staticmethod
    def _safe(message: str) -> str:
        return block(message)  # keeps line breaks, since each wrong setting has a line of its own


@declares_facts
class CallbackRejectedError(AwaitHumansError):
    """The callback lacks valid proof. Nothing of it was stored."""

    code = "CALLBACK_REJECTED"
    http_status: int = 401
    """The HTTP status of the reply.

    401 no proof, 403 proof of something else, 408 too slow, 413 too large, 422 malformed, 429 too many waits, 503 no
    room for it now.
    """


@declares_facts
class EngineUnknownError(CallbackRejectedError):
    """The wait is for an engine that this relay does not have."""

    code = ENGINE_UNKNOWN
    http_status: int = 422


@declares_facts
class TooManyWaitsError(CallbackRejectedError):
    """A route has reached its limit of unanswered waits. A route is one question, which has one task at a time."""

    code = "TOO_MANY_WAITS"
    http_status: int = 429
