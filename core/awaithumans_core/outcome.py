"""The outcome of a task: its status and, once the status is terminal, how it ended.

Laws:

- An outcome crosses every process boundary as a value: as a signal argument, a resume value, or a row of the relay.
- Typed errors are raised only by `settle`, in the caller's own process.
- `completed` without a response is not an answer.
- No error path yields an approval.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar, overload

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.types import JsonValue
from pydantic_core import to_json

from awaithumans_core.errors import (
    QuestionEndedError,
    ResponseMissingError,
    ResponseSchemaError,
    TaskCancelledError,
    TaskNotFoundError,
    TaskTimeoutError,
    VerificationExhaustedError,
)
from awaithumans_core.form import read_form
from awaithumans_core.form.problems import NOTHING_ENTERED
from awaithumans_core.schema.classes import adapter, answer_reader, extra
from awaithumans_core.schema.explicit_yes import YesNotGiven
from awaithumans_core.status import NOT_FOUND, TERMINAL, TaskStatus

T = TypeVar("T")


def _utc(moment: datetime | None) -> datetime | None:
    try:
        if moment is None:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time outside the calendar") from None


def _if_readable(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Return None for a value that cannot be read, so that a field beside the answer cannot make the answer fail."""
    try:
        return read(value)
    except ValueError:
        return None


Moment = Annotated[datetime | None, AfterValidator(_utc), WrapValidator(_if_readable)]
"""A point in time in UTC. Callback bodies carry no time zone and mean UTC. Poll replies end in `Z`."""

MAX_TEXT_CHARS = 1_000
"""Maximum length of a text beside the answer. A longer one could prevent an engine from carrying the outcome."""

Text = Annotated[str | None, Field(max_length=MAX_TEXT_CHARS), WrapValidator(_if_readable)]
Number = Annotated[int | None, Field(ge=0, lt=2**31), WrapValidator(_if_readable)]


_TOO_DEEP = "recursion_depth_exceeded"
"""The type of pydantic's error for a value that is nested too deep."""


class Outcome(BaseModel):
    """The status and answer of a task, read leniently from a create reply, poll reply, task record or callback body.

    Unknown fields are ignored. Missing fields are None, and so are fields beside the answer that cannot be read. An
    unknown status is kept unchanged, and is not terminal.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    task_id: str = Field(validation_alias=AliasChoices("task_id", "id"))
    """Id of the task on the awaithumans server."""
    status: str
    """One of `TaskStatus`, `NOT_FOUND`, or a word this release does not know yet."""
    idempotency_key: str | None = None
    """The key of the question that this answers. Task records and callbacks carry it, poll replies do not."""
    response: dict[str, JsonValue] | None = None
    """What the person submitted, as the server stores it. The server does not check it against the schema."""
    completed_at: Moment = None
    """When the answer became final (UTC)."""
    timed_out_at: Moment = None
    """When the task timed out (UTC)."""
    completed_by_email: Text = None
    """E-mail address of the person who answered, if one is recorded.

    If the task was completed with the API, the caller of the API stated this address.
    """
    completed_by_user_id: Text = None
    """The server's user id of the person who answered, if signed in. Only task records carry it."""
    assigned_to_user_id: Text = None
    """The server's user id of the assignee, if that is a known person. Only task records carry it."""
    completed_by_display_name: Text = None
    """Display name of the person who answered. Only task records carry it."""
    completed_via_channel: Text = None
    """The channel of the answer: `dashboard`, `email`, `slack`, ..."""
    verification_attempt: Number = None
    """The number of attempts that the verifier has judged. Poll replies do not carry it."""
    created_at: Moment = None
    """When the task was created (UTC). Only task records carry it."""
    timeout_seconds: Number = None
    """The task's own timeout in seconds. Only task records carry it."""
    response_omitted: str | None = None
    """Why the response is missing although a person gave one. Set, for instance, by an engine that cannot carry it."""
    reworded: bool | None = None
    """True if the caller now asks in other words than the person was asked in.

    Set by a Temporal workflow whose code was changed while it waited. The value may differ when other code replays that
    workflow.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _despite_its_depth(cls, held: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """Omit a response that is nested too deep to be read here, instead of failing: the task was still answered."""
        try:
            return read(held)
        except ValidationError as invalid:
            if not isinstance(held, Mapping) or not any(e["type"] == _TOO_DEEP for e in invalid.errors()):
                raise
            return read(
                {**held, "response": None, "response_omitted": "it is nested too deep; read it from the server"}
            )

    def from_server(self) -> Self:
        """Return the outcome as read from a server's reply or callback body, with a status `NOT_FOUND` renamed.

        Only this package concludes `NOT_FOUND`. Sent by a server, it is a status that this release does not know, and
        such a status is pending.
        """
        return self.model_copy(update={"status": f"server:{NOT_FOUND}"}) if self.deleted else self

    @property
    def terminal(self) -> bool:
        """Whether the task has ended. An unknown status counts as not ended."""
        return self.status in TERMINAL or self.deleted

    @property
    def deleted(self) -> bool:
        """Whether it is confirmed that the task was deleted on the server."""
        return self.status == NOT_FOUND

    @property
    def answered(self) -> bool:
        """Whether there is an outcome to deliver: any end, except a completion whose response is missing.

        A completion whose response was omitted on the way counts as well: the caller is woken instead of waiting for
        more.
        """
        completed = self.status == TaskStatus.COMPLETED
        return self.terminal and not (completed and self.response is None and self.response_omitted is None)

    def without_response(self, reason: str) -> Self:
        """Return this outcome without its response, which cannot be carried further. `settle` reports the reason.

        Args:
            reason: Completes "its response is not here: ...". It must contain nothing of the response itself.
        """
        return self.model_copy(update={"response": None, "response_omitted": reason})

    def value(self) -> dict[str, Any]:
        """Return the JSON-safe form without empty fields, for histories, checkpoints and rows."""
        return self.model_dump(mode="json", exclude_none=True)


def at_deadline(closed: Outcome) -> Outcome:
    """Return the outcome of a task that was closed at its deadline.

    An answer given just before the deadline still counts. A cancellation is the result of closing the task here, so it
    is reported as a timeout.
    """
    if closed.status == TaskStatus.CANCELLED:
        return closed.model_copy(update={"status": TaskStatus.TIMED_OUT.value})
    return closed


_ENDED: Mapping[str, tuple[type[QuestionEndedError], str]] = {
    TaskStatus.TIMED_OUT: (
        TaskTimeoutError,
        "no person answered task {id} before its deadline. "
        "Ask again under another idempotency_key, ask someone else or give more time",
    ),
    TaskStatus.CANCELLED: (
        TaskCancelledError,
        "task {id} was cancelled before a person answered it. It stays cancelled under this idempotency_key; "
        "use a new key to ask again",
    ),
    TaskStatus.VERIFICATION_EXHAUSTED: (
        VerificationExhaustedError,
        "the verifier rejected every answer to task {id} ({attempts} attempts)",
    ),
    NOT_FOUND: (
        TaskNotFoundError,
        "task {id} was deleted on the awaithumans server before a person answered it. The question is not asked again "
        "automatically; call await_human again",
    ),
}


def end_without_answer(outcome: Outcome) -> QuestionEndedError | None:
    """Return the typed error of a task that ended without an answer; None if it has an answer or has not ended."""
    ended = _ENDED.get(outcome.status)
    if ended is None:
        return None
    error, text = ended
    attempts = outcome.verification_attempt or "all"
    return error(text.format(id=outcome.task_id, attempts=attempts), task_id=outcome.task_id, outcome=outcome)


@overload
def settle(outcome: Outcome, response_schema: type[T]) -> T: ...
@overload
def settle(outcome: Outcome, response_schema: Any) -> Any: ...
def settle(outcome: Outcome, response_schema: Any) -> Any:
    """Turn an outcome into a `response_schema` instance, or raise the typed error that it represents.

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: the task ended without an answer.
        TaskNotFoundError: the task was deleted on the server.
        ResponseSchemaError: the answer does not fit `response_schema`. The server does not check answers, so it is
            checked here.
        ResponseMissingError: the task is completed, but its response is missing.
        ValueError: the outcome is not terminal, so it cannot be settled yet.

    Example:
        >>> from pydantic import BaseModel
        >>> class Decision(BaseModel):
        ...     approved: bool
        >>> settle(Outcome(task_id="t1", status="completed", response={"approved": True}), Decision)
        Decision(approved=True)
    """
    if (error := end_without_answer(outcome)) is not None:
        raise error
    if outcome.status != TaskStatus.COMPLETED:
        raise ValueError(f"task {outcome.task_id} is {outcome.status}: it has not ended, so it cannot be settled")
    if outcome.response is None:
        why = outcome.response_omitted or "it was removed from the server (redacted after another receiver took it)"
        raise ResponseMissingError(
            f"task {outcome.task_id} is completed, but its response is missing: {why}. The decision is not known here",
            task_id=outcome.task_id,
            outcome=outcome,
        )
    values, answer, unread = dict[str, Any](), b"", dict[str, str]()
    try:
        values, unread = read_form(outcome.response, response_schema)
        # Validated as JSON, which is how it was transported: from JSON, a strict class also reads dates and enums.
        answer = to_json(values)
        settled = answer_reader(response_schema).validate_json(answer, extra=extra(response_schema))
    except ValidationError as invalid:
        found = invalid.errors(include_input=False)
        problems = [_problem(each, values) for each in found if not unread.keys() & {*each["loc"][:1]}]
        why = _BY_DEFAULT if not unread and _fits(answer, response_schema) else ""
        refused = [*unread, *(str(each["loc"][0]) for each in found if each["loc"])]
        raise _misfit(outcome, response_schema, *unread.values(), *problems, why=why, refused=refused) from None
    except YesNotGiven as field:
        problem = f"{field}: Field required"
        raise _misfit(outcome, response_schema, problem, why=_BY_DEFAULT, refused=[str(field)]) from None
    except Exception as error:  # from the class's own validator, or too deep to read as JSON
        problem = f"response: {type(error).__name__}: {error}"
        raise _misfit(outcome, response_schema, *(unread.values() or [problem]), refused=[*unread]) from error
    if unread:
        raise _misfit(outcome, response_schema, *unread.values(), refused=[*unread])
    return settled


_BY_DEFAULT = " (a default that is True counts only if the answer contains it)"
"""Added to the error if the answer would be complete only with a default."""


def _fits(answer: bytes, response_schema: Any) -> bool:
    """Whether the class itself, with all its defaults, accepts this answer."""
    try:
        adapter(response_schema).validate_json(answer, extra=extra(response_schema))
    except Exception:  # the class's own validators may raise anything
        return False
    return True


def _misfit(
    outcome: Outcome, response_schema: Any, *problems: str, why: str = "", refused: Iterable[str] = ()
) -> ResponseSchemaError:
    return ResponseSchemaError(
        f"the answer to task {outcome.task_id} does not fit "
        f"{getattr(response_schema, '__name__', response_schema)}: {'; '.join(problems)}{why}. With a larger "
        "max_reasks the person is shown the problems and asked again",
        task_id=outcome.task_id,
        outcome=outcome,
        problems=problems,
        refused_fields=tuple(dict.fromkeys(refused)),
    )


def _problem(found: Any, values: Mapping[str, Any]) -> str:
    """Return one line about a field, without its value: answers may hold what logs must not."""
    words = "none of the expected kinds" if found["type"] == "union_tag_invalid" else found["msg"]
    if len(found["loc"]) == 1 and found["loc"][0] in values and _is_blank(values[found["loc"][0]]):
        words = NOTHING_ENTERED
    return f"{'.'.join(map(str, found['loc'])) or 'response'}: {words}"


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())
