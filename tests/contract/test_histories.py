"""Histories recorded by earlier releases replay, and this release produces the same commands.

A workflow that waits when a release is deployed must be able to continue.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from devservers import HumansServer, TemporalServer
from temporalio.client import WorkflowHistory
from temporalio.common import Priority, RetryPolicy
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from awaithumans_adapters.temporal import ActivityOptions, HumanTasksPlugin
from awaithumans_adapters.temporal.names import HEADER
from tests.histories import FOLDER, RELEASE, recorded
from tests.histories.cases import NAMES, played, stage
from tests.support.workflows import WORKFLOWS, AskAcrossRunsReworded, AskUncaughtReworded

every_history = pytest.mark.parametrize("file", recorded(), ids=lambda file: f"{file.parent.name}/{file.stem}")

MADE_BY_COMMANDS = {
    "ACTIVITY_TASK_SCHEDULED",
    "ACTIVITY_TASK_CANCEL_REQUESTED",
    "TIMER_STARTED",
    "TIMER_CANCELED",
    "WORKFLOW_EXECUTION_COMPLETED",
    "WORKFLOW_EXECUTION_FAILED",
    "WORKFLOW_EXECUTION_CONTINUED_AS_NEW",
}
"""The number of other events depends on timing."""


def commands(history: Mapping[str, Any]) -> list[str]:
    """Return the workflow's decisions in order: the events of its commands, with the subject of each."""
    made: list[str] = []
    for event in history["events"]:
        kind = str(event["eventType"]).removeprefix("EVENT_TYPE_")
        if kind in MADE_BY_COMMANDS:
            name = event.get("activityTaskScheduledEventAttributes", {}).get("activityType", {}).get("name", "")
            made.append(f"{kind} {name}".strip())
    return made


async def replay(
    history: str,
    *,
    workflow_id: str = "somewhere-else",
    workflows: Sequence[type] = tuple(WORKFLOWS),
    activities: ActivityOptions | None = None,
) -> None:
    replayer = Replayer(workflows=workflows, plugins=[HumanTasksPlugin(activities=activities)])
    await replayer.replay_workflow(WorkflowHistory.from_json(workflow_id, history))


def test_every_case_has_a_recorded_history() -> None:
    """A new case is recorded with the release that adds it."""
    assert {file.stem for file in recorded() if file.parent.name == RELEASE} == set(NAMES)


@every_history
async def test_recorded_history_replays_under_any_id(file: Path) -> None:
    """A history replays under any namespace and workflow id, since neither identifies a question in its workflow."""
    await replay(file.read_text())


REWORDED = {"answered": AskUncaughtReworded, "asked-again": AskUncaughtReworded, "across-runs": AskAcrossRunsReworded}


@pytest.mark.parametrize("via", ["signal", "activity"])
@pytest.mark.parametrize("case", REWORDED)
async def test_recorded_history_replays_with_reworded_questions(case: str, via: str) -> None:
    """A workflow that asked, or had its answer, before its question was reworded ends as it did."""
    history = (FOLDER / "0.1.0" / f"{case}-{via}.json").read_text()
    await replay(history, workflows=[REWORDED[case]])


def with_another_header(history: str, change: Callable[[dict[str, Any]], None]) -> str:
    """Return a recorded history of an inheriting run, with the header that another release would send."""
    events = json.loads(history)
    handed_on = events["events"][0]["workflowExecutionStartedEventAttributes"]["header"]["fields"][HEADER]
    held = json.loads(base64.b64decode(handed_on["data"]))
    change(held)
    handed_on["data"] = base64.b64encode(json.dumps(held).encode()).decode()
    return json.dumps(events)


def of_a_later_release(held: dict[str, Any]) -> None:
    held |= {"version": held["version"] + 1, "more": {"of": "something"}}
    held["asked"][0] |= {"more": 1}
    held["asked"][0]["waiting"] |= {"more": 1}


def of_an_earlier_release(held: dict[str, Any]) -> None:
    del held["version"]
    del held["asked"][0]["waiting"]["reworded"]


def unreadable(held: dict[str, Any]) -> None:
    held["asked"][0] = {"question": held["asked"][0]["key"]}


@pytest.mark.parametrize("via", ["signal", "activity"])
@pytest.mark.parametrize("change", [of_a_later_release, of_an_earlier_release, unreadable])
async def test_header_of_another_release_is_read(change: Callable[[dict[str, Any]], None], via: str) -> None:
    """During a rolling deploy a run may inherit from another release; unknown fields are ignored."""
    history = (FOLDER / RELEASE / f"across-runs-{via}.json").read_text()
    await replay(with_another_header(history, change))


@pytest.mark.edges
@every_history
async def test_recorded_history_replays_with_other_activity_options(file: Path) -> None:
    """Task queue, timeout, retries and priority may change while questions are open."""
    options = ActivityOptions(
        task_queue="people",
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=RetryPolicy(backoff_coefficient=3),
        priority=Priority(priority_key=5),
    )
    await replay(file.read_text(), activities=options)


@pytest.mark.parametrize("via", ["signal", "activity"])
def test_history_of_a_two_line_question_replays(via: str) -> None:
    """An open two-line question replays, although a new one is refused today."""
    history = json.loads((FOLDER / "before-one-line" / f"two-lines-{via}.json").read_text())
    payloads = b"".join(base64.b64decode(data) for data in _values(history["events"], "data"))
    assert b"\\nin two lines" in payloads


@pytest.mark.edges
@pytest.mark.parametrize("name", NAMES)
async def test_each_case_makes_the_recorded_commands(
    name: str, humans: HumansServer, temporal: TemporalServer, tmp_path: Path
) -> None:
    """Run again on a real server, each case makes the same commands in the same order."""
    async with stage(humans, temporal.address, tmp_path, f"{name}-{tmp_path.name}") as where:
        history = await played(name, where)
    assert commands(history) == commands(json.loads((FOLDER / RELEASE / f"{name}.json").read_text()))


@pytest.mark.parametrize("via", ["signal", "activity"])
def test_history_of_a_quorum_that_counted_one_person_twice_replays(via: str) -> None:
    """The workflow replays with its second vote, although that vote would not count today."""
    history = json.loads((FOLDER / "0.1.0" / f"quorum-{via}.json").read_text())
    payloads = b"".join(base64.b64decode(data) for data in _values(history["events"], "data"))
    assert payloads.count(b'"completed_by_email":"anna@example.com"') == 2


async def test_history_with_another_activity_is_refused() -> None:
    """A history that asks through another activity fails the replay, so the replay can detect changes."""
    history = (FOLDER / RELEASE / "answered-signal.json").read_text()
    with pytest.raises(NondeterminismError):
        await replay(history.replace("awaithumans.open_wait", "awaithumans.ask"))


@every_history
def test_recorded_history_names_no_host_process_or_secret(file: Path) -> None:
    """Workers and clients have fixed names, and every URL is a loopback address."""
    history = json.loads(file.read_text())
    identities = {value for event in history["events"] for value in _values(event, "identity")}
    assert identities <= {"worker", "history-service"}
    payloads = [base64.b64decode(data).decode() for event in history["events"] for data in _values(event, "data")]
    assert not [text for text in payloads if "/callbacks/" in text or "Bearer" in text]


def _values(held: Any, name: str) -> list[str]:
    """Return every value under this name, at any depth."""
    if isinstance(held, dict):
        return [
            found
            for key, value in held.items()
            for found in ([str(value)] if key == name and isinstance(value, str) else _values(value, name))
        ]
    if isinstance(held, list):
        return [found for value in held for found in _values(value, name)]
    return []
