"""A worker in a project where `awaithumans-relay dev` runs must be connected to the Temporal server of that instance.

Otherwise it asks through a relay that cannot wake its workflows: their answers would be parked, and they would wait
until their deadline. That happens when another project has the usual port.
"""

from urllib.parse import urlsplit

from temporalio.client import Client

from awaithumans_core.discovery import running_instance
from awaithumans_core.errors import SettingsError
from awaithumans_core.settings import Settings


def check_address(client: Client) -> None:
    """Check the address of a worker's client.

    Raises:
        SettingsError: its questions would be asked through the instance, and it is connected to another server.
    """
    found = running_instance()
    if found is None or found.instance.temporal_address is None or not _asks_through(found.instance.relay_url):
        return
    needed, connected = found.instance.temporal_address, client.service_client.config.target_host
    if _place(connected) != _place(needed):
        raise SettingsError(
            f"this worker is connected to Temporal at {connected}, and asks through the relay of {found.path}, which "
            f"wakes workflows at {needed}: connect to that address"
        )


def _asks_through(relay_url: str) -> bool:
    try:
        return Settings.load().relay_url == relay_url
    except SettingsError:  # reported when a question is asked
        return False


def _place(address: str) -> tuple[str, int | None]:
    """Return host and port; all names of this machine are equal."""
    parts = urlsplit(f"//{address}")
    host = parts.hostname or ""
    return "localhost" if host in {"127.0.0.1", "::1"} else host, parts.port
