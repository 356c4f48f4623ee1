"""The output of commands: results on stdout, problems with their fix on stderr, and an exit code."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from awaithumans_core.errors import AwaitHumansError, SettingsError
from awaithumans_core.safe_text import block

EXIT_FAILED = 2
"""Exit code when a command could not do its work: settings, arguments, the database."""

EXIT_UNREACHABLE = 3
"""Exit code when a dependency of the relay is unreachable but may return, so that a later start may succeed."""


class UnreachableError(SettingsError):
    """Raised when a dependency is unreachable now."""


Database = Annotated[
    str,
    typer.Option(
        envvar="AWAITHUMANS_RELAY_DATABASE",
        show_envvar=False,  # too long for its column
        show_default="awaithumans-relay.db here",
        help="Database of the relay, as for `serve`. Overrides AWAITHUMANS_RELAY_DATABASE. The relay need not run.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@contextmanager
def errors_reported() -> Generator[None]:
    """Print an error of ours in one line, without a traceback, and end the command."""
    try:
        yield
    except AwaitHumansError as error:
        line = Text.assemble((error.code, "bold red"), " ", block(error.text))
        Console(stderr=True, soft_wrap=True).print(line)
        raise typer.Exit(EXIT_UNREACHABLE if isinstance(error, UnreachableError) else EXIT_FAILED) from None
