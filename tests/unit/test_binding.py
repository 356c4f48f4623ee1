"""Identity of questions: what is compared of a body, of a record, and of two JSON Schemas of one class."""

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from awaithumans_core.binding import differences, parts, parts_asked, schema_digest
from awaithumans_core.schema.classes import json_schema
from awaithumans_core.task import HumanTask


class Item(BaseModel):
    name: str
    inside: "list[Item]" = []


class Decision(BaseModel):
    """Approve a refund."""

    approved: bool = Field(title="Approve it", description="Is the amount right?")
    plan: Literal["monthly"] = "monthly"
    limit: int | None = 100
    items: list[Item] = []


def body(**options: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"task": "Approve?", "response_schema": Decision, "payload": {"a": 1}, **options}
    return HumanTask(**given).body()


SCHEMA = json_schema(Decision)
PROPERTIES: dict[str, Any] = SCHEMA["properties"]


def with_field(name: str, **changes: Any) -> dict[str, Any]:
    return {**SCHEMA, "properties": {**PROPERTIES, name: {**PROPERTIES[name], **changes}}}


SAME: dict[str, dict[str, Any]] = {
    "class name and docstring": {**SCHEMA, "title": "Other", "description": "Other"},
    "order of names": {**SCHEMA, "properties": dict(reversed(PROPERTIES.items()))},
    "enum for const": {
        **SCHEMA,
        "properties": {**PROPERTIES, "plan": {"enum": ["monthly"], "type": "string", "default": "monthly"}},
    },
    "pattern": with_field("plan", pattern="^m"),
    "name of a definition": {
        **with_field("items", items={"$ref": "#/$defs/Thing"}),
        "$defs": {
            "Thing": {
                **SCHEMA["$defs"]["Item"],
                "properties": {
                    **SCHEMA["$defs"]["Item"]["properties"],
                    "inside": {
                        **SCHEMA["$defs"]["Item"]["properties"]["inside"],
                        "items": {"$ref": "#/$defs/Thing"},
                    },
                },
            }
        },
    },
}
OTHER: dict[str, dict[str, Any]] = {
    "label": with_field("approved", title="Refuse it"),
    "hint": with_field("approved", description="Is the amount wrong?"),
    "type": with_field("approved", type="string"),
    "choice": with_field("plan", const="yearly"),
    "default": with_field("limit", default=1_000_000),
    "required": {**SCHEMA, "required": []},
    "another field": {**SCHEMA, "properties": {**PROPERTIES, "note": {"type": "string"}}},
    "type of an item": with_field("items", items={"type": "string"}),
}


@pytest.mark.parametrize("schema", SAME.values(), ids=SAME)
def test_equivalent_schemas_have_the_same_digest(schema: dict[str, Any]) -> None:
    """Differences between pydantic releases do not make another question."""
    assert schema_digest(schema) == schema_digest(SCHEMA)


@pytest.mark.parametrize("schema", OTHER.values(), ids=OTHER)
def test_different_schemas_have_different_digests(schema: dict[str, Any]) -> None:
    """Fields, types, choices, defaults and texts beside a field count."""
    assert schema_digest(schema) != schema_digest(SCHEMA)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("ann@example.com", {"emails": ["Ann@Example.com"]}, True),
        (["a@x.org", "b@x.org"], ["b@x.org", "a@x.org"], True),
        ("ann@example.com", ["ann@example.com", "bob@example.com"], False),
        ("ann@example.com", "\u0430nn@example.com", False),
        ({"pool": "ops"}, {"pool": "finance"}, False),
        ({"pool": "ops"}, None, False),
    ],
    ids=["one of a list", "order", "one more", "a Cyrillic letter", "pool", "anybody"],
)
def test_assignees_are_compared_by_person(one: Any, other: Any, same: bool) -> None:  # noqa: FBT001 - a column
    """The same people in another form are equal, and other people are not."""
    found = differences(parts_asked(body(assign_to=one)), parts_asked(body(assign_to=other)))
    assert found == (() if same else ("assign_to",))


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"payload": {"_redacted": True}, "redact_payload": True}, ()),
        ({"payload": None}, ()),
        ({"payload": None, "task": "Another?"}, ("task",)),
        ({"payload": {"_redacted": True}, "redact_payload": False}, ("payload",)),
        ({"assign_to": {"email": "bob@example.com"}}, ("assign_to",)),
    ],
    ids=["redacted", "erased", "erased and another text", "a payload that looks redacted", "assignee"],
)
def test_hidden_parts_of_a_record_are_not_compared(record: dict[str, Any], found: tuple[str, ...]) -> None:
    """A part that the server hides is skipped, and every other part is compared."""
    assert differences(parts_asked(body()), parts({**body(), "assign_to": None, **record})) == found


def test_reworded_question_is_compared_by_payload() -> None:
    """If the text may change, the payload is compared, or the text if there is no payload."""
    asked = parts_asked(body())
    assert not differences(parts_asked(body(task="Another?", assign_to="bob@example.com")), asked, payload_only=True)
    assert differences(parts_asked(body(payload={"a": 2})), asked, payload_only=True) == ("payload",)
    nothing = parts_asked(body(payload=None))
    assert differences(parts_asked(body(payload=None, task="Another?")), nothing, payload_only=True) == ("task",)
