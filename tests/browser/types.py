"""The Python types of an answer, what a person enters for each of them, and the value that the caller gets."""

import dataclasses
import datetime
import uuid
from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, NewType

from awaithumans.forms import table  # type: ignore[import-untyped]
from pydantic import AwareDatetime, BaseModel, EmailStr, Field, HttpUrl, SecretStr, create_model
from typing_extensions import TypedDict

from awaithumans_core.form import currency, time_zone
from tests.browser.dashboard import Entry

REFUSED = object()
"""The answer is refused with a problem that names the field."""

SHAPES = ("model", "dataclass", "TypedDict")


class Size(Enum):
    """Sizes to choose from."""

    SMALL = "s"
    LARGE = "l"


class Address(BaseModel):
    """A nested class."""

    street: str
    number: int


class Card(BaseModel):
    """One member of a union."""

    by: Literal["card"]
    digits: str


class Cash(BaseModel):
    """The other member of a union."""

    by: Literal["cash"]


def _column(name: str, kind: str) -> dict[str, object]:
    return {"name": name, "label": name, "kind": kind}


OrderId = NewType("OrderId", str)


class Kind(NamedTuple):
    """One type of an answer's field."""

    annotation: Any
    entered: Entry
    """What a person enters."""
    value: Any
    """What the caller gets."""
    wrong: Entry = None
    """What a person enters by mistake, so that the answer is refused. None: the input does not permit a mistake."""
    blank: Any = REFUSED
    """What the caller gets if the person enters nothing."""


KINDS: Mapping[str, Kind] = {
    "bool": Kind(bool, "Yes", True),
    "bool | None": Kind(bool | None, "No", False, blank=None),
    "int": Kind(int, "1 234", 1234, "1,234"),
    "int | None": Kind(int | None, "7", 7, "seven", None),
    "Annotated[int, Field(ge=1, le=5)]": Kind(Annotated[int, Field(ge=1, le=5)], "5", 5, "6"),
    "Annotated[int, Field(multiple_of=5)]": Kind(Annotated[int, Field(multiple_of=5)], "15", 15, "16"),
    "float": Kind(float, "2,5", 2.5, "NaN"),
    "Annotated[float, Field(gt=0)]": Kind(Annotated[float, Field(gt=0)], "0.5", 0.5, "0"),
    "Decimal": Kind(Decimal, "1.234", Decimal("1.234"), "1,234"),
    'Annotated[Decimal, currency("EUR")]': Kind(
        Annotated[Decimal, currency("EUR")], "1 234,50", Decimal("1234.50"), "1.234"
    ),
    "str": Kind(str, "Dear Ann", "Dear Ann", blank=REFUSED),
    "str | None": Kind(str | None, "x", "x", blank=None),
    "Annotated[str, Field(max_length=2000)]": Kind(Annotated[str, Field(max_length=2000)], "two\nlines", "two\nlines"),
    'Annotated[str, Field(pattern="^A-[0-9]+$")]': Kind(
        Annotated[str, Field(pattern="^A-[0-9]+$")], "A-17", "A-17", "B-17"
    ),
    "EmailStr": Kind(EmailStr, "ann@example.com", "ann@example.com", "ann@"),
    "HttpUrl": Kind(HttpUrl, "https://example.com/a", HttpUrl("https://example.com/a"), "example"),
    "UUID": Kind(uuid.UUID, str(uuid.UUID(int=7)), uuid.UUID(int=7), "7"),
    "bytes": Kind(bytes, "aGVsbG8=", b"hello", "%%%"),
    "date": Kind(datetime.date, "2026-01-31", datetime.date(2026, 1, 31)),
    "time": Kind(datetime.time, "14:30", datetime.time(14, 30)),
    "datetime": Kind(datetime.datetime, "2026-01-31T14:30", datetime.datetime(2026, 1, 31, 14, 30)),
    "AwareDatetime": Kind(
        AwareDatetime, "2026-01-31T14:30", datetime.datetime(2026, 1, 31, 14, 30, tzinfo=datetime.UTC)
    ),
    'Annotated[datetime, time_zone("Europe/Berlin")]': Kind(
        Annotated[datetime.datetime, time_zone("Europe/Berlin")],
        "2026-07-31T14:30",
        datetime.datetime(2026, 7, 31, 12, 30, tzinfo=datetime.UTC),
    ),
    "timedelta": Kind(datetime.timedelta, "01:30:00", datetime.timedelta(hours=1.5), "soon"),
    'Literal["red", "blue"]': Kind(Literal["red", "blue"], "blue", "blue"),
    "Literal[1, 2]": Kind(Literal[1, 2], "2", 2),
    'Literal["red", None]': Kind(Literal["red", None], "red", "red", blank=None),  # noqa: PYI061
    "Enum": Kind(Size, "Large", Size.LARGE),
    "list[str]": Kind(list[str], "a\nb", ["a", "b"]),
    "list[int]": Kind(list[int], "1\n2", [1, 2], "1\ntwo"),
    "list[Enum]": Kind(list[Size], ["Small", "Large"], [Size.SMALL, Size.LARGE], blank=[]),
    "set[Enum]": Kind(set[Size], ["Small"], {Size.SMALL}, blank=set[Size]()),
    "tuple[str, ...]": Kind(tuple[str, ...], "a\nb", ("a", "b")),
    "tuple[str, int]": Kind(tuple[str, int], '["a", 1]', ("a", 1), "a"),
    "Model": Kind(Address, '{"street": "High", "number": 1}', Address(street="High", number=1), "High 1"),
    "list[Model]": Kind(
        list[Address], '[{"street": "High", "number": 1}]', [Address(street="High", number=1)], '[{"street": 1}]'
    ),
    "Annotated[list[Model], table(...)]": Kind(
        Annotated[list[Address], table(columns=[_column("street", "short_text"), _column("number", "number")])],
        ["High", "1 200"],
        [Address(street="High", number=1200)],
        ["High", "one"],
        blank=[],
    ),
    "dict[str, int]": Kind(dict[str, int], '{"a": 1}', {"a": 1}, "a: 1"),
    "Annotated[ModelA | ModelB, Field(discriminator=...)]": Kind(
        Annotated[Card | Cash, Field(discriminator="by")],
        '{"by": "card", "digits": "42"}',
        Card(by="card", digits="42"),
        '{"by": "cheque"}',
    ),
    'NewType("OrderId", str)': Kind(OrderId, "A-1", "A-1"),
    'Annotated[bool, Field(alias="isOk")]': Kind(Annotated[bool, Field(alias="isOk")], "Yes", True),
}
"""Each type that the issue of forms names, by its name in the table."""

NO_FIELDS = "class without fields"
"""A type of its own: the form asks for a confirmation, which is not part of the answer."""

REFUSED_WHEN_ASKED: Mapping[str, Any] = {"SecretStr": SecretStr}
"""Types that no answer may have, because answers are stored in histories, checkpoints and databases."""


def field_name(kind: str) -> str:
    """Return the attribute of a type in the response classes."""
    return "a_" + "".join(char if char.isalnum() else "_" for char in kind.lower())


def response_class(shape: str, kinds: Mapping[str, Any]) -> Any:
    """Return a response class of this shape with a field of each type.

    Args:
        shape: One of `SHAPES`.
        kinds: Annotations by name.
    """
    annotations = {field_name(kind): annotation for kind, annotation in kinds.items()}
    if shape == "model":
        fields: dict[str, Any] = {name: (annotation, ...) for name, annotation in annotations.items()}
        return create_model("Answer", **fields)
    if shape == "dataclass":
        return dataclasses.make_dataclass("Answer", list(annotations.items()), frozen=True)
    made: Any = TypedDict
    return made("Answer", annotations)


def value_of(answer: Any, kind: str) -> Any:
    """Return the value of a type's field in an answer of any shape."""
    name = field_name(kind)
    return answer[name] if isinstance(answer, dict) else getattr(answer, name)
