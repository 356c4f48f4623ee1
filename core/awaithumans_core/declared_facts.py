"""Errors whose facts are declared as fields of the class, so that a misspelled fact fails type checking.

The constructor is that of a dataclass. The class itself must not appear to be one: serializers treat every dataclass as
data. That of LangGraph would store an error of a node as a mapping of its fields, without the type and the text.
"""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

E = TypeVar("E", bound=BaseException)

_FIELDS = "__dataclass_fields__"
_DECLARED = "__awaithumans_facts__"


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
def declares_facts(kind: type[E]) -> type[E]:
    """Give an error class a constructor that takes the text and, as keyword arguments, the declared facts.

    Args:
        kind: The class. Its annotated attributes are the facts, in addition to those of its bases.
    """
    bases = [base for base in kind.__mro__[1:] if _DECLARED in vars(base)]
    for base in bases:
        setattr(base, _FIELDS, vars(base)[_DECLARED])
    dataclasses.dataclass(eq=False, repr=False, match_args=False, kw_only=True)(kind)
    setattr(kind, _DECLARED, vars(kind)[_FIELDS])
    for each in (kind, *bases):
        delattr(each, _FIELDS)
    return kind


def declared_facts(kind: type[BaseException]) -> "tuple[dataclasses.Field[Any], ...]":
    """Return the facts that an error class and its bases declare, with their defaults."""
    declared: dict[str, dataclasses.Field[Any]] = getattr(kind, _DECLARED)
    return tuple(declared[name] for name in declared if name not in ("message", "code"))
