"""`quorum` and `escalate` in a script, with scripted people and a virtual clock."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from awaithumans_core import (
    AnswererNotAllowedError,
    InvalidTaskError,
    Step,
    TaskRejectedError,
    Verdict,
    await_human,
    escalate,
    quorum,
)
from awaithumans_core.testing import FakeHumans, faults
from tests.support.workflows import Decision

ANNA, BEN, CARLA = PEOPLE = ["anna@example.com", "ben@example.com", "carla@example.com"]
HOUR = timedelta(hours=1)
FREED = {"cancelled", "timed_out"}
"""Virtual time may reach a deadline before a busy machine has cancelled the tasks."""


def for_person(person: str) -> Callable[[Any], bool]:
    return lambda record: bool((record["assign_to"] or {}).get("email") == person)


def answers(humans: FakeHumans, person: str, approved: bool, after: timedelta = timedelta()) -> None:  # noqa: FBT001
    humans.on(for_person(person)).answers({"approved": approved}).after(after).by(person)


def ask(**options: Any) -> Any:
    return partial(await_human, task="Release 4.2?", response_schema=Decision, progress=False, **options)


def approved(decision: Decision) -> bool:
    return decision.approved


async def two_of_three(**options: Any) -> Verdict[Decision]:
    return await quorum(2, PEOPLE, ask(timeout_seconds=86400), yes=approved, **options)


def standing(humans: FakeHumans) -> dict[str, str]:
    return {task.asked["assign_to"]["email"]: task.status.value for task in humans.tasks}


async def test_quorum_is_reached_by_enough_yes_votes(fake_humans: FakeHumans) -> None:
    """Once two of three have approved, the third task is cancelled."""
    answers(fake_humans, CARLA, approved=True, after=HOUR)
    answers(fake_humans, ANNA, approved=True, after=2 * HOUR)
    verdict = await two_of_three()
    assert verdict
    assert [(vote.person, vote.said) for vote in verdict.votes] == [(CARLA, "yes"), (ANNA, "yes")]
    assert standing(fake_humans)[BEN] in FREED


async def test_quorum_fails_once_it_cannot_be_reached(fake_humans: FakeHumans) -> None:
    """Once two of three have refused, two approvals are impossible and the quorum ends."""
    answers(fake_humans, ANNA, approved=False, after=HOUR)
    answers(fake_humans, BEN, approved=False, after=2 * HOUR)
    verdict = await two_of_three()
    assert not verdict
    assert [vote.said for vote in verdict.votes] == ["no", "no"]
    assert standing(fake_humans)[CARLA] in FREED


async def test_question_without_an_answer_is_no_yes(fake_humans: FakeHumans) -> None:
    """A timeout, a cancellation and an invalid answer are no approval, and end a quorum that needs them."""
    answers(fake_humans, ANNA, approved=True)
    fake_humans.on(for_person(BEN)).cancels().after(HOUR)
    fake_humans.on(for_person(CARLA)).submits_invalid().after(2 * HOUR)
    verdict = await two_of_three()
    assert not verdict
    assert [vote.said for vote in verdict.votes] == ["yes", "nothing", "nothing"]
    assert [type(vote.error).__name__ for vote in verdict.votes[1:]] == ["TaskCancelledError", "ResponseSchemaError"]


async def test_quorum_without_answers_fails_at_the_deadline(fake_humans: FakeHumans) -> None:
    """Without answers there is no quorum at the deadline."""
    assert not await two_of_three()
    assert set(standing(fake_humans).values()) <= FREED


async def test_restarted_quorum_finds_its_votes_by_key(fake_humans: FakeHumans) -> None:
    """A restarted quorum reaches the same verdict in any order of people, and creates no second task."""
    answers(fake_humans, ANNA, approved=True)
    answers(fake_humans, CARLA, approved=True, after=HOUR)
    assert await two_of_three(idempotency_key="release:4.2")
    again = await quorum(2, PEOPLE[::-1], ask(timeout_seconds=86400), yes=approved, idempotency_key="release:4.2")
    assert {vote.person for vote in again.votes if vote.said == "yes"} == {ANNA, CARLA}
    assert len(fake_humans.tasks) == 3


async def test_refused_question_ends_the_quorum(fake_humans: FakeHumans) -> None:
    """A question that the server refuses raises an error, and the other tasks are cancelled."""
    fake_humans.fault(faults.status(422), on="create", match=for_person(BEN))
    with pytest.raises(TaskRejectedError):
        await two_of_three()
    assert "created" not in standing(fake_humans).values()


async def test_interrupted_quorum_leaves_its_questions_open(fake_humans: FakeHumans) -> None:
    """Ctrl-C leaves the questions of a quorum open, since their keys find them again."""
    answers(fake_humans, ANNA, approved=True, after=HOUR)
    asking = asyncio.create_task(two_of_three(idempotency_key="k"))
    while len(fake_humans.tasks) < 3:
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert "cancelled" not in standing(fake_humans).values()


@pytest.mark.parametrize(
    ("needed", "people"),
    [(0, PEOPLE), (4, PEOPLE), (1, []), (2, [ANNA, ANNA]), (2, [ANNA, {"email": " Anna@example.com"}])],
    ids=["none", "more than there are", "no people", "one person twice", "one person in two ways"],
)
async def test_impossible_quorum_is_refused(fake_humans: FakeHumans, needed: int, people: list[str]) -> None:
    """A quorum that makes no sense is refused before a task is created."""
    with pytest.raises(InvalidTaskError):
        await quorum(needed, people, ask(), yes=approved)
    assert fake_humans.tasks == []


async def test_quorum_with_one_key_for_all_questions_is_refused(fake_humans: FakeHumans) -> None:
    """A shared key would merge the questions, so that one answer would count as every vote."""
    with pytest.raises(InvalidTaskError, match="beside ask"):
        await quorum(1, PEOPLE, ask(idempotency_key="k"), yes=approved)
    assert fake_humans.tasks == []


def test_verdict_is_true_only_when_the_quorum_is_reached() -> None:
    """The truth value of a verdict is its result, so `if await quorum(...)` is safe."""
    assert not Verdict[Any](reached=False)
    assert Verdict[Any](reached=True)


# --- who counts

MALLORY = "mallory@example.com"


def answered(
    humans: FakeHumans, person: str, by: str | None, *, approved: bool = True, after: timedelta = HOUR, **options: Any
) -> None:
    """Answer the question to this person, optionally as another person."""
    humans.on(for_person(person)).answers({"approved": approved}).by(by, **options).after(after).once()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"by": MALLORY}, {"by": MALLORY}),
        ({"by": ANNA}, {"by": "Anna@Example.com."}),
        ({"by": ANNA}, {"by": "anna+1@example.com"}),
        ({"by": ANNA}, {"by": "\N{CYRILLIC SMALL LETTER A}nna@example.com"}),
        ({"by": ANNA}, {"by": None}),
        ({"by": ANNA, "user_id": "u1"}, {"by": BEN, "user_id": "u1"}),
        ({"by": None, "user_id": "u1"}, {"by": None, "user_id": "u1"}),
    ],
    ids=[
        "one person",
        "letter case and dot",
        "sub-address",
        "look-alike",
        "unknown",
        "another address",
        "user id only",
    ],
)
async def test_one_person_with_two_answers_is_no_quorum_of_two(
    fake_humans: FakeHumans, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The second answer is reported and has no effect, whichever of the person's names it carries."""
    answered(fake_humans, ANNA, **first)
    answered(fake_humans, BEN, after=2 * HOUR, **second)
    verdict = await quorum(2, [ANNA, BEN], ask(timeout_seconds=86400), yes=approved)
    assert not verdict
    assert sorted(vote.said for vote in verdict.votes) == ["nothing", "yes"]
    (without_effect,) = [vote for vote in verdict.votes if vote.said == "nothing"]
    assert isinstance(without_effect.error, AnswererNotAllowedError)
    assert without_effect.answer is None


async def test_answers_of_two_other_people_count_as_two(fake_humans: FakeHumans) -> None:
    """The second answer of one person is ignored, the third question stays open, and each vote names who gave it."""
    answered(fake_humans, ANNA, MALLORY)
    answered(fake_humans, BEN, MALLORY)
    answers(fake_humans, CARLA, approved=True, after=2 * HOUR)
    verdict = await two_of_three()
    assert verdict
    assert [vote.answered_by for vote in verdict.votes] == [MALLORY, MALLORY, CARLA]
    assert {vote.channel for vote in verdict.votes} == {"dashboard"}
    (carlas,) = [task for task in fake_humans.tasks if task.asked["assign_to"] == {"email": CARLA}]
    assert verdict.votes[2].answered_at == carlas.completed_at


async def test_no_of_a_person_replaces_their_yes(fake_humans: FakeHumans) -> None:
    """A person who answers yes to one question and no to another has not approved."""
    answered(fake_humans, BEN, ANNA)
    answers(fake_humans, ANNA, approved=False, after=2 * HOUR)
    answers(fake_humans, CARLA, approved=True, after=3 * HOUR)
    verdict = await two_of_three()
    assert not verdict
    assert [vote.said for vote in verdict.votes] == ["nothing", "no"]


@pytest.mark.edges
async def test_answer_with_address_and_user_id_joins_two_votes(fake_humans: FakeHumans) -> None:
    """Answers with an address and with a user id belong to one person once a third answer has both."""
    answered(fake_humans, ANNA, ANNA)
    answered(fake_humans, BEN, None, user_id="u1", after=2 * HOUR)
    answered(fake_humans, CARLA, ANNA, user_id="u1", after=3 * HOUR)
    verdict = await quorum(3, PEOPLE, ask(timeout_seconds=86400), yes=approved)
    assert [vote.said for vote in verdict.votes] == ["yes", "nothing", "nothing"]


@pytest.mark.edges
async def test_only_assignee_takes_only_the_assignees_votes(fake_humans: FakeHumans) -> None:
    """Another person's vote is asked for again, and the assignee's own vote counts."""
    answers(fake_humans, ANNA, approved=True)
    answered(fake_humans, BEN, MALLORY)
    answers(fake_humans, BEN, approved=True, after=HOUR)
    people = [ANNA, BEN]
    options: dict[str, Any] = {"yes": approved, "only_assignee": True}
    verdict = await quorum(2, people, ask(timeout_seconds=86400, max_reasks=1), **options)
    assert [vote.answered_by for vote in verdict.votes] == people
    answered(fake_humans, CARLA, MALLORY)
    assert not await quorum(2, [ANNA, CARLA], ask(timeout_seconds=86400), **options)


@pytest.mark.edges
async def test_unnamed_answer_counts_for_the_assignee_on_request(fake_humans: FakeHumans) -> None:
    """On request an unnamed answer counts for the assignee, who still counts once if they answer elsewhere by name."""
    for person in PEOPLE:
        fake_humans.on(for_person(person)).answers({"approved": True}).by(None)
    people = [ANNA, BEN]
    assert not await quorum(2, people, ask(timeout_seconds=86400), yes=approved)
    assert await quorum(2, people, ask(timeout_seconds=86400), yes=approved, count_unnamed=True)
    for other, who in [("lead@example.com", ANNA), ("boss@example.com", "\N{CYRILLIC SMALL LETTER A}nna@example.com")]:
        fake_humans.on(for_person(other)).answers({"approved": True}).by(who)
        assert not await quorum(2, [ANNA, other], ask(), yes=approved, count_unnamed=True)


@pytest.mark.edges
async def test_question_to_a_group_is_one_vote_on_request(fake_humans: FakeHumans) -> None:
    """On request one question to several people is one vote, and its answerer counts as any other person."""
    group = {"emails": [BEN, CARLA]}
    fake_humans.on(lambda record: record["assign_to"] == group).answers({"approved": True}).by(BEN)
    answers(fake_humans, ANNA, approved=True)
    with pytest.raises(InvalidTaskError, match="groups=True"):
        await quorum(2, [ANNA, group], ask(), yes=approved)
    assert fake_humans.tasks == []
    assert await quorum(2, [ANNA, group], ask(), yes=approved, groups=True)


MAYBE_ONE: list[list[Any]] = [
    [ANNA, "anna+1@example.com"],
    [ANNA, "anna@example.com."],
    [ANNA, "\N{CYRILLIC SMALL LETTER A}nna@example.com"],
    [ANNA, "an\N{ZERO WIDTH SPACE}na@example.com"],
    [ANNA, {"pool": "finance"}],
    [ANNA, {"emails": []}],
    [{"role": "finance"}, {"email": BEN}],
]


async def test_people_who_may_be_the_same_are_refused(fake_humans: FakeHumans) -> None:
    """A quorum of people who may be the same person is refused before a task is created."""
    for people in MAYBE_ONE:
        with pytest.raises(InvalidTaskError, match=r"person|mailbox|read as another"):
            await quorum(2, people, ask(), yes=approved)
    assert fake_humans.tasks == []


async def test_ask_function_that_hides_the_answerer_is_refused(fake_humans: FakeHumans) -> None:
    """Without the answerer a quorum would count questions instead of people."""

    async def hides(*, assign_to: Any) -> Decision:
        return await await_human(task="Release?", response_schema=Decision, assign_to=assign_to)

    async def drops(**options: Any) -> Decision:
        return await hides(assign_to=options["assign_to"])

    answers(fake_humans, ANNA, approved=True)
    with pytest.raises(InvalidTaskError, match="return_outcome"):
        await quorum(1, [ANNA], hides, yes=approved)
    assert fake_humans.tasks == []
    with pytest.raises(InvalidTaskError, match="return_outcome"):
        await quorum(1, [ANNA], drops, yes=approved)


@pytest.mark.edges
async def test_return_outcome_in_ask_gives_votes_with_outcomes(fake_humans: FakeHumans) -> None:
    """With return_outcome=True in `ask`, `yes` and the votes hold answer and outcome."""
    answers(fake_humans, ANNA, approved=True)
    verdict: Verdict[Any] = await quorum(1, [ANNA], ask(return_outcome=True), yes=lambda pair: pair[0].approved)
    assert verdict
    (vote,) = verdict.votes
    assert vote.answer == (Decision(approved=True), vote.outcome)


@pytest.mark.edges
async def test_escalation_with_only_assignee_ignores_other_people(fake_humans: FakeHumans) -> None:
    """With `only_assignee` in `ask`, another person's answer ends that step without an answer."""
    answered(fake_humans, ANNA, MALLORY)
    fake_humans.on(for_person(BEN)).answers({"approved": True}).by(BEN)
    steps = [Step(ANNA), Step(BEN, after=4 * HOUR)]
    assert (await escalate(ask(only_assignee=True), steps, within=8 * HOUR, otherwise=NO)).approved is True
    assert len(fake_humans.tasks) == 2


# --- escalate

NO = Decision(approved=False, note="no answer in time")
LADDER = [Step(ANNA), Step(ANNA, after=2 * HOUR, options={"task": "Reminder: release 4.2?"}), Step(BEN, after=4 * HOUR)]


async def up(steps: list[Step], **options: Any) -> Decision:
    return await escalate(ask(), steps, within=8 * HOUR, otherwise=NO, **options)


async def test_escalation_ends_with_the_first_answer(fake_humans: FakeHumans) -> None:
    """If the first person answers, no other task is created."""
    answers(fake_humans, ANNA, approved=True, after=HOUR)
    assert (await up(LADDER)).approved is True
    assert len(fake_humans.tasks) == 1


async def test_escalation_asks_the_next_person_after_a_reminder(fake_humans: FakeHumans) -> None:
    """After a reminder the next person is asked; the earlier ones may still answer until there is an answer."""
    answers(fake_humans, BEN, approved=True, after=HOUR)
    assert (await up(LADDER)).approved is True
    begun = [(task.created_at - fake_humans.tasks[0].created_at).total_seconds() for task in fake_humans.tasks]
    assert [round(seconds / 3600) for seconds in begun] == [0, 2, 4]
    assert [task.asked["task"] for task in fake_humans.tasks][1] == "Reminder: release 4.2?"
    assert fake_humans.tasks[2].status == "completed"
    assert {task.status.value for task in fake_humans.tasks[:2]} <= FREED
    assert [task.asked["timeout_seconds"] for task in fake_humans.tasks] == [28800, 21600, 14400]


async def test_escalation_takes_a_late_answer_of_the_first_person(fake_humans: FakeHumans) -> None:
    """The first person's answer counts although others have been asked meanwhile."""
    fake_humans.on(for_person(ANNA)).answers({"approved": True}).after(5 * HOUR).once()
    assert (await up(LADDER)).approved is True
    assert fake_humans.tasks[0].status == "completed"


async def test_escalation_without_answers_ends_with_the_default(fake_humans: FakeHumans) -> None:
    """If there is no answer, the stated default is the decision, and all tasks are cancelled."""
    assert await up(LADDER) is NO
    assert {task.status.value for task in fake_humans.tasks} <= FREED


async def test_escalation_continues_at_once_when_a_step_ended(fake_humans: FakeHumans) -> None:
    """When every open question has ended without an answer, the next step begins at once."""
    fake_humans.on(for_person(ANNA)).cancels()
    answers(fake_humans, BEN, approved=True)
    assert (await up([Step(ANNA), Step(BEN, after=4 * HOUR)])).approved is True
    first, second = fake_humans.tasks
    assert (second.created_at - first.created_at) < HOUR


@pytest.mark.parametrize(
    "steps",
    [[], [Step(ANNA, after=HOUR), Step(BEN)], [Step(ANNA), Step(BEN, after=8 * HOUR)], [Step(ANNA, after=-1)]],
    ids=["none", "not in order", "no time left", "before the beginning"],
)
async def test_impossible_escalation_is_refused(fake_humans: FakeHumans, steps: list[Step]) -> None:
    """An escalation that makes no sense is refused before a task is created."""
    with pytest.raises(InvalidTaskError):
        await up(steps)
    assert fake_humans.tasks == []


async def test_restarted_escalation_finds_its_answer_by_key(fake_humans: FakeHumans) -> None:
    """A restarted escalation finds the answer and creates no second task."""
    answers(fake_humans, ANNA, approved=True)
    for _ in range(2):
        assert (await up(LADDER, idempotency_key="release:4.2")).approved is True
    assert len(fake_humans.tasks) == 1
