"""Explicit consent: a default of True is never taken for an answer, whatever the field's type or position."""

import dataclasses
import enum
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired

import pydantic.dataclasses
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    RootModel,
    StrictBool,
    WithJsonSchema,
    create_model,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypeAliasType, TypedDict, TypeVar

from awaithumans_core import HumanTask, InvalidTaskError, Outcome, ResponseSchemaError, settle
from awaithumans_core.json_values import holds_yes, json_object
from awaithumans_core.schema.explicit_yes import VALUE_KEYS  # pyright: ignore[reportPrivateUsage]

Yes = TypeAliasType("Yes", bool)
Noted = TypeAliasType("Noted", Annotated[bool, "a note"])
New = NewType("New", bool)
Item = TypeVar("Item")
Either = TypeAliasType("Either", Item | None, type_params=(Item,))
Constant = TypeAliasType("Constant", Literal[True, False])


class Choice(enum.Enum):
    YES = True
    NO = False


class Inner(BaseModel):
    ok: Yes = True
    note: str = ""


@dataclasses.dataclass
class Record:
    note: str = ""
    ok: Yes = True


@pydantic.dataclasses.dataclass
class CheckedRecord:
    ok: Yes = True


class Pair(NamedTuple):
    number: int = 0
    ok: Yes = True


class Root(RootModel[bool]):
    root: bool = True


class Box(BaseModel, Generic[Item]):
    ok: Item


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    ok: bool = True


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Kind(NamedTuple):
    """A type of field, a default that is a yes, and the JSON of a yes and of a no."""

    annotation: Any
    default: Any
    yes: Any = True
    no: Any = False
    hollow: tuple[Any, str] | None = None
    """An answer that omits the inner field, and the path of that field."""
    null: bool = False
    """Whether null is an allowed answer."""


KINDS = {
    "bool": Kind(bool, True),
    "StrictBool": Kind(StrictBool, True),
    "alias": Kind(Yes, True),
    "alias of Annotated": Kind(Noted, True),
    "alias or None": Kind(Yes | None, True, null=True),
    "bool or None": Kind(bool | None, True, null=True),
    "generic alias": Kind(Either[bool], True, null=True),
    "NewType": Kind(New, True),
    "Literal": Kind(Literal[True, False], True),
    "alias of Literal": Kind(Constant, True),
    "only True": Kind(Literal[True] | None, True, no=None, null=True),
    "bool or text": Kind(bool | str, True),
    "Enum": Kind(Choice, Choice.YES),
    "anything": Kind(Any, True),
    "read as True": Kind(bool, 1),
    "class": Kind(Inner, Inner(), {"ok": True}, {"ok": False}, ({}, "ok")),
    "class or None": Kind(Inner | None, Inner(), {"ok": True}, {"ok": False}, ({}, "ok"), null=True),
    "dataclass": Kind(Record, Record(), {"ok": True}, {"ok": False}, ({}, "ok")),
    "pydantic dataclass": Kind(CheckedRecord, CheckedRecord(), {"ok": True}, {"ok": False}, ({}, "ok")),
    "generic class": Kind(Box[Yes], Box(ok=True), {"ok": True}, {"ok": False}),
    "root model": Kind(Root, Root()),
    "NamedTuple": Kind(Pair, Pair(), [1, True], [1, False], ([1], "1")),
    "list": Kind(list[Inner], [Inner()], [{"ok": True}], [{"ok": False}], ([{"ok": False}, {}], "1.ok")),
    "tuple": Kind(tuple[int, Yes], (1, True), [1, True], [1, False]),
    "dict": Kind(dict[str, Inner], {"a": Inner()}, {"a": {"ok": True}}, {"a": {"ok": False}}, ({"b": {}}, "b.ok")),
    "dict of bools": Kind(dict[str, bool], {"a": True}, {"a": True}, {"a": False}),
    "union of classes": Kind(Inner | Record, Inner(), {"ok": True}, {"ok": False}),
    "tagged union": Kind(
        Pet, Cat(), {"kind": "cat", "ok": True}, {"kind": "cat", "ok": False}, ({"kind": "cat"}, "cat.ok")
    ),
}
if sys.version_info >= (3, 12):
    statement: dict[str, Any] = {}
    exec("type Yes = bool", statement)  # noqa: S102 - no syntax of Python 3.11
    KINDS["type statement"] = Kind(statement["Yes"], True)


def a_model(annotation: Any, default: Any) -> Any:
    return create_model("Answer", answer=(annotation, default))


def a_model_by_factory(annotation: Any, default: Any) -> Any:
    return create_model("Answer", answer=(annotation, Field(default_factory=lambda: default)))


def a_dataclass(annotation: Any, default: Any) -> Any:
    return dataclasses.make_dataclass(
        "Answer", [("answer", annotation, dataclasses.field(default_factory=lambda: default))]
    )


def a_typed_dict(annotation: Any, default: Any) -> Any:
    class Answer(TypedDict):
        answer: NotRequired[Annotated[annotation, Field(default=default)]]

    return Answer


MAKERS = {
    "model": a_model,
    "model with factory": a_model_by_factory,
    "dataclass": a_dataclass,
    "TypedDict": a_typed_dict,
}

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
every_class = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
Make = Callable[[Any, Any], Any]


def settled(schema: Any, response: dict[str, Any]) -> Any:
    """Ask the question and settle this answer."""
    HumanTask(task="Approve?", response_schema=schema)
    return settle(Outcome(task_id="task-1", status="completed", response=response), schema)


def plain(answer: Any) -> dict[str, Any]:
    """Return the JSON form of a settled answer."""
    return json_object(answer, "answer")


def problems(schema: Any, response: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ResponseSchemaError) as raised:
        settled(schema, response)
    return raised.value.problems


@every_class
@every_kind
def test_omitted_field_is_not_a_yes(make: Make, kind: Kind) -> None:
    """The default is not the answer; the field is reported as missing so that the person can be asked again."""
    assert problems(make(kind.annotation, kind.default), {}) == ("answer: Field required",)


@every_class
@every_kind
def test_error_explains_why_a_field_with_default_is_required(make: Make, kind: Kind) -> None:
    """The remark about the default appears only for a field that is missing because of it."""
    schema = make(kind.annotation, kind.default)
    with pytest.raises(ResponseSchemaError, match="a default that is True counts only if the answer contains it"):
        settled(schema, {})
    with pytest.raises(ResponseSchemaError) as raised:
        settled(schema, {"answer": {"no": {"such": "value"}}, "unknown": 1})
    assert "a default that is True" not in str(raised.value)


@every_class
@every_kind
def test_null_is_not_a_yes(make: Make, kind: Kind) -> None:
    """Null stays null if the type allows it, and otherwise counts as omitted."""
    schema = make(kind.annotation, kind.default)
    if kind.null:
        assert plain(settled(schema, {"answer": None})) == {"answer": None}
    else:
        (problem,) = problems(schema, {"answer": None})
        assert problem.startswith("answer: ")


@every_class
@every_kind
def test_explicit_yes_is_a_yes(make: Make, kind: Kind) -> None:
    """A person's own yes is returned."""
    answer = plain(settled(make(kind.annotation, kind.default), {"answer": kind.yes}))
    assert holds_yes(answer)
    assert holds_yes(kind.yes)


@every_class
@every_kind
def test_explicit_no_is_a_no(make: Make, kind: Kind) -> None:
    """A person's own no is returned."""
    assert not holds_yes(plain(settled(make(kind.annotation, kind.default), {"answer": kind.no})))


@every_class
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS.values() if kind.hollow], ids=[name for name, kind in KINDS.items() if kind.hollow]
)
def test_omitted_inner_field_is_not_a_yes(make: Make, kind: Kind) -> None:
    """An object without its switch is not a yes, whether the object is required or not."""
    assert kind.hollow is not None
    hollow, path = kind.hollow
    for schema in (make(kind.annotation, kind.default), create_model("Answer", answer=(kind.annotation, ...))):
        assert problems(schema, {"answer": hollow}) == (f"answer.{path}: Field required",)


@every_class
def test_text_for_bool_or_str_is_the_persons_own(make: Make) -> None:
    """Text that a person enters for `bool | str` is kept."""
    schema = make(bool | str, True)
    typed = {"true": True, "false": False, "no": "no"}
    assert {text: plain(settled(schema, {"answer": text}))["answer"] for text in typed} == typed
    assert problems(schema, {"answer": ""}) == ("answer: Field required",)


def test_recursive_class_requires_its_fields_at_each_level() -> None:
    """A recursive class is accepted."""

    class Node(BaseModel):
        ok: Yes = True
        next: "Node | None" = None
        more: list["Node"] = []

    answer = {"ok": False, "next": {"ok": True, "more": [{"ok": False}, {"next": {}}]}}
    assert problems(Node, answer) == ("next.more.1.ok: Field required", "next.more.1.next.ok: Field required")
    assert settled(Node, {"ok": True, "next": {"ok": False}}).next == Node(ok=False)


def test_inherited_switch_is_required() -> None:
    """A subclass has its parent's fields and its own reader of answers."""

    class Child(Inner):
        more: int = 0

    assert problems(Child, {}) == ("ok: Field required",)
    assert settled(Inner, {"ok": True}) == Inner()
    assert settled(Child, {"ok": False}) == Child(ok=False)


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True)
    is_approved: Yes = True


class Aliased(BaseModel):
    ok: Yes = Field(True, validation_alias="isApproved")


@pytest.mark.parametrize("schema", [Camel, Aliased], ids=["generator", "validation alias"])
def test_missing_field_is_named_by_its_alias(schema: Any) -> None:
    """A person is asked again for the field under the name in the form."""
    assert problems(schema, {}) == ("isApproved: Field required",)
    assert holds_yes(plain(settled(schema, {"isApproved": True})))


def test_field_may_be_given_by_name_or_alias() -> None:
    """If a class reads a field under two names, both are accepted."""
    assert settled(Camel, {"is_approved": True}).is_approved is True


def test_constructor_parameters_are_treated_like_fields() -> None:
    """pydantic reads some classes by their constructor's parameters, such as NamedTuples in release 2.13."""

    class Called:
        def __init__(self, number: int, ok: bool) -> None:  # noqa: FBT001 - as an answer gives it
            self.ok = ok

        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
            defaults = {"number": (core_schema.int_schema(), 0), "ok": (core_schema.bool_schema(), True)}
            parameters = [
                core_schema.arguments_parameter(name, core_schema.with_default_schema(kind, default=default))
                for name, (kind, default) in defaults.items()
            ]
            return core_schema.call_schema(core_schema.arguments_schema(parameters), cls)

    schema = a_model(Annotated[Called, WithJsonSchema({})], ...)
    assert problems(schema, {"answer": {"number": 1}}) == ("ok: Field required",)
    assert settled(schema, {"answer": {"ok": True}}).answer.ok is True
    assert settled(schema, {"answer": {"ok": False}}).answer.ok is False


def test_default_that_validates_to_true_is_a_yes() -> None:
    """A default in another form counts as a yes if validation turns it into True."""

    class Answer(BaseModel):
        model_config = ConfigDict(validate_default=True)
        ok: bool = "yes"  # type: ignore[assignment]  # that is the point
        inner: Inner = {"note": "x"}  # type: ignore[assignment]

    assert problems(Answer, {}) == ("ok: Field required", "inner: Field required")


@pytest.mark.parametrize("default", [1, 1.0, "no"])
@pytest.mark.parametrize("kind", [bool, StrictBool, bool | None, Yes])
def test_truthy_default_of_a_bool_field_is_a_yes(kind: Any, default: Any) -> None:
    """pydantic keeps such a default unchanged, and `if answer.ok` would treat it as a yes."""
    schema = create_model("Answer", ok=(kind, default))
    assert problems(schema, {}) == ("ok: Field required",)
    assert settled(schema, {"ok": False}).ok is False


def test_default_derived_from_other_answers_is_not_a_yes() -> None:
    """A factory that derives a yes from another answer is treated as an omitted field."""
    schema = create_model(
        "Answer", approved=(bool, ...), sure=(bool, Field(default_factory=lambda answers: answers["approved"]))
    )
    assert problems(schema, {"approved": True}) == ("sure: Field required",)
    assert settled(schema, {"approved": False}).sure is False
    assert settled(schema, {"approved": True, "sure": True}).sure is True


def test_changing_default_is_not_a_yes() -> None:
    """A factory may return a no when the class is read and a yes later."""
    given = [False]
    schema = create_model(
        "Answer", inner=(create_model("Inner", ok=(bool, Field(default_factory=lambda: given[0]))), ...)
    )
    assert settled(schema, {"inner": {}}).inner.ok is False
    given[0] = True
    assert problems(schema, {"inner": {}}) == ("ok: Field required",)


def test_defaults_other_than_yes_apply() -> None:
    """Only a yes must be in the answer, and other omitted fields get the class's defaults."""

    class Answer(BaseModel):
        ok: bool
        off: bool = False
        count: int = 1
        size: Literal["small", "large"] = "small"
        inner: Inner = Inner(ok=False)
        tags: list[str] = Field(default_factory=list)

    assert settled(Answer, {"ok": True}) == Answer(ok=True)


def test_optional_typed_dict_key_stays_absent() -> None:
    """A TypedDict key without a default has no value if it is omitted, and so no yes."""

    class Answer(TypedDict):
        ok: NotRequired[Yes]

    assert settled(Answer, {}) == {}


def test_deferred_class_is_treated_alike() -> None:
    """`defer_build` leaves the schema of a class to its first use."""

    class Late(BaseModel):
        model_config = ConfigDict(defer_build=True)
        inner: Inner
        ok: bool = True

    assert problems(Late, {"inner": {}}) == ("inner.ok: Field required", "ok: Field required")


def test_config_of_a_class_is_kept() -> None:
    """Answers of a class with a default yes are read by the class's own configuration."""

    class Answer(BaseModel):
        model_config = ConfigDict(strict=True, frozen=True)
        ok: bool = True
        number: int = 0

        @model_validator(mode="after")
        def fits(self) -> "Answer":
            if self.number < 0:
                raise ValueError("no debts")
            return self

    assert problems(Answer, {"ok": "true"}) == ("ok: Input should be a valid boolean",)
    assert problems(Answer, {"ok": True, "number": -1}) == ("response: Value error, no debts",)
    assert problems(Answer, {"ok": True, "other": 1}) == ("other: Extra inputs are not permitted",)
    answer = settled(Answer, {"ok": True})
    assert type(answer) is Answer
    assert answer.model_fields_set == {"ok"}


def unreachable() -> dict[str, Any]:
    class OwnInit(BaseModel):
        ok: bool = True

        def __init__(self, **given: Any) -> None:
            super().__init__(**given)

    @dataclasses.dataclass
    class NotInInit:
        ok: bool = dataclasses.field(default=True, init=False)

    class OwnDefault(BaseModel):
        ok: bool

        def __init__(self, ok: bool = True, **given: Any) -> None:  # noqa: FBT001, FBT002
            super().__init__(ok=ok, **given)

    class Recursive(BaseModel):
        below: "Recursive | None" = None
        own: OwnInit | None = None

    class Around(BaseModel):
        inner: list[Recursive]

        def __init__(self, **given: Any) -> None:
            super().__init__(**given)

    return {
        "own default": OwnDefault,
        "own init": create_model("Answer", inner=(OwnInit, ...)),
        "not in init": create_model("Answer", inner=(list[NotInInit], ...)),
        "recursive": Recursive,
        "own init around it": Around,
    }


@pytest.mark.parametrize("schema", unreachable().values(), ids=unreachable())
def test_yes_that_no_answer_can_replace_is_refused(schema: Any) -> None:
    """If the class reads answers in its own way, the question is refused and the field is named."""
    with pytest.raises(InvalidTaskError, match="'ok' that is True by default"):
        HumanTask(task="Approve?", response_schema=schema)


def test_custom_init_without_a_yes_is_accepted() -> None:
    """A class with its own `__init__` and no default yes reads its answers itself."""

    class Answer(BaseModel):
        ok: bool
        off: bool = False
        tags: list[str] = Field(default_factory=list)

        def __init__(self, **given: Any) -> None:
            super().__init__(**{name: value for name, value in given.items() if value != "?"})

    assert settled(Answer, {"ok": True, "off": "?"}) == Answer(ok=True)
    assert problems(Answer, {}) == ("ok: Field required",)


def test_json_input_with_an_inner_yes_is_required() -> None:
    """The form shows no default of a JSON input, so it may not stay blank; a switch starts at its default."""
    shown = {
        name: HumanTask(task="Approve?", response_schema=a_model(kind, default)).body()["form_definition"]["fields"][0]
        for name, (kind, default) in {
            "box": (Inner, Inner()),
            "blank box": (Inner, Inner(ok=False)),
            "switch": (Yes, True),
        }.items()
    }
    assert {name: field["required"] for name, field in shown.items()} == {
        "box": True,
        "blank box": False,
        "switch": False,
    }
    assert shown["switch"]["default"] is True


def parts_of_core_schemas() -> Iterator[tuple[str, str]]:
    """Return the parts of pydantic's core schemas that contain schemas, as (kind of schema, name of part)."""
    for name, kind in inspect.getmembers(core_schema, inspect.isclass):
        for part, annotation in getattr(kind, "__annotations__", {}).items():
            text = getattr(annotation, "__forward_arg__", str(annotation))
            if "CoreSchema" in text:
                yield name, part


def test_every_part_of_a_core_schema_is_searched() -> None:
    """In this release of pydantic, parts that are not searched contain no validating schemas."""
    found = set(parts_of_core_schemas())
    assert ("WithDefaultSchema", "schema") in found
    assert {part for _, part in found} & VALUE_KEYS == set()


def test_value_set_by_a_validator_is_kept() -> None:
    """A decision made by the class's own code is outside of this rule, as documented."""

    def always(_: Any) -> bool:
        return True

    schema = a_model(Annotated[bool, BeforeValidator(always), WithJsonSchema({})], ...)
    assert settled(schema, {"answer": None}).answer is True


class Drawn(NamedTuple):
    """A type of field and a yes of it."""

    annotation: Any
    yes: Any


NAMES = ("a", "b")
SWITCHES = [
    Drawn(kind, Choice.YES if kind is Choice else True)
    for kind in (bool, Yes, Noted, New, StrictBool, Literal[True, False], Choice, bool | str, Any)
]


def drawn_class(make: Callable[[dict[str, tuple[Any, Any]]], Any], kinds: list[tuple[Drawn, bool]]) -> Drawn:
    """Draw a class with fields of these types, some of which default to a yes."""
    fields = dict(zip(NAMES, kinds, strict=False))
    cls = make({name: (kind.annotation, kind.yes if given else ...) for name, (kind, given) in fields.items()})
    return Drawn(cls, cls(**{name: kind.yes for name, (kind, _) in fields.items()}))


def drawn_model(fields: dict[str, tuple[Any, Any]]) -> Any:
    return create_model("Model", **fields)  # type: ignore[call-overload]  # made at run time


def drawn_dataclass(fields: dict[str, tuple[Any, Any]]) -> Any:
    required = [(name, kind) for name, (kind, yes) in fields.items() if yes is ...]
    optional = [
        (name, kind, dataclasses.field(default_factory=lambda yes=yes: yes))  # type: ignore[misc]  # as above
        for name, (kind, yes) in fields.items()
        if yes is not ...
    ]
    return dataclasses.make_dataclass("Record", [*required, *optional])


def classes(kinds: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    fields = st.lists(st.tuples(kinds, st.booleans()), min_size=1, max_size=2)
    return st.builds(drawn_class, st.sampled_from([drawn_model, drawn_dataclass]), fields)


def parametrized(generic: Any, *parameters: Any) -> Any:
    return generic[parameters]


def containers(kinds: st.SearchStrategy[Drawn]) -> st.SearchStrategy[Drawn]:
    return st.one_of(
        kinds.map(lambda kind: Drawn(parametrized(list, kind.annotation), [kind.yes])),
        kinds.map(lambda kind: Drawn(parametrized(dict, str, kind.annotation), {"a": kind.yes})),
        kinds.map(lambda kind: Drawn(parametrized(tuple, kind.annotation, ...), (kind.yes,))),
        kinds.map(lambda kind: Drawn(kind.annotation | None, kind.yes)),
        kinds.map(lambda kind: Drawn(TypeAliasType("Named", kind.annotation), kind.yes)),
        classes(kinds),
    )


response_classes = classes(st.recursive(st.sampled_from(SWITCHES), containers, max_leaves=6))
without_yes = st.recursive(
    st.sampled_from([None, False, "", "no", 0]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(response_classes, st.lists(st.dictionaries(st.sampled_from(NAMES), without_yes, max_size=2), max_size=8))
def test_no_class_turns_an_answer_without_yes_into_one(drawn: Drawn, responses: list[dict[str, Any]]) -> None:
    """For every class and every omitted field, an answer without True never yields True."""
    for response in ({}, *responses):
        try:
            answer = settled(drawn.annotation, response)
        except ResponseSchemaError:
            continue
        assert not holds_yes(answer)
