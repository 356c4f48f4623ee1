"""What the attempts of one activity leave for each other: a mapping among its heartbeat details.

Temporal hands the details of the last heartbeat on to the next attempt, on whichever worker. A heartbeat is a billed
action, so nothing is kept in the ordinary case.
"""

from collections.abc import Mapping
from typing import Any, cast

from temporalio import activity


class Memory:
    """The memory of the attempt that runs."""

    def __init__(self) -> None:
        details = list(activity.info().heartbeat_details)
        self._others = [each for each in details if not isinstance(each, Mapping)]
        mappings = [cast("Mapping[str, Any]", each) for each in details if isinstance(each, Mapping)]
        self._facts: dict[str, Any] = dict(mappings[0]) if mappings else {}

    def get(self, name: str) -> Any:
        """What was kept under this name; None if nothing was."""
        return self._facts.get(name)

    def keep(self, **facts: Any) -> None:
        """Keep these for the next attempt, beside what is kept already. None removes. It also survives a failure.

        Other details, which are not mappings, stay.
        """
        self._facts = {name: value for name, value in (self._facts | facts).items() if value is not None}
        activity.heartbeat(*self._others, self._facts)
