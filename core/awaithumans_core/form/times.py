"""Reading of times that people choose in a picker, which knows no time zone.

A field for a time with a zone shows the zone in its label, and a time without a zone is read in that zone. A time that
the zone has twice, or not at all, because clocks are changed, has no single reading and is refused.
"""

import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form.refusal import Unreadable


def known_zone(name: str) -> tzinfo:
    """Return the time zone with this name of the IANA database.

    Raises:
        InvalidTaskError: there is no such zone on this machine.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidTaskError(
            f"{name!r} is no time zone that is known here: give a name like 'Europe/Berlin' "
            "(on systems without time zones, install tzdata)"
        ) from None


def read_written(value: object, example: str) -> object:
    """Return the text of a date or a time, unless it is only a number, which pydantic would read as a timestamp.

    Args:
        value: What was entered. A value that is no text is returned unchanged.
        example: How a value is written, for the person who is asked again.

    Raises:
        Unreadable: the text is a number, so that 2026 would be a moment in 1970.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        raise Unreadable(f"write {example}")
    return value


_NUMBER = re.compile(r"[+-]?[\d_]+(?:\.[\d_]*)?(?:[eE][+-]?\d+)?")


def read_in_zone(value: object, zone: str) -> object:
    """Read the text of a time without a zone as a time in this zone, and return it as ISO 8601 text with its offset.

    Any other value is returned unchanged.

    Raises:
        Unreadable: the text is only a number. Or the zone has this time twice, or not at all, as clocks are changed.
        InvalidTaskError: there is no such zone on this machine.
    """
    if not isinstance(value, str):
        return value
    read_written(value, "2026-01-31T14:30")
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return value  # pydantic reports what is wrong
    if moment.tzinfo is not None:
        return value
    known = known_zone(zone)
    early, late = (moment.replace(tzinfo=known, fold=fold) for fold in (0, 1))
    offsets = early.utcoffset(), late.utcoffset()
    if offsets[0] is not None and offsets[1] is not None and offsets[0] != offsets[1]:
        change = "back at this one, so it exists twice" if offsets[0] > offsets[1] else "forward then, so it is skipped"
        raise Unreadable(f"choose another time: clocks in {zone} are set {change}")
    return early.isoformat()
