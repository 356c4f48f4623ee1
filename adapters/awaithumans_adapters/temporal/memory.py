"""What one attempt of an activity leaves for the next: a mapping among its heartbeat details."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from temporalio import activity


def remembered() -> dict[str, Any]:
    """What the attempts before this one have left."""
    details: Sequence[object] = activity.info().heartbeat_details
    for each in details:
        if isinstance(each, Mapping):
            return dict(cast("Mapping[str, Any]", each))
    return {}


def remember(**facts: Any) -> None:
    """Leave this for the next attempt, in place of what was left. It reaches the server also if this attempt fails.

    Other details, which are not mappings, stay.
    """
    others = [each for each in activity.info().heartbeat_details if not isinstance(each, Mapping)]
    activity.heartbeat(*others, facts)
