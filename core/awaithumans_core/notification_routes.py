"""The entries of `notify`, `channel[+identity]:target`: where the server notifies people of a question."""

import re
from collections.abc import Sequence

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.temporal_patches import applies

_ROUTE = re.compile(r"(?:slack(?:\+[^:\s]+)?:[@#]?[^@#\s].*|email(?:\+[^:\s]+)?:[^@\s]+@[^@\s]+)")
"""An entry of `notify`. The server accepts any other text, but then notifies no person."""


def check_routes(given: str | Sequence[str] | None) -> None:
    """Raise unless the server finds a person or a channel for each entry of `notify`.

    A question that a workflow asked before this rule existed is accepted when the workflow is replayed.

    Raises:
        InvalidTaskError: an entry reaches no person.
    """
    odd = [entry for entry in _entries(given) if not _ROUTE.fullmatch(entry)]
    if not odd or not applies("awaithumans-notify-is-checked"):
        return
    write = "email:ann@example.com"
    if _ADDRESS.fullmatch(odd[0]):
        write = f"email:{odd[0]}"
    raise InvalidTaskError(
        f"notify {odd[0]!r} reaches no person: write {write!r}, 'slack:@ann' or 'slack:#channel' "
        "('email+IDENTITY:...' and 'slack+TEAM:...' name the sender)"
    )


_ADDRESS = re.compile(r"[^@\s:]+@[^@\s:]+")


def channels_of(given: str | Sequence[str] | None) -> frozenset[str]:
    """Return the channels on which people are notified: `email`, `slack`."""
    return frozenset(entry.partition(":")[0].partition("+")[0].strip() for entry in _entries(given))


def _entries(given: str | Sequence[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else [str(entry) for entry in given or ()]
