"""Answerers: which spellings are one person, whose answer is accepted, and which options are refused."""

import pickle
from typing import Any

import pytest

from awaithumans_core import AnswererNotAllowedError, HumanTask, InvalidTaskError, Outcome
from awaithumans_core.answerers import counted_form, identifiers, is_named, lookalike_reason
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
    assert counted_form(spelling) == counted_form(ANNA)


def test_lookalike_address_is_unknown_unless_it_is_the_assignee() -> None:
    """An address that can be confused with another identifies no person, except an assignee who has it."""
    assert identifiers(by(LOOK_ALIKE), [ANNA]) == frozenset()
    assert identifiers(by("anna@xn--exmple-cua.com"), [ANNA]) == frozenset()
    assert not is_named(LOOK_ALIKE, [ANNA])
    assert is_named("j\N{LATIN SMALL LETTER U WITH DIAERESIS}rgen@example.com", ["jürgen@example.com"])


def test_user_id_or_address_identifies_a_person() -> None:
    """A record has both and a callback only the address, so one match is enough."""
    record = identifiers(by(ANNA, completed_by_user_id="u1"), [])
    assert record & identifiers(by("Anna@example.com"), [])
    assert record & identifiers(by("other@example.com", completed_by_user_id="u1"), [])
    assert identifiers(by(None), []) == frozenset()


@pytest.mark.parametrize("address", [LOOK_ALIKE, ZERO_WIDTH, "Anna <anna@example.com>"], ids=ascii)
def test_unclear_address_has_a_reason(address: str) -> None:
    """Mixed scripts, invisible characters and blanks are unclear."""
    assert lookalike_reason(address)


@pytest.mark.parametrize(
    "address",
    [ANNA, "jürgen@example.com", "\N{CYRILLIC SMALL LETTER ZHE}@example.com", "日本taro@example.com"],
    ids=ascii,
)
def test_clear_address_has_no_reason(address: str) -> None:
    """An address is clear if each part uses one script, or East Asian scripts with Latin."""
    assert lookalike_reason(address) is None


@pytest.mark.parametrize("who", [ANNA, "Anna@Example.com", "anna@example.com."])
def test_assignee_may_answer(who: str) -> None:
    """Letter case and the dot of the root domain do not change an address."""
    ask(assign_to=ANNA, only_assignee=True).answerers.check(by(who))
    ask(assign_to=[ANNA, "ben@example.com"], only_assignee=True).answerers.check(by(who))


@pytest.mark.parametrize(
    "who", [None, "", "mallory@example.com", "anna+1@example.com", LOOK_ALIKE, ZERO_WIDTH, SPELLINGS[6]], ids=ascii
)
def test_other_person_may_not_answer_for_the_assignee(who: str | None) -> None:
    """Different spellings are not merged, because they are different mailboxes on some servers."""
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
def test_letter_case_is_ignored_in_every_script(asked: str, recorded: str) -> None:
    """The server lowercases the address of a person who comes from a link in a mail."""
    ask(assign_to=asked, only_assignee=True).answerers.check(by(recorded))
    assert identifiers(by(recorded), [asked]) == {recorded}


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [("kate@example.com", "\N{KELVIN SIGN}ate@example.com"), ("ida@example.com", "İda@example.com")],
    ids=["Kelvin sign", "dotted capital I"],
)
def test_letters_with_equal_lower_case_stay_different(asked: str, recorded: str) -> None:
    """Lower case alone would make one address of both."""
    for one, other in ((asked, recorded), (recorded, asked)):
        with pytest.raises(AnswererNotAllowedError):
            ask(assign_to=one, only_assignee=True).answerers.check(by(other))


def test_addresses_starting_with_a_plus_are_different_people() -> None:
    """A telephone number as a mailbox name is not the sub-address of a mailbox without a name."""
    assert counted_form("+491701@example.com") != counted_form("+491702@example.com")
    assert counted_form("+491701+a@example.com") == counted_form("+491701@example.com")
    ask(not_by="+491702@example.com").answerers.check(by("+491701@example.com"))


def test_stated_address_does_not_hide_the_signed_in_user() -> None:
    """A signed-in person can state the assignee's address, but the ids in the record differ."""
    allowed = ask(assign_to=ANNA, only_assignee=True).answerers
    with pytest.raises(AnswererNotAllowedError, match="signed-in person 'u2'"):
        allowed.check(by(ANNA, completed_by_user_id="u2", assigned_to_user_id="u1"))
    allowed.check(by(ANNA, completed_by_user_id="u1", assigned_to_user_id="u1"))
    allowed.check(by(ANNA, assigned_to_user_id="u1"))


@pytest.mark.parametrize("who", [None, ANNA, *SPELLINGS, LOOK_ALIKE], ids=ascii)
def test_barred_person_may_not_answer(who: str | None) -> None:
    """An unknown answerer, or one who could be the barred person, may not answer either."""
    with pytest.raises(AnswererNotAllowedError, match="may not"):
        ask(not_by=ANNA).answerers.check(by(who))
    ask(not_by=[ANNA]).answerers.check(by("ben@example.com"))


def test_barred_assignee_is_not_allowed() -> None:
    """The other assignees may answer."""
    allowed = ask(assign_to=[ANNA, "ben@example.com"], only_assignee=True, not_by=ANNA).answerers
    assert allowed.only == ("ben@example.com",)
    with pytest.raises(AnswererNotAllowedError):
        allowed.check(by(ANNA))


@pytest.mark.parametrize("status", ["timed_out", "cancelled", "verification_exhausted"])
def test_end_without_answer_raises_its_own_error(status: str) -> None:
    """Without an answer there is no answerer to check."""
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
def test_unenforceable_options_are_refused(options: dict[str, Any], problem: str) -> None:
    """They are refused when the question is made, before it is sent."""
    with pytest.raises(InvalidTaskError, match=problem):
        ask(**options)


def test_later_change_of_a_list_has_no_effect() -> None:
    """The accepted people are fixed with the question."""
    barred = [ANNA]
    question = ask(not_by=barred)
    barred.clear()
    with pytest.raises(AnswererNotAllowedError):
        question.answerers.check(by(ANNA))


def test_options_are_not_part_of_the_question() -> None:
    """Body, key and digest are the same with and without them."""
    plain = ask(assign_to=ANNA, idempotency_key="k").body()
    assert ask(assign_to=ANNA, idempotency_key="k", only_assignee=True, not_by="ben@example.com").body() == plain


def test_error_shows_a_hostile_address_as_ascii() -> None:
    """The caller of the API states the address, so no newline or escape of it reaches a terminal or log."""
    hostile = "x@\n\x1b[2Jdelivered\u202e" + "y" * 500
    with pytest.raises(AnswererNotAllowedError) as refused:
        ask(assign_to=ANNA, only_assignee=True).answerers.check(by(hostile))
    assert str(refused.value).isascii()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400
