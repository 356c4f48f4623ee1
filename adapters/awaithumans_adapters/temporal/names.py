"""The names both sides of Temporal's wall agree on. They stand in histories, so they do not change."""

import hashlib
import re

from awaithumans_core.route import Route

SIGNAL = "awaithumans.answer"
"""Carries an outcome to the workflow that asked."""
OPEN_WAIT = "awaithumans.open_wait"
"""Activity: create the task and register the wait."""
CLOSE_WAIT = "awaithumans.close_wait"
"""Activity: cancel the task unless it has ended, and say how it ended."""
LAST_LOOK = "awaithumans.last_look"
"""Activity: say how the task stands at its deadline, and close it unless others wait for it longer."""
AWAIT_HUMAN = "awaithumans.await_human"
"""Activity: ask, and be completed from outside with the outcome."""
WITHDRAW = "awaithumans.withdraw"
"""Activity: cancel a question by its key, whether or not its task is known."""
QUERY = "pending_human_tasks"
"""Query: what the workflow waits for."""
ASSIGNEES = "AwaitHumansAssignees"
"""Search attribute (KeywordList): whom a workflow waits for."""
LISTED = "awaithumans-listed"
"""Patch: this run sets the search attribute."""
HEADER = "awaithumans-open-waits"
"""Header in which a run that continues as new hands its open waits on."""
CARRIED = "awaithumans_carried"
"""Field beside a question's own in the input of an activity: the run before may have asked it. No server gets it.

Its value is true, or the activity that waited in that run: `{"activity_id", "run_id"}`.
"""
ORIGINAL_RUN = "awaithumans_original_run"
"""Field beside a question's own in the input of an activity: the original run id of the workflow. No server gets it.

If it is not the run of the activity, the workflow was reset.
"""
DESCRIPTIONS = {
    SIGNAL: "The answer of a person, or another end of a question. The awaithumans relay sends it.",
    QUERY: "The tasks that people have before them, oldest first: question, assignee, deadline and where to answer.",
}
"""Shown in the Temporal UI and by `temporal workflow metadata`."""
ASK_WITHIN = "awaithumans_ask_within"
"""Field beside a question's own in the input of an activity: seconds in which it has to be asked. No server gets it."""
OWN_FIELDS = (CARRIED, ORIGINAL_RUN, ASK_WITHIN)
"""Fields that are not part of the question."""
MEASURE = "awaithumans.question_size"
"""Local activity: how large a question is once it is encoded."""
ENGINE = "temporal"
"""Engine name of the routes."""

OWN_ACTIVITY = "human:"
"""Ids of the activities with which `await_human` waits begin with it."""

_DEFAULT_KEY = re.compile(r"temporal:.*:([0-9a-f]{32}(?::(?:reask|again):\d+)*)", re.DOTALL)
_AGAIN = re.compile(r":again:(\d+)")


def default_key(namespace: str, workflow_id: str, place: str) -> str:
    """Key of a question that its caller has not named; `place` says which question of the workflow it is."""
    return f"{ENGINE}:{namespace}:{workflow_id}:{_digest(place)}"


def mark_of(namespace: str, workflow_id: str, key: str) -> str:
    """Names a workflow as the one a question was created for, in either mode and in each of its runs."""
    return Route(ENGINE, {"namespace": namespace, "workflow_id": workflow_id}, key).digest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def within(key: str) -> str:
    """What of a key names the question within its workflow.

    A default key begins with namespace and workflow id, which are others where a history is replayed than where it was
    recorded.
    """
    ours = _DEFAULT_KEY.fullmatch(key)
    return ours[1] if ours else key


def place_of(key: str) -> str:
    """What of a key names the place at which a workflow asks, however often a reset made it ask again."""
    name = within(key)
    return name if name == key else _AGAIN.sub("", name)


def asked_again(key: str) -> str:
    """The key under which a workflow that was reset asks again, after the question with this key has ended."""
    if last := re.fullmatch(rf"(.*){_AGAIN.pattern}", key, re.DOTALL):
        return f"{last[1]}:again:{int(last[2]) + 1}"
    return f"{key}:again:1"


def activity_id(original_run_id: str, number: int) -> str:
    """Id of the activity that waits for the question with this number in its run, from 1.

    It does not depend on the question, because Temporal accepts another input on replay but not another id.
    """
    return f"{OWN_ACTIVITY}{_digest(f'{original_run_id}: {number}')}"
