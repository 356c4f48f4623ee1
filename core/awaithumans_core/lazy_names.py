"""Packages whose names are imported at their first use (PEP 562), so that importing the package itself is cheap."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: dict[str, Any], homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package that imports each of its public names at the first access.

    The package also imports the names under `TYPE_CHECKING`, where type checkers and editors find them.

    Args:
        package: The `globals()` of the package.
        homes: The module of each name, below the package.
    """
    named = package["__name__"]

    def __getattr__(name: str) -> object:  # noqa: N807 - it becomes the package's
        if name not in homes:
            raise AttributeError(f"module {named!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{named}.{homes[name]}"), name)
        package[name] = value
        return value

    def __dir__() -> list[str]:  # noqa: N807 - it becomes the package's
        return sorted(homes)

    return __getattr__, __dir__
