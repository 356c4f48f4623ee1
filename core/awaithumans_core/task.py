"""The question as a caller asks it: checked at construction, and turned into the body of the HTTP request."""

import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Generic, Self, TypedDict, TypeVar, cast

from pydantic import BaseModel

from awaithumans_core.answerers import Answerers, read_answerers
from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form import form_definition
from awaithumans_core.json_values import json_object
from awaithumans_core.notification_routes import check_routes
from awaithumans_core.safe_text import one_line
from awaithumans_core.schema.classes import fields as fields_of
from awaithumans_core.schema.classes import json_schema
from awaithumans_core.schema.secret_answers import refuse_secrets
from awaithumans_core.temporal_patches import applies

T = TypeVar("T")

MIN_TIMEOUT_SECONDS = 60
MAX_TIMEOUT_SECONDS = 30 * 24 * 3600
"""The server's bounds of a timeout in seconds. Outside them it replies 422."""

DEFAULT_TIMEOUT_SECONDS = 24 * 3600
"""Timeout of a question in seconds if none is given, for every caller.

It is a day because people have meetings, nights and time zones. It is no part of a question's identity: a question that
is open when its timeout changes keeps its task, with the deadline that people were given.
"""

MAX_TASK_CHARS = 500
"""Maximum length of a question, which is one line."""

MIN_PROBLEMS_CHARS = 100
"""Minimum room in a re-ask for the problems of the last answer. A longer question is shortened to leave this room."""

AGAIN = " (asked again, as the answer given does not fit: "
"""Begins the text about the problems of a person's last answer.

It does not identify a re-ask, because a caller's own text may contain it.
"""

REASK = "x-awaithumans-reask"
"""Annotation in a task's payload_schema that identifies a re-ask: its number, and the text that was asked first.

The text of a re-ask names the problems of the last answer, which another release may word differently. The annotation
is not shown to people, and no text of a caller can imitate it.
"""

RESERVED = "x-awaithumans-"
"""Prefix of annotations in a payload_schema that is reserved for this package."""


def random_key() -> str:
    """Return a random key, for a question of one caller. Pass it again after a restart to resume the question."""
    return f"script:{secrets.token_hex(16)}"


def is_random_key(key: str) -> bool:
    """Whether a question has its key from `random_key`, which its caller does not know until it is shown."""
    return _RANDOM_KEY.fullmatch(key) is not None


_RANDOM_KEY = re.compile("script:[0-9a-f]{32}")


class TaskOptions(TypedDict, total=False):
    """The keyword arguments that every `await_human` passes to `HumanTask`, which documents them."""

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
    """Which re-ask of a question this is. The number is stored here and never read from a text."""

    number: int
    """The number of the re-ask, beginning with 1."""
    text: str
    """The text that was asked first."""

    @property
    def mark(self) -> str:
        """The value of the annotation `REASK`. It does not depend on the wording of the last answer's problems."""
        return f"{self.number}:{subject({'task': self.text})}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HumanTask(Generic[T]):
    """A question to a person. It is frozen, and validated at construction.

    Raises:
        InvalidTaskError: at construction, if the server would refuse the question or no person could answer it.

    Example:
        >>> class Decision(BaseModel):
        ...     approved: bool
        >>> HumanTask(task="Approve $250 refund?", response_schema=Decision, timeout_seconds=900).seconds
        900
    """

    task: str
    """The question as the reviewer reads it: one line of at most 500 characters without control characters."""
    response_schema: type[T]
    """The class of the answer: a pydantic model, a dataclass or a TypedDict."""
    payload: Any = None
    """What the reviewer needs to know: a model, a dataclass or a mapping with JSON values."""
    payload_schema: Any = None
    """The class of the payload, if the payload itself is a plain mapping."""
    timeout_seconds: float | timedelta = DEFAULT_TIMEOUT_SECONDS
    """The time people have to answer: seconds or timedelta, 60 s to 30 days, rounded up. Default: 24 hours."""
    idempotency_key: str = field(default_factory=random_key)
    """The identity of the question. Two calls with the same key share one task, and both get its answer."""
    assign_to: str | Sequence[str] | Mapping[str, Any] | None = None
    """The person or people to ask: an e-mail address, several addresses, or a mapping.

    A mapping is `{"email": ...}`, `{"emails": [...]}`, `{"pool": ...}`, `{"user_id": ...}` or
    `{"role": ..., "access_level": ...}`.
    """
    notify: str | Sequence[str] | None = None
    """Where to notify people: `slack:@name`, `slack:#channel`, `email:person@example.com`.

    `slack+TEAM:...` and `email+IDENTITY:...` name the Slack workspace and the sender.
    """
    verifier: Mapping[str, Any] | BaseModel | None = None
    """The server's `verifier_config`."""
    redact_payload: bool = False
    """Hide the payload in the dashboard's lists and in notifications."""
    task_metadata: Mapping[str, str] | None = None
    """Additional context, which is shown to reviewers unchanged."""
    form: Mapping[str, Any] | None = None
    """A custom `form_definition` that replaces the one derived from `response_schema`."""
    max_reasks: int | None = None
    """The maximum number of re-asks after an answer that does not fit `response_schema`.

    None: 1 if a field does not fit that is read from what a person types, such as a number or a list; otherwise 0. A
    re-ask names the problems of the answer, and grants the whole `timeout_seconds` again. If a number is given, an
    answer of a person whose answer is not accepted (`only_assignee`, `not_by`) counts as one that does not fit.
    """
    only_assignee: bool = False
    """Whether to accept only an answer that is recorded under an e-mail address of `assign_to`.

    Otherwise every person's answer is accepted: `assign_to` only routes the question, and an operator, or a caller of
    the API, can answer in place of the assignee.
    """
    not_by: str | Sequence[str] = ()
    """E-mail addresses of people whose answer is not accepted, for instance of the person who made the request.

    An answer without a recorded e-mail address is not accepted either.
    """
    reask: "Reask | None" = field(default=None, repr=False)
    """Which re-ask this is, set by `again`. None: the question as it was asked first."""
    _request: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    """What `body` returns, except the key. Built once, because a wait in a workflow needs it several times."""

    def __post_init__(self) -> None:
        _check_text("task", self.task)
        if not self.task.strip():
            raise InvalidTaskError("task is empty: state in one line what the person is to decide")
        _check_line(self.task)
        _check_key(self.idempotency_key)
        if not MIN_TIMEOUT_SECONDS <= self.seconds <= MAX_TIMEOUT_SECONDS:
            raise InvalidTaskError(
                f"timeout_seconds is {self.seconds}: the server allows {MIN_TIMEOUT_SECONDS} (a minute) to "
                f"{MAX_TIMEOUT_SECONDS} (30 days)"
            )
        if self.max_reasks is not None and (type(self.max_reasks) is not int or self.max_reasks < 0):
            raise InvalidTaskError(f"max_reasks is {self.max_reasks!r}: give 0 (do not ask again) or a whole number")
        if self.form is not None and not self.form.get("fields"):
            raise InvalidTaskError("form has no fields, so no person could answer: leave it out for the derived one")
        object.__setattr__(self, "not_by", self.answerers.not_by)  # a copy: the caller may change its list later
        if reserved := [name for name in self._schema_given() if name.startswith(RESERVED)]:
            raise InvalidTaskError(
                f"payload_schema has the name {reserved[0]!r}: leave it out, what begins with {RESERVED!r} is reserved"
            )
        check_routes(self.notify)
        fields_of(self.response_schema)
        refuse_secrets(self.response_schema)
        request = self._build_request()
        json_object({name: part for name, part in request.items() if name not in _CHECKED}, "the question")
        object.__setattr__(self, "_request", request)

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
        """The people whose answer is accepted. `check(outcome)` raises `AnswererNotAllowedError` for anyone else's."""
        assign_to = None if self.assign_to is None else _assignee(self.assign_to)
        return read_answerers(assign_to, only_assignee=self.only_assignee, not_by=self.not_by)

    def under(self, key: str) -> Self:
        """Return this question under another key.

        Only the key is checked again, because a workflow may ask thousands of questions at once.
        """
        _check_key(key)
        renamed = copy(self)
        object.__setattr__(renamed, "idempotency_key", key)
        return renamed

    def again(self, key: str, problems: Sequence[str], *, advice: str = "") -> Self:
        """Return the re-ask of this question: another key, and a text that names the problems of the answer.

        Args:
            key: The idempotency key of the re-ask.
            problems: What does not fit. It is shortened if the text is too long.
            advice: What the person is to do; appended in full.
        """
        last = self.reask or Reask(0, self.task)
        end = f". {advice})" if advice else ")"
        room = MAX_TASK_CHARS - len(AGAIN) - len(end)
        shown = one_line(last.text, room - MIN_PROBLEMS_CHARS)
        wrong = one_line("; ".join(problems), room - len(shown))
        return replace(
            self,
            task=f"{shown}{AGAIN}{wrong}{end}",
            idempotency_key=key,
            reask=Reask(last.number + 1, last.text),
        )

    def body(self) -> dict[str, Any]:
        """Return the JSON body of `POST /api/tasks`, without `callback_url`.

        It is the same at every call, also if the caller has changed the payload since the question was made.
        """
        body: dict[str, Any] = {name: copy(part) for name, part in self._request.items()}
        return body | {"idempotency_key": self.idempotency_key}

    def _build_request(self) -> dict[str, Any]:
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
    """Raise unless the question is one line that a person sees completely.

    A question that a workflow asked before this rule existed is accepted when the workflow is replayed.

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
"""Parts of a body that are already known to be JSON.

They are not checked again, because a LangGraph node that resumes asks again and pays for every check.
"""

_ASSIGNEES = {"email", "emails", "pool", "role", "access_level", "user_id"}
"""The keys of `assign_to` that the server understands. It accepts any other key, but then asks no person."""


def _assignee(given: str | Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    asked = (
        given if isinstance(given, Mapping) else {"email": given} if isinstance(given, str) else {"emails": [*given]}
    )
    addresses: list[Any] = [asked["email"]] if "email" in asked else list(asked.get("emails", ()))
    odd = [str(address) for address in addresses if "@" not in str(address)] + sorted(set(asked) - _ASSIGNEES)
    if odd or not asked:
        raise InvalidTaskError(
            f"assign_to {given!r} reaches no person: give an e-mail address, several, or "
            '{"pool": ...}, {"role": ..., "access_level": ...}, {"user_id": ...}'
        )
    return dict(asked)


def subject(body: Mapping[str, Any]) -> str:
    """Return a digest of the payload of a task body, or of its text if there is no payload.

    The digest is the same for a question and for its re-asks.
    """
    if not body.get("payload") and (mark := reask_mark(body)) is not None:
        return mark.partition(":")[2]
    about = body.get("payload") or str(body.get("task"))
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def reask_mark(body: Mapping[str, Any]) -> str | None:
    """Return the mark of the re-ask that a task body or task record is; None for a question as it was asked first."""
    schema = body.get("payload_schema")
    mark = cast("Mapping[str, Any]", schema).get(REASK) if isinstance(schema, Mapping) else None
    return mark if isinstance(mark, str) else None
