"""Names that workflows, activities and the relay share. They are stored in histories and therefore never change."""

import hashlib
import re

from awaithumans_core.route import Route

SIGNAL = "awaithumans.answer"
"""Signal that carries an outcome to the workflow that asked."""
OPEN_WAIT = "awaithumans.open_wait"
"""Activity: create the task and register the wait."""
CLOSE_WAIT = "awaithumans.close_wait"
"""Activity: cancel the task unless it has ended, and return how it ended."""
LAST_LOOK = "awaithumans.last_look"
"""Activity: return the state of the task at its deadline, and close it unless others wait for it longer."""
AWAIT_HUMAN = "awaithumans.await_human"
"""Activity: create the task, and wait to be completed from outside with the outcome."""
WITHDRAW = "awaithumans.withdraw"
"""Activity: cancel a question by its key, whether or not its task is known."""
QUERY = "pending_human_tasks"
"""Query: the tasks that the workflow waits for."""
ASSIGNEES = "AwaitHumansAssignees"
"""Search attribute (KeywordList): the assignees a workflow waits for."""
LISTED = "awaithumans-listed"
"""Patch: this run sets the search attribute."""
HEADER = "awaithumans-open-waits"
"""Header in which a run that continues as new hands on its open waits."""
CARRIED = "awaithumans_carried"
"""Extra field in the input of an activity: the previous run may have asked the question.

It is never sent to the server.

Its value is true, or the activity that waited in that run: `{"activity_id", "run_id"}`.
"""
ORIGINAL_RUN = "awaithumans_original_run"
"""Extra field in the input of an activity: the workflow's original run id. It is never sent to the server.

If it differs from the run of the activity, the workflow was reset.
"""
DESCRIPTIONS = {
    SIGNAL: "The answer of a person, or another end of a question. The awaithumans relay sends it.",
    QUERY: "The tasks that people have before them, oldest first: question, assignee, deadline and where to answer.",
}
"""Descriptions shown in the Temporal UI and by `temporal workflow metadata`."""
ASK_WITHIN = "awaithumans_ask_within"
"""Extra field in the input of an activity: seconds in which to create the task. It is never sent to the server."""
OWN_FIELDS = (CARRIED, ORIGINAL_RUN, ASK_WITHIN)
"""Extra fields in the input of an activity, which are not part of the question."""
MEASURE = "awaithumans.question_size"
"""Local activity: return the size of a question once it is encoded."""
ENGINE = "temporal"
"""Engine name in the routes."""

OWN_ACTIVITY = "human:"
"""Prefix of the ids of the activities with which `await_human` waits."""

_DEFAULT_KEY = re.compile(r"temporal:.*:([0-9a-f]{32}(?::(?:reask|again):\d+)*)", re.DOTALL)
_AGAIN = re.compile(r":again:(\d+)")


def default_key(namespace: str, workflow_id: str, place: str) -> str:
    """Return the key of a question that its caller has not named. `place` identifies it within the workflow."""
    return f"{ENGINE}:{namespace}:{workflow_id}:{_digest(place)}"


def mark_of(namespace: str, workflow_id: str, key: str) -> str:
    """Return the mark of the workflow a question was created for: one mark in both modes and in all its runs."""
    return Route(ENGINE, {"namespace": namespace, "workflow_id": workflow_id}, key).digest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def within(key: str) -> str:
    """Return the part of a key that names the question within its workflow.

    A default key begins with namespace and workflow id, which may differ between recording and replaying a history.
    """
    ours = _DEFAULT_KEY.fullmatch(key)
    return ours[1] if ours else key


def place_of(key: str) -> str:
    """Return the part of a key that names the place at which a workflow asks, whatever resets made it ask again."""
    name = within(key)
    return name if name == key else _AGAIN.sub("", name)


def asked_again(key: str) -> str:
    """Return the key under which a workflow that was reset asks again, after the question with this key has ended."""
    if last := re.fullmatch(rf"(.*){_AGAIN.pattern}", key, re.DOTALL):
        return f"{last[1]}:again:{int(last[2]) + 1}"
    return f"{key}:again:1"


def activity_id(original_run_id: str, number: int) -> str:
    """Return the id of the activity that waits for the question with this number in its run, from 1.

    It does not depend on the question, because Temporal accepts another input on replay but not another id.
    """
    return f"{OWN_ACTIVITY}{_digest(f'{original_run_id}: {number}')}"
