"""The package runs from its environment, with its type information, and reports the version that was built.

The first argument is that version; the others are the installed extras.
"""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

PACKAGES = ("awaithumans_core", "awaithumans_adapters", "awaithumans_relay")
HINT = "pip install 'awaithumans-workflows[relay]'"


def folder(package: str) -> Path:
    """The folder of a package, without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, package
    assert spec.origin is not None, package
    return Path(spec.origin).parent


def relay_version() -> subprocess.CompletedProcess[str]:
    """The result of `awaithumans-relay --version`."""
    program = Path(sys.executable).with_name("awaithumans-relay")
    return subprocess.run([program, "--version"], check=False, capture_output=True, text=True)


def main(version: str, *extras: str) -> None:
    for package in PACKAGES:
        assert folder(package).is_relative_to(sys.prefix), folder(package)
        assert (folder(package) / "py.typed").is_file(), package
    assert importlib.metadata.version("awaithumans-workflows") == version
    shown = relay_version()
    if "relay" in extras:
        assert (shown.returncode, shown.stdout) == (0, f"awaithumans-relay {version}\n"), shown
    else:
        assert shown.returncode, shown
        assert HINT in shown.stderr, shown


if __name__ == "__main__":
    main(*sys.argv[1:])
