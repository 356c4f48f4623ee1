"""What can be known of a payload or response class: its validator, its JSON Schema, its named fields.

Computed once a class and kept on the class: workflows ask for it at every start and replay, and a workflow sandbox
makes a class of its own for every run, which must not be kept alive after it.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, TypeGuard, TypeVar, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, RootModel, TypeAdapter, ValidationError
from pydantic.config import ExtraValues
from pydantic.dataclasses import is_pydantic_dataclass, rebuild_dataclass
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined, SchemaError, SchemaValidator, to_json
from typing_extensions import TypeAliasType, is_typeddict

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.explicit_yes import explicit_yes
from awaithumans_core.json_values import json_object

R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Preset:
    """Annotation of a field: the form starts with this value, although an answer without it means something else."""

    value: Any


class Field(NamedTuple):
    """One named field of a response class, as a form sees it."""

    name: str
    """What the answer calls it: the alias where there is one."""
    type: Any
    """Its type without `None` and without annotations."""
    rules: tuple[Any, ...]
    """The annotations: lengths, patterns."""
    info: FieldInfo
    required: bool
    """Whether an answer must have it."""
    nullable: bool
    """Whether null is an answer."""

    @property
    def default(self) -> Any:
        """Its default where there is one that does not depend on other fields, else None."""
        if self.required or self.info.default_factory_takes_validated_data:
            return None
        default = self.info.get_default(call_default_factory=True)
        return None if default is PydanticUndefined else default

    @property
    def preset(self) -> Any:
        """The value that the form starts with; None if it starts empty."""
        return next((rule.value for rule in self.rules if isinstance(rule, Preset)), self.default)


def adapter(schema: Any) -> TypeAdapter[Any]:
    """The validator of a class.

    Raises:
        InvalidTaskError: pydantic cannot read it.
    """
    return once(schema, "__awaithumans_adapter__", lambda: _made(schema, _adapter))


def _adapter(schema: Any) -> TypeAdapter[Any]:
    known: TypeAdapter[Any] = TypeAdapter(schema)
    if not known.pydantic_complete:
        known.rebuild(raise_errors=True)
    return known


def answer_reader(schema: Any) -> "TypeAdapter[Any] | SchemaValidator":
    """The validator of answers: that of the class, without defaults that would give a yes.

    Raises:
        InvalidTaskError: pydantic cannot read the class, or it has a yes that no answer can replace.
    """
    return once(schema, "__awaithumans_answers__", lambda: _answer_reader(schema))


def _answer_reader(schema: Any) -> "TypeAdapter[Any] | SchemaValidator":
    known = adapter(schema)
    core = explicit_yes(known.core_schema, getattr(schema, "__name__", str(schema)))
    # Without `_use_prebuilt`, every class inside it would be read by its own validator, which has these defaults.
    return known if core is None else SchemaValidator(core, _use_prebuilt=False)


def json_schema(schema: Any) -> dict[str, Any]:
    """JSON Schema of a payload or response class.

    Raises:
        InvalidTaskError: none describes it.
    """
    return dict(once(schema, "__awaithumans_schema__", lambda: _made(schema, _json_schema)))


class _Untitled(GenerateJsonSchema):
    """Without the titles that are made of field names: they tell nobody anything, and go wherever a question goes."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


_TWINS: dict[str, dict[str, Any]] = {}
"""JSON Schemas by what pydantic makes of a class.

Every run of a workflow has classes of its own, made by its sandbox from the same lines; writing their schema anew would
be most of what asking costs.
"""

MOST_TWINS = 500


def _json_schema(schema: Any) -> dict[str, Any]:
    known = adapter(schema)
    twin = _IDENTITY.sub(r"\1", repr([known.core_schema, *_said(known.core_schema)]))
    if twin not in _TWINS:
        if len(_TWINS) >= MOST_TWINS:
            _TWINS.clear()
        by_alias = _config(schema).get("validate_by_alias") is not False
        told = f"the JSON Schema of {getattr(schema, '__name__', schema)}"
        _TWINS[twin] = json_object(known.json_schema(by_alias=by_alias, schema_generator=_Untitled), told)
    return _TWINS[twin]


def _said(part: Any) -> Iterator[object]:
    """What the classes in a core schema say of themselves, which it leaves out: docstrings, settings and methods."""
    if isinstance(part, dict):
        if isinstance(cls := cast("dict[str, Any]", part).get("cls"), type):
            settings = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None)
            yield cls.__doc__, settings
        part = cast("dict[str, Any]", part).values()
    elif not isinstance(part, list | tuple):
        if isinstance(part, types.MethodType):
            yield part.__func__  # of a method only its name and its class are shown
        return
    for each in cast("Iterable[Any]", part):
        yield from _said(each)


_IDENTITY = re.compile(r"('(?:schema_)?ref': '[^']*?):\d+(?=')")
"""Where a class lies in memory: all that two twins differ in. Functions keep their addresses, and have no twins."""


def fields(schema: Any) -> tuple[Field, ...]:
    """The named fields of a pydantic model, a dataclass or a TypedDict.

    Raises:
        InvalidTaskError: it is none of these, so a person could not answer it with named fields; or it has a field that
            pydantic would not read from an answer, so that its default would count whatever a person answers.
    """
    return once(schema, "__awaithumans_fields__", lambda: _read(schema, tuple(_fields(schema))))


def extra(schema: Any) -> ExtraValues | None:
    """What becomes of names in an answer that the class does not know: refused, unless the class itself says so.

    A misspelt field would otherwise leave the default of the true one standing.
    """
    return None if _config(schema).get("extra") is not None else "forbid"


def _config(schema: Any) -> Mapping[str, Any]:
    """The pydantic configuration of a class."""
    return getattr(schema, "model_config", None) or getattr(schema, "__pydantic_config__", None) or {}


def _read(schema: Any, found: tuple[Field, ...]) -> tuple[Field, ...]:
    """The fields, once it is certain that the validator reads each of them under its name."""
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
    if not (_is_model(schema) or _is_dataclass(schema) or is_typeddict(schema)):
        raise InvalidTaskError(
            f"response_schema must be a pydantic model, a dataclass or a TypedDict, so that a reviewer gets named "
            f"fields; {schema!r} is none of these. Wrap what you need: class Answer(BaseModel): value: ..."
        )
    members = _members(adapter(schema).core_schema)
    for name, info in _made(schema, _infos).items():
        member = members.get(name, {})
        kind, rules, nullable = _bare(info.annotation)
        needed = member.get("required", info.is_required())  # of a TypedDict, only pydantic reads it from text
        yield Field(_called(name, member, _config(schema)), kind, (*info.metadata, *rules), info, needed, nullable)


def _infos(schema: Any) -> Mapping[str, FieldInfo]:
    """The fields by name, with annotations that were text evaluated."""
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
    """The fields in a core schema by name; none if the class is read in a way of its own."""
    definitions = {each["ref"]: each for each in core.get("definitions", ())}
    while core and core["type"] not in {"model-fields", "dataclass-args", "typed-dict"}:
        core = definitions[core["schema_ref"]] if core["type"] == "definition-ref" else core.get("schema")
    found: Any = core["fields"] if core else ()
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {each["name"]: each for each in found}


def _called(name: str, member: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What an answer calls a field. Its alias may come from a generator, so it is read from the core schema."""
    if config.get("validate_by_alias") is False:
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
    """The type behind the names of type aliases and NewTypes; the type itself if it has no such name."""
    while True:
        alias = get_origin(annotation) or annotation
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(alias, _ALIASES) and not isinstance(value := _value(alias), str):
            annotation = value if alias is annotation else value[get_args(annotation)]
        else:
            return annotation


def _value(alias: Any) -> Any:
    """What an alias names; its own name if that is not defined here, but where pydantic finds it."""
    try:
        return alias.__value__
    except NameError:
        return str(alias)


def _bare(annotation: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """`X | None`, `Annotated[X, ...]` and names of X are X to a form; the annotations are kept."""
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
        else:
            return annotation, rules, nullable


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
    *(AttributeError, LookupError, NameError, RecursionError, SyntaxError, TypeError, ValueError),
)
"""What pydantic raises for a class, and what evaluating its annotations raises, which are any expressions."""

_UNDEFINED = (
    ". Annotations that are text are evaluated in the module of their class: define the types that they name there, "
    "and not inside a function, or use a pydantic model"
)


def once(schema: Any, name: str, compute: Callable[[], R]) -> R:
    """What was computed for a class before, kept on the class under this name."""
    if not isinstance(schema, type):
        return compute()
    held = vars(schema).get(name)  # not getattr: a subclass does not have its parent's fields
    if held is not None:
        return cast("R", held)
    value = compute()
    with suppress(AttributeError, TypeError):
        setattr(schema, name, value)
    return value
