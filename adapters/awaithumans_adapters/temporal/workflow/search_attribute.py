"""A search attribute with the assignees of open questions, by which waiting workflows can be listed.

Law: the history decides. A run whose first question was asked without the search attribute never sets it. A run that
has set it continues to do so, however the workers are configured by then.
"""

from collections.abc import Iterable
from itertools import accumulate, takewhile

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from awaithumans_adapters.temporal.names import ASSIGNEES, LISTED

KEY = SearchAttributeKey.for_keyword_list(ASSIGNEES)
MAX_BYTES = 1_500
"""Maximum size of all values. Temporal accepts 2 KB per search attribute; a larger one would fail the workflow task."""
MAX_CHARS = 200
"""Maximum length of one value. Databases index at most 255 characters."""


def assignees(assigned: Iterable[str]) -> list[str]:
    """Return the values for these assignees: sorted, without duplicates, as many as fit into `MAX_BYTES`."""
    names = sorted({name[:MAX_CHARS] for each in assigned for name in each.split(", ")})
    sizes = accumulate(len(name.encode()) + 3 for name in names)  # plus quotes and a comma
    return [name for name, _ in takewhile(lambda sized: sized[1] <= MAX_BYTES, zip(names, sizes, strict=True))]


class Listing:
    """Sets the search attribute of one run.

    Args:
        wanted: Whether the worker is configured to set it.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._on: bool | None = None

    def show(self, assigned: Iterable[str]) -> None:
        """Set the attribute to the assignees of the open questions, or remove it if there are none.

        If one of them is empty, that assignee is not known yet, and nothing is set.
        """
        if self._on is None:
            self._on = self._decided()
        if not self._on:
            return
        known = list(assigned)
        now = assignees(known)
        if all(known) and now != (_set() or []):
            update = KEY.value_set(now) if now else KEY.value_unset()
            workflow.upsert_search_attributes([update])  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare type

    def _decided(self) -> bool:
        """Return whether this run sets the attribute. A replay finds the decision in the history.

        A run also inherits the attribute of the run before it.
        """
        possible = self._wanted or workflow.unsafe.is_replaying() or _set() is not None
        return possible and workflow.patched(LISTED)


def _set() -> list[str] | None:
    return list(found) if (found := workflow.info().typed_search_attributes.get(KEY)) is not None else None
