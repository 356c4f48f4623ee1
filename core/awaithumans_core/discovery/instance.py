"""The content of the discovery file: one running `awaithumans-relay dev`."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_serializer

from awaithumans_core.http.addresses import http_address, is_loopback
from awaithumans_core.secret_strength import MIN_SECRET_CHARS


class UnusableFileError(Exception):
    """Raised when a discovery file exists and is not used. The text gives the reason, without its content."""


def _loopback_url(text: str) -> str:
    url = http_address(text).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.path or parts.port is None or not is_loopback(parts.hostname):
        raise ValueError("it must be http://127.0.0.1:PORT or http://[::1]:PORT")
    return url


def _loopback_address(text: str) -> str:
    parts = urlsplit(f"//{text}")
    if parts.netloc != text or "@" in text or parts.port is None or not is_loopback(parts.hostname):
        raise ValueError("it must be 127.0.0.1:PORT or [::1]:PORT")
    return text


LoopbackUrl = Annotated[str, AfterValidator(_loopback_url)]
"""Address of a server on this machine, as a number.

The name `localhost` can mean two addresses, and a process of another user can listen on the one that the instance does
not use.
"""


class DevInstance(BaseModel):
    """A running `awaithumans-relay dev`: its addresses on this machine, and the secrets that its callers need.

    The key of the awaithumans server (AWAITHUMANS_PAYLOAD_KEY) is not among them, because only the relay needs it.
    """

    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True)

    version: Literal[1] = 1
    """Version of the format. A file of another version is not used."""
    server_url: LoopbackUrl
    """The awaithumans server: http://127.0.0.1:PORT."""
    api_token: Annotated[SecretStr, Field(min_length=1)]
    """Token for the task API."""
    relay_url: LoopbackUrl
    """The relay: http://127.0.0.1:PORT."""
    relay_secret: Annotated[SecretStr, Field(min_length=MIN_SECRET_CHARS)]
    """Secret shared by the relay and its callers. Each project has its own."""
    temporal_address: Annotated[str, AfterValidator(_loopback_address)] | None = None
    """The Temporal dev server: 127.0.0.1:PORT. None: the instance has none."""

    @field_serializer("api_token", "relay_secret", when_used="json")
    def _in_clear(self, secret: SecretStr) -> str:
        return secret.get_secret_value()  # only the file is JSON; `repr` and the Python form hide it
