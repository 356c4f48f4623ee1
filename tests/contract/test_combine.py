"""`quorum` and `escalate` in a script, with people who follow a script and a clock on which days take no time."""

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
"""Virtual time may come to a deadline before a busy machine has cancelled."""


def for_person(person: str) -> Callable[[Any], bool]:
    return lambda record: bool((record["assign_to"] or {}).get("email") == person)


def says(humans: FakeHumans, person: str, approved: bool, after: timedelta = timedelta()) -> None:  # noqa: FBT001
    humans.on(for_person(person)).answers({"approved": approved}).after(after).by(person)


def ask(**options: Any) -> Any:
    return partial(await_human, task="Release 4.2?", response_schema=Decision, progress=False, **options)


def approved(decision: Decision) -> bool:
    return decision.approved


async def two_of_three(**options: Any) -> Verdict[Decision]:
    return await quorum(2, PEOPLE, ask(timeout_seconds=86400), yes=approved, **options)


def standing(humans: FakeHumans) -> dict[str, str]:
    return {task.asked["assign_to"]["email"]: task.status.value for task in humans.tasks}


async def test_enough_yes_ends_it(fake_humans: FakeHumans) -> None:
    """Two of three have said yes: the third is not waited for, and not asked any more."""
    says(fake_humans, CARLA, approved=True, after=HOUR)
    says(fake_humans, ANNA, approved=True, after=2 * HOUR)
    verdict = await two_of_three()
    assert verdict
    assert [(vote.person, vote.said) for vote in verdict.votes] == [(CARLA, "yes"), (ANNA, "yes")]
    assert standing(fake_humans)[BEN] in FREED


async def test_enough_no_ends_it(fake_humans: FakeHumans) -> None:
    """Two of three have said no: it cannot come to two yes."""
    says(fake_humans, ANNA, approved=False, after=HOUR)
    says(fake_humans, BEN, approved=False, after=2 * HOUR)
    verdict = await two_of_three()
    assert not verdict
    assert [vote.said for vote in verdict.votes] == ["no", "no"]
    assert standing(fake_humans)[CARLA] in FREED


async def test_who_says_nothing_has_not_said_yes(fake_humans: FakeHumans) -> None:
    """A timeout, a cancellation and an answer that does not fit are no yes, and end a quorum that needs it."""
    says(fake_humans, ANNA, approved=True)
    fake_humans.on(for_person(BEN)).cancels().after(HOUR)
    fake_humans.on(for_person(CARLA)).submits_invalid().after(2 * HOUR)
    verdict = await two_of_three()
    assert not verdict
    assert [vote.said for vote in verdict.votes] == ["yes", "nothing", "nothing"]
    assert [type(vote.error).__name__ for vote in verdict.votes[1:]] == ["TaskCancelledError", "ResponseSchemaError"]


async def test_nobody_answers(fake_humans: FakeHumans) -> None:
    """At the deadline there is no quorum."""
    assert not await two_of_three()
    assert set(standing(fake_humans).values()) <= FREED


async def test_a_decision_is_picked_up_by_its_key(fake_humans: FakeHumans) -> None:
    """Started again, in whatever order the people stand, it comes to the same verdict and asks nobody twice."""
    says(fake_humans, ANNA, approved=True)
    says(fake_humans, CARLA, approved=True, after=HOUR)
    assert await two_of_three(idempotency_key="release:4.2")
    again = await quorum(2, PEOPLE[::-1], ask(timeout_seconds=86400), yes=approved, idempotency_key="release:4.2")
    assert {vote.person for vote in again.votes if vote.said == "yes"} == {ANNA, CARLA}
    assert len(fake_humans.tasks) == 3


async def test_what_cannot_be_asked_ends_it(fake_humans: FakeHumans) -> None:
    """A question the server refuses is an error, never a missing vote; nobody is left working for it."""
    fake_humans.fault(faults.status(422), on="create", match=for_person(BEN))
    with pytest.raises(TaskRejectedError):
        await two_of_three()
    assert "created" not in standing(fake_humans).values()


async def test_stopping_a_script_leaves_its_questions_open(fake_humans: FakeHumans) -> None:
    """As with a single question: Ctrl-C is no reason to take questions back that the key picks up again."""
    says(fake_humans, ANNA, approved=True, after=HOUR)
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
    ids=["none", "more than there are", "nobody", "one person twice", "one person in two ways"],
)
async def test_a_quorum_that_is_none_is_refused(fake_humans: FakeHumans, needed: int, people: list[str]) -> None:
    """Nobody is asked when the question makes no sense."""
    with pytest.raises(InvalidTaskError):
        await quorum(needed, people, ask(), yes=approved)
    assert fake_humans.tasks == []


async def test_one_key_for_all_is_refused(fake_humans: FakeHumans) -> None:
    """It would make one question of several, and one answer a vote of each."""
    with pytest.raises(InvalidTaskError, match="beside ask"):
        await quorum(1, PEOPLE, ask(idempotency_key="k"), yes=approved)
    assert fake_humans.tasks == []


def test_a_verdict_is_true_only_when_reached() -> None:
    """`if await quorum(...)` must not be true because there is an object."""
    assert not Verdict[Any](reached=False)
    assert Verdict[Any](reached=True)


# --- who counts

MALLORY = "mallory@example.com"


def answered(
    humans: FakeHumans, person: str, by: str | None, *, approved: bool = True, after: timedelta = HOUR, **options: Any
) -> None:
    """The question to this person is answered, maybe by another person."""
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
async def test_one_person_is_no_quorum_of_two(
    fake_humans: FakeHumans, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """However the second answer is signed: it is reported, and has no effect."""
    answered(fake_humans, ANNA, **first)
    answered(fake_humans, BEN, after=2 * HOUR, **second)
    verdict = await quorum(2, [ANNA, BEN], ask(timeout_seconds=86400), yes=approved)
    assert not verdict
    assert sorted(vote.said for vote in verdict.votes) == ["nothing", "yes"]
    (without_effect,) = [vote for vote in verdict.votes if vote.said == "nothing"]
    assert isinstance(without_effect.error, AnswererNotAllowedError)
    assert without_effect.answer is None


async def test_two_people_who_were_not_asked_are_two(fake_humans: FakeHumans) -> None:
    """The second answer of one person is left out, and the third question goes on; a vote names who gave it."""
    answered(fake_humans, ANNA, MALLORY)
    answered(fake_humans, BEN, MALLORY)
    says(fake_humans, CARLA, approved=True, after=2 * HOUR)
    verdict = await two_of_three()
    assert verdict
    assert [vote.answered_by for vote in verdict.votes] == [MALLORY, MALLORY, CARLA]
    assert {vote.channel for vote in verdict.votes} == {"dashboard"}
    (carlas,) = [task for task in fake_humans.tasks if task.asked["assign_to"] == {"email": CARLA}]
    assert verdict.votes[2].answered_at == carlas.completed_at


async def test_a_no_takes_the_place_of_a_yes(fake_humans: FakeHumans) -> None:
    """A person who answers one question with yes and another with no has not said yes."""
    answered(fake_humans, BEN, ANNA)
    says(fake_humans, ANNA, approved=False, after=2 * HOUR)
    says(fake_humans, CARLA, approved=True, after=3 * HOUR)
    verdict = await two_of_three()
    assert not verdict
    assert [vote.said for vote in verdict.votes] == ["nothing", "no"]


@pytest.mark.edges
async def test_an_answer_may_join_two(fake_humans: FakeHumans) -> None:
    """One answer came with an address, one with a user id; a third with both makes them one person's."""
    answered(fake_humans, ANNA, ANNA)
    answered(fake_humans, BEN, None, user_id="u1", after=2 * HOUR)
    answered(fake_humans, CARLA, ANNA, user_id="u1", after=3 * HOUR)
    verdict = await quorum(3, PEOPLE, ask(timeout_seconds=86400), yes=approved)
    assert [vote.said for vote in verdict.votes] == ["yes", "nothing", "nothing"]


@pytest.mark.edges
async def test_only_the_assignees_own_votes(fake_humans: FakeHumans) -> None:
    """Another person's vote is asked for again, and the assignee's own counts."""
    says(fake_humans, ANNA, approved=True)
    answered(fake_humans, BEN, MALLORY)
    says(fake_humans, BEN, approved=True, after=HOUR)
    people = [ANNA, BEN]
    options: dict[str, Any] = {"yes": approved, "only_assignee": True}
    verdict = await quorum(2, people, ask(timeout_seconds=86400, max_reasks=1), **options)
    assert [vote.answered_by for vote in verdict.votes] == people
    answered(fake_humans, CARLA, MALLORY)
    assert not await quorum(2, [ANNA, CARLA], ask(timeout_seconds=86400), **options)


@pytest.mark.edges
async def test_unnamed_answers_count_on_request(fake_humans: FakeHumans) -> None:
    """As the answer of the person asked: one of them who answers elsewhere by name is still one."""
    for person in PEOPLE:
        fake_humans.on(for_person(person)).answers({"approved": True}).by(None)
    people = [ANNA, BEN]
    assert not await quorum(2, people, ask(timeout_seconds=86400), yes=approved)
    assert await quorum(2, people, ask(timeout_seconds=86400), yes=approved, count_unnamed=True)
    for other, who in [("lead@example.com", ANNA), ("boss@example.com", "\N{CYRILLIC SMALL LETTER A}nna@example.com")]:
        fake_humans.on(for_person(other)).answers({"approved": True}).by(who)
        assert not await quorum(2, [ANNA, other], ask(), yes=approved, count_unnamed=True)


@pytest.mark.edges
async def test_a_group_counts_on_request(fake_humans: FakeHumans) -> None:
    """One question to several, one vote; its answerer is a person like any other."""
    group = {"emails": [BEN, CARLA]}
    fake_humans.on(lambda record: record["assign_to"] == group).answers({"approved": True}).by(BEN)
    says(fake_humans, ANNA, approved=True)
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


async def test_people_who_may_be_one_are_refused(fake_humans: FakeHumans) -> None:
    """Before a question is asked."""
    for people in MAYBE_ONE:
        with pytest.raises(InvalidTaskError, match=r"person|mailbox|read as another"):
            await quorum(2, people, ask(), yes=approved)
    assert fake_humans.tasks == []


async def test_an_ask_that_hides_who_answered_is_refused(fake_humans: FakeHumans) -> None:
    """A quorum that does not know who answered would count questions."""

    async def hides(*, assign_to: Any) -> Decision:
        return await await_human(task="Release?", response_schema=Decision, assign_to=assign_to)

    async def drops(**options: Any) -> Decision:
        return await hides(assign_to=options["assign_to"])

    says(fake_humans, ANNA, approved=True)
    with pytest.raises(InvalidTaskError, match="return_outcome"):
        await quorum(1, [ANNA], hides, yes=approved)
    assert fake_humans.tasks == []
    with pytest.raises(InvalidTaskError, match="return_outcome"):
        await quorum(1, [ANNA], drops, yes=approved)


@pytest.mark.edges
async def test_a_caller_may_take_outcomes(fake_humans: FakeHumans) -> None:
    """With return_outcome=True of its own, `yes` and the votes have answer and outcome."""
    says(fake_humans, ANNA, approved=True)
    verdict: Verdict[Any] = await quorum(1, [ANNA], ask(return_outcome=True), yes=lambda pair: pair[0].approved)
    assert verdict
    (vote,) = verdict.votes
    assert vote.answer == (Decision(approved=True), vote.outcome)


@pytest.mark.edges
async def test_an_escalation_takes_the_assignees_own_answer(fake_humans: FakeHumans) -> None:
    """With `only_assignee` in `ask`, another person's answer ends a step without one."""
    answered(fake_humans, ANNA, MALLORY)
    fake_humans.on(for_person(BEN)).answers({"approved": True}).by(BEN)
    steps = [Step(ANNA), Step(BEN, after=4 * HOUR)]
    assert (await escalate(ask(only_assignee=True), steps, within=8 * HOUR, otherwise=NO)).approved is True
    assert len(fake_humans.tasks) == 2


# --- escalate

NO = Decision(approved=False, note="nobody answered")
LADDER = [Step(ANNA), Step(ANNA, after=2 * HOUR, options={"task": "Reminder: release 4.2?"}), Step(BEN, after=4 * HOUR)]


async def up(steps: list[Step], **options: Any) -> Decision:
    return await escalate(ask(), steps, within=8 * HOUR, otherwise=NO, **options)


async def test_the_first_answers(fake_humans: FakeHumans) -> None:
    """Nobody else hears of it."""
    says(fake_humans, ANNA, approved=True, after=HOUR)
    assert (await up(LADDER)).approved is True
    assert len(fake_humans.tasks) == 1


async def test_then_the_next_is_asked(fake_humans: FakeHumans) -> None:
    """After a while a reminder, then somebody else; who was asked before may still answer, until somebody has."""
    says(fake_humans, BEN, approved=True, after=HOUR)
    assert (await up(LADDER)).approved is True
    begun = [(task.created_at - fake_humans.tasks[0].created_at).total_seconds() for task in fake_humans.tasks]
    assert [round(seconds / 3600) for seconds in begun] == [0, 2, 4]
    assert [task.asked["task"] for task in fake_humans.tasks][1] == "Reminder: release 4.2?"
    assert fake_humans.tasks[2].status == "completed"
    assert {task.status.value for task in fake_humans.tasks[:2]} <= FREED
    assert [task.asked["timeout_seconds"] for task in fake_humans.tasks] == [28800, 21600, 14400]


async def test_who_was_asked_first_may_still_answer(fake_humans: FakeHumans) -> None:
    """Their answer counts although others have been asked meanwhile."""
    fake_humans.on(for_person(ANNA)).answers({"approved": True}).after(5 * HOUR).once()
    assert (await up(LADDER)).approved is True
    assert fake_humans.tasks[0].status == "completed"


async def test_in_the_end_the_stated_default(fake_humans: FakeHumans) -> None:
    """Nobody has answered in the whole time: the decision is what was stated, and nobody is left working."""
    assert await up(LADDER) is NO
    assert {task.status.value for task in fake_humans.tasks} <= FREED


async def test_nobody_left_means_next(fake_humans: FakeHumans) -> None:
    """A question that ends without an answer is not waited out: the next step begins."""
    fake_humans.on(for_person(ANNA)).cancels()
    says(fake_humans, BEN, approved=True)
    assert (await up([Step(ANNA), Step(BEN, after=4 * HOUR)])).approved is True
    first, second = fake_humans.tasks
    assert (second.created_at - first.created_at) < HOUR


@pytest.mark.parametrize(
    "steps",
    [[], [Step(ANNA, after=HOUR), Step(BEN)], [Step(ANNA), Step(BEN, after=8 * HOUR)], [Step(ANNA, after=-1)]],
    ids=["none", "not in order", "no time left", "before the beginning"],
)
async def test_an_escalation_that_is_none_is_refused(fake_humans: FakeHumans, steps: list[Step]) -> None:
    """Nobody is asked when it makes no sense."""
    with pytest.raises(InvalidTaskError):
        await up(steps)
    assert fake_humans.tasks == []


async def test_an_escalation_is_picked_up_by_its_key(fake_humans: FakeHumans) -> None:
    """Started again, it finds the answer and asks nobody twice."""
    says(fake_humans, ANNA, approved=True)
    for _ in range(2):
        assert (await up(LADDER, idempotency_key="release:4.2")).approved is True
    assert len(fake_humans.tasks) == 1
