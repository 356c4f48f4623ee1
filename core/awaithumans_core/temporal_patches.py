"""Rules that are newer than some of the histories that are still replayed.

Law: a workflow that waits when a release is deployed goes on. Commands that are recorded in a history follow from the
rules of the release that recorded them, and a replay has to come to the same commands.
"""

import sys


def applies(rule: str) -> bool:
    """Whether a rule of this release applies. In a workflow it does not where an earlier release passed without it.

    Args:
        rule: Names the rule in histories, so it never changes.
    """
    temporal = sys.modules.get("temporalio.workflow")
    if temporal is None or not temporal.in_workflow():
        return True
    return bool(temporal.patched(rule))
