"""Response classes that ask a person for a secret, which are refused.

An answer is stored in clear text: in workflow histories, in checkpoints and in the database of the relay. pydantic's
`SecretStr` hides a value from logs only.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import SecretBytes, SecretStr

from awaithumans_core.errors import InvalidTaskError
from awaithumans_core.form.markers import asks_for_a_secret
from awaithumans_core.schema.classes import adapter, fields, once
from awaithumans_core.schema.explicit_yes import VALUE_KEYS
from awaithumans_core.temporal_patches import applies


def refuse_secrets(response_schema: Any) -> None:
    """Raise if an answer would contain a secret.

    A question that a workflow asked before this rule existed is accepted when the workflow is replayed.

    Raises:
        InvalidTaskError: a part of the class is a `SecretStr`, `SecretBytes` or `Secret`, or an input for a password.
    """
    secret = once(response_schema, "__awaithumans_secret__", lambda: _secret(response_schema))
    if secret and applies("awaithumans-no-secret-answers"):
        raise InvalidTaskError(
            f"{getattr(response_schema, '__name__', response_schema)} asks for a secret in {secret!r}: answers are "
            "stored in clear text in histories, checkpoints and the relay's database. Ask for a reference to the "
            "secret instead, for instance its name in a vault"
        )


def _secret(response_schema: Any) -> str:
    """Return the name of the field that asks for a secret; "" if none does."""
    marked = (field.name for field in fields(response_schema) if asks_for_a_secret(field.rules))
    return next(marked, "") or _within(adapter(response_schema).core_schema, "")


def _within(part: Any, field: str) -> str:
    """Return the name of the field in a part of a core schema that is a secret; "" if none is."""
    if isinstance(part, list | tuple):
        return next(filter(None, (_within(each, field) for each in cast("Iterable[Any]", part))), "")
    if not isinstance(part, dict):
        return ""
    held = cast("dict[str, Any]", part)
    if isinstance(held.get("type"), str):
        if _is_secret(held):
            return field or "response"
        held = {key: value for key, value in held.items() if key not in VALUE_KEYS}
        return next(filter(None, (_within(each, field) for each in _named(held, field))), "")
    if isinstance(held.get("name"), str):  # a parameter of a function or a dataclass
        return _within(list(held.values()), cast("str", held["name"]))
    return next(filter(None, (_within(each, str(name)) for name, each in held.items())), "")


def _named(held: Mapping[str, Any], field: str) -> Iterable[Any]:
    return (
        [{held["name"]: value} for value in held.values()] if held.get("type") == "dataclass-field" else held.values()
    )


def _is_secret(held: Mapping[str, Any]) -> bool:
    """Whether a part of a core schema creates a secret."""
    function: Any = held.get("function")
    made = cast("Mapping[str, Any]", function).get("function") if isinstance(function, Mapping) else None
    if isinstance(made, type):
        return issubclass(made, SecretStr | SecretBytes)
    named = f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', '')}"
    return named.startswith(_SECRET)


_SECRET = "pydantic.types.Secret."  # noqa: S105 - the name of a class
"""The functions with which pydantic creates a `Secret[...]`. A test fails if it renames them."""
