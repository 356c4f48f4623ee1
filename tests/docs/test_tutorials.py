"""Each tutorial, followed word for word in a new folder: real servers, its files, its commands, and what they show."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.terminals import reader

TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))


@pytest.mark.edges
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_can_be_followed(page: Path, tmp_path: Path) -> None:
    """Every step gives what the page shows, from an empty folder to the stopped servers."""
    with reader(tmp_path / "refunds") as following:
        for block in blocks(page):
            following.follow(block)
