"""The project folder of `awaithumans-relay dev`: one run at a time, and what is kept from run to run.

Tasks, workflows and waits are kept, since a graph is loaded at the start and every change of it needs a restart: a
person's answer must survive that. So the keys are kept with them: workers and scripts continue after a restart, and so
do browsers. Everything is in `.awaithumans/dev`, which only the user can read.

Law: two runs never use the same files. The lock is held by the run and by its servers, so it is free when the last of
them has ended, however they ended.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from awaithumans_core.discovery import project_folder
from awaithumans_core.errors import SettingsError
from awaithumans_relay.dev.humans_server import new_payload_key, new_token
from awaithumans_relay.dev.ports import claim, free_port

DATA = "dev"
"""Name of the folder inside of `.awaithumans`. Files of `awaithumans dev` are beside it."""
LOCK = "lock"
KEPT = "kept.json"


class ProjectBusyError(SettingsError):
    """Another run uses the project, or a server of a run that was killed is still ending."""


class Ports(BaseModel):
    """Ports on 127.0.0.1. By default, those that these servers have everywhere."""

    server: int = 3001
    temporal: int = 7233
    temporal_ui: int = 8233
    relay: int = 8787


USUAL = Ports()


class Kept(BaseModel):
    """The keys and ports of a project. Every project has its own, made at its first run."""

    api_token: str = Field(default_factory=new_token)
    payload_key: str = Field(default_factory=new_payload_key)
    relay_secret: str = Field(default_factory=new_token)
    password: str = Field(default_factory=lambda: secrets.token_urlsafe(12))
    """The password of the first operator, until they change it."""
    ports: Ports = Field(default_factory=Ports)


def choose(wanted: Mapping[str, int | None], last: Ports) -> Ports:
    """Choose and claim the ports of a run: those that must be used, else the usual, the last or free ones.

    Raises:
        SettingsError: a port that must be used is in use, or is wanted twice.
    """
    chosen = {name: port for name, port in wanted.items() if port is not None}
    for port in chosen.values():
        if not claim(port):
            raise SettingsError(f"port {port} is in use: stop the process that uses it, or give another port")
    for name in Ports.model_fields.keys() - chosen.keys():
        preferred = (getattr(USUAL, name), getattr(last, name))
        chosen[name] = next((port for port in preferred if claim(port)), None) or free_port()
    return Ports(**chosen)


@dataclass(frozen=True)
class Project:
    """The data of a project while a run has the lock."""

    data: Path
    """The folder for the data of this project."""
    lock: int
    """File descriptor of the lock, for the servers to keep open."""

    def kept(self) -> Kept:
        """Return what is kept from the last run, or new keys.

        Raises:
            SettingsError: the file cannot be read.
        """
        file = self.data / KEPT
        try:
            return Kept.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return Kept()
        except (OSError, ValidationError) as wrong:
            reason = wrong.strerror if isinstance(wrong, OSError) else "its content was changed"
            raise SettingsError(f"{file} cannot be used: {reason}; begin again with --fresh") from None

    def keep(self, kept: Kept) -> None:
        """Keep this for the next run."""
        unfinished = self.data / f"{KEPT}.new"
        unfinished.unlink(missing_ok=True)
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(kept.model_dump_json(indent=2))
        unfinished.replace(self.data / KEPT)

    def clear(self) -> None:
        """Delete all data and keys of earlier runs."""
        for each in self.data.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            elif each.name != LOCK:
                each.unlink()


@contextmanager
def locked(folder: Path) -> Generator[Project]:
    """Use a project folder for one run.

    Raises:
        ProjectBusyError: another run uses it.
        SettingsError: its `.awaithumans` cannot be used.
    """
    data = project_folder(folder) / DATA
    if data.is_symlink():  # a link in a cloned project would let --fresh delete another folder of the user
        raise SettingsError(f"{data} is not used: it is a link. Delete it, or start this in another folder")
    try:
        data.mkdir(mode=0o700, exist_ok=True)
        data.chmod(0o700)
        lock = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError(f"{data} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ProjectBusyError(f"another `awaithumans-relay dev` uses {folder}") from None
    try:
        yield Project(data, lock)
    finally:
        os.close(lock)
