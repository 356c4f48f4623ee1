"""The checks of `doctor` beside the running relay. A check returns what it found, or raises with the way to fix it."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from pydantic import ValidationError

from awaithumans_core.engine import ChecksThreads, Reachable, Remarks
from awaithumans_core.errors import SettingsError
from awaithumans_core.route import Route
from awaithumans_core.services import ENGINES
from awaithumans_core.settings import Settings
from awaithumans_relay.availability.server_check import server_problem
from awaithumans_relay.commands import startup_checks
from awaithumans_relay.commands.engines import EngineFactory
from awaithumans_relay.commands.existing_waits import existing_store, shown_url

_UNSEEN = (
    "This check cannot confirm that the server signs with it: if it does not, the relay's log shows `refused (401)` "
    "for every callback"
)
"""Why the check cannot confirm the key.

The probe is signed with the key configured here, and the server shows its key to no client.
"""


SHOWN_TASKS = 3
"""Maximum number of missing tasks that are named."""


class UnsetError(SettingsError):
    """Raised when an optional setting is not set."""


def readable_settings() -> tuple[Settings, dict[str, str]]:
    """Return the settings without the malformed ones, and the errors of those by name."""
    try:
        return Settings().with_local_key(), {}
    except ValidationError as invalid:
        wrong = {str(each["loc"][0]): each["msg"].removeprefix("Value error, ") for each in invalid.errors()}
    fields = Settings.model_fields
    usable = Settings(**{name: fields[name].get_default(call_default_factory=True) for name in wrong})
    return usable.with_local_key(), {f"AWAITHUMANS_{name.upper()}": problem for name, problem in wrong.items()}


def setting_checks(settings: Settings) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
    """Return the names of the settings, each with a check whether it can be used. No secret is shown."""

    def as_check(read: Callable[[], str]) -> Callable[[], Awaitable[str]]:
        async def check() -> str:
            return read()

        return check

    def relay_url() -> str:
        if wrong := startup_checks.relay_address_problem(settings):
            raise SettingsError(wrong)
        return settings.relay()

    def relay_secret() -> str:
        settings.signer()
        return _key_count(len(settings.relay_secret))

    def webhook_key() -> str:
        settings.key_ring()
        return _keys(settings)

    def admin_api_token() -> str:
        settings.token()
        return "set"

    def operator_token() -> str:
        if not settings.operator_token():
            raise UnsetError("not set: the operator's page and API are closed")
        return "set"

    return [
        ("AWAITHUMANS_URL", as_check(lambda: settings.url)),
        ("AWAITHUMANS_ADMIN_API_TOKEN", as_check(admin_api_token)),
        ("AWAITHUMANS_RELAY_SECRET", as_check(relay_secret)),
        ("AWAITHUMANS_WEBHOOK_KEY", as_check(webhook_key)),
        ("AWAITHUMANS_RELAY_URL", as_check(relay_url)),
        ("AWAITHUMANS_RELAY_OPERATOR_TOKEN", as_check(operator_token)),
    ]


def _key_count(count: int) -> str:
    return "set" if count == 1 else f"{count} are set: the first signs, all are accepted"


def _keys(settings: Settings) -> str:
    if settings.payload_key:
        return (
            "derived here from AWAITHUMANS_PAYLOAD_KEY; `awaithumans-relay derive-key` prints the derived key, with "
            f"which the relay need not know the server's root key. {_UNSEEN}"
        )
    return f"{_key_count(len(settings.webhook_key))}. {_UNSEEN}"


async def check_server(settings: Settings) -> str:
    """Check that the server responds and accepts the token."""
    if wrong := await server_problem(settings):
        raise SettingsError(wrong)
    return f"reachable at {settings.url}, and accepts the token"


async def check_database(url: str) -> str:
    """Check that the database opens and is of this release."""
    async with existing_store(url) as store:
        counts = await store.queries.counts()
        summary = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
        return f"{shown_url(url)}: {summary or 'no waits'}"


async def check_tasks(url: str) -> str:
    """Check that the server knows the tasks of all open waits."""
    async with existing_store(url) as store:
        count, some = await store.missing_tasks.listed(SHOWN_TASKS)
    if not count:
        return "the server has the tasks of all open waits"
    raise SettingsError(
        f"{count:,} tasks of open waits are missing on the awaithumans server, for instance {', '.join(some)}. Either "
        "they were deleted, and their callers are notified within 15 minutes; or the server runs on another database, "
        "and no wait ends. Check AWAITHUMANS_URL and the database of the server"
    )


async def check_engine(made: EngineFactory) -> str:
    """Check that the engines respond."""
    async with AsyncExitStack() as stack:
        engines = await made(stack)
        try:
            for engine in engines:
                if isinstance(engine, Reachable):
                    await engine.check()
            remarks = [await engine.remark() for engine in engines if isinstance(engine, Remarks)]
        except SettingsError:
            raise
        except Exception as error:  # any error of an engine is the finding
            found = [ENGINES[engine.name].if_silent for engine in engines if engine.name in ENGINES]
            advice = found[0] if found else "Start what it needs"
            raise SettingsError(
                f"unreachable ({type(error).__name__}: {error}). {advice}, here and in `serve`"
            ) from error
    return "; ".join(["reachable", *remarks])


async def check_thread(made: EngineFactory, database: str, thread_id: str) -> str:
    """Check that the relay can read this thread, as the user whose question the relay knows, if it knows one."""
    async with AsyncExitStack() as stack:
        engines = [engine for engine in await made(stack) if isinstance(engine, ChecksThreads)]
        if not engines:
            raise UnsetError("not an engine with threads")
        store = await stack.enter_async_context(existing_store(database))
        found: list[str] = []
        for engine in engines:
            wait = await store.queries.of_thread(engine.name, thread_id)
            route = Route(engine.name, {"thread_id": thread_id}, "") if wait is None else wait.route
            reader = _NO_WAIT if wait is None else f" (read for task {wait.task_id})"
            found.append(await engine.check_thread(route) + reader)
        return "; ".join(found)


_NO_WAIT = " (this relay has no wait on it, so it was read for no particular user)"
