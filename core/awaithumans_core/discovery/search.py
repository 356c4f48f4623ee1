"""Find the running instance of a project: the nearest file, trusted and confirmed."""

from pathlib import Path
from typing import NamedTuple

from awaithumans_core.discovery.confirmation import is_running
from awaithumans_core.discovery.file import DevFile, nearest_file, read
from awaithumans_core.discovery.instance import UnusableFileError
from awaithumans_core.time_limit import within_limit


class Searched(NamedTuple):
    """The result of a search: a file, or why the file that exists is not used, or neither."""

    found: DevFile | None = None
    problem: str | None = None


def trusted_file(start: Path | None = None) -> Searched:
    """Return the nearest discovery file if only the user can have written it. Nothing is asked over the network."""
    try:
        path = nearest_file(start)
        return Searched() if path is None else Searched(read(path))
    except UnusableFileError as refused:
        return Searched(problem=str(refused))


def confirmed(file: DevFile) -> Searched:
    """Return the file if its instance proves itself. It must not be called in an event loop, because it blocks."""
    if file.of_this_process or is_running(file.instance):
        return Searched(file)
    return Searched(
        problem=f"{file.path} is not used: the relay that wrote it does not answer at {file.instance.relay_url}. Start "
        "`awaithumans-relay dev` again, or delete the file"
    )


def running_instance(start: Path | None = None) -> DevFile | None:
    """Return the nearest discovery file whose instance runs and has proved itself; None if there is none.

    Safe to call in an event loop.

    Args:
        start: The folder where the search begins. Default: the working directory.
    """

    def search() -> DevFile | None:
        found = trusted_file(start).found
        return None if found is None else confirmed(found).found

    return within_limit(search, None)
