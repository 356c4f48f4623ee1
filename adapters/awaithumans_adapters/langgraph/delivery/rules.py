"""Says what follows from the state of a thread: one rule for each case, shared by both engines.

Law: an engine acts on the case and never on the thread itself. It reads the thread again for a decision only if the
rule says so: before a wait is given up the thread is read twice in a row, because a run may have started and ended
between two reads. That is the only repeated read (`read_to_act`).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from awaithumans_adapters.langgraph.delivery.classification import Case, Snapshot
from awaithumans_adapters.langgraph.delivery.failed_runs import failed_after_answer
from awaithumans_adapters.langgraph.delivery.seen_threads import DELETED
from awaithumans_core.engine import RelayNotReady, TargetBusy, TargetGone, TargetNotReady

NOT_YET_SECONDS = 1.0
"""Seconds to wait before the next attempt. A checkpoint follows the creation of the task within moments."""

SUPERSEDED = (
    "the thread has moved on without this answer: new input, or a fork from an earlier checkpoint, has replaced the "
    "question. If it still matters, it was asked again"
)
"""Reason for parking: the wait has no caller any more, although its question was asked."""

CONTINUED = "the node continued without its answer; does it catch Exception around await_human?"
"""Reason for parking an answer whose node has finished.

The node, or code around it, has swallowed LangGraph's interrupt.
"""

DECIDED = "the quorum has decided without this answer"
"""Reason for parking an answer for which a quorum did not wait."""

UPDATED = (
    "the thread has moved on without this answer: update_state has replaced the step that asked. Nothing runs the "
    "thread until the application does, graph.ainvoke(None, config); the node then asks again, unless the update was "
    "made as this node"
)
"""Reason for parking an answer whose question was open when the application called `update_state`."""

RESUMED_BY_APPLICATION = "the application has resumed this interrupt itself"
"""Reason for an orphaned wait whose interrupt was answered, but not by the relay."""


class Action(Enum):
    """What an engine does in a case."""

    RESUME = auto()
    """Give the answer to the question and run the thread."""
    FINISH = auto()
    """Report the answer as delivered."""
    RUN_ON = auto()
    """Continue the thread from its last checkpoint.

    `GraphEngine` then reports the answer as delivered. `LangGraphServerEngine` classifies again.
    """
    RUN_ON_TO_QUESTION = auto()
    """Continue the thread so that it shows the question. Then classify again."""
    TRY_LATER = auto()
    """Raise `TargetNotReady`."""
    TRY_LATER_BUSY = auto()
    """Raise `TargetBusy`."""
    REFUSE = auto()
    """Raise `RelayNotReady`: the relay's setup is at fault."""
    PARK = auto()
    """Raise `TargetGone`: an operator has to decide."""
    PARK_NOT_TAKEN = auto()
    """Raise `TargetGone`: the thread has moved on without the answer. The application is informed."""
    PARK_FAILED = auto()
    """Raise `TargetGone`, unless a retry policy applies: a node failed after it had the answer."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows from one case."""

    action: Action
    """What a delivery does."""
    reason: str = ""
    """Text of the error. Fields of the snapshot may be quoted, as in `{found.failed}`."""
    orphaned: bool = False
    """Whether an open wait in this case has no caller any more, so that its task is cancelled."""
    read_again: bool = False
    """Whether the thread is read and classified once more before this rule is applied."""
    settled: bool = False
    """For runs: whether nothing that was done is unknown, as in `StartedRuns.after_start`."""


def rule_of(case: Case) -> Rule:
    """Return the rule for a case. Type checkers prove that each case has one."""
    match case:
        case Case.PENDING:
            return Rule(Action.RESUME)
        case Case.AMBIGUOUS:
            return Rule(Action.PARK, _AMBIGUOUS)
        case Case.RUNNING_BESIDE:
            return Rule(Action.TRY_LATER_BUSY, _RUNNING_BESIDE)
        case Case.FAILED_BESIDE:
            return Rule(Action.TRY_LATER, _FAILED_BESIDE)
        case Case.UNSTORED_BESIDE:
            return Rule(Action.TRY_LATER, _UNSTORED_BESIDE)
        case Case.ANSWERED:
            return Rule(Action.FINISH)
        case Case.CUT_OFF:
            return Rule(Action.RUN_ON)
        case Case.FAILED:
            return Rule(Action.PARK_FAILED, "{found.failed}")
        case Case.FAILED_MAY_RETRY:
            return Rule(Action.RUN_ON, settled=True)
        case Case.FAILED_REDRIVEN:
            return Rule(Action.RUN_ON)
        case Case.NEXT_UNASKED:
            return Rule(Action.RUN_ON, settled=True)
        case Case.NEXT_UNASKED_IN_STEP:
            return Rule(Action.RUN_ON)
        case Case.LOST:
            return Rule(Action.PARK, _LOST)
        case Case.RESUMED_BY_APPLICATION:
            return Rule(Action.FINISH, RESUMED_BY_APPLICATION, orphaned=True)
        case Case.QUEUED:
            return Rule(Action.TRY_LATER_BUSY, _QUEUED)
        case Case.BEHIND_ANSWERED:
            return Rule(Action.RUN_ON_TO_QUESTION)
        case Case.OTHER_RELEASE:
            return Rule(Action.TRY_LATER, _OTHER_RELEASE)
        case Case.SUPERSEDED | Case.REMOVED:
            return Rule(Action.PARK_NOT_TAKEN, SUPERSEDED, orphaned=True, read_again=True)
        case Case.UPDATED:
            return Rule(Action.PARK_NOT_TAKEN, UPDATED, orphaned=True, read_again=True)
        case Case.CONTINUED:
            return Rule(Action.PARK_NOT_TAKEN, CONTINUED, orphaned=True, read_again=True)
        case Case.DECIDED:
            return Rule(Action.PARK_NOT_TAKEN, DECIDED, orphaned=True, read_again=True)
        case Case.RUN_ACTIVE:
            return Rule(Action.TRY_LATER_BUSY, "a run of the thread is active")
        case Case.HIDDEN:
            return Rule(Action.REFUSE, "{found.hidden}")
        case Case.DELETED:
            return Rule(Action.PARK, DELETED, orphaned=True)
        case Case.NOT_YET:
            return Rule(Action.TRY_LATER, "{found.not_yet}")
        case _:
            assert_never(case)


def reason_for(case: Case, found: Snapshot) -> str:
    """Return the text of the error in this case."""
    graphs = found.shown_by or found.stopped_in or ("",)
    return rule_of(case).reason.format(found=found, graphs=", ".join(graphs), graph=graphs[0])


def error_for(case: Case, found: Snapshot) -> TargetGone | TargetNotReady:
    """Return the error that ends a delivery in this case."""
    reason = reason_for(case, found)
    match rule_of(case).action:
        case Action.TRY_LATER:
            return TargetNotReady(reason, retry_after=NOT_YET_SECONDS)
        case Action.TRY_LATER_BUSY:
            return TargetBusy(reason, retry_after=NOT_YET_SECONDS)
        case Action.REFUSE:
            return RelayNotReady(reason)
        case Action.PARK | Action.PARK_NOT_TAKEN:
            return TargetGone(reason)
        case Action.PARK_FAILED:
            return failed_after_answer(reason)
        case Action.RESUME | Action.FINISH | Action.RUN_ON | Action.RUN_ON_TO_QUESTION:
            raise ValueError(f"{case} does not end a delivery with an error")


async def read_to_act(read: Callable[[], Awaitable[tuple[Case, Snapshot]]]) -> tuple[Case, Snapshot]:
    """Return the case that an engine acts on. If its rule says so, the thread is read twice and the second read counts.

    Args:
        read: Reads the thread anew and classifies it.
    """
    case, found = await read()
    return await read() if rule_of(case).read_again else (case, found)


async def orphan_reason(read: Callable[[], Awaitable[tuple[Case, Snapshot]]]) -> str | None:
    """Return why the wait for an open question has no caller any more, or None if it has one or may have one.

    Args:
        read: Reads the thread and classifies it, with `Snapshot.answer_known` false.

    Raises:
        RelayNotReady: the relay's credentials may hide the thread.
    """
    case, found = await read_to_act(read)
    if rule_of(case).action is Action.REFUSE:
        raise error_for(case, found)
    return reason_for(case, found) if rule_of(case).orphaned else None


_AMBIGUOUS = (
    "the graphs {graphs} share a checkpointer and a node name, so it is not known whose thread this is: run "
    'them with {{"configurable": {{"thread_id": ..., "graph_id": "{graph}"}}}}, or give them '
    "different node names, and redrive"
)
_RUNNING_BESIDE = "{found.running_beside} still runs beside the question; resuming now would run it twice"
_FAILED_BESIDE = (
    "beside the question, {found.failed_beside} after it had its own answer; resuming now would run it again"
)
_UNSTORED_BESIDE = (
    "beside the question, {found.unstored_beside} has its own answer and its result is not stored; resuming now would "
    "run it again"
)
_LOST = (
    "{found.where} has lost what thread {found.thread_id!r} was doing, together with the answer it had taken "
    "({found.failed})"
)
_QUEUED = "the node waits for another answer first; then the thread shows this question"
_OTHER_RELEASE = (
    "the question waits at a node that {found.where} of this relay does not have; is it of another release?"
)
