"""A node that fails after it had the answer: run again by policy, or kept with the wait.

Law: a node that had an answer may have acted on it. It runs again only where the graph's owner has said that it may:
with a retry policy, or by a redrive.
"""

import random
from collections.abc import Sequence

from langgraph.types import RetryPolicy

from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.route import Route

MEND = "Fix it and redrive: the thread runs on from there"
"""What an operator can do about a graph that failed with the answer in hand."""


class GraphFailedError(Exception):
    """The graph failed after it had taken the answer; the thread has recorded it."""

    def __init__(self, told: str, failure: BaseException | None = None) -> None:
        super().__init__(told)
        self.failure = failure
        """What was raised, when this process saw it."""


class FailedRuns:
    """Counts the failures of each answer's run and says what follows. The count is this process's own."""

    def __init__(self, policy: RetryPolicy | None) -> None:
        self._policy = policy
        self._tries: dict[str, int] = {}

    @property
    def may_run_again(self) -> bool:
        """Whether the owner has said that failed nodes may run again."""
        return self._policy is not None

    def forget(self, route: Route) -> None:
        """The run has gone well."""
        self._tries.pop(route.digest, None)

    def verdict(self, route: Route, failed: GraphFailedError) -> TargetGone | TargetNotReady:
        """Later or never: what the relay is to hear of it."""
        tries = self._tries[route.digest] = self._tries.get(route.digest, 0) + 1
        policy = self._policy
        if policy is not None and tries < policy.max_attempts and _worth_it(policy, failed.failure):
            interval = min(policy.initial_interval * policy.backoff_factor ** (tries - 1), policy.max_interval)
            spread = random.uniform(0, 1) if policy.jitter else 0.0  # noqa: S311 - spreads load, guards nothing
            return TargetNotReady(
                f"{failed}; it runs again, after try {tries} of {policy.max_attempts}", retry_after=interval + spread
            )
        self.forget(route)
        return TargetGone(f"{failed}, after it had the answer. {MEND}")


def _worth_it(policy: RetryPolicy, failure: BaseException | None) -> bool:
    """As LangGraph reads `retry_on`; a typed end of a question is the same however often a node settles it."""
    if not isinstance(failure, Exception) or isinstance(failure, AwaitHumansError):
        return False
    match policy.retry_on:
        case type() as kind:
            return isinstance(failure, kind)
        case Sequence() as kinds:
            return isinstance(failure, tuple(kinds))
        case says:
            return bool(says(failure))
