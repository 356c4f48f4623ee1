"""What one attempt of an activity leaves for the next: a mapping in its heartbeat details."""

from collections.abc import Mapping
from typing import Any, cast

from temporalio import activity


def remembered() -> dict[str, Any]:
    """What the attempts before this one have left."""
    details = activity.info().heartbeat_details
    held = details[0] if details else None
    return dict(cast("Mapping[str, Any]", held)) if isinstance(held, Mapping) else {}


def remember(**facts: Any) -> None:
    """Leave this for the next attempt, in place of what was left. It reaches the server also if this attempt fails."""
    activity.heartbeat(facts)
