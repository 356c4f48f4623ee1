"""The eleven statuses of a task, and which of them are the end of it.

Law: an unknown status is still pending. A newer server may grow statuses; none of them may end a wait by accident.
"""

from enum import StrEnum


class TaskStatus(StrEnum):
    """The statuses of the awaithumans task API."""

    CREATED = "created"
    NOTIFIED = "notified"
    ASSIGNED = "assigned"
    IN_PROGRESS = "in_progress"
    SUBMITTED = "submitted"
    VERIFIED = "verified"
    REJECTED = "rejected"
    COMPLETED = "completed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    VERIFICATION_EXHAUSTED = "verification_exhausted"


TERMINAL = frozenset(
    {TaskStatus.COMPLETED, TaskStatus.TIMED_OUT, TaskStatus.CANCELLED, TaskStatus.VERIFICATION_EXHAUSTED}
)
"""The statuses that a task never leaves. `rejected` is not one of them, because the person may try again."""

NOT_FOUND = "not_found"
"""Status of this package for a task whose deletion on the server is confirmed. The server never sends it.

It is no `TaskStatus`. Whatever a server sends under this name is read as an unknown status (`Outcome.from_server`).
"""
