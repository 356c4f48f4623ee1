"""People, scripted in a line: who answers which question, when, and how."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, Self, TypeAlias, get_args

from awaithumans_core.display.rows import original_payload
from awaithumans_core.status import TERMINAL, TaskStatus

Match: TypeAlias = str | re.Pattern[str] | Callable[[Mapping[str, Any]], bool] | None
"""Which tasks: those whose text holds this, or fits this pattern, or whose record this says yes to. None: all."""

Channel: TypeAlias = Literal["dashboard", "email", "slack"]

CALLED_BACK = frozenset({"dashboard"})
"""Channels whose answers the server calls back. By e-mail and in Slack it does not."""


@dataclass
class Script:
    """What a person does with the tasks that match. Every method returns the script, so it reads as one line.

    Example:
        humans.answer("refund", {"approved": True}).after(3600).by("anna@example.com")
        humans.on("refund").passes("notified", "assigned").after(60).cancels()
    """

    match: Match
    ends: TaskStatus | None = None
    """How the task ends. None: no person acts, so the deadline ends it."""
    response: dict[str, Any] | None = None
    delay: float | None = None
    """Seconds from the creation of the task; None: at once."""
    who: str | None = "person@example.com"
    """Who answers a task that is assigned to no address, and every task once `by` was called."""
    named: bool = False
    """Whether `by` was called."""
    user_id: str | None = None
    """The server's own id of a person who is signed in."""
    channel: Channel = "dashboard"
    way: tuple[TaskStatus, ...] = ()
    """Statuses the task passes on its way, spread evenly over the delay."""
    left: int | None = None
    """For how many more tasks; None: for all."""
    answered: list[str] = field(default_factory=list[str])
    """Ids of the tasks this script was used for."""

    def answers(self, response: Mapping[str, Any]) -> Self:
        """The person submits this. The server takes any response, and so does this one."""
        if not isinstance(response, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f'{response!r} is no response: give the fields of the form, as {{"approved": True}}')
        self.ends, self.response = TaskStatus.COMPLETED, dict(response)
        return self

    def submits_invalid(self, response: Mapping[str, Any] | None = None) -> Self:
        """The person submits what does not fit: this, or for every field something that is no value of it."""
        self.ends, self.response = TaskStatus.COMPLETED, None if response is None else dict(response)
        return self

    def times_out(self) -> Self:
        """Let no person answer: the server times the task out at its deadline, or after the delay if there is one."""
        self.ends = TaskStatus.TIMED_OUT
        return self

    def cancels(self) -> Self:
        """An operator cancels the task."""
        self.ends = TaskStatus.CANCELLED
        return self

    def exhausts_verification(self) -> Self:
        """The verifier rejects every attempt."""
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
        """The task passes these statuses before it ends, spread evenly over the delay."""
        if unknown := set(statuses) - set(TaskStatus):
            raise ValueError(f"{', '.join(unknown)}: there is no such status; there are {', '.join(TaskStatus)}")
        self.way = tuple(map(TaskStatus, statuses))
        if TERMINAL & set(self.way):
            raise ValueError(f"a task does not pass {', '.join(TERMINAL & set(self.way))}: that is an end")
        return self

    def by(self, email: str | None, *, user_id: str | None = None) -> Self:
        """Who answers, as the server records it: an e-mail address, and the user id of a person who is signed in.

        Without it the person answers whom the task is assigned to by address, else `person@example.com`.
        `by(None)` is a caller of the API that states no address. A callback carries the address only.
        """
        self.who, self.user_id, self.named = email, user_id, True
        return self

    def via(self, channel: Channel) -> Self:
        """On which channel. An answer by e-mail or in Slack is not called back."""
        if channel not in get_args(Channel):
            raise ValueError(f"{channel!r} is no channel; there are {', '.join(get_args(Channel))}")
        self.channel = channel
        return self

    def by_email(self, email: str | None = None) -> Self:
        """Through the link in the mail (to this address): no callback is sent."""
        return (self if email is None else self.by(email)).via("email")

    def once(self) -> Self:
        """For the first matching task only; the next script is asked for the others."""
        return self.times(1)

    def times(self, count: int) -> Self:
        """Use the script only for this number of matching tasks."""
        self.left = count
        return self

    def fits(self, record: Mapping[str, Any]) -> bool:
        """Whether this script is for that task."""
        if self.left == 0:
            return False
        match self.match:
            case None:
                return True
            case str(words):
                return words in record["task"]
            case re.Pattern() as pattern:
                return pattern.search(record["task"]) is not None
            case says_yes:
                return says_yes({**record, "payload": original_payload(record)})

    def use(self, record: Mapping[str, Any]) -> None:
        """Count it as used for that task."""
        self.answered.append(record["id"])
        if self.left is not None:
            self.left -= 1

    def answerer_of(self, record: Mapping[str, Any]) -> str | None:
        """The address that is recorded for the answer."""
        return self.who if self.named else record["assigned_to_email"] or self.who

    def response_to(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What is submitted."""
        if self.response is not None:
            return dict(self.response)
        schema = record["response_schema"]
        return {name: _no_value_of(field, schema) for name, field in schema.get("properties", {}).items()}


_NO_VALUES: Mapping[str, Any] = {"object": {"not": "a value"}, "string": "not a value", "array": ["not a value"]}


def _no_value_of(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """Something of a type the field does not have."""
    types = _types(field, schema)
    return next((value for name, value in _NO_VALUES.items() if name not in types), None)


def _types(field: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
    """The JSON types a field may have, through references and alternatives."""
    if "$ref" in field:
        return _types(schema.get("$defs", {}).get(field["$ref"].rsplit("/", 1)[-1], {}), schema)
    found: set[str] = set()
    for part in (*field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())):
        found |= _types(part, schema)
    given: Any = field.get("type", ())
    return found | ({given} if isinstance(given, str) else set(given))
