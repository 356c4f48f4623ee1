"""Annotations of a field that say which input it has.

`currency` and `time_zone` are of this package. Markers of the official SDK may say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form.times import known_zone
from awaithumans_core.schema.sdk_markers import sdk_marker


@dataclass(frozen=True, slots=True)
class Currency:
    """The currency of an amount of money."""

    code: str


@dataclass(frozen=True, slots=True)
class TimeZone:
    """The time zone in which a person states a time."""

    name: str


def currency(code: str) -> Currency:
    """Return the annotation of a field for an amount of money in this currency.

    Raises:
        InvalidTaskError: the code does not consist of three capital letters.

    Example:
        >>> class Refund(BaseModel):
        ...     amount: Annotated[Decimal, currency("EUR")]
    """
    if not (len(code) == 3 and code.isascii() and code.isupper()):
        raise InvalidTaskError(f"{code!r} is no currency code: give three capital letters, for instance 'EUR'")
    return Currency(code)


def time_zone(name: str) -> TimeZone:
    """Return the annotation of a datetime field whose answer is a time in this zone, for instance "Europe/Berlin".

    Raises:
        InvalidTaskError: no time zone of this name is known.
    """
    known_zone(name)
    return TimeZone(name)


def currency_of(rules: tuple[Any, ...], marker: Mapping[str, Any]) -> str | None:
    """Return the currency code that the annotations of a field give; None without one."""
    own = next((rule.code for rule in rules if isinstance(rule, Currency)), None)
    return own or (marker.get("currency_code") if marker.get("subtype") == "currency" else None)


def zone_of(rules: tuple[Any, ...], marker: Mapping[str, Any]) -> str | None:
    """Return the name of the time zone that the annotations of a field give; None without one."""
    own = next((rule.name for rule in rules if isinstance(rule, TimeZone)), None)
    return own or (marker.get("timezone") if marker.get("kind") == "datetime" else None)


def asks_for_a_secret(rules: tuple[Any, ...]) -> bool:
    """Whether a marker of the official SDK makes a field an input for a password."""
    return (sdk_marker(rules) or {}).get("subtype") == "password"
