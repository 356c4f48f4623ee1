"""The URL of a database: which ones are usable, with which driver, and how one is shown without its password."""

from collections.abc import Mapping

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from awaithumans_core.errors import SettingsError
from awaithumans_core.http.addresses import cleaned

_POSTGRES: tuple[str, ...] = ("", "asyncpg", "pg8000", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async")
_SQLITE: tuple[str, ...] = ("", "pysqlite", "aiosqlite")
DRIVERS: Mapping[str, Mapping[str, str]] = {
    "sqlite": dict.fromkeys(_SQLITE, "sqlite+pysqlite"),
    "postgresql": dict.fromkeys(_POSTGRES, "postgresql+psycopg"),
    "postgres": dict.fromkeys(_POSTGRES, "postgresql+psycopg"),
}
"""The relay's own driver, by kind of database and by the driver that an application names. The data is the same."""

KINDS = (
    "write sqlite:///waits.db (a relative file), sqlite:////var/lib/relay/waits.db or "
    "postgresql://user:password@host/name; no other kind is known"
)
"""The hint in the error about a wrong URL."""

INSTALL_POSTGRES = "PostgreSQL needs psycopg: pip install 'awaithumans-workflows[postgres]'"
_OPTION_ADVICE = {
    "ssl": "write sslmode=require in its place",
    "schema": "write options=-csearch_path%3DNAME in its place",
}
"""Advice on options that only other drivers know."""


def parsed(url: str | URL) -> URL:
    """Return the cleaned URL of a database that can keep waits, with the driver of this package.

    Raises:
        SettingsError: The URL is not usable. A URL that cannot be parsed may hold a password anywhere, so it is not
            repeated.
    """
    try:
        given = make_url(cleaned(url) if isinstance(url, str) else url)
    except (ArgumentError, ValueError):
        raise SettingsError(f"not a database URL: {KINDS}") from None
    if "@" in (given.host or ""):
        raise SettingsError(
            "the database URL has more than one @: in a user's name or a password write it as %40, / as %2F, : as %3A"
        )
    kind, _, driver = given.drivername.partition("+")
    if kind not in DRIVERS:
        raise SettingsError(f"not a database URL of a known kind, {shown(given)}: {KINDS}")
    if (own := DRIVERS[kind].get(driver)) is None:
        raise SettingsError(
            f"the database URL names the driver {driver!r}, which the relay cannot use: write it as {shown(given)}"
        )
    if kind == "sqlite" and given.database in {None, "", ":memory:"}:
        raise SettingsError(f"the database URL names no file, and waits must outlive the process: {KINDS}")
    return given.set(drivername=own)


def shown(url: URL) -> str:
    """Return the URL as text without its driver and without a password, which may be in its query as well."""
    secret = [name for name in url.query if "password" in name.lower()]
    plain = url.set(drivername=url.get_backend_name()).difference_update_query(secret)
    return plain.render_as_string(hide_password=True)


def check_psycopg(url: URL) -> None:
    """Check that psycopg is installed and knows the options of this URL."""
    try:
        from psycopg import pq
    except ImportError as missing:  # psycopg itself, or the C library it needs
        raise SettingsError(f"{INSTALL_POSTGRES} ({missing})") from None
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in url.query:
        if name not in known:
            advice = _OPTION_ADVICE.get(name, "remove it")
            raise SettingsError(
                f"the database URL {shown(url)} has the option {name!r}, which PostgreSQL does not know: {advice}"
            )
