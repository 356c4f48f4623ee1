"""Interpreters, version sets and environments; everything that is made here is kept under `.compat/`."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devservers import tool

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".compat"
NAME = "awaithumans-workflows"
LOWEST, NEWEST = ROOT / "constraints-lowest.txt", ROOT / "constraints-newest.txt"
RESOLUTION = {LOWEST: "lowest-direct", NEWEST: "highest"}
FOR_DEVELOPMENT = {"demo", "dev"}
"""Extras whose versions are those of `constraints.txt`; users do not install them."""

_INTERPRETER = "import json, sys; print(json.dumps([sys.executable, sys.version_info[:3], sys.version_info[3]]))"
_HEADER = "# Versions that `make test-compat` tries. Names and versions only; renewed by `make compat-constraints`.\n"


class CommandError(Exception):
    """A program ended with an error; the text is its output."""


async def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Standard output and error of a program.

    Raises:
        CommandError: its exit status is not 0.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output = (await process.communicate())[0].decode(errors="replace")
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode:
        raise CommandError(f"exit status {process.returncode} of: {' '.join(map(str, command))}\n{output}")
    return output


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs the checks."""

    path: str
    version: str


async def interpreters() -> list[Interpreter]:
    """Python 3.11 and every newer release on PATH, the oldest first. Those of pyenv count if its shims are on PATH."""
    env = dict(os.environ)
    if shutil.which("pyenv"):
        env["PYENV_VERSION"] = ":".join((await run("pyenv", "versions", "--bare")).split())
    found = list[Interpreter]()
    for minor in range(11, 40):
        if path := shutil.which(f"python3.{minor}"):
            executable, version, level = json.loads(await run(path, "-c", _INTERPRETER, env=env))
            if level == "final":
                found.append(Interpreter(executable, ".".join(map(str, version))))
    return found


def extras() -> dict[str, set[str]]:
    """Each extra that users install, with the extras it brings."""
    declared = _project()["optional-dependencies"]
    return {name: _with_parts(name, declared) for name in declared if name not in FOR_DEVELOPMENT}


def _project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])


def _with_parts(extra: str, declared: Mapping[str, Sequence[str]]) -> set[str]:
    parts = [re.fullmatch(rf"{NAME}\[(.*)\]", requirement) for requirement in declared[extra]]
    named = {name for part in parts if part for name in part[1].split(",")}
    return {extra}.union(*(_with_parts(name, declared) for name in named))


async def renew_constraints() -> None:
    """Resolve the lowest and the newest versions anew and write them to their files."""
    for file, resolution in RESOLUTION.items():
        resolved = await run(
            *(
                tool("uv"),
                "pip",
                "compile",
                "pyproject.toml",
                "--extra",
                "all",
                "--universal",
                "--python-version",
                "3.11",
            ),
            *("--resolution", resolution, "--upgrade", "--quiet", "--no-header", "--no-annotate"),
            "--no-emit-index-url",
        )
        file.write_text(_HEADER + resolved)


async def build_wheel() -> Path:
    """The wheel of this source tree, as users install it."""
    folder = KEPT / "wheel"
    shutil.rmtree(folder, ignore_errors=True)
    versions = ROOT / "constraints.txt"
    await run(tool("uv"), "build", "--quiet", "--wheel", "--build-constraint", versions, "--out-dir", folder)
    return next(folder.glob("*.whl"))


@dataclass(frozen=True)
class Environment:
    """The package with some of its extras, in versions of one file, under one interpreter."""

    name: str
    extra: str | None
    constraints: Path
    interpreter: Interpreter

    @property
    def label(self) -> str:
        """Interpreter and name, for people."""
        return f"{self.interpreter.version:8}{self.name:12}"

    @property
    def extras(self) -> set[str]:
        """All extras that are installed."""
        return extras()[self.extra] if self.extra else set()

    @property
    def folder(self) -> Path:
        """Where it is kept. Another set of dependencies or versions has another folder."""
        sources = [
            (ROOT / "pyproject.toml").read_bytes(),
            self.constraints.read_bytes(),
            self.interpreter.path.encode(),
        ]
        digest = hashlib.sha256(b"\0".join(sources)).hexdigest()[:12]
        return KEPT / f"{self._prefix}{digest}"

    @property
    def _prefix(self) -> str:
        return f"{self.interpreter.version}-{self.name}-"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    async def install(self, wheel: Path) -> None:
        """Make the environment if it is not there, and install this wheel.

        Raises:
            CommandError: versions contradict each other, or one of them is not in the file.
        """
        uv, ready = tool("uv"), self.folder / ".ready"
        if not ready.exists():
            for outdated in KEPT.glob(f"{self._prefix}*"):
                shutil.rmtree(outdated)
            await run(uv, "venv", "--quiet", "--python", self.interpreter.path, self.folder)
            package = f"{NAME}{f'[{self.extra}]' if self.extra else ''} @ {wheel.as_uri()}"
            await run(
                *(uv, "pip", "install", "--quiet", "--python", self.python),
                *("--constraint", self.constraints, "--no-build", package),
            )
            await self._check_versions()
            ready.touch()
        await run(uv, "pip", "install", "--quiet", "--python", self.python, "--no-deps", "--reinstall", wheel)

    async def _check_versions(self) -> None:
        """Every version must come from the file, or a release of another project could fail the checks."""
        frozen = await run(tool("uv"), "pip", "freeze", "--quiet", "--python", self.python)
        known = {line.split(";")[0].strip() for line in self.constraints.read_text().splitlines()}
        unknown = [line for line in frozen.splitlines() if not line.startswith(NAME) and line not in known]
        if unknown:
            raise CommandError(f"not in {self.constraints.name}: {', '.join(unknown)}; run: make compat-constraints")


def environments(interpreter: Interpreter) -> list[Environment]:
    """All extras in the lowest and in the newest versions; then no extra, and each one alone."""
    alone = [Environment(extra, extra, NEWEST, interpreter) for extra in extras() if extra != "all"]
    return [
        Environment("lowest", "all", LOWEST, interpreter),
        Environment("newest", "all", NEWEST, interpreter),
        Environment("no-extra", None, NEWEST, interpreter),
        *alone,
    ]
