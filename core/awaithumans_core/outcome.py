"""How a task stands and, once it is terminal, how it ended.

Laws: an outcome crosses every wall as a value (signal argument, resume value, row of the relay); typed errors are born
in `settle`, in the asker's own process, and nowhere else. `completed` without a response is not an answer. No way of
going wrong ends in "approved".
"""

from collections.abc import Mapping
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
from awaithumans_core.explicit_yes import NotGiven
from awaithumans_core.form import answer_from_form
from awaithumans_core.schema import adapter, answer_reader, extra
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
    """What is said beside the answer does not stand in its way."""
    try:
        return read(value)
    except ValueError:
        return None


Moment = Annotated[datetime | None, AfterValidator(_utc), WrapValidator(_if_readable)]
"""A point in time. Callback bodies carry no zone and mean UTC; poll replies end in `Z`."""

MAX_TEXT_CHARS = 1_000
"""Of a text beside the answer. A longer one would keep an engine from carrying the outcome."""

Text = Annotated[str | None, Field(max_length=MAX_TEXT_CHARS), WrapValidator(_if_readable)]
Number = Annotated[int | None, Field(ge=0, lt=2**31), WrapValidator(_if_readable)]


_TOO_DEEP = "recursion_depth_exceeded"
"""pydantic's word."""


class Outcome(BaseModel):
    """One lenient reading of a create reply, a poll reply, a task record and a callback body.

    Unknown fields are ignored, missing ones are None, as are those beside the answer that cannot be read; an unknown
    status is kept as it came (and is not terminal).
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    task_id: str = Field(validation_alias=AliasChoices("task_id", "id"))
    """The task on the awaithumans server."""
    status: str
    """One of `TaskStatus`, `NOT_FOUND`, or a word this release does not know yet."""
    idempotency_key: str | None = None
    """Which question this answers. Poll replies lack it; records and callbacks carry it."""
    response: dict[str, JsonValue] | None = None
    """What the person submitted, as the server holds it: it is not checked against the schema there."""
    completed_at: Moment = None
    """When the answer was final (UTC)."""
    timed_out_at: Moment = None
    """When the deadline struck (UTC)."""
    completed_by_email: Text = None
    """Who answered, when an e-mail address is recorded. Stated by the caller if it was completed with the API."""
    completed_by_user_id: Text = None
    """Who answered, by the server's own id of a signed-in person; only task records carry it."""
    assigned_to_user_id: Text = None
    """Whom the task is assigned to, by the server's own id of a known person; only task records carry it."""
    completed_by_display_name: Text = None
    """Who answered, by name; only task records carry it."""
    completed_via_channel: Text = None
    """Where: `dashboard`, `email`, `slack`, ..."""
    verification_attempt: Number = None
    """Attempts the verifier has judged; poll replies lack it."""
    created_at: Moment = None
    """When the task was created (UTC); only task records carry it."""
    timeout_seconds: Number = None
    """The task's own timeout; only task records carry it."""
    response_omitted: str | None = None
    """Why there is no response although a person gave one; an engine that could not carry it says so."""
    reworded: bool | None = None
    """True: the caller now asks in other words than the person was asked in. Set by a Temporal workflow whose code was
    changed while it waited; it may be another value when that workflow is replayed by other code.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _despite_its_depth(cls, held: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        """A response that is nested deeper than anything here reads is an answer all the same: it is left out."""
        try:
            return read(held)
        except ValidationError as invalid:
            if not isinstance(held, Mapping) or not any(e["type"] == _TOO_DEEP for e in invalid.errors()):
                raise
            return read(
                {**held, "response": None, "response_omitted": "it is nested too deep; read it from the server"}
            )

    def from_server(self) -> Self:
        """The outcome, if it was read from what a server sent: a reply or a callback body.

        `NOT_FOUND` is ours to conclude. From a server it is a status this release does not know, which is pending.
        """
        return self.model_copy(update={"status": f"server:{NOT_FOUND}"}) if self.deleted else self

    @property
    def terminal(self) -> bool:
        """Whether the task has ended. An unknown status has not."""
        return self.status in TERMINAL or self.deleted

    @property
    def deleted(self) -> bool:
        """Whether it is confirmed that the task was deleted on the server."""
        return self.status == NOT_FOUND

    @property
    def answered(self) -> bool:
        """Whether there is something to hand over: any end, except a completion whose response is gone.

        A response that was left out on the way is one: the caller is to be woken, and not to wait for more.
        """
        completed = self.status == TaskStatus.COMPLETED
        return self.terminal and not (completed and self.response is None and self.response_omitted is None)

    def without_response(self, reason: str) -> Self:
        """The same outcome where its response cannot be carried on; `settle` gives the reason.

        Args:
            reason: Completes "its response is not here: ..."; without anything of the response itself.
        """
        return self.model_copy(update={"response": None, "response_omitted": reason})

    def value(self) -> dict[str, Any]:
        """JSON-safe form without empty fields, for histories, checkpoints and rows."""
        return self.model_dump(mode="json", exclude_none=True)


def at_deadline(closed: Outcome) -> Outcome:
    """What closing a task at its deadline means.

    An answer given just before still counts, our own cancelling is a timeout.
    """
    if closed.status == TaskStatus.CANCELLED:
        return closed.model_copy(update={"status": TaskStatus.TIMED_OUT.value})
    return closed


_ENDED: Mapping[str, tuple[type[QuestionEndedError], str]] = {
    TaskStatus.TIMED_OUT: (
        TaskTimeoutError,
        "nobody answered task {id} before its deadline. "
        "Ask again under another idempotency_key, of someone else or with more time",
    ),
    TaskStatus.CANCELLED: (
        TaskCancelledError,
        "task {id} was cancelled before anybody answered it. Under its idempotency_key it stays so: ask again under "
        "another one",
    ),
    TaskStatus.VERIFICATION_EXHAUSTED: (
        VerificationExhaustedError,
        "the verifier rejected every answer to task {id} ({attempts} attempts)",
    ),
    NOT_FOUND: (
        TaskNotFoundError,
        "task {id} was deleted on the awaithumans server before anybody answered it. The question is not asked again "
        "by itself: to ask again, call again",
    ),
}


def end_without_answer(outcome: Outcome) -> QuestionEndedError | None:
    """The typed error of a task that ended without an answer. None: it has one, or has not ended."""
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
    """Turn an outcome into a `response_schema` instance, or raise the typed error it stands for.

    Raises:
        TaskTimeoutError, TaskCancelledError, VerificationExhaustedError: the documented ends without an answer.
        TaskNotFoundError: the task was deleted on the server.
        ResponseSchemaError: a person answered in another shape; the server does not check answers, so it is done here.
        ResponseMissingError: completed, but the response is not there any more.
        ValueError: the outcome is not terminal; there is nothing to settle yet.

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
        gone = "it is gone from the server (redacted after another receiver took it)"
        raise ResponseMissingError(
            f"task {outcome.task_id} is completed, but its response is not here: {outcome.response_omitted or gone}. "
            "The decision is not known here",
            task_id=outcome.task_id,
            outcome=outcome,
        )
    answer = b""
    try:
        # As JSON, which is what it was on its way here: a strict class reads dates and enums from it as well.
        answer = to_json(answer_from_form(outcome.response, response_schema))
        return answer_reader(response_schema).validate_json(answer, extra=extra(response_schema))
    except ValidationError as invalid:
        problems = [_problem(found) for found in invalid.errors(include_input=False)]
        why = _BY_DEFAULT if _fits(answer, response_schema) else ""
        raise _misfit(outcome, response_schema, *problems, why=why) from None
    except NotGiven as field:
        raise _misfit(outcome, response_schema, f"{field}: Field required", why=_BY_DEFAULT) from None
    except Exception as error:  # a validator of the class's own, or an answer deeper than JSON is read here
        raise _misfit(outcome, response_schema, f"response: {type(error).__name__}: {error}") from error


_BY_DEFAULT = " (a default that is True counts only if the answer contains it)"
"""Added to the error about an answer that only a default would complete."""


def _fits(answer: bytes, response_schema: Any) -> bool:
    """Whether the class itself, with all of its defaults, reads this answer."""
    try:
        adapter(response_schema).validate_json(answer, extra=extra(response_schema))
    except Exception:  # a validator of the class's own may raise anything
        return False
    return True


def _misfit(outcome: Outcome, response_schema: Any, *problems: str, why: str = "") -> ResponseSchemaError:
    return ResponseSchemaError(
        f"the answer to task {outcome.task_id} does not fit "
        f"{getattr(response_schema, '__name__', response_schema)}: {'; '.join(problems)}{why}. With a larger "
        "max_reasks the person is told so and asked again",
        task_id=outcome.task_id,
        outcome=outcome,
        problems=problems,
    )


def _problem(found: Any) -> str:
    """One line a field, without the value: answers may hold what logs must not."""
    words = "none of the expected kinds" if found["type"] == "union_tag_invalid" else found["msg"]
    return f"{'.'.join(map(str, found['loc'])) or 'response'}: {words}"
