"""Classifies the state of a thread with regard to one question: one case out of a closed set.

Law: before a run, this is the only place that decides what the state of a thread means for an answer. (`ThreadRun` and
`ServerThread.check_taken` judge the run itself.) `classify` is pure: it decides
from a snapshot, and if a fact is missing it names the fact that it needs next. Each engine reads the facts in its own
way. So both engines decide in the same order, and no fact is read that cannot change the case. `rules` says what
follows from each case.
"""

from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from awaithumans_adapters.langgraph.delivery.checkpoint_reader import Untaken
from awaithumans_adapters.langgraph.unmodified.interrupt_question import interrupt_id


class Fact(Enum):
    """A fact about a thread that `classify` needs next. Each one is read into the fields of `Snapshot` named here."""

    THREAD = auto()
    """`exists`, `deleted`, `hidden`, `run_active`."""
    SHOWN = auto()
    """`shown_by`."""
    RUNNING_BESIDE = auto()
    """`running_beside`, `running_timed_out`."""
    FAILED_BESIDE = auto()
    """`failed_beside`."""
    UNSTORED_BESIDE = auto()
    """`unstored_beside`."""
    ANSWERED = auto()
    """`answered`."""
    STOPPED = auto()
    """`stopped_in`."""
    FAILED = auto()
    """`failed`."""
    NEXT_QUESTION = auto()
    """`next_question`."""
    EVER_SHOWN = auto()
    """`ever_shown`."""
    QUEUED = auto()
    """`queued`."""
    SHOWS_ANSWERED = auto()
    """`shows_answered`."""
    NODE_MISSING = auto()
    """`node_missing`."""
    UNTAKEN = auto()
    """`untaken`."""
    OTHERS_SHOWN = auto()
    """`others_shown`."""
    REMOVED = auto()
    """`removed`."""


class NextQuestion(Enum):
    """The question at which a thread waits after it took an answer, if there is one."""

    NONE = auto()
    """The thread waits at no question."""
    SAME_STEP = auto()
    """A node that has an answer waits at a later question, or has not finished."""
    NEXT_STEP = auto()
    """No node that has an answer belongs to the current step, so the thread can be continued without repeating one."""


class Snapshot(NamedTuple):
    """What is known about one question and its thread. None means that a fact was not read yet.

    A tuple, because a copy is made for each fact that is read.
    """

    # What the engine knows without reading the thread.

    answer_known: bool = True
    """Whether there is an answer to deliver. If not, the snapshot serves to find out whether the wait is orphaned."""
    redriven: bool = False
    """Whether an operator redrives the answer, which permits failed nodes to run again."""
    may_retry: bool = False
    """Whether a retry policy permits failed nodes to run again."""
    run_ended: bool = False
    """Whether the run with this answer has ended in this process, so that only the application has to be informed."""
    run_cut_short: bool = False
    """Whether an earlier run with this answer raised an exception that is not a recorded failure of the graph."""
    delivered_before: bool = False
    """Whether a run with this answer was started before, according to this process or to the record of runs."""
    was_run_on: bool = False
    """Whether this delivery has already continued the thread to make it show the question."""
    thread_id: str = ""
    """Id of the thread. For messages, as the next two fields."""
    where: str = ""
    """The graphs, or the server, in which the thread is expected."""
    not_yet: str = ""
    """The message for `Case.NOT_YET`."""

    # What is read from the thread.

    exists: bool | None = None
    """Whether the thread is stored."""
    deleted: bool | None = None
    """Whether the thread was stored earlier and is known to be deleted."""
    hidden: str | None = None
    """Why the thread may exist although it is not found. Empty if that is impossible."""
    run_active: bool | None = None
    """Whether a run of the thread is active. Only a LangGraph server knows."""
    shown_by: tuple[str, ...] | None = None
    """Where the question is shown, or its answer can be taken in place of the one shown.

    Names of graphs, or the thread id on a LangGraph server.
    """
    running_beside: str | None = None
    """Nodes of the same step without a result, a failure or a question. They may still run in another process."""
    running_timed_out: bool = False
    """Whether those nodes have been running longer than the time after which they are assumed to have died."""
    failed_beside: str | None = None
    """Nodes of the same step that failed after they had their own answer."""
    unstored_beside: str | None = None
    """Nodes of the same step that have their own answer and no stored result."""
    answered: bool | None = None
    """Whether the thread has taken the answer."""
    stopped_in: tuple[str, ...] | None = None
    """Where the run with the answer failed or was cut off: names of graphs, or the thread id on a LangGraph server."""
    failed: str | None = None
    """Failed nodes of the current step, with their errors."""
    next_question: NextQuestion | None = None
    """The question at which the thread waits now."""
    ever_shown: bool | None = None
    """Whether the thread has ever shown the question."""
    queued: bool | None = None
    """Whether the question waits behind another one that its node shows."""
    shows_answered: bool | None = None
    """Whether every question that the thread shows in place of this one was answered or replaced."""
    node_missing: bool | None = None
    """Whether the node that shows the question exists in none of the graphs."""
    untaken: Untaken | None = None
    """State of the question according to the checkpoints that record it."""
    others_shown: bool | None = None
    """Whether the thread shows other questions."""
    removed: bool | None = None
    """Whether the checkpoint that asked is no longer stored, and newer ones are."""


class Case(Enum):
    """The state of a thread with regard to one question."""

    PENDING = "the thread shows the question, and nothing prevents a run with the answer"
    AMBIGUOUS = "several graphs show the question, or were stopped with its answer"
    RUNNING_BESIDE = "the thread shows the question, and another node of the step may still run"
    FAILED_BESIDE = "the thread shows the question, and another node failed after it had its own answer"
    UNSTORED_BESIDE = "the thread shows the question, and another node has its own answer and no stored result"

    ANSWERED = "the thread has taken the answer, and the run with it needs nothing more"
    CUT_OFF = "the thread has taken the answer, and the run with it was cut off"
    FAILED = "the thread has taken the answer, and a node failed that may have acted on it"
    FAILED_MAY_RETRY = "as FAILED, and the retry policy of the graph's owner permits another run"
    FAILED_REDRIVEN = "as FAILED, and an operator permits another run"
    NEXT_UNASKED = "the run with the answer ended with an exception, so its next question may not have been asked"
    NEXT_UNASKED_IN_STEP = "as NEXT_UNASKED, and a node of the step has an answer and has not finished"
    LOST = "the thread has taken the answer, and its state was lost"
    RESUMED_BY_APPLICATION = "the thread has taken an answer that the relay has not delivered"

    QUEUED = "the question waits behind another one"
    BEHIND_ANSWERED = "the question waits behind one that was answered or replaced, so a run shows it"
    OTHER_RELEASE = "the question waits at a node that none of the graphs has"
    SUPERSEDED = "new input or a fork has replaced the question"
    UPDATED = "update_state has replaced the question"
    CONTINUED = "the node has finished without the answer"
    DECIDED = "the quorum has decided without the answer"
    REMOVED = "the checkpoint that asked was removed, and the thread has moved on"

    RUN_ACTIVE = "a run of the thread is active"
    HIDDEN = "the thread is not found, and may be hidden from the relay's credentials"
    DELETED = "the thread was deleted"
    NOT_YET = "the thread, or the question in it, is not stored yet"


_WITHOUT_ANSWER: Final = {
    Untaken.CONTINUED: Case.CONTINUED,
    Untaken.DECIDED: Case.DECIDED,
    Untaken.REPLACED: Case.SUPERSEDED,
    Untaken.UPDATED: Case.UPDATED,
}


def classify(found: Snapshot, key: str) -> Case | Fact:
    """Return the case of the question with this key, or the fact that is needed next to determine it."""
    if found.exists is None:
        return Fact.THREAD
    if not found.exists:
        return Case.HIDDEN if found.hidden else Case.DELETED if found.deleted else Case.NOT_YET
    if found.run_active:
        return Case.RUN_ACTIVE
    # A shown question comes first: a shared key may be answered at one place of the thread and open at another.
    if found.shown_by is None:
        return Fact.SHOWN
    if found.shown_by:
        return _shown(found)
    if found.answered is None:
        return Fact.ANSWERED
    if found.answered:
        return _answered(found, key)
    if found.ever_shown is None:
        return Fact.EVER_SHOWN
    return _was_shown(found) if found.ever_shown else _never_shown(found)


def _shown(found: Snapshot) -> Case | Fact:
    """Classify a question that the thread shows. A run with its answer also runs the unfinished nodes beside it."""
    if found.shown_by is not None and len(found.shown_by) > 1:
        return Case.AMBIGUOUS
    if not found.answer_known:
        return Case.PENDING
    if found.running_beside is None:
        return Fact.RUNNING_BESIDE
    if found.running_beside and not found.running_timed_out:
        return Case.RUNNING_BESIDE
    if found.failed_beside is None:
        return Fact.FAILED_BESIDE
    if found.failed_beside:
        return Case.FAILED_BESIDE
    if found.unstored_beside is None:
        return Fact.UNSTORED_BESIDE
    return Case.UNSTORED_BESIDE if found.unstored_beside else Case.PENDING


def _answered(found: Snapshot, key: str) -> Case | Fact:
    """Classify a question whose answer was taken. A node that has its answer may have acted on it."""
    if not found.answer_known:
        # Only the relay answers the questions of this package. Anyone may resume an interrupt of an unmodified node.
        return Case.ANSWERED if interrupt_id(key) is None else Case.RESUMED_BY_APPLICATION
    if found.run_ended:  # what runs now belongs to another caller
        return Case.ANSWERED
    if found.stopped_in is None:
        return Fact.STOPPED
    if not found.stopped_in:
        return _next_question(found) if found.run_cut_short else Case.ANSWERED
    if len(found.stopped_in) > 1:
        return Case.AMBIGUOUS
    if found.failed is None:
        return Fact.FAILED
    if not found.failed:
        return Case.CUT_OFF
    if found.ever_shown is None:
        return Fact.EVER_SHOWN
    if not found.ever_shown:
        return Case.LOST
    if found.redriven:
        return Case.FAILED_REDRIVEN
    return Case.FAILED_MAY_RETRY if found.may_retry else Case.FAILED


def _next_question(found: Snapshot) -> Case | Fact:
    """Classify a thread whose last run ended as it should, but raised an exception, for instance in a callback."""
    match found.next_question:
        case None:
            return Fact.NEXT_QUESTION
        case NextQuestion.NONE:
            return Case.ANSWERED
        case NextQuestion.SAME_STEP:
            return Case.NEXT_UNASKED_IN_STEP
        case NextQuestion.NEXT_STEP:
            return Case.NEXT_UNASKED


def _was_shown(found: Snapshot) -> Case | Fact:
    """Classify a question that was shown once, is not shown now, and has no answer."""
    if found.queued is None:
        return Fact.QUEUED
    if found.queued:
        if not found.answer_known or found.was_run_on:
            return Case.QUEUED
        if found.shows_answered is None:
            return Fact.SHOWS_ANSWERED
        return Case.BEHIND_ANSWERED if found.shows_answered else Case.QUEUED
    if found.node_missing is None:
        return Fact.NODE_MISSING
    if found.node_missing:
        return Case.OTHER_RELEASE
    if found.untaken is None:
        return Fact.UNTAKEN
    return _WITHOUT_ANSWER.get(found.untaken, Case.SUPERSEDED)


def _never_shown(found: Snapshot) -> Case | Fact:
    """Classify a question that no checkpoint shows. A node that asks several people shows one question at a time."""
    if found.untaken is None:
        return Fact.UNTAKEN
    if found.untaken in _WITHOUT_ANSWER:
        return _WITHOUT_ANSWER[found.untaken]
    if found.untaken is Untaken.OPEN:
        if found.others_shown is None:
            return Fact.OTHERS_SHOWN
        if found.others_shown:
            return Case.QUEUED
    if found.delivered_before:  # retention has removed the checkpoint that took the answer
        if found.failed is None:
            return Fact.FAILED
        return Case.FAILED if found.failed else Case.ANSWERED
    if found.removed is None:
        return Fact.REMOVED
    return Case.REMOVED if found.removed else Case.NOT_YET


class ReadsFacts(Protocol):
    """Reads the facts of one thread, for one engine. It must set all fields that belong to a fact."""

    async def read(self, fact: Fact, found: Snapshot) -> Snapshot:
        """Return the snapshot with this fact added."""
        ...


async def read_case(reader: ReadsFacts, found: Snapshot, key: str) -> tuple[Case, Snapshot]:
    """Read facts until the case is determined. Return it with the snapshot that determines it."""
    while isinstance(case := classify(found, key), Fact):
        found = await reader.read(case, found)
    return case, found
