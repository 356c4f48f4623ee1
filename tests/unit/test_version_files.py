"""The version files that `make`, the container and `make test-compat` install from."""

import re
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
