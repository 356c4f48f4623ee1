"""What an answer is bound to: the parts of a question that a person has decided on.

Law: an answer belongs to the question that the person was asked. A key alone does not identify it, because a caller
that runs again, or another caller with the same key, may ask something else under it. So the question is compared with
the record of the task, or with the digests of it that a checkpoint keeps. docs/explanation/binding.md has the table of
all callers.

`PARTS` are compared. The timeout, the channels and the metadata are not, because they are not decided on; neither is
the form, which another release may derive differently from the same response class.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

from awaithumans_core.task import REASK, reask_mark

PARTS = ("task", "payload", "assign_to", "response_schema")
"""The parts of a question that are compared, by the names of the options."""

Parts = Mapping[str, str]
"""Digests of the parts of one question, by name. A part that is hidden by a server is missing."""


def parts(body: Mapping[str, Any]) -> Parts:
    """Return digests of the parts of a task record.

    A name that is missing in it, and a payload that was redacted or erased, are not compared.
    """
    return dict(_parts(body))


def parts_asked(body: Mapping[str, Any]) -> Parts:
    """Digests of the parts of a task body. A name that is missing in it is an option that was not used."""
    return parts({"assign_to": None, **body, "redact_payload": False})


def differences(asked: Parts, known: Parts, *, payload_only: bool = False) -> tuple[str, ...]:
    """Return the names of the parts that both questions have and that differ.

    Args:
        asked: What is asked now.
        known: What the person was asked.
        payload_only: Compare the payload and nothing else. A question without a payload is compared by its text.
    """
    text_alone = _EMPTY in (asked.get("payload"), known.get("payload"))
    compared = ("task", "payload") if payload_only and text_alone else ("payload",) if payload_only else PARTS
    return tuple(name for name in compared if name in asked and name in known and not _same(name, asked, known))


def _same(name: str, asked: Parts, known: Parts) -> bool:
    """Whether both have the same part. Texts of the same re-ask differ only in what was wrong with the last answer."""
    same_reask = name == "task" and REASK in asked and asked[REASK] == known.get(REASK)
    return same_reask or asked[name] == known[name]


def _parts(body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "task" in body:
        yield "task", _digest(body["task"])
    if (mark := reask_mark(body)) is not None:
        yield REASK, mark
    hidden = body.get("payload") == _REDACTED and body.get("redact_payload") is not False
    if (digest := _recorded_digest(body)) is not None:
        yield "payload", digest
    elif body.get("payload") is not None and not hidden:
        yield "payload", payload_digest(body["payload"])
    if "assign_to" in body:
        yield "assign_to", _digest(_people(body["assign_to"]))
    if isinstance(schema := body.get("response_schema"), Mapping):
        yield "response_schema", schema_digest(cast("Mapping[str, Any]", schema))


PAYLOAD_DIGEST = "x-awaithumans-payload"
"""Annotation in a task's payload_schema: the digest of the payload as the caller gave it.

A record carries it if the payload was sent as rows that people can read (see `display.rows`). What is compared is
the caller's payload, so that another layout is not another question. People are not shown the annotation.
"""


def payload_digest(payload: Any) -> str:
    """Return the digest of a payload as the caller gave it."""
    return _digest(payload)


def _recorded_digest(body: Mapping[str, Any]) -> str | None:
    schema = body.get("payload_schema")
    digest = cast("Mapping[str, Any]", schema).get(PAYLOAD_DIGEST) if isinstance(schema, Mapping) else None
    return digest if isinstance(digest, str) else None


_REDACTED = {"_redacted": True}
"""What a server shows in place of a payload that it hides."""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


_EMPTY = _digest({})


def _people(assign_to: Any) -> Any:
    """An `assign_to` without what makes no difference: one address or a list of one, order, capital letters."""
    if not isinstance(assign_to, Mapping):
        return assign_to
    given = cast("Mapping[str, Any]", assign_to)
    addresses = [given["email"]] if "email" in given else list(given.get("emails") or ())
    others = {name: value for name, value in given.items() if name not in ("email", "emails")}
    return {**others, "emails": sorted(str(address).strip().casefold() for address in addresses)}


def schema_digest(schema: Mapping[str, Any]) -> str:
    """Return a digest of the answers that a JSON Schema describes, and of the texts beside the fields.

    It does not depend on what different releases of pydantic write differently for the same class: where a definition
    is placed and how it is called, the order of names, patterns, `const` or `enum`. The name and the docstring of a
    class do not count; titles, descriptions and defaults of fields do, because people see them.
    """
    return _schema_digest(json.dumps(schema))


@lru_cache(maxsize=500)
def _schema_digest(schema: str) -> str:
    return _Shape(json.loads(schema)).digest()


_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_LENGTHS = ("minLength", "maxLength", "minItems", "maxItems", "uniqueItems")
_VALUES = ("type", "enum", "format", "default", *_LIMITS, *_LENGTHS)
_SCHEMAS = ("items", "additionalProperties")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SHOWN = ("title", "description")


class _Shape:
    """The parts of one JSON Schema that count, with each definition replaced by its digest."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._digests: dict[str, str] = {}
        self._inside: list[str] = []

    def digest(self) -> str:
        return _digest(self._shape(self._schema))

    def _shape(self, part: Any, shown: tuple[str, ...] = ()) -> Any:
        if not isinstance(part, Mapping):
            return None  # true or false: anything or nothing more is allowed, which `settle` decides by the class
        given = dict(cast("Mapping[str, Any]", part))
        if "const" in given:
            given["enum"] = [given["const"]]
        if "enum" in given:
            given.pop("type", None)
        shape: dict[str, Any] = {name: given[name] for name in (*_VALUES, *shown) if given.get(name) is not None}
        shape |= {name: found for name in _SCHEMAS if (found := self._shape(given.get(name))) is not None}
        shape |= {name: [self._shape(each) for each in given[name]] for name in _LISTS if name in given}
        if "properties" in given:
            shape["properties"] = {name: self._shape(each, _SHOWN) for name, each in given["properties"].items()}
            shape["required"] = sorted(given.get("required", ()))
        return shape | ({"$ref": self._definition(given["$ref"])} if "$ref" in given else {})

    def _definition(self, reference: str) -> str:
        """Digest of a definition. One that contains itself is known there by how far up it begins."""
        name = reference.removeprefix("#/$defs/")
        definitions: Mapping[str, Any] = self._schema.get("$defs", {})
        if name not in definitions:
            return reference
        if name in self._inside:
            return str(len(self._inside) - self._inside.index(name))
        if name not in self._digests:
            self._inside.append(name)
            self._digests[name] = _digest(self._shape(definitions[name]))
            self._inside.pop()
        return self._digests[name]
