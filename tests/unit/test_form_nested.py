"""Values inside a structure: what people type into a box for JSON, and into the cells of a table of the SDK."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from awaithumans.forms import FormDefinition, short_text, subform, table  # type: ignore[import-untyped]
from pydantic import BaseModel, Field, create_model

from awaithumans_core import Outcome, ResponseSchemaError, settle
from awaithumans_core.form import currency, form_definition
from awaithumans_core.schema.sdk_markers import sdk_marker

pytestmark = pytest.mark.filterwarnings(
    "ignore:The `__get_pydantic_core_schema__` method"  # the markers of the SDK are models, whose hook is deprecated
)


class Item(BaseModel):
    name: str
    count: int = 1
    price: Annotated[Decimal, currency("EUR")] | None = None
    share: float = 0.0


class Card(BaseModel):
    by: Literal["card"]
    amount: Decimal


class Cash(BaseModel):
    by: Literal["cash"]
    amount: int


def answer_class(annotation: Any) -> Any:
    return create_model("Answer", value=(annotation, ...))


def settled(annotation: Any, value: Any) -> Any:
    schema = answer_class(annotation)
    return settle(Outcome(task_id="task-1", status="completed", response={"value": value}), schema).value


def problems(annotation: Any, value: Any) -> Sequence[str]:
    with pytest.raises(ResponseSchemaError) as raised:
        settled(annotation, value)
    return raised.value.problems


# --- numbers

READ: dict[str, tuple[Any, Any, Any]] = {
    "list of models": (list[Item], '[{"name": "1,5", "count": "2 000"}]', [Item(name="1,5", count=2000)]),
    "money": (Item, '{"name": "a", "price": "5,50 €"}', Item(name="a", price=Decimal("5.50"))),
    "money, grouped": (Item, '{"name": "a", "price": "1.299,00"}', Item(name="a", price=Decimal("1299.00"))),
    "cells of a table": (
        list[Item],
        [{"name": "a", "count": "", "price": " ", "share": "2,5"}],
        [Item(name="a", share=2.5)],
    ),
    "dict": (dict[str, float], '{"a": "1,5", "b": 2}', {"a": 1.5, "b": 2.0}),
    "tuple": (tuple[str, int], '["1,5", "2 000"]', ("1,5", 2000)),
    "union": (Card | Cash, '{"by": "card", "amount": "1299,00"}', Card(by="card", amount=Decimal("1299.00"))),
    "tagged union": (
        Annotated[Card | Cash, Field(discriminator="by")],
        '{"by": "cash", "amount": "2 000"}',
        Cash(by="cash", amount=2000),
    ),
    "numbers": (dict[str, Decimal], '{"a": 1.234}', {"a": Decimal("1.234")}),
    "words": (dict[str, int | str], '{"a": "1,5"}', {"a": "1,5"}),
}


@pytest.mark.parametrize(("annotation", "entered", "answer"), READ.values(), ids=READ)
def test_number_in_a_structure_is_read_like_one_of_its_own(annotation: Any, entered: Any, answer: Any) -> None:
    """A text at the place of a number is read by the same rules; JSON numbers and other texts stay as they are."""
    assert settled(annotation, entered) == answer


def test_number_with_two_readings_in_a_structure_is_refused() -> None:
    """The problem names the place and gives an example."""
    assert problems(list[Item], '[{"name": "a"}, {"name": "b", "count": "2,000"}]') == (
        "value.1.count: write 1234 (a comma or a point before three digits has two readings)",
    )
    assert problems(dict[str, Annotated[Decimal, currency("EUR")]], {"a": "1.234"})[0].startswith("value.a: write 1234")
    assert problems(Item, {"name": "a", "price": "$5"}) == (
        "value.price: write an amount in EUR, for instance 1234.50 EUR",
    )


# --- money


@pytest.mark.parametrize(
    ("code", "text"),
    [
        *(("EUR", text) for text in ("€5,50", "5,50 €", "5.50€", "€ 5.50", "5.50 eur")),
        *(("USD", "$5.50"), ("GBP", "£5.50"), ("JPY", "¥5.50")),
    ],
)
def test_money_may_have_the_symbol_of_its_currency(code: str, text: str) -> None:
    """The unit is no part of the number, before or after it, with a sign or without."""
    money = Annotated[Decimal, currency(code)]
    assert settled(money, text) == Decimal("5.50")
    assert settled(money, f"-{text}") == Decimal("-5.50")


@pytest.mark.parametrize("text", ["$5", "5 USD", "£5", "5 ¥", "EUR 5 USD"])
def test_money_in_another_currency_is_refused_with_the_right_one(text: str) -> None:
    """The amount is not converted; the problem names the currency of the field."""
    assert problems(Annotated[Decimal, currency("EUR")], text) == (
        "value: write an amount in EUR, for instance 1234.50 EUR",
    )


# --- JSON


def test_text_that_is_no_json_is_refused_with_its_place() -> None:
    """The problem names the line and the column, and does not quote the text."""
    assert problems(list[Item], '[{"name": "a"},\n oops]') == ("value: this is not JSON: line 2, column 2",)
    assert problems(Item, "```json\n{oops}\n```") == ("value: this is not JSON: line 2, column 2",)


@pytest.mark.parametrize("text", ['```json\n[{"name": "a"}]\n```', '```\n[{"name": "a"}]```\n'])
def test_fence_of_markdown_is_no_part_of_json(text: str) -> None:
    """An answer copied from a chat is read."""
    assert settled(list[Item], text) == [Item(name="a")]
    assert settled(list[int], "```json\n[1, 2]\n```") == [1, 2]


def test_one_object_instead_of_a_list_is_refused_with_what_to_write() -> None:
    """Brackets are missing, and the problem says so."""
    assert problems(list[Item], '{"name": "a"}') == ("value: write [ ... ] around it, because this is a list",)


def test_word_for_a_union_with_text_is_a_word() -> None:
    """Text that is no JSON is an answer where text is one."""
    assert settled(bool | str, "perhaps") == "perhaps"


# --- tables of the SDK


def test_table_of_the_sdk_has_no_maximum() -> None:
    """The dashboard compares the maximum with null, and offers no row if it is missing."""
    marked = Annotated[list[Item], table(columns=[{"name": "name", "label": "Name", "kind": "short_text"}])]
    form = form_definition(answer_class(marked))
    FormDefinition.model_validate(form)
    (field,) = form["fields"]
    assert (field["kind"], field["max_rows"], field["min_rows"]) == ("table", None, None)


def test_subform_of_the_sdk_has_no_maximum() -> None:
    """As for a table."""
    marker = sdk_marker([subform(fields=[short_text()])])
    assert marker is not None
    assert (marker["kind"], marker["max_count"]) == ("subform", None)
