"""Checks whether the awaithumans server can be read with the settings of this process."""

import httpx

from awaithumans_core.flow import Lost
from awaithumans_core.http.clients import async_client, lost, reply_of
from awaithumans_core.settings import Settings
from awaithumans_relay.availability.server_causes import describe_reply

TIMEOUT_SECONDS = 5.0


async def server_problem(settings: Settings) -> str | None:
    """Return the problem with the server or with our token for it, or None."""
    try:
        async with async_client(timeout=TIMEOUT_SECONDS) as http:
            response = await http.get(
                f"{settings.url.rstrip('/')}/api/tasks",
                params={"limit": 1},
                headers={"Authorization": f"Bearer {settings.token()}"},
            )
    except httpx.RequestError as error:
        return describe_reply(lost(error), settings.url)
    except httpx.InvalidURL as error:
        return describe_reply(Lost(str(error)), settings.url)
    return describe_reply(reply_of(response), settings.url)
