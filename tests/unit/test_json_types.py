"""Forms and validation from a JSON Schema alone."""

from enum import Enum
from typing import Any, Literal, NamedTuple, Optional

import pytest
from pydantic import BaseModel, Field

from awaithumans_adapters.tool_approval.json_types import json_type, object_type
from awaithumans_core import Outcome, ResponseSchemaError, settle
from awaithumans_core.form import form_definition


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Address(BaseModel):
    street: str
    next: Optional["Address"] = None


class Order(BaseModel):
    size: Size
    count: int = Field(ge=1)
    kind: Literal["gift", "other"] = "other"
    code: str | None = Field(None, max_length=3)
    address: Address = Address(street="none")
    tags: list[Size] = []
    model_config = {"title": "Order form"}


SCHEMA = Order.model_json_schema()
ORDER = object_type(SCHEMA, SCHEMA)


def answer(response: dict[str, Any], schema: type[BaseModel] = ORDER) -> dict[str, Any]:
    settled = settle(Outcome(task_id="t", status="completed", response=response), schema)
    return dict(settled.model_dump(mode="json", by_alias=True, exclude_unset=True))


def test_form_has_the_inputs_of_the_class() -> None:
    """A form made from a class's schema equals the form of the class, except for the names of its choices."""
    fields = form_definition(ORDER)["fields"]
    assert [(field["name"], field["kind"], field["required"]) for field in fields] == [
        (field["name"], field["kind"], field["required"]) for field in form_definition(Order)["fields"]
    ]


def test_answer_contains_the_filled_in_values() -> None:
    """The answer is JSON of the schema's types, and blank values are left to the node."""
    filled = {"size": "s", "count": "2", "kind": "gift", "code": "", "address": '{"street": "x"}', "tags": ["l"]}
    assert answer(filled) == filled | {"count": 2, "code": "", "address": {"street": "x"}}
    assert answer({"size": "s", "count": 2, "address": None}) == {"size": "s", "count": 2}


@pytest.mark.parametrize(
    "wrong",
    [{"size": "m"}, {"count": 0}, {"code": "four"}, {"kind": "none"}, {"address": '{"street": 1}'}, {"more": 1}],
)
def test_answer_violating_the_schema_is_refused(wrong: dict[str, Any]) -> None:
    """Choices, limits and nested parts of the schema are enforced."""
    with pytest.raises(ResponseSchemaError):
        answer({"size": "s", "count": 2} | wrong)


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"type": "string"}, str),
        ({"type": "integer"}, int),
        ({"type": "object"}, dict[str, Any]),
        ({"type": "string", "format": "uri"}, str),
        ({"type": ["string", "null"]}, str | None),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, float | None),
        ({"type": "array", "items": {"type": "boolean"}}, list[bool]),
        ({"const": "x"}, Literal["x"]),
        ({"allOf": [{"$ref": "#/$defs/X"}]}, bool),
        ({"$ref": "#/$defs/unknown"}, Any),
        ({"$ref": "elsewhere.json"}, Any),
        ({}, Any),
    ],
)
def test_schema_types_have_matching_inputs(schema: dict[str, Any], kind: Any) -> None:
    """Each kind of schema has the type of its input, and unknown kinds accept anything."""
    assert json_type(schema, {"$defs": {"X": {"type": "boolean"}}}) == kind


def test_property_names_reserved_in_python_are_kept() -> None:
    """Properties keep their names."""
    names = ["class", "model_config", "json", "_hidden", "with space", "field_0"]
    schema = {"properties": {name: {"type": "integer"} for name in names}}
    assert answer(dict.fromkeys(names, 1), object_type(schema, schema)) == dict.fromkeys(names, 1)


class Switch(BaseModel):
    ok: bool = True
    below: Optional["Switch"] = None


class Pair(NamedTuple):
    number: int = 0
    ok: bool = True


class Switches(BaseModel):
    by_name: dict[str, Switch] = {}
    pair: Pair | None = None
    listed: list[Switch] = []
    one: Switch | None = None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"by_name": {"a": {}}}, "by_name.a.ok: Field required"),
        ({"pair": [1]}, "pair.1: Field required"),
        ({"listed": [{}]}, "listed.0.ok: Field required"),
        ({"one": {"ok": False, "below": {}}}, "one.below.ok: Field required"),
        (
            {"one": {"ok": False, "below": {"ok": False, "below": {"ok": False, "below": {}}}}},
            "one.below.below: Value error, an object whose defaults are True, which cannot be checked here",
        ),
    ],
    ids=["dict", "tuple", "list", "object", "deeper than is checked"],
)
def test_default_of_a_schema_is_not_a_yes(given: dict[str, Any], problem: str) -> None:
    """The node would fill an omitted value from its own class, so a yes must be explicit."""
    schema = Switches.model_json_schema()
    with pytest.raises(ResponseSchemaError) as raised:
        answer(given, object_type(schema, schema))
    assert raised.value.problems == (problem,)


def test_explicit_yes_of_a_schema_is_kept() -> None:
    """The node gets the person's value as JSON."""
    schema = Switches.model_json_schema()
    given = {"by_name": {"a": {"ok": True}}, "pair": [1, False], "listed": [{"ok": True}], "one": {"ok": False}}
    assert answer(given, object_type(schema, schema)) == given
