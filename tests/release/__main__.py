"""python -m tests.release: build wheel and sdist into dist/, check both, and install them into new environments.

1. uv builds the sdist, and the wheel from the sdist. twine checks that a package index can render them.
2. The sdist has every file of the repository, and none that git ignores.
3. The wheel is installed without an extra and with each extra alone, in the versions of `constraints-newest.txt`, and
   a person answers a question there. The programs that check it are copied: the source is not on any path.
4. The sdist is unpacked. There all tests can be imported, and a fast part passes against the installed wheel.

The exit status is 1 if a step fails.
"""

import asyncio
import os
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from devservers import tool

from awaithumans_core.clock import SystemClock
from awaithumans_core.testing import FakeHumans
from tests.compat.environments import NAME, NEWEST, ROOT, CommandError, extras, run

DIST = ROOT / "dist"
CHECKS = {
    "release/installed.py": set[str](),
    "compat/checks/imports.py": set[str](),
    "compat/checks/script.py": set[str](),
    "compat/checks/fake_humans.py": {"testing"},
}
"""Programs in `tests`, with the extras each of them needs."""
FAST_TESTS = (
    "test_form",
    "test_outcome",
    "test_route",
    "test_settings",
    "test_signing",
    "test_version_files",
    "test_pages",
)
"""Modules of tests that run in the unpacked sdist (20 seconds)."""
GENERATED = {"PKG-INFO"}
"""Files that an sdist has in addition to those of the repository."""
AT_ONCE = 2
STEP_SECONDS = 600
"""Limit of a step, for a machine with much other work."""
SHOWN_LINES = 40
"""Length of the end of the output of a step that failed."""


async def build() -> tuple[Path, Path]:
    """Build sdist and wheel into an empty folder, and return them."""
    shutil.rmtree(DIST, ignore_errors=True)
    versions = ROOT / "constraints.txt"
    await run(tool("uv"), "build", "--quiet", "--build-constraint", versions, "--out-dir", DIST)
    return next(DIST.glob("*.tar.gz")), next(DIST.glob("*.whl"))


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack the sdist and return its root folder."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


async def check_files(sdist: Path) -> None:
    """Compare the sdist with the files that git knows. A copy of the source without git has nothing to compare.

    Raises:
        CommandError: a file of the repository is missing, or one that git ignores is in the sdist.
    """
    if not (ROOT / ".git").exists():
        return
    git = ("git", "-c", "safe.directory=*", "ls-files")  # the files may belong to another user, as in a container
    tracked = {name for name in (await run(*git)).splitlines() if (ROOT / name).is_file()}
    new = set((await run(*git, "--others", "--exclude-standard")).splitlines())
    with tarfile.open(sdist) as archive:
        packed = {member.name.partition("/")[2] for member in archive if member.isfile()} - GENERATED
    if wrong := [*(tracked - packed), *(packed - tracked - new)]:
        raise CommandError("either in the sdist or in git, but not in both:\n" + "\n".join(sorted(wrong)))


async def check_installed(extra: str | None, wheel: Path, humans: dict[str, str], folder: Path) -> None:
    """Install the wheel with this extra into a new environment, and run the checks that its extras allow."""
    uv, environment, installed = tool("uv"), folder / "environment", extras()[extra] if extra else set[str]()
    python = environment / "bin" / "python"
    await run(uv, "venv", "--quiet", "--python", sys.executable, environment)
    package = f"{NAME}{f'[{extra}]' if extra else ''} @ {wheel.as_uri()}"
    install = (uv, "pip", "install", "--quiet", "--python", python, "--no-build", "--constraint", NEWEST)
    await run(*install, package)
    version = wheel.name.split("-")[1]
    for check, needed in CHECKS.items():
        if needed <= installed:
            program = shutil.copy(ROOT / "tests" / check, folder)
            arguments = [version] if check == "release/installed.py" else []
            await run(python, "-I", program, *arguments, *sorted(installed), env=clean(folder) | humans, cwd=folder)


async def check_source(root: Path, wheel: Path, folder: Path) -> None:
    """Import all tests of the unpacked sdist and run some of them, with the wheel in place of the source.

    The environment has the wheel, and the other packages of `.venv`. The path to those is a line of a file in it: lines
    of files there are not read, so the repository's folders, which such a line of `.venv` names, are not on the path.
    """
    environment = folder / "environment"
    python = environment / "bin" / "python"
    await run(tool("uv"), "venv", "--quiet", "--python", sys.executable, environment)
    await run(tool("uv"), "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    (packages,) = (Path(sys.prefix) / "lib").glob("python3.*/site-packages")
    (own,) = (environment / "lib").glob("python3.*/site-packages")
    (own / "packages-of-venv.pth").write_text(f"{packages}\n")
    env = clean(folder)
    pytest = (python, "-P", "-m", "pytest", "--quiet", "-p", "no:cacheprovider")
    await run(*pytest, "--collect-only", "-n", "0", "-m", "edges or not edges", env=env, cwd=root)
    await run(*pytest, "-n", "0", "tests/unit", "tests/docs", "-k", " or ".join(FAST_TESTS), env=env, cwd=root)


def clean(folder: Path) -> dict[str, str]:
    """Variables for a program: none of the caller's settings or modules, and a home directory of its own."""
    foreign = ("AWAITHUMANS_", "TEMPORAL_", "PYTHON", "VIRTUAL_ENV", "LANGSMITH_", "LANGCHAIN_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return inherited | {"HOME": str(folder)}


async def passed(step: str, work: Coroutine[Any, Any, Any]) -> bool:
    """Do one step and print its line, with the end of its output if it failed."""
    began, problem = time.monotonic(), ""
    try:
        async with asyncio.timeout(STEP_SECONDS):
            await work
    except (CommandError, TimeoutError) as error:
        problem = str(error) or f"not finished after {STEP_SECONDS} s"
    line = f"{step:36} {'FAILED' if problem else 'ok':6} {time.monotonic() - began:6.1f} s"
    print("\n".join([line, *(f"    {each}" for each in problem.splitlines()[-SHOWN_LINES:])]), flush=True)
    return not problem


async def main() -> int:
    """Run all steps; return the exit status."""
    began = time.monotonic()
    sdist, wheel = await build()
    print(f"built {sdist.name} ({sdist.stat().st_size // 1024} kB), {wheel.name} ({wheel.stat().st_size // 1024} kB)")
    people = FakeHumans(clock=SystemClock())
    people.answer("Pay back", {"approved": True})
    with tempfile.TemporaryDirectory() as name, people.serving() as url:
        humans = {"AWAITHUMANS_URL": url, "AWAITHUMANS_ADMIN_API_TOKEN": people.token}
        slots = asyncio.Semaphore(AT_ONCE)

        def new_folder() -> Path:
            return Path(tempfile.mkdtemp(dir=name))

        async def step(title: str, work: Coroutine[Any, Any, Any]) -> bool:
            async with slots:
                return await passed(title, work)

        root = unpack(sdist, new_folder())
        results = await asyncio.gather(
            step("twine check", run(tool("twine"), "check", "--strict", sdist, wheel)),
            step("sdist has the files of the repository", check_files(sdist)),
            step("sdist runs its tests", check_source(root, wheel, new_folder())),
            *(
                step(f"wheel with {extra or 'no extra'}", check_installed(extra, wheel, humans, new_folder()))
                for extra in [None, *extras()]
            ),
        )
    print(f"{len(results)} steps, {results.count(False)} failures, {time.monotonic() - began:.0f} s")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
