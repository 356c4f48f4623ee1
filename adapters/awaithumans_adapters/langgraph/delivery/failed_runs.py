"""Decides what follows when a node fails after it has received the answer: a retry by policy, or a parked wait.

Law: a node that received an answer may already have acted on it. It runs again only with the permission of the graph's
owner: a retry policy or a redrive.
"""

import random
from collections.abc import Sequence

from langgraph.types import RetryPolicy

from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.route import Route

REDRIVE_ADVICE = "Fix it and redrive: the thread continues from there"
"""What an operator can do about a graph that failed after it received the answer."""


def failed_after_answer(failures: str) -> TargetGone:
    """Return the error that parks a wait because nodes failed after they had the answer."""
    return TargetGone(f"{failures}, after it had the answer. {REDRIVE_ADVICE}")


def node_failed(name: str, error: object) -> str:
    """Return the text that reports a failed node to an operator."""
    return f"node {name!r} failed ({error})"


class GraphFailedError(Exception):
    """The graph failed after it had taken the answer, and the thread has recorded the failure."""

    def __init__(self, failures: str, failure: BaseException | None = None) -> None:
        super().__init__(failures)
        self.failure = failure
        """The raised exception, if this process saw it."""


class FailedRuns:
    """Counts the failed runs of each answer and decides what follows. The counts are local to this process."""

    def __init__(self, policy: RetryPolicy | None) -> None:
        self._policy = policy
        self._tries: dict[str, int] = {}

    @property
    def may_run_again(self) -> bool:
        """Whether a retry policy permits failed nodes to run again."""
        return self._policy is not None

    def forget(self, route: Route) -> None:
        """Reset the count of an answer whose run succeeded."""
        self._tries.pop(route.digest, None)

    def verdict(self, route: Route, failed: GraphFailedError) -> TargetGone | TargetNotReady:
        """Count a failure, and return the error that makes the relay deliver again later or park the wait."""
        tries = self._tries[route.digest] = self._tries.get(route.digest, 0) + 1
        policy = self._policy
        if policy is not None and tries < policy.max_attempts and _worth_it(policy, failed.failure):
            interval = min(policy.initial_interval * policy.backoff_factor ** (tries - 1), policy.max_interval)
            spread = random.uniform(0, 1) if policy.jitter else 0.0  # noqa: S311 - spreads load, guards nothing
            return TargetNotReady(
                f"{failed}; it runs again, after try {tries} of {policy.max_attempts}", retry_after=interval + spread
            )
        self.forget(route)
        return failed_after_answer(str(failed))


def _worth_it(policy: RetryPolicy, failure: BaseException | None) -> bool:
    """Whether the policy's `retry_on`, with the meaning it has in LangGraph, covers this failure.

    An `AwaitHumansError` is never worth a retry: a question that ended without an answer raises the same error every
    time.
    """
    if not isinstance(failure, Exception) or isinstance(failure, AwaitHumansError):
        return False
    match policy.retry_on:
        case type() as kind:
            return isinstance(failure, kind)
        case Sequence() as kinds:
            return isinstance(failure, tuple(kinds))
        case says:
            return bool(says(failure))
