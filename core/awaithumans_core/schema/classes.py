"""The validator, the JSON Schema and the named fields of a payload or response class.

They are computed once per class and stored on the class, because workflows need them at every start and replay. A
workflow sandbox creates a class of its own for every run, which must not be kept alive after the run.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, NamedTuple, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic.config import ExtraValues
from pydantic.dataclasses import is_pydantic_dataclass, rebuild_dataclass
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined, SchemaError, SchemaValidator, to_json
from typing_extensions import TypeAliasType, is_typeddict

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.json_values import json_object
from awaithumans_core.schema.base64_bytes import base64_bytes
from awaithumans_core.schema.explicit_yes import explicit_yes
from awaithumans_core.schema.sdk_markers import corrected, is_marker, unmarked

R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Preset:
    """Annotation of a field: the form starts with this value, although an answer without the field means another."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Above:
    """Annotation of a field: the form shows this text above it. It is no part of the response's JSON Schema."""

    label: str
    text: str


@dataclasses.dataclass(frozen=True)
class Hint:
    """Annotation of a field: the form shows this hint. It is no part of the response's JSON Schema."""

    text: str


class Field(NamedTuple):
    """One named field of a response class, as a form sees it."""

    name: str
    """The name of the field in an answer: its alias if it has one."""
    type: Any
    """The type of the field, without `None` and without annotations."""
    rules: tuple[Any, ...]
    """The annotations of the field, such as lengths and patterns."""
    info: FieldInfo
    required: bool
    """Whether an answer must contain the field."""
    nullable: bool
    """Whether null is a valid value of the field."""
    attribute: str
    """The name of the field in the class."""

    @property
    def default(self) -> Any:
        """The default of the field, if there is one that does not depend on other fields, otherwise None."""
        if self.required or self.info.default_factory_takes_validated_data:
            return None
        default = self.info.get_default(call_default_factory=True)
        return None if default is PydanticUndefined else default

    @property
    def preset(self) -> Any:
        """The value that the form starts with; None if it starts empty."""
        return next((rule.value for rule in self.rules if isinstance(rule, Preset)), self.default)


def adapter(schema: Any) -> TypeAdapter[Any]:
    """Return the validator of a class.

    Raises:
        InvalidTaskError: pydantic cannot build a validator for the class.
    """
    return once(schema, "__awaithumans_adapter__", lambda: _made(schema, _adapter))


def _adapter(schema: Any) -> TypeAdapter[Any]:
    known: TypeAdapter[Any] = TypeAdapter(schema)
    if not known.pydantic_complete:
        known.rebuild(raise_errors=True)
    if marked := _marked(schema, known.core_schema):
        known.core_schema = corrected(known.core_schema, marked)
        known.validator = SchemaValidator(known.core_schema, _use_prebuilt=False)
    return known


def _marked(schema: Any, core: Any) -> list[tuple[Mapping[str, Any], Any]]:
    """Return the fields in a core schema that have a marker of the official SDK, with their types without it."""
    if not _has_fields(schema):
        return []
    members = _members(core)
    return [
        (members[name], unmarked(info.annotation, info.metadata))
        for name, info in _infos(schema).items()
        if name in members and any(map(is_marker, (*info.metadata, *bare(info.annotation)[1])))
    ]


def answer_reader(schema: Any) -> "TypeAdapter[Any] | SchemaValidator":
    """Return the validator of answers: that of the class, without defaults that would give a yes, and bytes as base64.

    Raises:
        InvalidTaskError: pydantic cannot read the class, or it has a yes that no answer can replace.
    """
    return once(schema, "__awaithumans_answers__", lambda: _answer_reader(schema))


def _answer_reader(schema: Any) -> "TypeAdapter[Any] | SchemaValidator":
    known = adapter(schema)
    core = explicit_yes(known.core_schema, getattr(schema, "__name__", str(schema)))
    core = base64_bytes(known.core_schema if core is None else core) or core
    # With prebuilt validators, every class inside it would be validated by its own one, which has these defaults.
    return known if core is None else SchemaValidator(core, _use_prebuilt=False)


def json_schema(schema: Any) -> dict[str, Any]:
    """Return the JSON Schema of a payload or response class.

    Raises:
        InvalidTaskError: no JSON Schema describes the class.
    """
    return dict(once(schema, "__awaithumans_schema__", lambda: _made(schema, _json_schema)))


class _Untitled(GenerateJsonSchema):
    """Omits titles derived from field names, which add no information and would be sent with every question."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


_CACHED_SCHEMAS: dict[str, dict[str, Any]] = {}
"""Cache of JSON Schemas, by the core schema that pydantic builds for a class.

Every run of a workflow has classes of its own, which its sandbox creates from the same source. Generating their schema
again would be most of the cost of asking.
"""

MAX_CACHED_SCHEMAS = 500


def _json_schema(schema: Any) -> dict[str, Any]:
    known = adapter(schema)
    twin = _IDENTITY.sub(r"\1", repr([known.core_schema, *_said(known.core_schema)]))
    if twin not in _CACHED_SCHEMAS:
        if len(_CACHED_SCHEMAS) >= MAX_CACHED_SCHEMAS:
            _CACHED_SCHEMAS.clear()
        by_alias = config(schema).get("validate_by_alias") is not False
        name = f"the JSON Schema of {getattr(schema, '__name__', schema)}"
        _CACHED_SCHEMAS[twin] = json_object(known.json_schema(by_alias=by_alias, schema_generator=_Untitled), name)
    return _CACHED_SCHEMAS[twin]


def _said(part: Any) -> Iterator[object]:
    """Yield what a core schema omits about the classes in it: docstrings, settings and methods."""
    if isinstance(part, dict):
        if isinstance(cls := cast("dict[str, Any]", part).get("cls"), type):
            settings = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None)
            yield cls.__doc__, settings
        part = cast("dict[str, Any]", part).values()
    elif not isinstance(part, list | tuple):
        if isinstance(part, types.MethodType):
            yield part.__func__  # the repr of a method shows only its name and its class
        return
    for each in cast("Iterable[Any]", part):
        yield from _said(each)


_IDENTITY = re.compile(r"('(?:schema_)?ref': '[^']*?):\d+(?=')")
"""The memory address of a class, which is the only difference between the schemas of identical classes.

The addresses of functions are kept, so classes with different functions do not share a schema.
"""


def fields(schema: Any) -> tuple[Field, ...]:
    """Return the named fields of a pydantic model, a dataclass or a TypedDict.

    Raises:
        InvalidTaskError: it is none of these, so a person could not answer it with named fields. Or it has a field that
            pydantic would not read from an answer, so that its default would count regardless of the answer.
    """
    return once(schema, "__awaithumans_fields__", lambda: _read(schema, tuple(_fields(schema))))


def extra(schema: Any) -> ExtraValues | None:
    """Return how to treat names in an answer that the class does not have: refuse them, unless the class configures it.

    Otherwise, a misspelt field would be ignored and the default of the correct one would apply.
    """
    return None if config(schema).get("extra") is not None else "forbid"


def config(schema: Any) -> Mapping[str, Any]:
    """Return the pydantic configuration of a class."""
    return getattr(schema, "model_config", None) or getattr(schema, "__pydantic_config__", None) or {}


def _read(schema: Any, found: tuple[Field, ...]) -> tuple[Field, ...]:
    """Return the fields after a check that the validator reads each of them under its name."""
    reader = answer_reader(schema)
    answer = dict.fromkeys(field.name for field in found)
    wrong: list[tuple[str, str]] = []
    try:
        reader.validate_json(to_json(answer), extra="forbid")
    except ValidationError as invalid:
        wrong = [(e["type"], str(e["loc"][0])) for e in invalid.errors() if len(e["loc"]) == 1]
    except Exception:  # a validator of the class's own, which sees no true answer here  # noqa: S110
        pass
    unread = {name for kind, name in wrong if kind in _UNREAD}
    if missing := sorted({name for kind, name in wrong if kind == "missing"} - answer.keys()):
        raise InvalidTaskError(
            f"{getattr(schema, '__name__', schema)} needs {', '.join(missing)}, which is no field that a person can be "
            "asked for: make it a field, or give it a default"
        )
    if unread:
        raise InvalidTaskError(
            f"{getattr(schema, '__name__', schema)} does not take {', '.join(sorted(unread))} from an "
            "answer: give the field a plain alias, or none, and let it be part of __init__"
        )
    return found


_UNREAD = {"extra_forbidden", "unexpected_keyword_argument"}


def _fields(schema: Any) -> Iterator[Field]:
    if not _has_fields(schema):
        raise InvalidTaskError(
            f"response_schema must be a pydantic model, a dataclass or a TypedDict, so that a reviewer gets named "
            f"fields; {schema!r} is none of these. Wrap what you need: class Answer(BaseModel): value: ..."
        )
    members = _members(adapter(schema).core_schema)
    for name, info in _made(schema, _infos).items():
        member = members.get(name, {})
        kind, rules, nullable = bare(info.annotation)
        needed = member.get("required", info.is_required())  # of a TypedDict, only pydantic reads it from text
        called = _called(name, member, config(schema))
        yield Field(called, kind, (*info.metadata, *rules), info, needed, nullable, name)


def _infos(schema: Any) -> Mapping[str, FieldInfo]:
    """Return the fields by name. Annotations that are text are evaluated."""
    complete: Any = getattr(schema, "__pydantic_fields_complete__", True)
    if _is_model(schema):
        if not complete:
            schema.model_rebuild(force=True)
        return schema.model_fields
    if is_pydantic_dataclass(schema):
        if not complete:
            rebuild_dataclass(schema, force=True)
        return {field.name: schema.__pydantic_fields__[field.name] for field in dataclasses.fields(schema)}
    hints = get_type_hints(schema, include_extras=True)
    if _is_dataclass(schema):
        return {field.name: _of_dataclass(hints[field.name], field) for field in dataclasses.fields(schema)}
    return {name: FieldInfo.from_annotation(hint) for name, hint in hints.items()}


def _members(core: Any) -> Mapping[str, Mapping[str, Any]]:
    """Return the fields in a core schema by name; none if the class has a custom validation."""
    definitions = {each["ref"]: each for each in core.get("definitions", ())}
    while core and core["type"] not in {"model-fields", "dataclass-args", "typed-dict"}:
        core = definitions[core["schema_ref"]] if core["type"] == "definition-ref" else core.get("schema")
    found: Any = core["fields"] if core else ()
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {each["name"]: each for each in found}


def _called(name: str, member: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return a field's name in an answer. Its alias may come from a generator, so it is read from the core schema."""
    if settings.get("validate_by_alias") is False:
        return name
    alias: str | Sequence[str | list[Any]] = member.get("validation_alias", ())
    if isinstance(alias, str):
        return alias
    return next((path[0] for path in alias if isinstance(path, list) and len(path) == 1), name)


def _of_dataclass(hint: Any, field: "dataclasses.Field[Any]") -> FieldInfo:
    if field.default is not dataclasses.MISSING:
        return FieldInfo.from_annotated_attribute(hint, field.default)
    info = FieldInfo.from_annotation(hint)
    if field.default_factory is not dataclasses.MISSING:
        info.default_factory = field.default_factory
    return info


_ALIASES = (TypeAliasType, getattr(typing, "TypeAliasType", TypeAliasType))
"""The classes of type aliases: that of typing_extensions, and that of the `type` statement (Python 3.12)."""


def named_type(annotation: Any) -> Any:
    """Return the type behind type aliases and NewTypes; any other type unchanged."""
    while True:
        alias = get_origin(annotation) or annotation
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(alias, _ALIASES) and not isinstance(value := _value(alias), str):
            annotation = value if alias is annotation else value[get_args(annotation)]
        else:
            return annotation


def _value(alias: Any) -> Any:
    """Return what an alias names, or its own name if only pydantic can resolve it."""
    try:
        return alias.__value__
    except NameError:
        return str(alias)


def bare(annotation: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Return X of `X | None`, `Annotated[X, ...]` and aliases of X, its annotations, and whether None is allowed.

    The None of a Literal is removed in the same way, because a blank input means it.
    """
    rules: tuple[Any, ...] = ()
    nullable = False
    while True:
        annotation = named_type(annotation)
        if get_origin(annotation) is Annotated:
            annotation, *said = get_args(annotation)
            for rule in said:
                rules += tuple(rule.metadata) if isinstance(rule, FieldInfo) else (rule,)
        elif get_origin(annotation) in {typing.Union, types.UnionType} and type(None) in get_args(annotation):
            nullable = True
            inner = [arg for arg in get_args(annotation) if arg is not type(None)]
            if len(inner) != 1:
                return annotation, rules, nullable
            annotation = inner[0]
        elif get_origin(annotation) is Literal and None in (values := literal_values(annotation)):
            if values == [None]:
                return annotation, rules, True
            nullable = True
            annotation = Literal[tuple(value for value in values if value is not None)]
        else:
            return annotation, rules, nullable


def literal_values(kind: Any) -> list[Any]:
    """Return the values of a Literal, including those of aliases of other Literals in it."""
    values = (named_type(value) for value in get_args(kind))
    return [each for value in values for each in (literal_values(value) if get_origin(value) is Literal else [value])]


def _has_fields(schema: Any) -> bool:
    return _is_model(schema) or _is_dataclass(schema) or is_typeddict(schema)


def _is_model(schema: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(schema, type) and issubclass(schema, BaseModel) and not issubclass(schema, RootModel)


def _is_dataclass(schema: Any) -> TypeGuard[type[Any]]:
    return isinstance(schema, type) and dataclasses.is_dataclass(schema)


def _made(schema: Any, make: Callable[[Any], R]) -> R:
    try:
        return make(schema)
    except InvalidTaskError:
        raise
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise InvalidTaskError(
            f"{schema!r} cannot be used as a schema: {type(error).__name__}: {reason}"
            + (_UNDEFINED if isinstance(error, NameError) else "")
        ) from None


_UNREADABLE = (
    *(PydanticUserError, SchemaError),
    *(ImportError, AttributeError, LookupError, NameError, RecursionError, SyntaxError, TypeError, ValueError),
)
"""Errors that pydantic raises for a class, and errors of evaluating its annotations, which may be any expression."""

_UNDEFINED = (
    ". Annotations that are text are evaluated in the module of their class: define the types that they name there, "
    "and not inside a function, or use a pydantic model"
)


def once(schema: Any, name: str, compute: Callable[[], R]) -> R:
    """Return the value computed for a class, which is stored on the class under this name after the first call."""
    if not isinstance(schema, type):
        return compute()
    held = vars(schema).get(name)  # not getattr: a subclass does not have its parent's fields
    if held is not None:
        return cast("R", held)
    value = compute()
    with suppress(AttributeError, TypeError):
        setattr(schema, name, value)
    return value
