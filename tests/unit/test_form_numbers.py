"""Numbers that people type are read if there is one reading, and refused with an example otherwise."""

from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from awaithumans_core import Outcome, ResponseSchemaError, settle
from awaithumans_core.form import currency
from awaithumans_core.form.numbers import readings

KINDS: dict[str, Any] = {"int": int, "float": float, "Decimal": Decimal, "money": Annotated[Decimal, currency("EUR")]}
CLASSES: dict[str, type[BaseModel]] = {name: create_model("Answer", value=(kind, ...)) for name, kind in KINDS.items()}


def read(kind: str, text: str) -> Any:
    """The value that the caller gets for this text."""
    answer: Any = settle(Outcome(task_id="t", status="completed", response={"value": text}), CLASSES[kind])
    return answer.value


def refusal(kind: str, text: str) -> str:
    with pytest.raises(ResponseSchemaError) as raised:
        read(kind, text)
    (problem,) = raised.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("150,00", "150.00"),
        ("150.00", "150.00"),
        ("1 234,50", "1234.50"),
        ("1\u00a0234,50", "1234.50"),
        ("1\u202f234,50", "1234.50"),
        ("1\u2009234.50", "1234.50"),
        ("1'234.50", "1234.50"),
        ("1\u2019234,50", "1234.50"),
        ("1,234.50", "1234.50"),
        ("1.234,50", "1234.50"),
        ("1,234,567", "1234567"),
        ("1.234.567,8", "1234567.8"),
        ("-1,234,567.8", "-1234567.8"),
        ("\u22125", "-5"),
        ("+0,5", "0.5"),
        ("0,123", "0.123"),
        ("0.123", "0.123"),
        ("1234,567", "1234.567"),
        (" 7 ", "7"),
        ("1_000", "1000"),
        (".5", "0.5"),
    ],
)
@pytest.mark.parametrize("kind", ["Decimal", "money", "float"])
def test_text_with_one_reading_is_read(kind: str, text: str, number: str) -> None:
    """Decimal marks and separators of thousands of several countries, where only one number is meant."""
    assert read(kind, text) == (float(number) if kind == "float" else Decimal(number))


@pytest.mark.parametrize("text", ["1,234", "1.234", "-12,345", "123.456", "1.000"])
def test_text_with_two_readings_is_refused_as_money_and_as_a_whole_number(text: str) -> None:
    """A comma or a point before three digits is never guessed: a thousand times the amount is at stake."""
    assert refusal("money", text).startswith("value: write 1234 or 1.23")
    assert refusal("int", text).startswith("value: write 1234 (")


@pytest.mark.parametrize("kind", ["float", "Decimal"])
def test_point_is_the_decimal_mark_of_a_plain_number(kind: str) -> None:
    """As programs write it. A comma in its place has two readings."""
    assert read(kind, "1.234") == KINDS[kind]("1.234")
    assert refusal(kind, "1,234").startswith("value: write 1234 or 1.23")


@pytest.mark.parametrize("text", ["150 EUR", "EUR 150", "eur150,00"])
def test_money_may_be_written_with_its_currency(text: str) -> None:
    """The code of the field's own currency is no part of the number; another one is refused."""
    assert read("money", text) == 150
    assert refusal("money", text.upper().replace("EUR", "USD")) == (
        "value: write an amount in EUR, for instance 1234.50 EUR"
    )


@pytest.mark.parametrize(
    "text", ["NaN", "inf", "-Infinity", "abc", "1,23,4", "1 23", "1''000", "1,", "--1", "0x10", "1,5e3", "1e"]
)
def test_text_without_a_reading_is_refused(text: str) -> None:
    """What is no finite number is refused by every kind of number."""
    for kind in KINDS:
        assert refusal(kind, text).startswith("value: ")


def test_exponent_is_read_for_measured_numbers_only() -> None:
    """Nobody writes an amount or a count like this. A float that is too large is infinity, and refused."""
    assert (read("float", "1e3"), read("Decimal", "1e3")) == (1000.0, Decimal(1000))
    for kind, text in (("int", "1e3"), ("money", "1e3"), ("float", "1e999")):
        assert refusal(kind, text).startswith("value: write a")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [*KINDS])
def test_number_without_end_is_refused_as_a_value(kind: str, value: float) -> None:
    """A reply may contain it although JSON has no such numbers, and as null it could pass."""
    schema = create_model("Answer", value=(KINDS[kind] | None, None))
    with pytest.raises(ResponseSchemaError, match="finite"):
        settle(Outcome(task_id="t", status="completed", response={"value": value}), schema)


@pytest.mark.parametrize("text", ["1.5", "1,5", "1,234.5"])
def test_whole_number_has_no_fraction(text: str) -> None:
    """A fraction is refused and not dropped; zeros after the decimal mark are no fraction."""
    assert refusal("int", text) == "value: write a whole number, for instance 1234"
    assert read("int", "150,00") == 150


def test_whole_number_is_exact() -> None:
    """A number of many digits keeps all of them."""
    assert read("int", "9" * 40) == int("9" * 40)
    assert refusal("int", "9" * 5000) == "value: write a number of at most 4000 digits"


numbers = st.decimals(min_value=-(10**9), max_value=10**9, places=2)
styles = st.sampled_from(
    [(",", "."), (".", ","), (" ", ","), (" ", "."), ("'", "."), ("\u202f", ","), ("", "."), ("", ",")]
)


@given(numbers, styles, st.sampled_from([*KINDS]))
def test_number_written_in_any_way_is_read_or_refused_and_never_another(
    number: Decimal, style: tuple[str, str], kind: str
) -> None:
    """Written with two decimals, in every style, there is one reading, and it is the number that was meant."""
    group, mark = style
    text = f"{number:,.2f}".translate({ord(","): group, ord("."): mark})
    assert {Decimal(reading) for reading in readings(text)} == {number}
    if kind != "int" or number == number.to_integral_value():
        assert read(kind, text) == (float(number) if kind == "float" else number)


@given(st.integers(min_value=-(10**12), max_value=10**12), styles)
def test_whole_number_written_in_any_way_is_read_or_refused_and_never_another(
    number: int, style: tuple[str, str]
) -> None:
    """Without decimals, a single group of thousands has two readings; the number that was meant is one of them."""
    text = f"{number:,}".replace(",", style[0])
    assert number in {Decimal(reading) for reading in readings(text)}
    for kind in ("int", "money"):
        if len(readings(text)) == 1:
            assert read(kind, text) == number
        else:
            assert refusal(kind, text).startswith("value: write 1234")


@example("- 0", "money")
@example("-\u00a01.5", "money")
@given(st.text(alphabet="0123456789.,' -+\u00a0eE_", max_size=12), st.sampled_from([*KINDS]))
def test_text_of_digits_and_marks_is_never_read_in_two_ways(text: str, kind: str) -> None:
    """Whatever is typed, a value that is accepted is one of the readings, and money and ints have no other."""
    try:
        value = read(kind, text)
    except ResponseSchemaError:
        return
    found = {Decimal(reading) for reading in readings(text)}
    assert value in ({float(each) for each in found} if kind == "float" else found)
    if kind in {"int", "money"}:
        assert len(found) == 1
