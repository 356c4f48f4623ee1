"""File permissions of the relay's SQLite files."""

import logging
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from awaithumans_core import Route
from awaithumans_relay.store import Store


@contextmanager
def umask(mask: int) -> Generator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


PRIVATE = {"waits.db": 0o600, "waits.db-wal": 0o600, "waits.db-shm": 0o600}


@pytest.mark.parametrize("form", ["path", "URI"])
async def test_sqlite_files_are_private_from_the_start(tmp_path: Path, form: str) -> None:
    """Only the relay's user can read database, log and index, whatever the umask."""
    plain = f"sqlite:///{tmp_path / 'waits.db'}"
    store = Store(plain if form == "path" else f"sqlite:///file:{tmp_path / 'waits.db'}?uri=true")
    with umask(0):
        await store.start()
        await store.intake.register("task-1", Route("shelf", {}, "k"), 900)
        assert modes(tmp_path) == PRIVATE
        await store.stop()
        await store.start()
        assert modes(tmp_path) == PRIVATE
        await store.stop()


async def test_file_that_replaces_a_deleted_one_is_private(tmp_path: Path) -> None:
    """The new file of a running relay is as private as the first one."""
    store, file = Store(f"sqlite:///{tmp_path / 'waits.db'}"), tmp_path / "waits.db"
    with umask(0):
        await store.start()
        await store.intake.register("task-1", Route("shelf", {}, "k"), 900)
        file.unlink()
        with pytest.raises(OSError, match="deleted"):
            await store.intake.register("task-2", Route("shelf", {}, "k2"), 900)
        await store.intake.register("task-2", Route("shelf", {}, "k2"), 900)
        assert [
            wait.task_id for wait in [*await store.queries.find("task-1"), *await store.queries.find("task-2")]
        ] == [
            "task-1",
            "task-2",
        ]
        assert modes(tmp_path) == PRIVATE
        await store.stop()


async def test_existing_file_that_others_can_read_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The owner chose the mode, so the log names file and command, and nothing is changed."""
    file = tmp_path / "waits.db"
    file.touch()
    file.chmod(0o640)
    for _ in range(2):
        store = Store(f"sqlite:///{file}")
        with caplog.at_level(logging.WARNING, "awaithumans.relay"):
            await store.start()
        await store.stop()
    warned = [record.getMessage() for record in caplog.records if "other users" in record.getMessage()]
    assert len(warned) == 1
    assert "mode 0640" in warned[0]
    assert f"chmod 600 {file}" in warned[0]
    assert modes(tmp_path) == {"waits.db": 0o640}
