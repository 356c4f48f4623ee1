"""Problems with a starting relay's settings. They are logged, and the relay starts anyway.

The server may become reachable again, and callbacks are accepted meanwhile.
"""

from urllib.parse import urlsplit

from awaithumans_core.errors import SettingsError
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.settings import Settings
from awaithumans_relay.availability.server_causes import CONSEQUENCE
from awaithumans_relay.availability.server_check import server_problem

logger = safe_logger("awaithumans.relay")

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "0.0.0.0", None)  # noqa: S104 - recognised, not listened on


async def log_problems() -> None:
    """Log the problems with the settings in the environment."""
    try:
        for problem in await problems(Settings.load()):
            logger.warning(problem)
    except SettingsError as wrong:
        logger.warning(str(wrong))


async def problems(settings: Settings) -> list[str]:
    """Return the problems that the operator should know of, each with a way to fix it."""
    server = await server_problem(settings)
    found = (relay_address_problem(settings), server and f"{server}. {CONSEQUENCE}")
    return [problem for problem in found if problem is not None]


def relay_address_problem(settings: Settings) -> str | None:
    """Return the problem with the relay address that the server receives, or None."""
    if urlsplit(settings.url).hostname in _LOCAL_HOSTS:
        return None
    if settings.relay_url is None:
        return (
            "AWAITHUMANS_RELAY_URL is not set: the awaithumans server is on another machine, and callers must name an "
            "address at which it reaches this relay"
        )
    if urlsplit(settings.relay_url).hostname in _LOCAL_HOSTS:
        return (
            f"AWAITHUMANS_RELAY_URL is {settings.relay_url}: the awaithumans server is on another machine and will "
            "call itself there; give the address at which it reaches this relay"
        )
    return None
