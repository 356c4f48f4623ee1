"""Ask a person from Python and get a typed answer.

Every name is imported at its first use. So importing this package, for instance in a Temporal workflow sandbox, loads
no HTTP client and opens no socket.
"""

from typing import TYPE_CHECKING

from awaithumans_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from awaithumans_core.ask import await_human, await_human_sync
    from awaithumans_core.batch import Answer
    from awaithumans_core.client import SyncTaskClient, TaskClient
    from awaithumans_core.engine import Engine, TargetBusy, TargetGone, TargetNotReady
    from awaithumans_core.errors import (
        AnswererNotAllowedError,
        AuthenticationError,
        AwaitHumansError,
        InvalidTaskError,
        PermissionDeniedError,
        QuestionChangedError,
        QuestionNotAskedError,
        ResponseMissingError,
        ResponseSchemaError,
        ServerUnreachableError,
        SettingsError,
        TaskCancelledError,
        TaskNotFoundError,
        TaskRejectedError,
        TaskTimeoutError,
        UnexpectedReplyError,
        VerificationExhaustedError,
    )
    from awaithumans_core.group_decisions import Step, Verdict, Vote, escalate, quorum
    from awaithumans_core.human_tasks import HumanTasks
    from awaithumans_core.outcome import Outcome, settle
    from awaithumans_core.route import Route
    from awaithumans_core.settings import Settings
    from awaithumans_core.status import TaskStatus
    from awaithumans_core.task import HumanTask

__all__ = [
    "Answer",
    "AnswererNotAllowedError",
    "AuthenticationError",
    "AwaitHumansError",
    "Engine",
    "HumanTask",
    "HumanTasks",
    "InvalidTaskError",
    "Outcome",
    "PermissionDeniedError",
    "QuestionChangedError",
    "QuestionNotAskedError",
    "ResponseMissingError",
    "ResponseSchemaError",
    "Route",
    "ServerUnreachableError",
    "Settings",
    "SettingsError",
    "Step",
    "SyncTaskClient",
    "TargetBusy",
    "TargetGone",
    "TargetNotReady",
    "TaskCancelledError",
    "TaskClient",
    "TaskNotFoundError",
    "TaskRejectedError",
    "TaskStatus",
    "TaskTimeoutError",
    "UnexpectedReplyError",
    "Verdict",
    "VerificationExhaustedError",
    "Vote",
    "await_human",
    "await_human_sync",
    "escalate",
    "quorum",
    "settle",
]

_HOMES = dict.fromkeys(__all__, "errors") | {
    "await_human": "ask",
    "await_human_sync": "ask",
    "SyncTaskClient": "client",
    "TaskClient": "client",
    "Step": "group_decisions",
    "Verdict": "group_decisions",
    "Vote": "group_decisions",
    "escalate": "group_decisions",
    "quorum": "group_decisions",
    "Answer": "batch",
    "Engine": "engine",
    "TargetBusy": "engine",
    "TargetGone": "engine",
    "TargetNotReady": "engine",
    "HumanTask": "task",
    "HumanTasks": "human_tasks",
    "Outcome": "outcome",
    "settle": "outcome",
    "Route": "route",
    "Settings": "settings",
    "TaskStatus": "status",
}

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
