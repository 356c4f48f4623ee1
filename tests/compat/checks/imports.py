"""Import every module whose extras are installed; the arguments are those extras."""

import importlib
import pkgutil
import sys

PACKAGES = ("awaithumans_core", "awaithumans_adapters", "awaithumans_relay")
NEEDS = {
    "awaithumans_core": set[str](),
    "awaithumans_core.pytest_plugin": {"testing"},
    "awaithumans_core.testing": {"testing"},
    "awaithumans_adapters.temporal": {"temporal"},
    "awaithumans_adapters.temporal.testing": {"temporal", "testing"},
    "awaithumans_adapters.langgraph": {"langgraph"},
    "awaithumans_adapters.langgraph.approval_middleware": {"langchain"},
    "awaithumans_adapters.langgraph.testing": {"langgraph", "testing"},
    "awaithumans_relay": {"relay"},
}
"""Extras of each module and of the modules below it; the longest name that fits counts."""


def needs(module: str) -> set[str]:
    """The extras without which this module cannot be imported."""
    fitting = [name for name in NEEDS if f"{module}.".startswith(f"{name}.")]
    return NEEDS[max(fitting, key=len)] if fitting else set()


def import_all(package: str, installed: set[str]) -> int:
    """Import this package and all modules below it that the installed extras allow; return their number."""
    if not needs(package) <= installed:
        return 0
    module = importlib.import_module(package)
    below = pkgutil.iter_modules(getattr(module, "__path__", []), f"{package}.")
    return 1 + sum(import_all(info.name, installed) for info in below)


if __name__ == "__main__":
    print(sum(import_all(package, set(sys.argv[1:])) for package in PACKAGES), "modules")
