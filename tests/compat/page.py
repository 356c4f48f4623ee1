"""The page of the documentation that has the tested interpreters and versions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.compat.environments import LOWEST, NEWEST, ROOT, Environment, Interpreter

PAGE = ROOT / "docs" / "reference" / "compatibility.md"
SHOWN = (
    *("httpx", "pydantic", "pydantic-settings", "itsdangerous", "rich", "temporalio", "langgraph", "langgraph-sdk"),
    *("langchain", "fastapi", "uvicorn", "sqlalchemy", "psycopg", "typer", "jinja2", "prometheus-client"),
    *("python-dotenv", "opentelemetry-api", "pytest"),
)
"""Dependencies of `pyproject.toml`. Those that they bring are in the files of versions."""
ALONE = "newest"
"""Versions of the environments that have one extra or none."""


def page(interpreters: Sequence[Interpreter], environments: Sequence[Environment]) -> str:
    """Return the page for a run in which every check of these environments passed on these interpreters."""
    return "\n".join([*_text(interpreters, environments), ""])


def _text(interpreters: Sequence[Interpreter], environments: Sequence[Environment]) -> Iterator[str]:
    releases = [".".join(each.version.split(".")[:2]) for each in interpreters]
    yield from (
        "# Compatibility",
        "",
        "<!-- Written by `make test-compat ARGS=--write`. Do not edit it by hand. -->",
        "",
        "Each cell is an environment in which the wheel was installed and its checks passed: all modules are imported,",
        "a script asks a person, and, where the extras are installed, a Temporal workflow, a LangGraph thread and a",
        "LangChain agent ask, and a relay delivers on SQLite and PostgreSQL. `make test-compat` repeats it.",
        "",
        "## Python",
        "",
        f"| installed | versions | {' | '.join(f'Python {each}' for each in releases)} |",
        f"|---|---|{'---|' * len(releases)}",
    )
    for each in environments:
        versions = "lowest" if each.constraints == LOWEST else ALONE
        yield f"| {_installed(each)} | {versions} | {' | '.join('passed' for _ in releases)} |"
    yield from (
        "",
        f"The run used Python {', '.join(each.version for each in interpreters)}.",
        "",
        "## Dependencies",
        "",
        "| dependency | lowest | newest |",
        "|---|---|---|",
    )
    lowest, newest = _versions(LOWEST), _versions(NEWEST)
    for name in SHOWN:
        yield f"| {name} | {lowest[name]} | {newest[name]} |"
    yield from (
        "",
        "All versions of the run are in `constraints-lowest.txt` and `constraints-newest.txt`.",
    )


def _installed(environment: Environment) -> str:
    if environment.extra is None:
        return "no extra"
    return "all extras" if environment.extra == "all" else f"`[{environment.extra}]`"


def _versions(file: Path) -> dict[str, str]:
    """Return the versions of a file by name."""
    lines = [line.split(";")[0].strip() for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)
