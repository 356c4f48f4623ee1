"""Write, remove, find and read the discovery file `.awaithumans/dev.json`.

Law: only the user can have written a file that is used. File and folders belong to the user, no other user can read the
file, and no symbolic link is followed to it.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from awaithumans_core.discovery.instance import DevInstance, UnusableFileError
from awaithumans_core.errors import SettingsError

FOLDER = ".awaithumans"
"""Folder of the discovery file in the project folder. `awaithumans dev` keeps its database and keys there as well."""

NAME = "dev.json"

_MAX_BYTES = 64 * 1024
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER_ONLY = getattr(os, "O_DIRECTORY", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a named pipe waits for a writer
_LINK_ERRORS = (errno.ELOOP, errno.ENOTDIR)
"""Errors of opening a link as a file or as a folder that must not be one."""

_written_here: dict[Path, DevInstance] = {}
"""The instances that this process has announced, by file. It need not confirm them to itself."""


@dataclass(frozen=True)
class DevFile:
    """A discovery file that can be trusted, and its content. Whether the instance still runs is not known."""

    path: Path
    """The file."""
    instance: DevInstance
    """The instance that wrote it."""
    of_this_process: bool = False
    """Whether this process has written it."""


def project_folder(project: Path) -> Path:
    """Return the folder `.awaithumans` of a project. It is created, with a `.gitignore` that keeps it out of git.

    Raises:
        SettingsError: it cannot be created, or it or its `.gitignore` is a link or belongs to another user.
    """
    folder = project.resolve() / FOLDER
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _check_owner(folder.lstat(), folder, stat.S_ISDIR)
        _ignore_in_git(folder)
    except UnusableFileError as refused:
        raise SettingsError(str(refused)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else "its .gitignore is not text in UTF-8"
        raise SettingsError(f"{folder} cannot be written: {reason}") from None
    return folder


def announce(instance: DevInstance, project: Path) -> Path:
    """Write the discovery file of a project, and a `.gitignore` beside it. Return the file's path.

    A file that is already there is replaced: ask `running_instance(project)` first.

    Raises:
        SettingsError: it cannot be written, or `.awaithumans` is a link or belongs to another user.
    """
    folder = project_folder(project)
    path = folder / NAME
    try:
        unfinished = folder / f".{NAME}.{secrets.token_hex(8)}"
        file = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600)
        try:
            with os.fdopen(file, "w", encoding="utf-8") as opened:
                opened.write(instance.model_dump_json(indent=2) + "\n")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}") from None
    _written_here[path] = instance
    return path


def withdraw(instance: DevInstance, project: Path) -> None:
    """Remove the discovery file of a project, unless another instance has replaced it. Raises nothing."""
    path = project.resolve() / FOLDER / NAME
    _written_here.pop(path, None)
    with suppress(OSError, UnusableFileError):
        if read(path).instance.relay_secret == instance.relay_secret:
            path.unlink()


def nearest_file(start: Path | None = None, *, name: str = NAME) -> Path | None:
    """Return the discovery file of this folder, or of the nearest folder above it that has one.

    The search ends at the home directory, and at a folder of another user.

    Args:
        start: The folder where the search begins. Default: the working directory.
        name: Another file of `.awaithumans` to search for.

    Raises:
        UnusableFileError: the nearest file is in a folder of another user.
    """
    folder, home = _place(start)
    if folder is None:
        return None
    for project in (folder, *folder.parents):
        path = project / FOLDER / name
        mine = _is_mine(project.stat())
        if os.path.lexists(path):
            if not mine:
                raise UnusableFileError(f"{path} is not used: {project} belongs to another user")
            return path
        if not mine or project == home:
            return None
    return None


def read(path: Path) -> DevFile:
    """Read a discovery file.

    Raises:
        UnusableFileError: it may be from another user, or it is not a discovery file. The text gives the reason.
    """
    content = read_private(path)
    try:
        instance = DevInstance.model_validate_json(content)
    except ValidationError as wrong:
        first = wrong.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "content"
        reason = first["msg"].removeprefix("Value error, ")
        raise UnusableFileError(f"{path} is not used: {where}: {reason}") from None
    return DevFile(path, instance, of_this_process=_written_here.get(path) == instance)


def read_private(path: Path) -> bytes:
    """Read a file of `.awaithumans` that only the user can have written, and only the user can read.

    Raises:
        UnusableFileError: it is another file. The text gives the reason.
    """
    try:
        with _opened(path) as file:
            _check_file(os.fstat(file), path)
            return b"".join(_pieces(file))
    except FileNotFoundError:
        raise UnusableFileError(f"{path} was removed") from None
    except OSError as error:
        reason = "it is behind a symbolic link" if error.errno in _LINK_ERRORS else error.strerror or error
        raise UnusableFileError(f"{path} is not used: {reason}") from None


def _place(start: Path | None) -> tuple[Path | None, Path | None]:
    """Return the folder where the search begins and the home directory; None for one that does not exist."""
    folder = home = None
    with suppress(OSError, RuntimeError):
        folder = (start or Path.cwd()).resolve(strict=True)
    with suppress(OSError, RuntimeError):
        home = Path.home().resolve(strict=True)
    return folder, home


@contextmanager
def _opened(path: Path) -> Generator[int]:
    """Open the file by its folder, so that neither is exchanged for a link after it was checked."""
    if os.open not in os.supports_dir_fd:
        file = os.open(path, os.O_RDONLY)
        try:
            yield file
        finally:
            os.close(file)
        return
    folder = os.open(path.parent, os.O_RDONLY | _FOLDER_ONLY | _NO_LINK)
    try:
        _check_owner(os.fstat(folder), path.parent, stat.S_ISDIR)
        file = os.open(path.name, os.O_RDONLY | _NO_LINK | _NO_WAIT, dir_fd=folder)
        try:
            yield file
        finally:
            os.close(file)
    finally:
        os.close(folder)


def _pieces(file: int) -> Generator[bytes]:
    left = _MAX_BYTES
    while left > 0 and (piece := os.read(file, left)):
        left -= len(piece)
        yield piece


def _check_file(found: os.stat_result, path: Path) -> None:
    _check_owner(found, path, stat.S_ISREG)
    if not _OWNERS_ARE_KNOWN:
        if not _in_home(path):
            raise UnusableFileError(f"{path} is not used: its owner is not known, and it is not in your home directory")
    elif stat.S_IMODE(found.st_mode) & 0o077:
        raise UnusableFileError(f"{path} is not used: other users may access it (mode {found.st_mode & 0o777:04o})")


def _check_owner(found: os.stat_result, path: Path, is_kind: Callable[[int], bool]) -> None:
    if not is_kind(found.st_mode):
        raise UnusableFileError(f"{path} is not used: it is a link, or another kind of file than expected")
    if not _is_mine(found):
        raise UnusableFileError(f"{path} is not used: it belongs to another user")


_OWNERS_ARE_KNOWN = hasattr(os, "geteuid")
"""False on Windows. There only the home directory is private to its user, so only files in it are used."""


def _is_mine(found: os.stat_result) -> bool:
    return not _OWNERS_ARE_KNOWN or found.st_uid == os.geteuid()


def _in_home(path: Path) -> bool:
    home = _place(None)[1]
    return home is not None and home in path.parents


def _ignore_in_git(folder: Path) -> None:
    """Keep the folder out of git, whatever the project's own `.gitignore` contains."""
    file = folder / ".gitignore"
    if os.path.lexists(file):  # a link in a cloned project would let this write to another file of the user
        _check_owner(file.lstat(), file, stat.S_ISREG)
    present = file.read_text(encoding="utf-8") if file.exists() else ""
    if "*" not in present.split():
        file.write_text(f"{present}{'' if not present or present.endswith(chr(10)) else chr(10)}*\n", encoding="utf-8")
