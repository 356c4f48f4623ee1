"""What the README shows must run."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_blocks() -> None:
    """The pattern that finds the blocks finds them: three callers and the relay."""
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("block", BLOCKS, ids=["temporal", "langgraph", "script", "relay"])
def test_block_runs(block: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each Python block defines what it says with nothing but the documented settings."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "ADMIN_API_TOKEN": "t",
        "RELAY_SECRET": "s" * 32,
        "PAYLOAD_KEY": "A" * 43,
        "RELAY_URL": "http://localhost:8787",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWAITHUMANS_{name}", value)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102


def test_every_variable_is_documented() -> None:
    """Each setting the code reads stands in the README's table."""
    from awaithumans_core import Settings

    for name in Settings.model_fields:
        assert f"`AWAITHUMANS_{name.upper()}`" in README
