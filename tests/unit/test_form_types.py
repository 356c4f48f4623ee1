"""Each type of a response class, the real way: the form, what the dashboard submits for it, and the typed answer."""

import dataclasses
import enum
import ipaddress
import json
import pathlib
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType

import pytest
from awaithumans.forms import (  # type: ignore[import-untyped]
    FormDefinition,
    datetime_picker,
    file_upload,
    long_text,
    password,
    section,
    signature,
    star_rating,
    switch,
)
from awaithumans.forms import currency as sdk_currency
from pydantic import (
    AnyUrl,
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    EmailStr,
    Field,
    FutureDate,
    FutureDatetime,
    HttpUrl,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    Secret,
    SecretBytes,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    create_model,
)
from typing_extensions import TypeAliasType, TypedDict

from awaithumans_core import HumanTask, InvalidTaskError, Outcome, ResponseSchemaError, settle
from awaithumans_core.form import answer_from_form, currency, form_definition, time_zone
from awaithumans_core.form.inputs import _BASES, _TYPES  # pyright: ignore[reportPrivateUsage]
from awaithumans_core.json_values import holds_yes
from tests.support.dashboard import Dashboard, uploaded

pytestmark = pytest.mark.filterwarnings(
    "ignore:The `__get_pydantic_core_schema__` method"  # the markers of the SDK are models, whose hook is deprecated
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Address(BaseModel):
    city: str
    street: str = ""


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
Amount = TypeAliasType("Amount", Annotated[Decimal, currency("EUR")])
Code = NewType("Code", str)
REFUSED = object()
UNIQUE = "123e4567-e89b-42d3-a456-426614174000"


class Row(NamedTuple):
    """A type, what a person enters for it, and what the caller gets."""

    annotation: Any
    kind: str
    entered: Any
    answer: Any
    wrong: Sequence[Any] = ()
    """What a person may enter by mistake. Empty: the input allows no mistake."""
    blank: Any = REFUSED
    """What the caller gets for an input that is left alone."""
    hint: str | None = None


NUMBERS = ("one", "NaN", "Infinity", "1,2,3", "1 23")
TABLE: dict[str, Row] = {
    "bool": Row(bool, "switch", True, True),
    "int": Row(int, "short_text", "1 234", 1234, (*NUMBERS, "1,234", "1.234", "1.5"), hint="Whole number"),
    "float": Row(float, "short_text", "1,5", 1.5, (*NUMBERS, "1,234", "1e999"), hint="Number"),
    "Decimal": Row(Decimal, "short_text", "150,00", Decimal("150.00"), (*NUMBERS, "1,234"), hint="Number"),
    "money": Row(
        Annotated[Decimal, currency("EUR")],
        "short_text",
        "1 234,50",
        Decimal("1234.50"),
        (*NUMBERS, "1,234", "1.234", "5 USD"),
        hint="An amount, for instance 1234.50",
    ),
    "str": Row(str, "short_text", " as typed ", " as typed "),
    "EmailStr": Row(EmailStr, "short_text", "ann@example.com", "ann@example.com", ("ann",)),
    "HttpUrl": Row(HttpUrl, "short_text", "https://a.b/c", HttpUrl("https://a.b/c"), ("ftp://a.b", "a")),
    "AnyUrl": Row(AnyUrl, "short_text", "redis://a/1", AnyUrl("redis://a/1"), ("a",)),
    "UUID": Row(uuid.UUID, "short_text", f" {UNIQUE} ", uuid.UUID(UNIQUE), ("123",)),
    "Path": Row(pathlib.PurePosixPath, "short_text", "a/b", pathlib.PurePosixPath("a/b")),
    "IPv4Address": Row(ipaddress.IPv4Address, "short_text", "10.0.0.1", ipaddress.IPv4Address("10.0.0.1"), ("10",)),
    "IPv6Address": Row(ipaddress.IPv6Address, "short_text", "::1", ipaddress.IPv6Address("::1"), ("10",)),
    "IPv4Network": Row(ipaddress.IPv4Network, "short_text", "10.0.0.0/8", ipaddress.IPv4Network("10.0.0.0/8"), ("x",)),
    "IPv6Network": Row(ipaddress.IPv6Network, "short_text", "::/8", ipaddress.IPv6Network("::/8"), ("x",)),
    "bytes": Row(
        bytes, "long_text", "AP/-_w", b"\x00\xff\xfe\xff", ("no base64!", "a"), hint="Base64, for instance aGVsbG8="
    ),
    "Base64Bytes": Row(Base64Bytes, "long_text", "aGVsbG8=", b"hello", ("a",), hint="Base64, for instance aGVsbG8="),
    "date": Row(date, "date", "2026-03-04", date(2026, 3, 4)),
    "PastDate": Row(PastDate, "date", "2020-01-01", date(2020, 1, 1), ("2999-01-01",)),
    "FutureDate": Row(FutureDate, "date", "2999-01-01", date(2999, 1, 1), ("2020-01-01",)),
    "time": Row(time, "time", "05:06", time(5, 6)),
    "datetime, naive": Row(datetime, "datetime", "2026-03-04T05:06", datetime(2026, 3, 4, 5, 6)),
    "NaiveDatetime": Row(NaiveDatetime, "datetime", "2026-03-04T05:06", datetime(2026, 3, 4, 5, 6)),
    "PastDatetime": Row(
        PastDatetime, "datetime", "2020-03-04T05:06", datetime(2020, 3, 4, 5, 6), ("2999-01-01T00:00",)
    ),
    "FutureDatetime": Row(
        FutureDatetime, "datetime", "2999-03-04T05:06", datetime(2999, 3, 4, 5, 6), ("2020-01-01T00:00",)
    ),
    "datetime, zoned": Row(AwareDatetime, "datetime", "2026-03-04T05:06", datetime(2026, 3, 4, 5, 6, tzinfo=UTC)),
    "datetime, in a zone": Row(
        Annotated[datetime, time_zone("Europe/Berlin")],
        "datetime",
        "2026-03-04T05:06",
        datetime(2026, 3, 4, 4, 6, tzinfo=UTC),
        ("2026-03-29T02:30", "2026-10-25T02:30"),
    ),
    "timedelta": Row(timedelta, "short_text", "01:30:00", timedelta(hours=1, minutes=30), ("soon",)),
    "Literal": Row(Literal["a", 2], "single_select", "2", 2),
    "Literal of one text in two types": Row(Literal["2", 2], "single_select", "2", 2),
    "Enum": Row(Colour, "single_select", "red", Colour.RED),
    "IntEnum": Row(Level, "single_select", "2", Level.HIGH),
    "bool|None": Row(bool | None, "switch", False, False, blank=None),
    "int|None": Row(int | None, "short_text", "5", 5, NUMBERS, blank=None),
    "str|None": Row(str | None, "short_text", "a", "a", blank=None),
    "Decimal|None": Row(Decimal | None, "short_text", "5", Decimal(5), NUMBERS, blank=None),
    "Literal with None": Row(Literal["a", "b", None], "single_select", "a", "a", blank=None),  # noqa: PYI061
    "list[str]": Row(list[str], "long_text", "a\n\nb, c \r\n[d]", ["a", "b, c", "[d]"], hint="One per line"),
    "list[str] as JSON": Row(list[str], "long_text", '["a\\nb", "c"]', ["a\nb", "c"]),
    "list[int]": Row(list[int], "long_text", "1\n2 000", [1, 2000], ("1\n2,000", "a", "[1.5]")),
    "list[int] as JSON": Row(list[int], "long_text", "[1, 2]", [1, 2], ("[1, 2",)),
    "list[float]": Row(list[float], "long_text", "1.5\n2,5", [1.5, 2.5], ("1\nx",)),
    "list[Decimal]": Row(list[Decimal], "long_text", "1.50\n2,50", [Decimal("1.50"), Decimal("2.50")], ("1\nx",)),
    "list of money": Row(list[Amount], "long_text", "1.50\n2,50 EUR", [Decimal("1.50"), Decimal("2.50")], ("1,234",)),
    "list[date]": Row(list[date], "long_text", "2026-01-31\n2026-02-01", [date(2026, 1, 31), date(2026, 2, 1)], ("x",)),
    "list[UUID]": Row(list[uuid.UUID], "long_text", UNIQUE, [uuid.UUID(UNIQUE)], ("x",)),
    "list[Enum]": Row(list[Colour], "multi_select", ["red"], [Colour.RED], blank=[]),
    "set[Enum]": Row(set[Colour], "multi_select", ["red", "blue"], {Colour.RED, Colour.BLUE}, blank=set()),
    "frozenset[Enum]": Row(frozenset[Level], "multi_select", ["2"], frozenset({Level.HIGH}), blank=frozenset()),
    "tuple[Enum, ...]": Row(tuple[Colour, ...], "multi_select", ["blue"], (Colour.BLUE,), blank=()),
    "set[str]": Row(set[str], "long_text", "a\nb", {"a", "b"}),
    "frozenset[int]": Row(frozenset[int], "long_text", "1\n2", frozenset({1, 2}), ("x",)),
    "tuple[str, ...]": Row(tuple[str, ...], "long_text", "a\nb", ("a", "b")),
    "tuple": Row(tuple[int, str], "long_text", '[1, "a"]', (1, "a"), ("1, a", "[1]")),
    "nested model": Row(Address, "long_text", '{"city": "Paris"}', Address(city="Paris"), ("Paris", "{}")),
    "list[Model]": Row(list[Address], "long_text", '[{"city": "Paris"}]', [Address(city="Paris")], ("Paris", "[1]")),
    "dict": Row(dict[str, int], "long_text", '{"a": 1}', {"a": 1}, ("a: 1", '{"a": NaN}', '{"a": 1e999}')),
    "discriminated union": Row(
        Pet,
        "long_text",
        '{"kind": "cat", "lives": 9}',
        Cat(kind="cat", lives=9),
        ('{"kind": "cow"}', "cat"),
        hint='JSON, for instance {"kind": "cat", "lives": 1} or {"kind": "dog", "name": "text"}',
    ),
    "type alias": Row(Amount, "short_text", "5,00", Decimal("5.00"), ("1.234",)),
    "NewType": Row(Code, "short_text", "007", "007"),
    "constrained int": Row(
        Annotated[int, Field(ge=1, le=10)], "short_text", "10", 10, ("0", "11"), hint="Whole number, 1 to 10"
    ),
    "constrained float": Row(
        Annotated[float, Field(gt=0, lt=1, multiple_of=0.5)],
        "short_text",
        "0,5",
        0.5,
        ("0", "0.3"),
        hint="Number, more than 0, less than 1, a multiple of 0.5",
    ),
    "constrained Decimal": Row(
        Annotated[Decimal, Field(ge=1, decimal_places=2)],
        "short_text",
        "1.50",
        Decimal("1.50"),
        ("0", "1.234"),
        hint="Number, at least 1, at most 2 decimal places",
    ),
    "constrained str": Row(
        Annotated[str, Field(min_length=2, max_length=5, pattern="^a")],
        "short_text",
        "abc",
        "abc",
        ("a", "abcdef", "bcd"),
        hint="2 to 5 characters, must match ^a",
    ),
    "long str": Row(
        Annotated[str, StringConstraints(max_length=201)],
        "long_text",
        "a\nb",
        "a\nb",
        ("a" * 202,),
        hint="At most 201 characters",
    ),
    "constrained list": Row(
        Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=2)],
        "long_text",
        "1\n2",
        [1, 2],
        ("0", "1\n2\n3"),
        hint="One per line, for instance 1234, 1 to 2 entries, each at least 1",
    ),
    "switch of the SDK": Row(Annotated[bool, switch(label="Go?", true_label="Go")], "switch", True, True),
    "long_text of the SDK": Row(Annotated[str, long_text(rows=9)], "long_text", "a\nb", "a\nb"),
    "currency of the SDK": Row(
        Annotated[Decimal, sdk_currency(currency_code="EUR")], "short_text", "150,00", Decimal("150.00"), ("1.234",)
    ),
    "datetime of the SDK": Row(
        Annotated[datetime, datetime_picker(timezone="Europe/Berlin")],
        "datetime",
        "2026-07-04T05:06",
        datetime(2026, 7, 4, 3, 6, tzinfo=UTC),
        ("2026-03-29T02:30",),
    ),
    "file upload of the SDK": Row(
        Annotated[bytes, file_upload()], "file_upload", uploaded(b"\x00\xff"), b"\x00\xff", blank=REFUSED
    ),
    "signature of the SDK": Row(Annotated[bytes, signature()], "signature", "data:image/png;base64,aGVsbG8=", b"hello"),
    "star rating of the SDK": Row(Annotated[int, star_rating(max=3)], "star_rating", 3, 3, blank=0),
}


def a_model(annotation: Any, *default: Any) -> Any:
    return create_model("Answer", value=(annotation, default[0] if default else ...))


def a_dataclass(annotation: Any, *default: Any) -> Any:
    return dataclasses.make_dataclass("Answer", [("value", annotation, *default)])


def a_typed_dict(annotation: Any) -> Any:
    class Answer(TypedDict):
        value: annotation

    return Answer


MAKERS: dict[str, Callable[..., Any]] = {"model": a_model, "dataclass": a_dataclass, "TypedDict": a_typed_dict}
every_row = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
every_class = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def submitted(schema: Any, **entered: Any) -> dict[str, Any]:
    """What the dashboard submits when a person enters this, and leaves the other inputs alone."""
    HumanTask(task="Which value?", response_schema=schema)
    form = form_definition(schema)
    FormDefinition.model_validate(form)
    page = Dashboard(form)
    for name, value in entered.items():
        page.enter(name, value)
    return json.loads(json.dumps(page.submit()))  # type: ignore[no-any-return]


def settled(schema: Any, response: dict[str, Any]) -> Any:
    return settle(Outcome(task_id="task-1", status="completed", response=response), schema)


def value_of(answer: Any) -> Any:
    return answer["value"] if isinstance(answer, dict) else answer.value


def only_field(schema: Any) -> dict[str, Any]:
    (only,) = form_definition(schema)["fields"]
    return dict(only)


def problems(schema: Any, response: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ResponseSchemaError) as raised:
        settled(schema, response)
    return raised.value.problems


COMMON = (
    *("bool", "int", "float", "Decimal", "str", "EmailStr", "HttpUrl", "UUID", "bytes", "date", "time", "timedelta"),
    *("Literal", "Enum", "bool|None", "int|None", "dict", "list[str]", "list[int]", "list[Enum]", "set[Enum]", "tuple"),
    *("datetime, zoned", "datetime, naive", "Literal with None", "nested model", "list[Model]", "discriminated union"),
    *("type alias", "NewType", "constrained int", "constrained str", "constrained float", "money"),
)
"""Types that response classes commonly have. `SecretStr` and classes without fields have tests of their own."""


def test_each_type_has_a_row() -> None:
    """A type that is in the table of inputs, or commonly used, is proved here."""
    assert set(COMMON) - set(TABLE) == set()
    shown = {row.annotation for row in TABLE.values() if isinstance(row.annotation, type)}
    assert set(_TYPES) - shown == set()
    for bases, _ in _BASES:
        assert any(issubclass(kind, bases) for kind in shown), bases


@every_class
@every_row
def test_what_is_entered_is_the_answer(make: Callable[[Any], Any], row: Row) -> None:
    """The caller gets the value that the person entered, in its type and to the last digit."""
    schema = make(row.annotation)
    assert only_field(schema)["kind"] == row.kind
    got = value_of(settled(schema, submitted(schema, value=row.entered)))
    assert got == row.answer
    assert type(got) is type(row.answer)
    if not isinstance(got, datetime | set | frozenset):
        assert str(got) == str(row.answer)


@every_class
@every_row
def test_blank_input_is_not_made_up(make: Callable[[Any], Any], row: Row) -> None:
    """An input that is left alone is no value, unless blank is one: None where the type has it."""
    schema = make(row.annotation)
    response = submitted(schema)
    if row.blank is REFUSED:
        (problem,) = problems(schema, response)
        assert problem.startswith("value")
    else:
        assert value_of(settled(schema, response)) == row.blank


@every_class
@pytest.mark.parametrize(
    ("row", "wrong"),
    [pytest.param(row, wrong, id=f"{name}-{wrong[:12]}") for name, row in TABLE.items() for wrong in row.wrong],
)
def test_wrong_input_is_refused(make: Callable[[Any], Any], row: Row, wrong: Any) -> None:
    """What cannot be read, or has two readings, is refused; the problem names the field and not the value."""
    schema = make(row.annotation)
    for problem in problems(schema, submitted(schema, value=wrong)):
        assert problem.startswith("value")
    assert value_of_text(schema, wrong) in (wrong, REFUSED) or row.annotation is not str


def value_of_text(schema: Any, text: Any) -> Any:
    return answer_from_form({"value": text}, schema).get("value", REFUSED)


@pytest.mark.parametrize(
    "row", [row for row in TABLE.values() if row.hint], ids=[n for n, r in TABLE.items() if r.hint]
)
def test_hint_says_what_to_write(row: Row) -> None:
    """The way a value is written and its bounds are in the hint."""
    assert only_field(a_model(row.annotation))["hint"] == row.hint


@every_row
def test_example_of_a_structure_is_an_answer_without_a_yes(row: Row) -> None:
    """The examples in the hint of a JSON box fit the type, and submitting one does not say yes."""
    shown = only_field(a_model(row.annotation)).get("hint", "")
    _, json_hint, examples = shown.partition("JSON, for instance ")
    for example in examples.split(" or ") if json_hint else ():
        TypeAdapter[Any](row.annotation).validate_json(example)
        assert not holds_yes(json.loads(example))


WITHOUT_EXAMPLE = ("FutureDate", "FutureDatetime", "NaiveDatetime", "constrained str")
"""Types of a nested field for which no valid example is known: the hint shows the form of the value only."""


@every_row
def test_example_of_a_list_of_models_is_accepted_unchanged(row: Row) -> None:
    """The example in the hint can be pasted as it is, whatever type the nested class has."""
    line: Any = create_model("Line", part=(row.annotation, ...))
    schema = a_model(list[line])
    shown = only_field(schema)["hint"]
    _, json_hint, example = shown.partition("JSON, for instance ")
    assert bool(json_hint) is not any(row is TABLE[name] for name in WITHOUT_EXAMPLE), shown
    for each in example.split(" or ") if json_hint else ():
        settled(schema, submitted(schema, value=each))


@every_row
def test_mistake_is_possible_only_where_people_type(row: Row) -> None:
    """A person who types is asked again once by default; who chooses is not."""
    typed = only_field(a_model(row.annotation))["kind"] in {"short_text", "long_text", "datetime"}
    assert typed or not row.wrong or row.kind == "date"


# --- labels


class Named(BaseModel):
    model_config = ConfigDict(validate_by_name=True)
    is_ok: bool = Field(alias="isOk")
    refundURL: str = ""  # noqa: N815 - a name as some code has it
    titled: Annotated[Decimal, currency("EUR")] = Field(Decimal(1), title="How much?")
    in_eur: Annotated[Decimal, currency("EUR")] = Field(Decimal(1), title="Amount in EUR")
    due: AwareDatetime | None = None


def test_label_is_the_title_or_the_name_of_the_field() -> None:
    """An alias is no label. The currency and the time zone of a value are part of its label."""
    assert [field["label"] for field in form_definition(Named)["fields"]] == [
        "Is ok",
        "Refund URL",
        "How much? (EUR)",
        "Amount in EUR",
        "Due (UTC)",
    ]


def test_marker_of_the_sdk_names_its_field() -> None:
    """Label, hint and options of a marker are in the form; a title of the class comes first."""
    shown = only_field(a_model(TABLE["switch of the SDK"].annotation))
    assert (shown["label"], shown["true_label"], shown["required"]) == ("Go?", "Go", True)
    assert only_field(a_model(Annotated[bool, switch(label="Go?")], Field(title="Run?")))["label"] == "Run?"


# --- defaults


def test_default_of_a_set_is_shown_in_the_order_of_the_type() -> None:
    """The order of a set differs from run to run; that of the form does not."""
    assert only_field(a_model(set[Colour], {Colour.BLUE, Colour.RED}))["default"] == ["red", "blue"]


def test_long_default_gets_a_text_area() -> None:
    """A text with line breaks keeps them."""
    assert only_field(a_model(str, "a\nb"))["kind"] == "long_text"


def test_description_precedes_how_a_value_is_written() -> None:
    """What the class says about a field comes first, and does not hide what to write."""
    described = a_model(Annotated[int, Field(ge=1)], Field(5, description="Of the year."))
    assert only_field(described)["hint"] == "Of the year. Whole number, at least 1 (left blank: 5)"


def test_yes_of_a_marker_that_is_cleared_is_no_yes() -> None:
    """A switch that a marker starts as Yes, and that is cleared, is not the default of the class."""
    schema = a_model(Annotated[bool, switch(default=True)], False)
    assert only_field(schema)["default"] is True
    assert problems(schema, {"value": None})


# --- classes without fields


class EmptyModel(BaseModel):
    pass


@dataclasses.dataclass
class EmptyData:
    pass


class EmptyTyped(TypedDict):
    pass


@pytest.mark.parametrize("schema", [EmptyModel, EmptyData, EmptyTyped])
def test_class_without_fields_asks_for_a_confirmation(schema: Any) -> None:
    """A lone submit button decides nothing: the person confirms, and an answer that does not confirm is refused."""
    assert only_field(schema)["kind"] == "switch"
    assert "default" not in only_field(schema)
    assert settled(schema, submitted(schema, confirmed=True)) == schema()
    assert settled(schema, {}) == schema()
    for response in (submitted(schema), submitted(schema, confirmed=False), {"confirmed": "yes"}):
        assert problems(schema, response) == ("confirmed: choose Yes to confirm",)


# --- secrets


class Login(BaseModel):
    name: str
    password: SecretStr


class Nested(BaseModel):
    logins: list[Login] = []


@dataclasses.dataclass
class Record:
    key: SecretBytes


class Typed(TypedDict):
    key: Secret[int]


SECRETS: dict[str, Any] = {
    "model": Login,
    "nested": Nested,
    "dataclass": Record,
    "dataclass in a model": a_model(dict[str, Record]),
    "TypedDict": Typed,
    "optional": a_model(SecretStr | None, None),
}


@pytest.mark.parametrize("schema", SECRETS.values(), ids=SECRETS)
def test_secret_is_refused_when_it_is_asked_for(schema: Any) -> None:
    """An answer is stored in clear text, so the person is not asked; the field is named, with what to do."""
    with pytest.raises(InvalidTaskError, match=r"asks for a secret in '(password|key|value)'.*reference to the secret"):
        HumanTask(task="Which key?", response_schema=schema)


def test_password_of_the_sdk_is_refused() -> None:
    """An input for a password hides what is typed on the screen only."""
    with pytest.raises(InvalidTaskError, match="asks for a secret in 'value'"):
        HumanTask(task="Which key?", response_schema=a_model(Annotated[str, password()]))


# --- markers


@pytest.mark.parametrize("code", ["eur", "EURO", "", "€"])
def test_currency_is_a_code(code: str) -> None:
    """A currency that is not a code of three letters is a mistake of the caller."""
    with pytest.raises(InvalidTaskError, match="no currency code"):
        currency(code)


@pytest.mark.parametrize("zone", ["Europe/Atlantis", "", "../etc/passwd"])
def test_time_zone_is_known(zone: str) -> None:
    """A time zone that is not known is refused before a person is asked."""
    with pytest.raises(InvalidTaskError, match="no time zone"):
        time_zone(zone)


@pytest.mark.parametrize("kind", [date, time, str, date | None])
def test_time_zone_of_something_else_than_a_datetime_is_refused(kind: Any) -> None:
    """Only a datetime can have a zone; the mistake is found when the question is made, not in the answer."""
    with pytest.raises(InvalidTaskError, match="is for a field of type datetime"):
        HumanTask(task="When?", response_schema=a_model(Annotated[kind, time_zone("Europe/Berlin")]))


def test_time_of_a_clock_change_is_refused_with_the_case() -> None:
    """A time that is skipped and one that exists twice are different mistakes."""
    schema = a_model(Annotated[datetime, time_zone("Europe/Berlin")])
    advice = "value: choose another time: clocks in Europe/Berlin are set "
    assert problems(schema, {"value": "2026-03-29T02:30"}) == (f"{advice}forward then, so it is skipped",)
    assert problems(schema, {"value": "2026-10-25T02:30"}) == (f"{advice}back at this one, so it exists twice",)


def test_bounds_are_in_order() -> None:
    """The lower bound comes first."""
    assert (
        only_field(a_model(Annotated[int, Field(gt=0, le=5000)]))["hint"] == "Whole number, more than 0, at most 5000"
    )


def test_field_that_only_shows_something_needs_a_default() -> None:
    """No answer contains it."""
    with pytest.raises(InvalidTaskError, match="only shows something"):
        form_definition(a_model(Annotated[str, section("Part 1")]))
    shown = a_model(Annotated[str, section("Part 1")], "")
    assert only_field(shown)["title"] == "Part 1"
    assert settled(shown, submitted(shown)).value == ""


def test_time_with_its_own_zone_keeps_it() -> None:
    """An answer from Slack, or through the API, states its zone."""
    given = settled(a_model(Annotated[datetime, time_zone("Europe/Berlin")]), {"value": "2026-03-04T05:06:00-05:00"})
    assert given.value == datetime(2026, 3, 4, 10, 6, tzinfo=UTC)


def test_number_of_a_strict_class_is_read_from_text() -> None:
    """A strict class accepts no text for a number, and gets a number."""

    class Strict(BaseModel):
        model_config = ConfigDict(strict=True)
        count: int
        share: float
        price: Decimal
        entries: list[int]

    response = submitted(Strict, count="1 234", share="0,5", price="1,50", entries="1\n2")
    assert settled(Strict, response) == Strict(count=1234, share=0.5, price=Decimal("1.50"), entries=[1, 2])


def test_bytes_of_a_class_that_decodes_them_itself() -> None:
    """`val_json_bytes` of a class counts."""

    class Hex(BaseModel):
        model_config = ConfigDict(val_json_bytes="hex")
        value: bytes

    assert only_field(Hex)["hint"].startswith("Hexadecimal")
    assert settled(Hex, submitted(Hex, value="00ff")).value == b"\x00\xff"


def test_bytes_inside_a_structure_are_base64() -> None:
    """The same rule applies at any depth."""
    schema = a_model(dict[str, bytes])
    assert settled(schema, submitted(schema, value='{"a": "AP8="}')).value == {"a": b"\x00\xff"}
    assert problems(schema, submitted(schema, value='{"a": "?"}')) == (
        "value.a: Input should be base64, for instance aGVsbG8=",
    )


@pytest.mark.parametrize("kind", [date, datetime, AwareDatetime, list[date], list[datetime], list[AwareDatetime]])
@pytest.mark.parametrize("number", ["2026", "20260131", "0", "1.5"])
def test_number_is_no_date(kind: Any, number: str) -> None:
    """pydantic reads a number as seconds since 1970. A person who types one means something else and is asked again."""
    schema = create_model("Answer", when=(kind, ...))
    with pytest.raises(ResponseSchemaError, match=r"when.*write 2026-01-31"):
        settle(Outcome(task_id="t", status="completed", response={"when": number}), schema)


def test_each_time_of_a_list_is_read_in_its_zone() -> None:
    """The label names the zone, and a time that clocks skip is refused."""
    kind = list[Annotated[datetime, time_zone("Europe/Berlin")]]
    schema = create_model("Answer", when=(kind, ...))
    (field,) = form_definition(schema)["fields"]
    assert field["label"] == "When (Europe/Berlin)"
    answer = settle(Outcome(task_id="t", status="completed", response={"when": "2026-07-31T14:30"}), schema)
    assert answer.when == [datetime(2026, 7, 31, 12, 30, tzinfo=UTC)]  # type: ignore[attr-defined]
    with pytest.raises(ResponseSchemaError, match="clocks"):
        settle(Outcome(task_id="t", status="completed", response={"when": "2026-03-29T02:30"}), schema)
