"""The question, as asked: what a caller says, checked at once, and the body that goes over the wire."""

import hashlib
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, Self, TypedDict, TypeVar, cast

from pydantic import BaseModel

from awaithumans_core.answerers import Answerers, answerers
from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form import form_definition
from awaithumans_core.json_values import json_object
from awaithumans_core.replays import applies
from awaithumans_core.safe_text import one_line
from awaithumans_core.schema import fields as fields_of
from awaithumans_core.schema import json_schema

T = TypeVar("T")

MIN_TIMEOUT_SECONDS = 60
MAX_TIMEOUT_SECONDS = 30 * 24 * 3600
"""The server's bounds; outside them it answers 422."""

DEFAULT_TIMEOUT_SECONDS = 15 * 60
"""As the official SDK's examples."""

MAX_TASK_CHARS = 500
"""Length of a question, which is one line."""

MIN_PROBLEMS_CHARS = 100
"""Room for what was wrong with an answer in a question that is asked again. A longer question is shortened for it."""

AGAIN = " (asked again, as the answer given does not fit: "
"""Begins what a person reads about their last answer. It identifies nothing: a caller's own text may contain it."""

REASK = "x-awaithumans-reask"
"""Annotation in a task's payload_schema: which re-ask this is, and of which text.

The text of a re-ask names what was wrong with the last answer, which another release may word differently. People are
not shown the annotation, and no text of a caller's can take its place.
"""

RESERVED = "x-awaithumans-"
"""Annotations in a payload_schema that begin like this are ours."""


def random_key() -> str:
    """A key for a question nobody else asks. Pass it again after a restart to pick the question up."""
    return f"script:{secrets.token_hex(16)}"


class TaskOptions(TypedDict, total=False):
    """The keyword arguments every `await_human` hands to `HumanTask`, which documents them."""

    payload: Any
    payload_schema: Any
    timeout_seconds: float | timedelta
    idempotency_key: str
    assign_to: str | Sequence[str] | Mapping[str, Any] | None
    notify: str | Sequence[str] | None
    verifier: Mapping[str, Any] | BaseModel | None
    redact_payload: bool
    task_metadata: Mapping[str, str] | None
    form: Mapping[str, Any] | None
    max_reasks: int
    only_assignee: bool
    not_by: str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Reask:
    """Which re-ask of a question this is. It is counted here and never read from a text."""

    number: int
    """1 for the first."""
    text: str
    """The text that was asked first."""

    @property
    def mark(self) -> str:
        """The value of `REASK`: the same however the problem with the last answer is worded."""
        return f"{self.number}:{subject({'task': self.text})}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HumanTask(Generic[T]):
    """A question to a person. Frozen, and valid once it exists.

    Raises:
        InvalidTaskError: at construction, when the server would refuse it or no person could answer it.

    Example:
        >>> class Decision(BaseModel):
        ...     approved: bool
        >>> HumanTask(task="Approve $250 refund?", response_schema=Decision, timeout_seconds=900).seconds
        900
    """

    task: str
    """The question as the reviewer reads it: one line of at most 500 characters without control characters."""
    response_schema: type[T]
    """What the answer must look like: a pydantic model, a dataclass or a TypedDict."""
    payload: Any = None
    """What the reviewer needs to know: a model, a dataclass or a mapping with JSON values."""
    payload_schema: Any = None
    """Class of the payload, when the payload itself is a plain mapping."""
    timeout_seconds: float | timedelta = DEFAULT_TIMEOUT_SECONDS
    """How long people have: seconds or timedelta, 60 s to 30 days, rounded up to whole seconds."""
    idempotency_key: str = field(default_factory=random_key)
    """The question's identity. Two calls with one key share one task, and both get its answer."""
    assign_to: str | Sequence[str] | Mapping[str, Any] | None = None
    """Who: an e-mail address, several, or a mapping.

    `{"email": ...}`, `{"emails": [...]}`, `{"pool": ...}`, `{"user_id": ...}` or
    `{"role": ..., "access_level": ...}`.
    """
    notify: str | Sequence[str] | None = None
    """Where to tell people: `slack:@name`, `slack:#channel`, `email:person@example.com`."""
    verifier: Mapping[str, Any] | BaseModel | None = None
    """The server's `verifier_config`."""
    redact_payload: bool = False
    """Hide the payload in the dashboard's lists and in notifications."""
    task_metadata: Mapping[str, str] | None = None
    """Free context shown to reviewers as it is."""
    form: Mapping[str, Any] | None = None
    """A `form_definition` of your own, in place of the one derived from `response_schema`."""
    max_reasks: int = 0
    """How often a person is asked again after an answer that does not fit `response_schema`.

    They are told what was wrong with it, and have the whole `timeout_seconds` once more. An answer of a person from
    whom none is accepted counts as one that does not fit.
    """
    only_assignee: bool = False
    """Accept only an answer that is recorded under an e-mail address of `assign_to`.

    Otherwise every person's answer is accepted: `assign_to` is routing, and an operator, or a caller of the API, can
    answer in the assignee's place.
    """
    not_by: str | Sequence[str] = ()
    """E-mail addresses of people whose answer is not accepted, for instance of the person who made the request.

    An answer with no e-mail address recorded is not accepted either.
    """
    reask: "Reask | None" = field(default=None, repr=False)
    """Set by `again`: which re-ask this is. None: the question as it was asked first."""

    def __post_init__(self) -> None:
        _check_text("task", self.task)
        if not self.task.strip():
            raise InvalidTaskError("task is empty: say in one line what the person is to decide")
        _check_line(self.task)
        _check_key(self.idempotency_key)
        if not MIN_TIMEOUT_SECONDS <= self.seconds <= MAX_TIMEOUT_SECONDS:
            raise InvalidTaskError(
                f"timeout_seconds is {self.seconds}: the server allows {MIN_TIMEOUT_SECONDS} (a minute) to "
                f"{MAX_TIMEOUT_SECONDS} (30 days)"
            )
        if type(self.max_reasks) is not int or self.max_reasks < 0:
            raise InvalidTaskError(f"max_reasks is {self.max_reasks!r}: give 0 (do not ask again) or a whole number")
        if self.form is not None and not self.form.get("fields"):
            raise InvalidTaskError("form has no fields, so nobody could answer: leave it out for the derived one")
        object.__setattr__(self, "not_by", self.answerers.not_by)  # a list that is changed later changes nothing here
        if reserved := [name for name in self._schema_given() if name.startswith(RESERVED)]:
            raise InvalidTaskError(
                f"payload_schema has the name {reserved[0]!r}: leave it out, what begins with {RESERVED!r} is reserved"
            )
        fields_of(self.response_schema)
        json_object({name: part for name, part in self.body().items() if name not in _CHECKED}, "the question")

    @property
    def seconds(self) -> int:
        """The timeout in whole seconds, rounded up."""
        given = self.timeout_seconds
        seconds = given.total_seconds() if isinstance(given, timedelta) else given
        if not isinstance(seconds, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTaskError(f"timeout_seconds is {seconds!r}: give a number of seconds or a timedelta")
        if not math.isfinite(seconds):
            raise InvalidTaskError(f"timeout_seconds is {seconds}: give a finite number of seconds")
        return math.ceil(seconds)

    @property
    def answerers(self) -> Answerers:
        """Whose answer is accepted: `answerers.check(outcome)` raises `AnswererNotAllowedError` for another's."""
        assign_to = None if self.assign_to is None else _assignee(self.assign_to)
        return answerers(assign_to, only_assignee=self.only_assignee, not_by=self.not_by)

    def under(self, key: str) -> Self:
        """The same question under another key. Nothing else is checked again: a workflow may ask thousands at once."""
        _check_key(key)
        renamed = copy(self)
        object.__setattr__(renamed, "idempotency_key", key)
        return renamed

    def again(self, key: str, problems: Sequence[str]) -> Self:
        """The same question under another key, with what was wrong with the answer given to it."""
        last = self.reask or Reask(0, self.task)
        room = MAX_TASK_CHARS - len(AGAIN) - len(")")
        shown = one_line(last.text, room - MIN_PROBLEMS_CHARS)
        wrong = one_line("; ".join(problems), room - len(shown))
        return replace(
            self,
            task=f"{shown}{AGAIN}{wrong})",
            idempotency_key=key,
            reask=Reask(last.number + 1, last.text),
        )

    def body(self) -> dict[str, Any]:
        """The JSON body of `POST /api/tasks`, without `callback_url`."""
        optional = {
            "assign_to": None if self.assign_to is None else _assignee(self.assign_to),
            "notify": [self.notify] if isinstance(self.notify, str) else self.notify and list(self.notify),
            "verifier_config": None if self.verifier is None else json_object(self.verifier, "verifier"),
            "redact_payload": self.redact_payload or None,
            "task_metadata": None if self.task_metadata is None else dict(self.task_metadata),
        }
        return {
            "task": self.task,
            "payload": json_object(self.payload, "payload"),
            "payload_schema": self._payload_schema(),
            "response_schema": json_schema(self.response_schema),
            "form_definition": form_definition(self.response_schema)
            if self.form is None
            else json_object(self.form, "form"),
            "timeout_seconds": self.seconds,
            "idempotency_key": self.idempotency_key,
            **{name: value for name, value in optional.items() if value is not None},
        }

    def _payload_schema(self) -> dict[str, Any]:
        schema = self._schema_given()
        return schema if self.reask is None else {**schema, REASK: self.reask.mark}

    def _schema_given(self) -> dict[str, Any]:
        given = self.payload_schema
        if isinstance(given, Mapping):
            return dict(cast("Mapping[str, Any]", given))  # a JSON Schema: its keys are text
        if given is not None:
            return json_schema(given)
        if self.payload is None or isinstance(self.payload, Mapping):
            return {"type": "object"}
        return json_schema(type(self.payload))


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise InvalidTaskError(f"{name} is {value!r}: give text")


def _check_key(key: str) -> None:
    _check_text("idempotency_key", key)
    if not key.strip():
        raise InvalidTaskError("idempotency_key is empty: leave it out for a fresh one, or name the question")


def _check_line(task: str) -> None:
    """Raise unless a person sees all of the question, as one line. One that a workflow has asked before is kept.

    Raises:
        InvalidTaskError: it is too long, or has line breaks, control characters or invisible characters.
    """
    if len(task) <= MAX_TASK_CHARS and one_line(task, len(task)) == task:
        return
    if not applies("awaithumans-task-is-one-line"):
        return
    if len(task) > MAX_TASK_CHARS:
        raise InvalidTaskError(
            f"task has {len(task):,} characters, and one line of at most {MAX_TASK_CHARS} is allowed: "
            f"{one_line(task, 60)!r}. Ask in a short line and put the rest into payload"
        )
    raise InvalidTaskError(
        f"task has line breaks, control characters or invisible characters, shown here as escapes: "
        f"{one_line(task)}. Ask in one line without them and put the rest into payload"
    )


_CHECKED = {"payload", "response_schema", "form_definition", "verifier_config"}
"""What of a body is known to be JSON: a node that is resumed asks again, and pays for every look at it."""

_ASSIGNEES = {"email", "emails", "pool", "role", "access_level", "user_id"}
"""What the server understands of an `assign_to`; it takes anything, and then nobody is asked."""


def _assignee(given: str | Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    asked = (
        given if isinstance(given, Mapping) else {"email": given} if isinstance(given, str) else {"emails": [*given]}
    )
    addresses: list[Any] = [asked["email"]] if "email" in asked else list(asked.get("emails", ()))
    odd = [str(address) for address in addresses if "@" not in str(address)] + sorted(set(asked) - _ASSIGNEES)
    if odd or not asked:
        raise InvalidTaskError(
            f"assign_to {given!r} reaches nobody: give an e-mail address, several, or "
            '{"pool": ...}, {"role": ..., "access_level": ...}, {"user_id": ...}'
        )
    return dict(asked)


def subject(body: Mapping[str, Any]) -> str:
    """Digest of the payload of a task body, or of its text if there is no payload.

    It is the same for a question and for its re-asks.
    """
    if not body.get("payload") and (mark := reask_mark(body)) is not None:
        return mark.partition(":")[2]
    about = body.get("payload") or str(body.get("task"))
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def reask_mark(body: Mapping[str, Any]) -> str | None:
    """Which re-ask a task body, or a task record, is. None: it is a question as it was asked first."""
    schema = body.get("payload_schema")
    mark = cast("Mapping[str, Any]", schema).get(REASK) if isinstance(schema, Mapping) else None
    return mark if isinstance(mark, str) else None
