"""Response classes: a class whose answers cannot be read back is refused when the question is asked.

The annotations of this module are text that is evaluated later.
"""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import pathlib
import uuid
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, NotRequired, Optional, Required

import pytest
from pydantic import AliasChoices, AliasGenerator, AliasPath, AnyUrl, BaseModel, ConfigDict, Field, create_model
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from awaithumans_core import HumanTask, InvalidTaskError, Outcome, settle
from awaithumans_core.form import form_definition
from awaithumans_core.schema.classes import json_schema


class Level(Enum):
    LOW = "low"
    HIGH = "high"


def inputs(schema: Any) -> list[tuple[str, str, bool]]:
    """Return name, kind and required flag of each input of the form."""
    HumanTask(task="Which level?", response_schema=schema)
    return [(each["name"], each["kind"], each["required"]) for each in form_definition(schema)["fields"]]


def settled(schema: Any, response: dict[str, Any]) -> Any:
    return settle(Outcome(task_id="task-1", status="completed", response=response), schema)


# --- names

CONFIGURATIONS: dict[str, ConfigDict] = {
    "default": {},
    "populated by name": {"populate_by_name": True},
    "alias or name": {"validate_by_name": True},
    "name only": {"validate_by_name": True, "validate_by_alias": False},
    "alias only": {"validate_by_alias": True, "validate_by_name": False},
    "strict": {"strict": True},
    "generated": {"alias_generator": to_camel},
    "generated for validation": {"alias_generator": AliasGenerator(validation_alias=to_camel)},
    "generated, name only": {"alias_generator": to_camel, "validate_by_name": True, "validate_by_alias": False},
    "forbids others": {"extra": "forbid"},
    "keeps others": {"extra": "allow"},
    "ignores others": {"extra": "ignore"},
}
ALIASES: dict[str, dict[str, Any]] = {
    "none": {},
    "alias": {"alias": "theLevel"},
    "validation": {"validation_alias": "asked"},
    "choices": {"validation_alias": AliasChoices("first", "second")},
    "path or name": {"validation_alias": AliasChoices(AliasPath("levels", 0), "second")},
    "path": {"validation_alias": AliasPath("levels", "first")},
    "serialization": {"serialization_alias": "written"},
}


def kinds(alias: dict[str, Any], config: ConfigDict) -> Iterator[Any]:
    """Return a model, a pydantic dataclass, a dataclass and a TypedDict with this field."""
    annotated = Annotated[Level, Field(**alias)]
    body = {"__annotations__": {"the_level": annotated}, "__module__": __name__}
    yield type("Model", (BaseModel,), body | {"model_config": config})
    yield pydantic_dataclass(config=config)(type("PydanticData", (), dict(body)))
    yield dataclasses.dataclass(type("Data", (), body | {"__pydantic_config__": config}))
    make_typed: Any = TypedDict
    typed = make_typed("Typed", {"the_level": annotated})
    typed.__pydantic_config__ = config
    yield typed


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_form_has_the_name_that_the_class_reads(configuration: str, alias: str) -> None:
    """Only a field that is read from inside another value is refused."""
    config = CONFIGURATIONS[configuration]
    by_name = config.get("validate_by_name") or config.get("populate_by_name")
    for schema in kinds(ALIASES[alias], config):
        if alias == "path" and not by_name:
            with pytest.raises(InvalidTaskError, match="give the field a plain alias"):
                inputs(schema)
            continue
        ((name, kind, required),) = inputs(schema)
        assert (kind, required) == ("single_select", True)
        assert list(json_schema(schema)["properties"]) == [name] or alias.startswith("path")
        read = settled(schema, {name: "low"})
        assert (read["the_level"] if isinstance(read, dict) else read.the_level) is Level.LOW


# --- annotations that are text


class QuotedModel(BaseModel):
    level: "Level"  # noqa: UP037 - text in text
    levels: "list['Level']"  # noqa: UP037
    maybe: "Optional['Level']" = None  # noqa: UP037, UP045


@dataclasses.dataclass
class QuotedData:
    level: "Level"  # noqa: UP037
    levels: "list['Level']"  # noqa: UP037
    maybe: "Optional['Level']" = None  # noqa: UP037, UP045


@pydantic_dataclass
class QuotedPydanticData:
    level: "Level"  # noqa: UP037
    levels: "list['Level']"  # noqa: UP037
    maybe: "Optional['Level']" = None  # noqa: UP037, UP045


class QuotedTyped(TypedDict):
    level: "Level"  # noqa: UP037
    levels: Required["list['Level']"]  # noqa: UP037
    maybe: "NotRequired[Optional['Level']]"  # noqa: UP037, UP045


@pytest.mark.parametrize("schema", [QuotedModel, QuotedData, QuotedPydanticData, QuotedTyped])
def test_quoted_annotations_are_read(schema: Any) -> None:
    """A quoted name in a module that postpones its annotations is quoted twice."""
    assert inputs(schema) == [
        ("level", "single_select", True),
        ("levels", "multi_select", True),
        ("maybe", "single_select", False),
    ]
    settled(schema, {"level": "low", "levels": ["high"]})


class Total(TypedDict, total=False):
    level: Required[Level]
    note: str


class Child(Total):
    approved: bool
    why: NotRequired[str]


def test_postponed_typed_dict_keeps_not_required() -> None:
    """Python itself counts a postponed `NotRequired` as required, so a person would have to fill it in."""
    assert [(name, required) for name, _, required in inputs(Child)] == [
        ("level", True),
        ("note", False),
        ("approved", True),
        ("why", False),
    ]
    assert settled(Child, {"level": "low", "approved": True}) == {"level": Level.LOW, "approved": True}
    assert [required for _, _, required in inputs(Total)] == [True, False]


class BeforeItsPart(BaseModel):
    part: "Part"  # noqa: UP037


class Part(BaseModel):
    level: Level


def test_forward_reference_is_read() -> None:
    """The class was incomplete when it was defined, and a structure entered as JSON is read."""
    assert inputs(BeforeItsPart) == [("part", "long_text", True)]
    assert settled(BeforeItsPart, {"part": '{"level": "low"}'}).part == Part(level=Level.LOW)


def local() -> dict[str, Any]:
    """Return classes of a function whose annotations name a class of that function."""

    class Local(Enum):
        LOW = "low"

    class Model(BaseModel):
        level: Local

    @dataclasses.dataclass
    class Data:
        level: Local

    @pydantic_dataclass
    class PydanticData:
        level: Local

    class Typed(TypedDict):
        level: Local

    class Around(BaseModel):
        data: Data

    return {each.__name__: each for each in (Model, Data, PydanticData, Typed, Around)}


LOCAL = local()


def test_model_defined_in_a_function_is_read() -> None:
    """pydantic searches the scope in which a model is defined."""
    assert inputs(LOCAL["Model"]) == [("level", "single_select", True)]
    assert settled(LOCAL["Model"], {"level": "low"}).level.value == "low"
    assert inputs(LOCAL["Around"]) == [("data", "long_text", True)]
    assert settled(LOCAL["Around"], {"data": '{"level": "low"}'}).data.level.value == "low"


@pytest.mark.parametrize("name", ["Data", "PydanticData", "Typed"])
def test_class_whose_annotations_cannot_be_evaluated_is_refused(name: str) -> None:
    """The error contains the undefined name and a remedy."""
    with pytest.raises(InvalidTaskError, match=r"name 'Local' is not defined.*use a pydantic model"):
        HumanTask(task="Which level?", response_schema=LOCAL[name])
    with pytest.raises(InvalidTaskError, match="is not defined"):
        form_definition(LOCAL[name])


@dataclasses.dataclass
class NoExpression:
    level: "1 +"  # type: ignore[valid-type]  # noqa: F722  # pyright: ignore


@dataclasses.dataclass
class NoMember:
    level: Level.NONE  # type: ignore[name-defined]  # pyright: ignore


class NoItem(TypedDict):
    level: Level[none]  # type: ignore[name-defined,type-arg]  # noqa: F821  # pyright: ignore


class Undefined(BaseModel):
    level: Nowhere  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore


class Thing:
    """A value that JSON cannot represent."""


class NotJson(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: Thing


@dataclasses.dataclass
class OnlyForInit:
    level: Level
    scale: dataclasses.InitVar[int]


@pytest.mark.parametrize("schema", [NoExpression, NoMember, NoItem, Undefined, NotJson, OnlyForInit])
def test_class_that_cannot_be_read_back_is_refused(schema: Any) -> None:
    """The typed error is raised before a person is asked, in place of Python's own error."""
    with pytest.raises(InvalidTaskError, match=schema.__name__):
        HumanTask(task="Which level?", response_schema=schema)


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        (Decimal, "12.30"),
        (uuid.UUID, "12345678-1234-5678-1234-567812345678"),
        (AnyUrl, "https://example.com/x"),
        (datetime.timedelta, "PT1H"),
        (pathlib.Path, "a/b"),
        (ipaddress.IPv4Address, "10.0.0.1"),
    ],
)
def test_value_written_as_text_has_a_text_input(kind: Any, typed: str) -> None:
    """The input is not one for JSON, and the text is read as the type."""
    schema = create_model("Answer", value=(kind, ...))
    assert inputs(schema) == [("value", "short_text", True)]
    assert "JSON" not in str(form_definition(schema))
    assert isinstance(settled(schema, {"value": typed}).value, kind)
