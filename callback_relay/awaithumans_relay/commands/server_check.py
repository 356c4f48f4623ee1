"""Problems with the settings of a relay that starts, as far as it can detect them by itself.

It starts in spite of them: the server may become reachable again, and callbacks are accepted meanwhile.
"""

from urllib.parse import urlsplit

import httpx

from awaithumans_core.errors import SettingsError
from awaithumans_core.flow import answered_by_proxy
from awaithumans_core.http.clients import async_client, lost_reason, reply_of
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.settings import Settings

logger = safe_logger("awaithumans.relay")

LOOK_SECONDS = 5.0
_ITS_ADDRESS = "give the server's own address as AWAITHUMANS_URL"
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", None)  # noqa: S104 - recognised, not listened on


async def warn() -> None:
    """Log the problems with the settings in the environment."""
    try:
        for said in await warnings(Settings.load()):
            logger.warning(said)
    except SettingsError as wrong:
        logger.warning(str(wrong))


async def warnings(settings: Settings) -> list[str]:
    """Return warnings for the operator, each with a way to fix the problem."""
    return [said for said in (relay_address(settings), await server(settings)) if said is not None]


def relay_address(settings: Settings) -> str | None:
    """Return the problem with the relay address that the server receives, or None."""
    if urlsplit(settings.url).hostname in _HERE:
        return None
    if settings.relay_url is None:
        return (
            "AWAITHUMANS_RELAY_URL is not set: the awaithumans server is on another machine, and whoever asks must "
            "name an address at which it reaches this relay"
        )
    if urlsplit(settings.relay_url).hostname in _HERE:
        return (
            f"AWAITHUMANS_RELAY_URL is {settings.relay_url}: the awaithumans server is on another machine and will "
            "call itself there; give the address at which it reaches this relay"
        )
    return None


async def server(settings: Settings) -> str | None:
    """Return the problem with the server or with our token for it, or None."""
    try:
        async with async_client(timeout=LOOK_SECONDS) as http:
            reply = await http.get(
                f"{settings.url.rstrip('/')}/api/tasks",
                params={"limit": 1},
                headers={"Authorization": f"Bearer {settings.token()}"},
            )
    except (httpx.RequestError, httpx.InvalidURL) as away:
        reason = lost_reason(away) if isinstance(away, httpx.RequestError) else str(away)
        return (
            f"the awaithumans server does not answer at {settings.url} ({reason}): start it, or {_ITS_ADDRESS}; until "
            "then, answers that are not called back are not found"
        )
    if not _is_list(reply) and (proxy := answered_by_proxy(reply_of(reply))) is not None:
        return (
            f"the awaithumans server at {settings.url} is not reached: {proxy} answers {reply.status_code} in its "
            f"place. {proxy.advice}"
        )
    if reply.status_code in {401, 403} and _is_json(reply):
        return (
            f"the awaithumans server refuses AWAITHUMANS_ADMIN_API_TOKEN ({reply.status_code}): callbacks are taken, "
            "but answers that are not called back (by e-mail, in Slack) will not be found. Give the server's own token"
        )
    if not reply.is_success:
        return f"{settings.url} answers {reply.status_code} to GET /api/tasks: is it the awaithumans server?"
    return None if _is_list(reply) else f"{settings.url} answers, but not as the awaithumans server: {_ITS_ADDRESS}"


def _is_list(reply: httpx.Response) -> bool:
    """Whether the reply is a list. A page that a web app or proxy returns for every path is not a list of tasks."""
    return _is_json(reply) and isinstance(reply.json(), list)


def _is_json(reply: httpx.Response) -> bool:
    try:
        reply.json()
    except ValueError:
        return False
    return True
