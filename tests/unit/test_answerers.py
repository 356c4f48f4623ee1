"""Who answered: which spellings are one person, whose answer is accepted, and what is refused when it is asked."""

import pickle
from typing import Any

import pytest

from awaithumans_core import AnswererNotAllowedError, HumanTask, InvalidTaskError, Outcome
from awaithumans_core.answerers import identifiers, is_named, mailbox, unclear
from tests.support.decisions import Decision

ANNA = "anna@example.com"
CYRILLIC_A = "\N{CYRILLIC SMALL LETTER A}"
LOOK_ALIKE = f"{CYRILLIC_A}nna@example.com"
ZERO_WIDTH = "an\N{ZERO WIDTH SPACE}na@example.com"
SPELLINGS = [
    "Anna@Example.COM",
    " anna@example.com ",
    "anna@example.com.",
    "anna.@example.com",
    "anna+1@example.com",
    '"anna"@example.com',
    "\N{FULLWIDTH LATIN SMALL LETTER A}nna@example.com",
    ZERO_WIDTH,
]


def ask(**options: Any) -> HumanTask[Decision]:
    return HumanTask(task="Approve?", response_schema=Decision, **options)


def by(email: str | None, **fields: Any) -> Outcome:
    whole = {"task_id": "t1", "status": "completed", "response": {"approved": True}, "completed_by_email": email}
    return Outcome.model_validate(whole | fields)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=ascii)
def test_spellings_of_one_mailbox_are_one_person(spelling: str) -> None:
    """Case, dots, blanks, compatibility characters, invisible characters and sub-addresses make no other person."""
    assert mailbox(spelling) == mailbox(ANNA)


def test_a_look_alike_is_unknown_unless_it_was_asked() -> None:
    """An address that could be read as another one identifies no person, except an assignee who has it."""
    assert identifiers(by(LOOK_ALIKE), [ANNA]) == frozenset()
    assert identifiers(by("anna@xn--exmple-cua.com"), [ANNA]) == frozenset()
    assert not is_named(LOOK_ALIKE, [ANNA])
    assert is_named("j\N{LATIN SMALL LETTER U WITH DIAERESIS}rgen@example.com", ["jürgen@example.com"])


def test_a_user_id_and_an_address_both_identify() -> None:
    """A record has both, a callback the address only: one in common is enough."""
    record = identifiers(by(ANNA, completed_by_user_id="u1"), [])
    assert record & identifiers(by("Anna@example.com"), [])
    assert record & identifiers(by("other@example.com", completed_by_user_id="u1"), [])
    assert identifiers(by(None), []) == frozenset()


@pytest.mark.parametrize("address", [LOOK_ALIKE, ZERO_WIDTH, "Anna <anna@example.com>"], ids=ascii)
def test_an_unclear_address_has_a_reason(address: str) -> None:
    """Mixed scripts, invisible characters and blanks."""
    assert unclear(address)


@pytest.mark.parametrize(
    "address",
    [ANNA, "jürgen@example.com", "\N{CYRILLIC SMALL LETTER ZHE}@example.com", "日本taro@example.com"],
    ids=ascii,
)
def test_a_clear_address_has_none(address: str) -> None:
    """One script in each part, or East Asian scripts beside Latin."""
    assert unclear(address) is None


@pytest.mark.parametrize("who", [ANNA, "Anna@Example.com", "anna@example.com."])
def test_the_assignee_may_answer(who: str) -> None:
    """Letter case and the dot of the root domain are the same address."""
    ask(assign_to=ANNA, only_assignee=True).answerers.check(by(who))
    ask(assign_to=[ANNA, "ben@example.com"], only_assignee=True).answerers.check(by(who))


@pytest.mark.parametrize(
    "who", [None, "", "mallory@example.com", "anna+1@example.com", LOOK_ALIKE, ZERO_WIDTH, SPELLINGS[6]], ids=ascii
)
def test_another_may_not_answer_for_the_assignee(who: str | None) -> None:
    """Accepting does not merge spellings: on some servers they are different mailboxes."""
    with pytest.raises(AnswererNotAllowedError, match=r"only anna@example\.com may") as refused:
        ask(assign_to=ANNA, only_assignee=True).answerers.check(by(who))
    again = pickle.loads(pickle.dumps(refused.value))  # noqa: S301 - our own bytes
    assert (again.answered_by, again.allowed, again.task_id) == (who, (ANNA,), "t1")


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [
        ("Jürgen.Müller@Firma.DE", "jürgen.müller@firma.de"),
        ("ÜLKÜ@example.com", "ülkü@example.com"),
        ("ИРИНА@example.com", "ирина@example.com"),
    ],
    ids=["umlaut and capitals", "umlaut as a capital", "another script"],
)
def test_letter_case_of_every_script_is_the_same_address(asked: str, recorded: str) -> None:
    """The server lowers the address of a person it gets to know by a link in a mail."""
    ask(assign_to=asked, only_assignee=True).answerers.check(by(recorded))
    assert identifiers(by(recorded), [asked]) == {recorded}


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [("kate@example.com", "\N{KELVIN SIGN}ate@example.com"), ("ida@example.com", "İda@example.com")],
    ids=["Kelvin sign", "dotted capital I"],
)
def test_a_letter_with_the_lower_case_of_another_is_another_address(asked: str, recorded: str) -> None:
    """Lower case alone would make one address of both."""
    for one, other in ((asked, recorded), (recorded, asked)):
        with pytest.raises(AnswererNotAllowedError):
            ask(assign_to=one, only_assignee=True).answerers.check(by(other))


def test_addresses_that_begin_with_a_plus_are_several_people() -> None:
    """A telephone number as the name of a mailbox is no sub-address of a mailbox without a name."""
    assert mailbox("+491701@example.com") != mailbox("+491702@example.com")
    assert mailbox("+491701+a@example.com") == mailbox("+491701@example.com")
    ask(not_by="+491702@example.com").answerers.check(by("+491701@example.com"))


def test_a_stated_address_does_not_hide_who_was_signed_in() -> None:
    """A signed-in person can state the assignee's address; the ids in the record differ."""
    allowed = ask(assign_to=ANNA, only_assignee=True).answerers
    with pytest.raises(AnswererNotAllowedError, match="signed-in person 'u2'"):
        allowed.check(by(ANNA, completed_by_user_id="u2", assigned_to_user_id="u1"))
    allowed.check(by(ANNA, completed_by_user_id="u1", assigned_to_user_id="u1"))
    allowed.check(by(ANNA, assigned_to_user_id="u1"))


@pytest.mark.parametrize("who", [None, ANNA, *SPELLINGS, LOOK_ALIKE], ids=ascii)
def test_a_barred_person_may_not_answer(who: str | None) -> None:
    """Nor may an unknown answerer, or one who could be taken for the barred person."""
    with pytest.raises(AnswererNotAllowedError, match="may not"):
        ask(not_by=ANNA).answerers.check(by(who))
    ask(not_by=[ANNA]).answerers.check(by("ben@example.com"))


def test_an_assignee_who_is_barred_is_not_allowed() -> None:
    """Of several assignees the others may answer."""
    allowed = ask(assign_to=[ANNA, "ben@example.com"], only_assignee=True, not_by=ANNA).answerers
    assert allowed.only == ("ben@example.com",)
    with pytest.raises(AnswererNotAllowedError):
        allowed.check(by(ANNA))


@pytest.mark.parametrize("status", ["timed_out", "cancelled", "verification_exhausted"])
def test_an_end_without_an_answer_has_no_answerer(status: str) -> None:
    """Its own error is raised."""
    ask(assign_to=ANNA, only_assignee=True, not_by="ben@example.com").answerers.check(by(None, status=status))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"only_assignee": True}, "by e-mail address"),
        ({"only_assignee": True, "assign_to": {"pool": "finance"}}, "by e-mail address"),
        ({"only_assignee": True, "assign_to": {"user_id": "u1"}}, "by e-mail address"),
        ({"only_assignee": True, "assign_to": []}, "by e-mail address"),
        ({"only_assignee": "yes", "assign_to": ANNA}, "True or False"),
        ({"not_by": "anna"}, "give e-mail addresses"),
        ({"not_by": [None]}, "give e-mail addresses"),
        ({"not_by": None}, "give e-mail addresses"),
        ({"not_by": ""}, "give e-mail addresses"),
        ({"not_by": (each for each in [ANNA])}, "give e-mail addresses"),
        ({"not_by": ["Anna@example.com"], "assign_to": ANNA}, "assign it to another person"),
    ],
    ids=[
        "no assignee",
        "a pool",
        "a user id",
        "an empty list",
        "text",
        "no address",
        "a null",
        "none",
        "blank",
        "a generator",
        "the assignee",
    ],
)
def test_options_that_cannot_be_kept_are_refused(options: dict[str, Any], problem: str) -> None:
    """When the question is made, before it is asked."""
    with pytest.raises(InvalidTaskError, match=problem):
        ask(**options)


def test_a_list_that_is_changed_later_changes_nothing() -> None:
    """Whose answer is accepted is fixed with the question."""
    barred = [ANNA]
    question = ask(not_by=barred)
    barred.clear()
    with pytest.raises(AnswererNotAllowedError):
        question.answerers.check(by(ANNA))


def test_the_options_are_no_part_of_the_question() -> None:
    """What is sent, and so every key and digest, is the same with and without them."""
    plain = ask(assign_to=ANNA, idempotency_key="k").body()
    assert ask(assign_to=ANNA, idempotency_key="k", only_assignee=True, not_by="ben@example.com").body() == plain


def test_the_error_shows_a_hostile_address_as_ascii() -> None:
    """An address is stated by the caller that answers: no newline and no escape of it reaches a terminal or a log."""
    hostile = "x@\n\x1b[2Jdelivered\u202e" + "y" * 500
    with pytest.raises(AnswererNotAllowedError) as refused:
        ask(assign_to=ANNA, only_assignee=True).answerers.check(by(hostile))
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400
