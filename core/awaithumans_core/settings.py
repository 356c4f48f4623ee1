"""Every environment name in one place; secrets are masked in repr.

An explicit argument wins over the environment, the environment over what a local `awaithumans dev` wrote to
`~/.awaithumans-dev.json`, and that over the default.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from awaithumans_core.errors import SettingsError
from awaithumans_core.http.addresses import cleaned, http_address
from awaithumans_core.http.local_server import announced_server
from awaithumans_core.route import RouteSigner
from awaithumans_core.secret_strength import GENERATE, weakness
from awaithumans_core.signing import KeyRing


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(http_address)]

Secrets = Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)]
"""One secret, or several with commas between them.

The first is used, all are accepted, so that secrets can be rotated.
"""


def _name(field: str, given: Mapping[str, object]) -> str:
    named = f"AWAITHUMANS_{field.upper()}"
    return named if given.get(field) is None else f"the argument in place of {named}"


class Settings(BaseSettings):
    """What this package needs to know. Each field is read from `AWAITHUMANS_` and its name in upper case."""

    model_config = SettingsConfigDict(env_prefix="AWAITHUMANS_", env_ignore_empty=True, frozen=True, extra="ignore")

    url: Address = "http://localhost:3001"
    """Address of the awaithumans server, as seen from this process."""
    admin_api_token: SecretStr | None = None
    """Token for the task API. Needed by every process that creates or reads tasks: workers, scripts, the relay."""
    public_url: Address | None = None
    """The awaithumans server as reviewers see it; review links use it. Default: `url`."""
    relay_url: Address | None = None
    """Address of the relay, as seen from the awaithumans server and from the callers."""
    relay_secret: Secrets = Field(default_factory=list[SecretStr])
    """Secret shared by the relay and its callers. It signs the callback URLs."""
    webhook_key: Secrets = Field(default_factory=list[SecretStr])
    """Derived webhook key of the server (base64, 32 bytes). Needed by the relay only."""
    payload_key: Secrets = Field(default_factory=list[SecretStr])
    """The server's root key; the webhook key is derived from it.

    Give the relay the derived one instead where you can.
    """
    relay_database: SecretStr | None = None
    """Where the relay keeps its waits (SQLAlchemy URL, which may hold a password). Needed by the relay only."""
    relay_operator_token: SecretStr | None = None
    """Authenticates the operator at the relay's page and its endpoints for listing and redriving waits.

    Without it, they refuse every request.
    """

    @classmethod
    def load(cls, **given: Any) -> "Settings":
        """Read the settings; arguments that are not None win.

        Raises:
            SettingsError: a value is malformed. The text names it and never repeats it.
        """
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as invalid:
            wrong = "; ".join(
                f"{_name(str(e['loc'][0]), given)}: {e['msg'].removeprefix('Value error, ')}" for e in invalid.errors()
            )
            raise SettingsError(wrong) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then what a local `awaithumans dev` wrote."""
        return init_settings, _Stripped(env_settings), _Discovery(settings_cls)

    def token(self) -> str:
        """The API token, in clear.

        Raises:
            SettingsError: there is none.
        """
        token = self.admin_api_token.get_secret_value().strip() if self.admin_api_token is not None else ""
        if not token:
            raise SettingsError(
                "AWAITHUMANS_ADMIN_API_TOKEN is not set and no local `awaithumans dev` was found: set it to the "
                "server's token"
            )
        if not (token.isascii() and token.isprintable()):
            raise SettingsError("AWAITHUMANS_ADMIN_API_TOKEN holds characters that no HTTP header can carry")
        return token

    def relay(self) -> str:
        """The relay's address, without a slash at the end.

        Raises:
            SettingsError: there is none.
        """
        if not self.relay_url:
            raise SettingsError(
                "AWAITHUMANS_RELAY_URL is not set: give the address at which the awaithumans server reaches your "
                "relay, for instance http://localhost:8787"
            )
        return self.relay_url.rstrip("/")

    def signer(self) -> RouteSigner:
        """Signer of callback URLs, from `relay_secret`."""
        return RouteSigner([secret.get_secret_value() for secret in self.relay_secret])

    def key_ring(self) -> KeyRing:
        """Verifier of callbacks, from `webhook_key` and `payload_key`."""
        return KeyRing.of(
            webhook_keys=[key.get_secret_value() for key in self.webhook_key],
            payload_keys=[key.get_secret_value() for key in self.payload_key],
        )

    def operator_token(self) -> str | None:
        """The operator's token, in clear; None: there is none.

        Raises:
            SettingsError: it can be guessed, or no HTTP header can carry it.
        """
        token = self.relay_operator_token.get_secret_value().strip() if self.relay_operator_token is not None else ""
        if not token:
            return None
        weak = weakness(token) if token.isascii() and token.isprintable() else "holds more than printable ASCII"
        if weak is not None:
            raise SettingsError(f"AWAITHUMANS_RELAY_OPERATOR_TOKEN {weak}: generate one with: {GENERATE}")
        return token

    def review_url(self, task_id: str) -> str:
        """Where a person answers this task in the dashboard."""
        return f"{(self.public_url or self.url).rstrip('/')}/task?id={quote(task_id, safe='', errors='replace')}"


class _Discovery(PydanticBaseSettingsSource):
    """The address and the token of a running `awaithumans dev`. A file left behind by an ended one is ignored."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        if {"url", "admin_api_token"} <= self.current_state.keys():
            return {}
        dev = announced_server()
        chosen = self.current_state.get("url")
        if dev is None or (chosen is not None and _place(chosen) != _place(dev.url)):
            return {}  # its token must not be sent to another server
        if not dev.is_running():
            return {}
        return {"url": dev.url} | ({"admin_api_token": dev.admin_token} if dev.admin_token else {})


class _Stripped(PydanticBaseSettingsSource):
    """Another source without the blanks and line ends around its values, which environment files leave behind.

    A value that is nothing else is not set.
    """

    def __init__(self, source: PydanticBaseSettingsSource) -> None:
        super().__init__(source.settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in self._source().items()}
        return {name: value for name, value in stripped.items() if value != ""}


def _place(url: str) -> str:
    """Return a form of a local address that is the same for every spelling of it."""
    return cleaned(url).rstrip("/").replace("//localhost", "//127.0.0.1")
