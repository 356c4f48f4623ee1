"""State that the attempts of one activity pass on to each other: a mapping among its heartbeat details.

Temporal hands the details of the last heartbeat to the next attempt, on whichever worker it runs. A heartbeat is a
billed action, so nothing is kept in the ordinary case.
"""

from collections.abc import Mapping
from typing import Any, cast

from temporalio import activity


class Memory:
    """The state kept for the attempts of the running activity."""

    def __init__(self) -> None:
        details = list(activity.info().heartbeat_details)
        self._others = [each for each in details if not isinstance(each, Mapping)]
        mappings = [cast("Mapping[str, Any]", each) for each in details if isinstance(each, Mapping)]
        self._facts: dict[str, Any] = dict(mappings[0]) if mappings else {}

    def get(self, name: str) -> Any:
        """Return the value kept under this name, or None."""
        return self._facts.get(name)

    def keep(self, **facts: Any) -> None:
        """Keep these facts for the next attempt, in addition to those already kept. None removes a fact.

        They also survive a failure. Other heartbeat details, which are not mappings, are preserved.
        """
        self._facts = {name: value for name, value in (self._facts | facts).items() if value is not None}
        activity.heartbeat(*self._others, self._facts)
