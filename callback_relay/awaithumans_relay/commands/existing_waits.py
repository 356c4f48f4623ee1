"""Access to a relay's waits from another process. The database is used as it is, never created and never migrated."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from awaithumans_core.errors import SettingsError
from awaithumans_relay.store import Store
from awaithumans_relay.store.database.url import parsed, shown
from awaithumans_relay.store.table.schema import SCHEMA_VERSION, schema_version

DEV_DATABASE = Path(".awaithumans/dev/relay/waits.db")
"""Where `awaithumans-relay dev` keeps the waits of the project in this folder."""

ELSEWHERE = "Give the relay's database with --database or AWAITHUMANS_RELAY_DATABASE."


@asynccontextmanager
async def existing_store(url: str) -> AsyncGenerator[Store]:
    """Open the store of a relay that has run.

    Raises:
        SettingsError: There is no database at this URL, it is another release's, or it is unreachable. The text holds
            no password.
    """
    named = shown_url(url)
    _check_file(url)
    store = Store(url)
    try:
        await store.database.read(_check_version)
        yield store
    except SQLAlchemyError as error:
        raise SettingsError(f"the database {named} is unreachable, or holds no waits: {_reason(error)}") from None
    finally:
        await store.stop()


def shown_url(url: str) -> str:
    """Return a database URL in a form that may be shown.

    Raises:
        SettingsError: The URL cannot be parsed, and may hold a password anywhere.
    """
    return shown(parsed(url))


def _check_file(url: str) -> None:
    given = parsed(url)
    if given.get_backend_name() != "sqlite":
        return
    file = Path(given.database or "")
    if not file.is_file():
        other = (
            f"That of `awaithumans-relay dev` is --database sqlite:///{DEV_DATABASE}"
            if DEV_DATABASE.is_file()
            else "Start `awaithumans-relay serve` first"
        )
        raise SettingsError(
            f"there is no database at {file.absolute()}: no relay has run with it yet. {other}. {ELSEWHERE}"
        )


def _check_version(db: Connection) -> None:
    found = db.execute(select(schema_version.c.version)).scalars().first()
    if found != SCHEMA_VERSION:
        raise SettingsError(
            f"the database belongs to another release (schema {found}, this command needs {SCHEMA_VERSION}): use the "
            "command of the relay's release, or start the relay of this release, which migrates the database"
        )


def _reason(error: Exception) -> str:
    original = getattr(error, "orig", None) or error
    return " ".join(str(original).split()).rstrip(".")
