"""The form that a reviewer fills in, and the conversion of its values into an answer."""

import datetime
import enum
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional

import pytest
from awaithumans.forms import FormDefinition  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    RootModel,
    StringConstraints,
    create_model,
)
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType, TypedDict, TypeVar

from awaithumans_core.errors import InvalidTaskError, ResponseSchemaError
from awaithumans_core.form import answer_from_form, form_definition
from awaithumans_core.outcome import Outcome, settle
from awaithumans_core.schema.classes import fields, json_schema


class Size(enum.Enum):
    SMALL = 1
    EXTRA_LARGE = 2


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    why: str


Name = NewType("Name", str)
Item = TypeVar("Item")

SWITCH = {"kind": "switch", "true_label": "Yes", "false_label": "No"}
TEXT = {"kind": "short_text", "subtype": "plain"}
NUMBER = TEXT | {"hint": "Number"}
WHOLE_NUMBER = TEXT | {"hint": "Whole number"}
LIST = {"kind": "long_text", "hint": "One per line"}


def box(example: str) -> dict[str, Any]:
    """The input for a structure, with the example that its hint gives."""
    return {"kind": "long_text", "hint": f"JSON, for instance {example}"}


SIZES = [{"value": "1", "label": "Small"}, {"value": "2", "label": "Extra large"}]
NUMBERS = [{"value": "1", "label": "1"}, {"value": "2", "label": "2"}]

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bool": (bool, SWITCH),
    "str": (str, TEXT),
    "int": (int, WHOLE_NUMBER),
    "float": (float, NUMBER),
    "date": (datetime.date, {"kind": "date"}),
    "datetime": (datetime.datetime, {"kind": "datetime"}),
    "time": (datetime.time, {"kind": "time"}),
    "Literal": (Literal[1, 2], {"kind": "single_select", "options": NUMBERS}),
    "Enum": (Size, {"kind": "single_select", "options": SIZES}),
    "list of Enum": (list[Size], {"kind": "multi_select", "options": SIZES}),
    "list of Literal": (list[Literal[1, 2]], {"kind": "multi_select", "options": NUMBERS}),
    "list of str": (list[str], LIST),
    "dict": (dict[str, int], box('{"key": 1}')),
    "model": (Inner, box('{"why": "text"}')),
    "union": (int | str, box('"text" or 1')),
}


def answer_class(annotation: Any, default: Any = ...) -> type[BaseModel]:
    """A response class with one field, `answer`."""
    return create_model("Answer", answer=(annotation, default))


def only_field(schema: Any) -> dict[str, Any]:
    (only,) = form_definition(schema)["fields"]
    return dict(only)


def read_back(annotation: Any, value: Any, default: Any = ...) -> Any:
    """Return the value that the response class gets for this form value."""
    return answer_from_form({"answer": value}, answer_class(annotation, default))["answer"]


def settled(schema: Any, value: Any) -> Any:
    """Return the answer that the caller gets when a person puts this into the form's only field."""
    name = only_field(schema)["name"]
    return settle(Outcome(task_id="task-1", status="completed", response={name: value}), schema)


every_kind = pytest.mark.parametrize(("annotation", "shape"), KINDS.values(), ids=KINDS)


@every_kind
def test_type_has_its_input(annotation: Any, shape: dict[str, Any]) -> None:
    """Each Python type gets the input of the table."""
    common = {"name": "answer", "label": "Answer", "required": True}
    assert form_definition(answer_class(annotation)) == {"version": 1, "fields": [common | shape]}


@every_kind
def test_optional_type_has_the_same_input_and_is_not_required(annotation: Any, shape: dict[str, Any]) -> None:
    """`X | None`, `Optional[X]` and `Annotated[X, ...]` have the input of X, which may stay empty."""
    expected = {"name": "answer", "label": "Answer", "required": False} | shape
    assert only_field(answer_class(annotation | None, None)) == expected
    assert only_field(answer_class(Optional[annotation], None)) == expected  # noqa: UP045 - this spelling is under test
    assert only_field(answer_class(Annotated[annotation, "a note"] | None, None)) == expected


Generic = TypeAliasType("Generic", Annotated[Item, "a note"], type_params=(Item,))
NAMES: dict[str, Callable[[Any], Any]] = {
    "type alias": lambda kind: TypeAliasType("Named", kind),
    "alias of Annotated": lambda kind: TypeAliasType("Named", Annotated[kind, "a note"]),
    "alias of an alias": lambda kind: TypeAliasType("Named", TypeAliasType("Inner", kind)),
    "generic alias": lambda kind: Generic.__getitem__(kind),
    "NewType": lambda kind: NewType("Named", kind),
    "NewType of an alias": lambda kind: NewType("Named", TypeAliasType("Inner", kind)),
}
"""Ways to define a named type."""


@every_kind
@pytest.mark.parametrize("named", NAMES.values(), ids=NAMES)
def test_named_type_has_the_input_of_the_type(named: Callable[[Any], Any], annotation: Any, shape: Any) -> None:
    """The name of a type has no effect: required, optional and as the item of a list."""
    common = {"name": "answer", "label": "Answer", "required": True}
    optional = common | {"required": False}
    kind = named(annotation)
    assert only_field(answer_class(kind)) == common | shape
    assert only_field(answer_class(kind | None, None)) == optional | shape
    assert only_field(answer_class(list[kind])) == only_field(answer_class(list[annotation]))  # type: ignore[valid-type]


def test_alias_of_an_optional_type_is_optional() -> None:
    """`type Size = Literal["s", "l"] | None` may be null, wherever the null is written."""
    size = TypeAliasType("size", Literal["s", "l"] | None)
    assert only_field(answer_class(size))["kind"] == "single_select"
    assert settled(answer_class(size), None).answer is None


def test_literal_of_named_literals_shows_every_choice() -> None:
    """A Literal may contain the names of other Literals, and the reviewer chooses among all values."""
    low = TypeAliasType("low", Literal["a", "b"])
    shown = only_field(answer_class(Literal[low, "c"]))
    assert [option["value"] for option in shown["options"]] == ["a", "b", "c"]


@every_kind
def test_server_accepts_the_form(annotation: Any, shape: dict[str, Any]) -> None:
    """The server's own model accepts the form and finds the intended input."""
    (only,) = FormDefinition.model_validate(form_definition(answer_class(annotation))).fields
    assert only.kind == shape["kind"]


def test_title_and_description_become_label_and_hint() -> None:
    """A title becomes the label and a description the hint, also where a hint would be generated."""
    told = Field(title="Why?", description="One line.")
    assert only_field(answer_class(str, told)) == TEXT | {
        "name": "answer",
        "label": "Why?",
        "hint": "One line.",
        "required": True,
    }
    assert only_field(answer_class(list[str], told))["hint"] == "One line. One per line"


def test_field_name_without_title_becomes_a_readable_label() -> None:
    """Underscores of a field name become spaces."""
    assert only_field(create_model("Answer", refund_in_full=(bool, ...)))["label"] == "Refund in full"


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[str, Field(min_length=2, max_length=5, pattern="^a")],
        Annotated[str, StringConstraints(min_length=2, max_length=5, pattern="^a")],
        Annotated[str, Field(min_length=2, max_length=5, pattern=re.compile("^a"))],
        Annotated[str, Field(min_length=2, max_length=5, pattern="^a")] | None,
        Annotated[str | None, Field(min_length=2, max_length=5, pattern="^a")],
    ],
    ids=["Field", "StringConstraints", "compiled pattern", "inside Optional", "around Optional"],
)
def test_limits_of_a_text_are_shown_in_the_form(annotation: Any) -> None:
    """An answer is final, so its limits are part of the form, wherever the class defines them."""
    shown = only_field(answer_class(annotation))
    assert {name: shown.get(name) for name in ("min_length", "max_length", "pattern")} == {
        "min_length": 2,
        "max_length": 5,
        "pattern": "^a",
    }


@pytest.mark.parametrize("default", [True, False], ids=str)
def test_switch_shows_its_default(default: bool) -> None:  # noqa: FBT001 - a column of the table
    """The switch starts at the default of the class."""
    shown = only_field(answer_class(bool, default))
    assert shown["default"] is default
    assert shown["required"] is False


@pytest.mark.parametrize(("annotation", "default"), [(bool, ...), (bool | None, None)], ids=["required", "optional"])
def test_switch_without_default_has_no_initial_value(annotation: Any, default: Any) -> None:
    """Without a default in the class the form suggests no decision."""
    assert "default" not in only_field(answer_class(annotation, default))


def test_default_derived_from_other_fields_is_accepted() -> None:
    """A default that depends on other fields cannot be shown and is left out of the form."""
    schema = create_model(
        "Answer", approved=(bool, ...), sure=(bool, Field(default_factory=lambda answers: answers["approved"]))
    )
    assert [shown["required"] for shown in form_definition(schema)["fields"]] == [True, False]


@dataclass
class Aliased:
    answer: Annotated[bool, Field(alias="isApproved")]


@pytest.mark.parametrize(
    "schema",
    [
        answer_class(bool, Field(alias="isApproved")),
        answer_class(bool, Field(validation_alias="isApproved")),
        answer_class(bool, Field(validation_alias=AliasChoices("isApproved", "ok"))),
        Aliased,
    ],
    ids=["alias", "validation alias", "choices", "dataclass"],
)
def test_field_with_alias_uses_the_name_it_is_read_by(schema: Any) -> None:
    """Form, schema and answer use the same name, so that an answer can be read."""
    assert only_field(schema)["name"] == "isApproved"
    assert list(json_schema(schema)["properties"]) == ["isApproved"]
    assert settled(schema, True).answer is True


@dataclass
class Plain:
    approved: bool
    amount: Annotated[int, Field(title="How much?")]
    note: str | None = None
    sure: bool = True
    tags: list[str] = field(default_factory=list)


class Typed(TypedDict):
    approved: bool
    amount: Annotated[int, Field(title="How much?")]
    note: NotRequired[str]


def test_dataclass_becomes_a_form() -> None:
    """Types, titles, defaults and default factories of a dataclass are read as those of a model."""
    assert form_definition(Plain)["fields"] == [
        {"name": "approved", "label": "Approved", "required": True} | SWITCH,
        {"name": "amount", "label": "How much?", "required": True} | WHOLE_NUMBER,
        {"name": "note", "label": "Note", "required": False} | TEXT,
        {"name": "sure", "label": "Sure", "required": False, "default": True} | SWITCH,
        {"name": "tags", "label": "Tags", "required": False} | LIST,
    ]


@dataclass
class Described:
    approved: bool = Field(title="Go?")
    sure: bool = Field(default=False, title="Sure?")


def test_dataclass_fields_can_be_described_with_field() -> None:
    """`= Field(...)` describes a field, and only its own default makes the field optional."""
    assert form_definition(Described)["fields"] == [
        {"name": "approved", "label": "Go?", "required": True} | SWITCH,
        {"name": "sure", "label": "Sure?", "required": False, "default": False} | SWITCH,
    ]


def test_typed_dict_becomes_a_form() -> None:
    """A `NotRequired` field may stay empty."""
    assert form_definition(Typed)["fields"] == [
        {"name": "approved", "label": "Approved", "required": True} | SWITCH,
        {"name": "amount", "label": "How much?", "required": True} | WHOLE_NUMBER,
        {"name": "note", "label": "Note", "required": False} | TEXT,
    ]


@pytest.mark.parametrize(
    "schema",
    [
        bool,
        str,
        list[int],
        dict[str, int],
        int | None,
        Size,
        None,
        "Answer",
        object,
        Plain(True, 1),
        RootModel[list[int]],
    ],
    ids=["bool", "str", "list", "dict", "union", "Enum", "None", "text", "plain class", "instance", "root model"],
)
def test_type_without_fields_is_refused(schema: Any) -> None:
    """A reviewer needs named fields, and the text explains how to define them."""
    with pytest.raises(InvalidTaskError, match="response_schema must be"):
        form_definition(schema)


@pytest.mark.parametrize(
    ("annotation", "submitted", "read"),
    [
        (Literal[1, 2], "2", 2),
        (Literal["1", 2], "1", "1"),
        (Size, "2", 2),
        (Colour, "red", "red"),
        (list[Size], ["1", "2"], [1, 2]),
        (list[Literal[1, 2]], ["2"], [2]),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Inner, '{"why": "so"}', {"why": "so"}),
        (list[str] | None, '["a"]', ["a"]),
    ],
    ids=[
        "numeric Literal",
        "text Literal",
        "int Enum",
        "str Enum",
        "list of int Enum",
        "list of numeric Literal",
        "list",
        "dict",
        "model",
        "optional list",
    ],
)
def test_form_values_become_values_of_the_class(annotation: Any, submitted: Any, read: Any) -> None:
    """Options are text and structures are JSON in a form, and both are converted back."""
    assert read_back(annotation, submitted) == read


@pytest.mark.parametrize(
    ("annotation", "submitted", "answer"),
    [
        (bool, False, False),
        (str, "fine", "fine"),
        (int, 3, 3),
        (float, 2.75, 2.75),
        (datetime.date, "2026-03-04", datetime.date(2026, 3, 4)),
        (datetime.datetime, "2026-03-04T05:06", datetime.datetime(2026, 3, 4, 5, 6)),
        (datetime.time, "05:06", datetime.time(5, 6)),
        (Literal[1, 2], "2", 2),
        (Size, "2", Size.EXTRA_LARGE),
        (Colour, "blue", Colour.BLUE),
        (list[Size], ["1", "2"], [Size.SMALL, Size.EXTRA_LARGE]),
        (list[Literal[1, 2]], ["2"], [2]),
        (list[str], '["a", "b"]', ["a", "b"]),
        (Inner, '{"why": "so"}', Inner(why="so")),
        (Decimal, "123456789012345678.10", Decimal("123456789012345678.10")),
        (Name, "0123", "0123"),
        (Name, "123", "123"),
        (int | str, "123 Main Street", "123 Main Street"),
    ],
    ids=[
        "bool",
        "str",
        "int",
        "float",
        "date",
        "datetime",
        "time",
        "Literal",
        "int Enum",
        "str Enum",
        "list of Enum",
        "list of Literal",
        "list",
        "model",
        "exact decimal",
        "named text with zero",
        "named text of digits",
        "union",
    ],
)
def test_value_survives_form_server_and_settle(annotation: Any, submitted: Any, answer: Any) -> None:
    """A value keeps its meaning to the last digit from the form to the caller."""
    got = settled(answer_class(annotation), submitted).answer
    assert got == answer
    assert type(got) is type(answer)
    assert str(got) == str(answer)


@pytest.mark.parametrize(
    ("annotation", "default", "read"),
    [
        (int | None, None, None),
        (datetime.date | None, None, None),
        (list[str] | None, None, None),
        (int, 3, 3),
        (list[str], Field(default_factory=lambda: ["a"]), ["a"]),
    ],
    ids=["optional number", "optional date", "optional list", "number", "list"],
)
@pytest.mark.parametrize("blank", ["", None], ids=["empty text", "null"])
def test_blank_field_means_its_default(annotation: Any, default: Any, read: Any, blank: str | None) -> None:
    """An empty input arrives as "" or, from Slack, as null, and the class's default applies."""
    assert settled(answer_class(annotation, default), blank).answer == read


@pytest.mark.parametrize(
    ("annotation", "default"),
    [(bool, True), (Literal["approve", "reject"], "approve"), (list[Literal["a", "b"]], ["a"])],
    ids=["switch", "select", "multi select"],
)
@pytest.mark.parametrize("blank", ["", None], ids=["empty text", "null"])
def test_cleared_choice_is_not_the_default(annotation: Any, default: Any, blank: str | None) -> None:
    """The form preselects the default, so a person who clears it or sends nothing has not agreed to it."""
    assert form_definition(answer_class(annotation, default))["fields"][0]["default"] == default
    with pytest.raises(ResponseSchemaError):
        settled(answer_class(annotation, default), blank)


def test_switch_that_is_off_by_default_may_be_left_out() -> None:
    """A default of no counts, and a default of yes does not; see `test_explicit_yes`."""
    off = answer_class(bool, False)
    assert settle(Outcome(task_id="task-1", status="completed", response={}), off) == off(answer=False)


def test_misspelt_field_is_refused() -> None:
    """A field that the class does not know is refused, unless the class allows extra fields."""

    class Answer(BaseModel):
        approved: bool = False
        amount: int = 1000

    class Open(Answer, extra="ignore"):
        pass

    wrong = Outcome(task_id="task-1", status="completed", response={"approved": True, "amuont": 1})
    with pytest.raises(ResponseSchemaError, match="amuont"):
        settle(wrong, Answer)
    assert settle(wrong, Open).amount == 1000


def unread() -> dict[str, Any]:
    """Return classes with a field that pydantic does not read under the form's name for it."""

    class Path(BaseModel):
        approved: bool = Field(True, validation_alias=AliasPath("decision", "approved"))

    @dataclass
    class Later:
        note: str = ""
        approved: bool = field(default=True, init=False)

    return {"path": Path, "not in init": Later}


@pytest.mark.parametrize("schema", unread().values(), ids=unread())
def test_field_that_no_answer_can_set_is_refused(schema: Any) -> None:
    """The default would apply whatever a person enters, so the question is refused."""
    with pytest.raises(InvalidTaskError, match="pproved"):
        form_definition(schema)


@pytest.mark.parametrize("value", [Decimal("1.5"), (1, 2), datetime.date(2026, 1, 1)], ids=str)
def test_enum_without_text_or_number_values_is_refused(value: Any) -> None:
    """A form submits text or numbers, so other values could be chosen but never read."""
    with pytest.raises(InvalidTaskError, match="give its members text or numbers"):
        form_definition(answer_class(enum.Enum("Odd", {"ONE": value})))


@pytest.mark.parametrize("typed", ["false", "0", '"no"'])
def test_input_for_a_union_is_json(typed: str) -> None:
    """Read as text, the word "false" would be true."""
    assert not settled(answer_class(bool | str), typed).answer or typed == '"no"'


@pytest.mark.parametrize("typed", ["nan", "inf", "-Infinity", "1e999"])
@pytest.mark.parametrize("kind", [float, float | None], ids=["number", "optional"])
def test_infinite_number_is_refused(kind: Any, typed: str) -> None:
    """Comparisons with such a number go wrong, and the field does not count as left blank either."""
    with pytest.raises(ResponseSchemaError):
        settled(answer_class(kind), typed)


def test_default_of_an_optional_input_is_shown() -> None:
    """A person who leaves a number blank can see its default."""
    assert form_definition(answer_class(float, 1000.0))["fields"][0]["hint"] == "Number (left blank: 1000.0)"


def test_any_error_of_a_validator_is_an_invalid_answer() -> None:
    """Whatever error a class raises for an answer, the caller gets ResponseSchemaError."""

    class Shares(BaseModel):
        total: int

        def model_post_init(self, context: Any) -> None:
            assert 100 // self.total

    with pytest.raises(ResponseSchemaError, match="ZeroDivisionError"):
        settle(Outcome(task_id="task-1", status="completed", response={"total": 0}), Shares)


def test_allowed_null_is_an_answer() -> None:
    """If the type includes None, a null is not replaced by the default."""
    assert settled(answer_class(int | None, 5), None).answer is None


@pytest.mark.parametrize("blank", ["", None], ids=["empty text", "null"])
def test_blank_required_field_is_an_invalid_answer(blank: str | None) -> None:
    """A missing required value is never replaced."""
    with pytest.raises(ResponseSchemaError):
        settled(answer_class(int), blank)


def test_default_lists_are_not_shared() -> None:
    """Two blank answers get separate lists."""
    schema = answer_class(list[str], Field(default_factory=list))
    assert settled(schema, "").answer is not settled(schema, "").answer


@given(st.text())
def test_text_for_a_text_field_is_kept_as_text(text: str) -> None:
    """A comment that looks like JSON, a number or an option stays a comment."""
    assert read_back(str, text) == text


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (bool, True),
        (int, 2),
        (float, 0.5),
        (Literal[1, 2], 2),
        (Literal["2", 1], "2"),
        (Size, 2),
        (list[Size], [1, 2]),
        (list[str], ["[1]", "2"]),
        (dict[str, int], {"a": 1}),
        (Inner, {"why": "[]"}),
        (list[str] | None, None),
        (list[int], "not JSON"),
        (Literal[1, 2], "3"),
        (list[int], "[" * 100_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_values_of_the_right_type_are_unchanged(annotation: Any, value: Any) -> None:
    """Answers given through the API are not changed, and unreadable values are left for `settle` to refuse."""
    got = read_back(annotation, value)
    assert got == value
    assert type(got) is type(value)


def test_reading_does_not_change_the_response() -> None:
    """An answer can be read twice, and fields that the class does not know are passed on."""
    response = {"answer": "[1]", "other": "[2]"}
    assert answer_from_form(response, answer_class(list[int])) == {"answer": [1], "other": "[2]"}
    assert response == {"answer": "[1]", "other": "[2]"}


def test_fields_are_read_once_for_a_class() -> None:
    """A response class is read once per process, not for every workflow."""
    schema = answer_class(Size)
    assert fields(schema) is fields(schema)


def test_schema_is_made_once_for_a_class() -> None:
    """The JSON Schema is expensive, so only the first question creates it."""
    made: list[str] = []

    class Counted(BaseModel):
        model_config = ConfigDict(json_schema_extra=lambda schema: made.append(str(schema["title"])))
        answer: bool

    assert json_schema(Counted) == json_schema(Counted)
    assert made == ["Counted"]


class Parent(BaseModel):
    approved: bool


@dataclass
class ParentRecord:
    approved: bool


@pytest.mark.parametrize("parent", [Parent, ParentRecord], ids=["model", "dataclass"])
def test_subclass_has_its_own_form(parent: type[Any]) -> None:
    """A form that is cached on a parent is not used for the child, whichever is read first."""
    form_definition(parent)
    json_schema(parent)
    child: Any = type("Child", (parent,), {"__annotations__": {"reason": str}, "__module__": __name__})
    child = child if issubclass(child, BaseModel) else dataclass(child)
    assert [shown["name"] for shown in form_definition(child)["fields"]] == ["approved", "reason"]
    assert list(json_schema(child)["properties"]) == ["approved", "reason"]


def test_cache_on_a_class_is_invisible() -> None:
    """The cached form changes neither the fields nor the instances nor the schema of the class."""
    schema = answer_class(bool)
    before = schema.model_json_schema()
    form_definition(schema)
    json_schema(schema)
    assert schema.model_json_schema() == before
    assert schema(answer=True).model_dump() == {"answer": True}
    assert json.loads(json.dumps(form_definition(schema))) == form_definition(schema)


def twin(description: str = "How much?", most: int = 10, says: str = "", extra: Any = None) -> Any:
    """Return a class made again from the same source, as a workflow sandbox does for every run."""

    class Inner(BaseModel):
        __doc__ = says
        model_config = ConfigDict(json_schema_extra=extra)
        limit: int = Field(default=most, description=description)

    class Outer(BaseModel):
        inner: Inner
        other: Inner | None = None

    return Outer


def test_identical_classes_share_a_schema() -> None:
    """The schema is made once for all classes of the same source, and again for every other class."""
    first, same, *others = twin(), twin(), twin("How many?"), twin(most=11)
    assert first is not same
    assert json_schema(first)["$defs"] is json_schema(same)["$defs"]
    schemas = [json_schema(kind) for kind in (first, *others)]
    assert [found["$defs"]["Inner"]["properties"]["limit"] for found in schemas] == [
        {"default": 10, "description": "How much?", "type": "integer"},
        {"default": 10, "description": "How many?", "type": "integer"},
        {"default": 11, "description": "How much?", "type": "integer"},
    ]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ([{"says": "Of a day."}, {"says": "Of a week."}], "description"),
        ([{"extra": {"unit": "day"}}, {"extra": {"unit": "week"}}], "unit"),
    ],
    ids=["docstring", "settings"],
)
def test_classes_with_other_docstring_or_settings_share_no_schema(said: list[dict[str, Any]], name: str) -> None:
    """A nested class's docstring and settings are shown to the reviewer."""
    schemas = [json_schema(twin(**each))["$defs"]["Inner"] for each in said]
    assert len({found[name] for found in schemas}) == 2


def hooked(unit: str) -> Any:
    class Limit(BaseModel):
        limit: int

        @classmethod
        def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
            return {**handler.resolve_ref_schema(handler(schema)), "unit": unit}

    return Limit


def test_classes_with_a_schema_hook_share_no_schema() -> None:
    """A hook decides the schema, and pydantic identifies the hook only by its name."""
    assert [json_schema(hooked(unit))["unit"] for unit in ("day", "week")] == ["day", "week"]


@pytest.mark.parametrize("extra", [{"units": {"day", "week"}}, {"units": object()}], ids=["set", "object"])
def test_schema_addition_that_is_not_json_is_refused(extra: Any) -> None:
    """The server would not understand it, or differently from run to run."""
    with pytest.raises(InvalidTaskError, match="Outer"):
        json_schema(twin(extra=extra))
