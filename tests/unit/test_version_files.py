"""The files that state versions: those that commands install from, and pages of the documentation."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"[a-z0-9-]+==[A-Za-z0-9.]+( ; [\w'\"<>=!. ()]+)?")


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt", "constraints-newest.txt"])
def test_version_file_contains_only_names_and_versions(name: str) -> None:
    """Without index addresses, paths and options the file works on every machine."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    assert [line for line in lines if not PINNED.fullmatch(line)] == []


def test_classifiers_name_the_tested_interpreters() -> None:
    """The package claims exactly the releases of Python on which `make test-compat` passed."""
    page = (ROOT / "docs/reference/compatibility.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    claimed = [found[1] for each in project["classifiers"] if (found := re.fullmatch(r".* :: (3\.\d+)", each))]
    assert re.findall(r"Python (3\.\d+) \|", page) == claimed
    assert project["requires-python"] == f">={claimed[0]}"


def test_tests_in_the_versioning_page_exist() -> None:
    """Each promise about what older releases have stored names tests that show it."""
    named = re.findall(r"`(tests/[\w/.]+)::(\w+)`", (ROOT / "docs/explanation/versioning.md").read_text())
    assert len(named) > 5
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), name
