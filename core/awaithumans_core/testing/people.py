"""Scripts of people: who answers which question, when, and how."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Self, TypeAlias, get_args

from awaithumans_core.display.rows import original_payload
from awaithumans_core.status import TERMINAL, TaskStatus

Match: TypeAlias = str | re.Pattern[str] | Callable[[Mapping[str, Any]], bool] | None
"""Selects tasks: by a part of their text, by a pattern, or by a function of their record. None: all tasks."""

Channel: TypeAlias = Literal["dashboard", "email", "slack"]

CALLED_BACK = frozenset({"dashboard"})
"""Channels whose answers the server calls back. By e-mail and in Slack it does not."""


@dataclass
class Script:
    """What a person does with the tasks that match. Every method returns the script, so calls can be chained.

    Example:
        humans.answer("refund", {"approved": True}).after(3600).by("anna@example.com")
        humans.on("refund").passes("notified", "assigned").after(60).cancels()
    """

    match: Match
    ends: TaskStatus | None = None
    """How the task ends. None: no person acts, so the deadline ends it."""
    response: dict[str, Any] | None = None
    delay: float | None = None
    """Seconds from the creation of the task. None: immediately."""
    who: str | None = "person@example.com"
    """The person who answers a task without an assigned address, and every task once `by` was called."""
    named: bool = False
    """Whether `by` was called."""
    user_id: str | None = None
    """The server's own id of a person who is signed in."""
    channel: Channel = "dashboard"
    way: tuple[TaskStatus, ...] = ()
    """Statuses that the task passes before its end, spread evenly over the delay."""
    left: int | None = None
    """Number of further tasks that the script is used for. None: no limit."""
    answered: list[str] = field(default_factory=list[str])
    """Ids of the tasks this script was used for."""

    def answers(self, response: Mapping[str, Any]) -> Self:
        """Let the person submit this response. Like the server, the fake accepts any response."""
        if not isinstance(response, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f'{response!r} is no response: give the fields of the form, as {{"approved": True}}')
        self.ends, self.response = TaskStatus.COMPLETED, dict(response)
        return self

    def submits_invalid(self, response: Mapping[str, Any] | None = None) -> Self:
        """Let the person submit an invalid response: this one, or one with a value of a wrong type in every field."""
        self.ends, self.response = TaskStatus.COMPLETED, None if response is None else dict(response)
        return self

    def times_out(self) -> Self:
        """Let no person answer: the server times the task out at its deadline, or after the delay if there is one."""
        self.ends = TaskStatus.TIMED_OUT
        return self

    def cancels(self) -> Self:
        """Let an operator cancel the task."""
        self.ends = TaskStatus.CANCELLED
        return self

    def exhausts_verification(self) -> Self:
        """Let the verifier reject every attempt."""
        self.ends = TaskStatus.VERIFICATION_EXHAUSTED
        return self

    def after(self, seconds: float | timedelta) -> Self:
        """Set the time from the creation of the task to its end."""
        delay = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not isinstance(delay, int | float) or delay < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"after({seconds!r}): give seconds, or a timedelta, that lie ahead")
        self.delay = delay
        return self

    def passes(self, *statuses: str) -> Self:
        """Let the task pass these statuses before it ends, spread evenly over the delay."""
        if unknown := set(statuses) - set(TaskStatus):
            raise ValueError(f"{', '.join(unknown)}: there is no such status; there are {', '.join(TaskStatus)}")
        self.way = tuple(map(TaskStatus, statuses))
        if TERMINAL & set(self.way):
            raise ValueError(f"a task does not pass {', '.join(TERMINAL & set(self.way))}: that is an end")
        return self

    def by(self, email: str | None, *, user_id: str | None = None) -> Self:
        """Set who answers, as the server records it: an e-mail address, and the user id of a person who is signed in.

        By default the assignee answers, or `person@example.com` if no address is assigned. `by(None)` is a caller of
        the API that states no address. A callback carries only the address.
        """
        self.who, self.user_id, self.named = email, user_id, True
        return self

    def via(self, channel: Channel) -> Self:
        """Set the channel of the answer. An answer by e-mail or in Slack is not called back."""
        if channel not in get_args(Channel):
            raise ValueError(f"{channel!r} is no channel; there are {', '.join(get_args(Channel))}")
        self.channel = channel
        return self

    def by_email(self, email: str | None = None) -> Self:
        """Let the person answer with the link in the e-mail to this address. No callback is sent."""
        return (self if email is None else self.by(email)).via("email")

    def once(self) -> Self:
        """Use the script for the first matching task only. Later tasks go to the next script that matches."""
        return self.times(1)

    def times(self, count: int) -> Self:
        """Use the script only for this number of matching tasks."""
        self.left = count
        return self

    def fits(self, record: Mapping[str, Any]) -> bool:
        """Whether this script applies to the task with this record."""
        if self.left == 0:
            return False
        match self.match:
            case None:
                return True
            case str(words):
                return words in record["task"]
            case re.Pattern() as pattern:
                return pattern.search(record["task"]) is not None
            case selects:
                return selects({**record, "payload": original_payload(record)})

    def use(self, record: Mapping[str, Any]) -> None:
        """Record that the script was used for this task."""
        self.answered.append(record["id"])
        if self.left is not None:
            self.left -= 1

    def answerer_of(self, record: Mapping[str, Any]) -> str | None:
        """Return the address that is recorded for the answer."""
        return self.who if self.named else record["assigned_to_email"] or self.who

    def response_to(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the response that the person submits."""
        if self.response is not None:
            return dict(self.response)
        schema = record["response_schema"]
        return {name: _no_value_of(field, schema) for name, field in schema.get("properties", {}).items()}


_NO_VALUES: Mapping[str, Any] = {"object": {"not": "a value"}, "string": "not a value", "array": ["not a value"]}


def _no_value_of(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """Return a value of a type that the field does not accept."""
    types = _types(field, schema)
    return next((value for name, value in _NO_VALUES.items() if name not in types), None)


def _types(field: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    """Return the JSON types that a field accepts, following references and alternatives."""
    if "$ref" in field:
        return _types(schema.get("$defs", {}).get(field["$ref"].rsplit("/", 1)[-1], {}), schema)
    found: set[str] = set()
    for part in (*field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())):
        found |= _types(part, schema)
    given: Any = field.get("type", ())
    return found | ({given} if isinstance(given, str) else set(given))
