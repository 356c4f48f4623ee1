"""Find the running instance of a project: the nearest file, trusted and confirmed."""

from pathlib import Path
from typing import NamedTuple

from awaithumans_core.discovery.confirmation import LIMIT_SECONDS, is_running, within_limit
from awaithumans_core.discovery.file import DevFile, nearest_file, read
from awaithumans_core.discovery.instance import UnusableFileError


class Searched(NamedTuple):
    """The result of a search: a file, or why the file that exists is not used, or neither."""

    found: DevFile | None = None
    problem: str | None = None


def trusted_file(start: Path | None = None) -> Searched:
    """Return the nearest discovery file if only the user can have written it. Nothing is asked over the network."""
    return within_limit(lambda: _trusted(start), _NOT_IN_TIME)


def confirmed(file: DevFile) -> Searched:
    """Return the file if its instance proves itself."""
    if file.of_this_process or within_limit(lambda: is_running(file.instance), otherwise=False):
        return Searched(file)
    return Searched(
        problem=f"{file.path} is not used: the relay that wrote it does not answer at {file.instance.relay_url}. Start "
        "`awaithumans-relay dev` again, or delete the file"
    )


def running_instance(start: Path | None = None) -> DevFile | None:
    """Return the nearest discovery file whose instance runs and has proved itself; None if there is none.

    Args:
        start: The folder where the search begins. Default: the working directory.
    """
    found, _ = trusted_file(start)
    return None if found is None else confirmed(found).found


def _trusted(start: Path | None) -> Searched:
    try:
        path = nearest_file(start)
        return Searched() if path is None else Searched(read(path))
    except UnusableFileError as refused:
        return Searched(problem=str(refused))


_NOT_IN_TIME = Searched(
    problem=f"the discovery file of `awaithumans-relay dev` was not read within {LIMIT_SECONDS:g} s"
)
