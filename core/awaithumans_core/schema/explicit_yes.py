"""Validates responses so that a default can never stand for a person's yes.

Law: only a person's own yes is a yes. pydantic fills a field that an answer leaves out with the field's default. If
that default is True, or contains a True, the class would report a decision that no person made. So the core schema of
the class is copied without such defaults, and the copy validates the answers. It creates the same instances, but these
fields are required, at any depth and in any type.

A default that is not a bool stays, because only the caller knows which choice of a Literal or an Enum means yes. What a
validator or a `__post_init__` of the class itself fills in stays as well.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from inspect import signature
from typing import Any, cast

from pydantic_core import CoreSchema, SchemaValidator

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.json_values import holds_yes


class YesNotGiven(Exception):
    """An answer omits a field whose default, computed at this moment, is a yes. The text is the field's name."""


def explicit_yes(core: Mapping[str, Any], name: str) -> CoreSchema | None:
    """Return a copy of a core schema in which no default gives a yes; None if the schema already has no such default.

    Args:
        core: The core schema of a response class.
        name: The name of the class, for errors.

    Raises:
        InvalidTaskError: a default gives a yes that no answer can replace: the field is not part of `__init__`, or its
            class has an `__init__` of its own, which processes the answer in its own way.
    """
    copier = _Copier(core, name)
    copied = copier.copy({**core}, name)
    return cast("CoreSchema", copied) if copier.changed else None


VALUE_KEYS = {"config", "custom_error_context", "default", "expected", "members", "metadata", "serialization"}
"""Parts of a core schema that hold values. They are not copied as schemas, although they may look like them."""

_EMPTY: tuple[Any, ...] = (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)
"""Factories of empty values, which contain no yes."""


class _Copier:
    def __init__(self, core: Mapping[str, Any], name: str) -> None:
        self.changed = False
        self._class = name
        self._definitions: list[dict[str, Any]] = core.get("definitions", [])

    def copy(self, part: Any, field: str) -> Any:
        """Copy a part of the core schema without defaults that give a yes; `field` names the innermost field."""
        if isinstance(part, list | tuple):
            copies = [self.copy(each, field) for each in cast("Iterable[Any]", part)]
            return tuple(copies) if isinstance(part, tuple) else copies
        if not isinstance(part, dict):
            return part
        held = cast("dict[str, Any]", part)
        if not isinstance(kind := held.get("type"), str):  # schemas by name: fields, choices, parameters
            copied = {key: self.copy(each, _name(held, str(key))) for key, each in held.items()}
            return self._parameter(held, copied) if isinstance(held.get("name"), str) else copied
        field = _name(held, field)
        if (kind == "dataclass-field" and not held.get("init", True)) or (kind == "model" and held.get("custom_init")):
            self._refuse_yes(held, field, set())
            self._refuse_yes_of_init(held)
        elif kind == "default":
            return self._default(held, field)
        copied = {key: value if key in VALUE_KEYS else self.copy(value, field) for key, value in held.items()}
        if kind == "typed-dict-field" and held["schema"]["type"] == "default" != copied["schema"]["type"]:
            copied["required"] = True  # the other kinds of field are required if they have no default
        return copied

    def _parameter(self, held: dict[str, Any], copied: dict[str, Any]) -> dict[str, Any]:
        """Copy a parameter. It keeps a default, because a parameter before it may have one."""
        node = held["schema"]
        if node["type"] == "default" != copied["schema"]["type"]:
            refused = self._checked(lambda: _known_default(node), node["schema"], held["name"])
            copied["schema"] = {"type": "default", "schema": copied["schema"], "default_factory": refused}
        return copied

    def _default(self, node: dict[str, Any], field: str) -> Any:
        inner, factory = node["schema"], node.get("default_factory")
        if self._is_yes(_known_default(node), inner):
            self.changed = True
            return self.copy(inner, field)
        copied = {**node, "schema": self.copy(inner, field)}
        if factory is not None and factory not in _EMPTY:
            self.changed = True
            copied["default_factory"] = self._checked(factory, inner, field)
        return copied

    def _checked(self, factory: Callable[..., Any], inner: Any, field: str) -> Callable[..., Any]:
        """Wrap a default factory so that it raises `YesNotGiven` if its value is a yes.

        The value must be checked at each call, because it may vary or depend on the other answers.
        """

        def checked(*given: Any) -> Any:
            value = factory(*given)
            if self._is_yes(value, inner):
                raise YesNotGiven(field)
            return value

        return checked

    def _is_yes(self, value: Any, inner: Any) -> bool:
        """Whether a default is a yes, or is validated as one: a bool accepts 1 and "yes" as True."""
        if value is None or value is False:
            return False
        if holds_yes(value) or (_is_bool(inner) and value):
            return True
        schema: Any = {"type": "definitions", "schema": inner, "definitions": self._definitions}
        with suppress(Exception):  # it does not fit, or a validator of the class needs more than the value
            return holds_yes(SchemaValidator(schema).validate_python(value))
        return False

    def _refuse_yes_of_init(self, held: dict[str, Any]) -> None:
        """Raise if the class's own `__init__` has a parameter whose default is a yes."""
        if held["type"] == "model":
            for parameter in signature(held["cls"].__init__).parameters.values():
                if holds_yes(parameter.default):
                    raise _unchangeable(self._class, parameter.name)

    def _refuse_yes(self, part: Any, field: str, seen: set[str]) -> None:
        """Raise if a default gives a yes in a part that the copy does not control, so that it cannot be removed."""
        if isinstance(part, list | tuple):
            for each in cast("Iterable[Any]", part):
                self._refuse_yes(each, field, seen)
        if not isinstance(part, dict):
            return
        held = cast("dict[str, Any]", part)
        if not isinstance(kind := held.get("type"), str):
            for key, each in held.items():
                self._refuse_yes(each, _name(held, str(key)), seen)
            return
        field = _name(held, field)
        if kind == "definition-ref" and (ref := held["schema_ref"]) not in seen:
            target = [each for each in self._definitions if each.get("ref") == ref]
            self._refuse_yes(target, field, {*seen, ref})
        if kind == "default" and (
            held.get("default_factory_takes_data") or self._is_yes(_known_default(held), held["schema"])
        ):
            raise _unchangeable(self._class, field)
        for key, value in held.items():
            if key not in VALUE_KEYS:
                self._refuse_yes(value, field, seen)


def _unchangeable(name: str, field: str) -> InvalidTaskError:
    return InvalidTaskError(
        f"{name} has a field {field!r} that is True by default, and an answer cannot change that: let the field be "
        "part of an __init__ that pydantic or the dataclass makes, or let it have no default"
    )


def _known_default(node: Mapping[str, Any]) -> Any:
    """Return the default if it does not depend on the answer, otherwise None."""
    if "default" in node:
        return node["default"]
    if node.get("default_factory_takes_data"):
        return None
    try:
        return node["default_factory"]()
    except Exception:  # it fails now, but may succeed later
        return None


def _is_bool(schema: Mapping[str, Any]) -> bool:
    """Whether a field is a bool. pydantic does not validate defaults, so its default 1 or "no" stays, and is truthy."""
    while isinstance(inner := schema.get("schema"), Mapping):
        schema = cast("Mapping[str, Any]", inner)
    return bool(schema["type"] == "bool")


def _name(part: dict[str, Any], outer: str) -> str:
    """Return the name, in an answer, of the field that a part of a core schema describes; `outer` if it has none."""
    names = (part.get("validation_alias"), part.get("name"))
    return next((name for name in names if isinstance(name, str)), outer)
