"""Who answered: what counts as one person, and whose answer a question accepts.

Laws:
- Counting merges. Two spellings of one mailbox are one person, with one vote.
- Accepting does not merge. An assignee's answer is accepted under the assignee's own address only.
- An answer whose answerer is not known is not counted and not accepted.

The server records who answered. For a person who is signed in and for a link in a mail it does so itself; a caller that
completes a task with the API states an e-mail address, which is recorded as it is.
"""

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from awaithumans_core.errors import AnswererNotAllowedError, InvalidTaskError
from awaithumans_core.outcome import Outcome
from awaithumans_core.status import TaskStatus

INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}
"""Unicode categories of invisible characters in an address: controls, format characters, blanks."""

EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO"}
"""Scripts that are commonly mixed with Latin letters."""

SHOWN_CHARS = 100
"""Maximum number of characters of a recorded address in an error."""


@dataclass(frozen=True, slots=True)
class Answerers:
    """The people whose answer a question accepts."""

    only: tuple[str, ...] | None = None
    """The assignees' addresses, if only their answers are accepted. None: every person's answer is."""
    not_by: tuple[str, ...] = ()
    """Addresses of people whose answer is not accepted."""
    assignee_addresses: tuple[str, ...] = ()
    """The assignees' addresses, as far as they are named by address."""

    def check(self, outcome: Outcome) -> None:
        """Check who answered.

        Args:
            outcome: How the task ended. An end without an answer has no answerer and passes.

        Raises:
            AnswererNotAllowedError: another person's answer, or one whose answerer is not known.
        """
        if outcome.status != TaskStatus.COMPLETED or (self.only is None and not self.not_by):
            return
        email = outcome.completed_by_email
        own = (
            email is not None
            and accepted_form(email) in map(accepted_form, self.only or ())
            and not _is_another(outcome)
        )
        barred = (
            email is None
            or not is_named(email, self.assignee_addresses)
            or counted_form(email) in map(counted_form, self.not_by)
        )
        if (self.only is None or own) and not (self.not_by and barred):
            return
        who = "a person whose e-mail address is not recorded" if email is None else ascii(email[:SHOWN_CHARS])
        if _is_another(outcome):
            who = f"the signed-in person {outcome.completed_by_user_id!a}, stated as {who},"
        rules = [
            *([f"only {', '.join(self.only)} may (only_assignee)"] if self.only is not None else []),
            *([f"{', '.join(self.not_by)} may not (not_by)"] if self.not_by else []),
        ]
        raise AnswererNotAllowedError(
            f"task {outcome.task_id} was answered by {who}, which does not count: {'; '.join(rules)}. With a larger "
            "max_reasks the question is asked again",
            task_id=outcome.task_id,
            outcome=outcome,
            answered_by=email,
            allowed=self.only,
            not_by=self.not_by,
        )


def read_answerers(assign_to: Mapping[str, Any] | None, *, only_assignee: Any, not_by: Any) -> Answerers:
    """Read these options of a question.

    Args:
        assign_to: As in the body of the task.
        only_assignee: Whether only the assignee's own answer is accepted.
        not_by: Address, or addresses, of people whose answer is not accepted.

    Raises:
        InvalidTaskError: no person could answer, or a value is not an address.
    """
    if not isinstance(only_assignee, bool):
        raise InvalidTaskError(f"only_assignee is {only_assignee!r}: give True or False")
    asked = addresses(assign_to or {})
    if only_assignee and not asked:
        raise InvalidTaskError(
            f"only_assignee=True with assign_to {assign_to!r}: name the assignees by e-mail address. Who answers for a "
            "pool, a role or a user id is not known to the caller"
        )
    one = isinstance(not_by, str | bytes) or not isinstance(not_by, Collection)
    barred = (cast("Any", not_by),) if one else tuple(cast("Any", not_by))
    if odd := [repr(who) for who in barred if not isinstance(who, str) or "@" not in who]:
        raise InvalidTaskError(f"not_by holds {', '.join(odd)}: give e-mail addresses")
    keep_out = set(map(counted_form, barred))
    left = [who for who in asked if counted_form(who) not in keep_out]
    if asked and not left:
        raise InvalidTaskError(
            f"not_by names every person the question is assigned to ({', '.join(asked)}): assign it to another person"
        )
    return Answerers(tuple(left) if only_assignee else None, barred, asked)


def _is_another(outcome: Outcome) -> bool:
    """Whether a record shows that a signed-in person other than the assignee answered, whatever address was stated."""
    by, to = outcome.completed_by_user_id, outcome.assigned_to_user_id
    return by is not None and to is not None and by != to


def addresses(assign_to: Mapping[str, Any]) -> tuple[str, ...]:
    """The e-mail addresses an `assign_to` names; the server reads `email` first."""
    named: Sequence[Any] = [assign_to["email"]] if "email" in assign_to else assign_to.get("emails", ())
    return tuple(who for who in named if isinstance(who, str))


def accepted_form(email: str) -> str:
    """One address in one form, for accepting: only letter case and the dot of the root domain are the same.

    The server lowers addresses, of all scripts, when it creates a user for one. If any letter's lower case belongs to
    another capital as well (the Kelvin sign and K), the whole address keeps its case, so no two letters become one.
    """
    email = email.strip().rstrip(".")
    lowered = email.lower()
    return lowered if lowered.upper() == email.upper() else email


def counted_form(email: str) -> str:
    """One mailbox in one form, for counting: also sub-addresses (`anna+1@`) and compatibility characters are merged."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold())
    local, at, domain = "".join(each for each in folded if not _is_invisible(each)).rpartition("@")
    local = local.strip(_QUOTES_AND_DOTS)
    base = local[:1] + local[1:].partition("+")[0]  # `+4930123@` begins with a number, not with a sub-address
    return f"{base.strip(_QUOTES_AND_DOTS)}{at}{domain.rstrip('.')}"


_QUOTES_AND_DOTS = '".'


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) in INVISIBLE


def is_named(email: str, asked: Iterable[str]) -> bool:
    """Whether an address identifies a person. One that may imitate another does so only if it is an assignee's."""
    plain = email.isascii() and "xn--" not in email.lower()
    return plain or accepted_form(email) in map(accepted_form, asked)


def identifiers(outcome: Outcome, asked: Iterable[str]) -> frozenset[str]:
    """What identifies the person who answered. Two answers are one person's if they share any of it; empty: unknown.

    A callback carries the e-mail address only, a record of the server also the user id.
    """
    found: set[str] = set()
    if outcome.completed_by_user_id:
        found.add(f"user:{outcome.completed_by_user_id}")
    email = outcome.completed_by_email
    if email and "@" in email and is_named(email, asked):
        found.add(counted_form(email))
    return frozenset(found)


def lookalike_reason(email: str) -> str | None:
    """Return why an address may be mistaken for another one; None if it cannot be."""
    if any(map(_is_invisible, email.strip())):
        return "it has invisible characters"
    for label in email.replace("@", ".").split("."):
        scripts = {unicodedata.name(each, "?").split()[0] for each in label if each.isalpha()} - EAST_ASIAN
        if len(scripts) > 1:
            return f"{label!a} mixes letters of {' and '.join(sorted(scripts))}"
    return None
