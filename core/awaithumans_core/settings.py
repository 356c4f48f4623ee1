"""Every environment name in one place; secrets are masked in repr.

The sources, the first of them wins:

1. an argument
2. a variable, `AWAITHUMANS_...`
3. an env file that the caller names: `Settings.load(env_file=".env")`. The command line reads `.env` by itself
4. the running `awaithumans-relay dev` of the project: `.awaithumans/dev.json`
5. a running `awaithumans dev`: `~/.awaithumans-dev.json`
6. the default
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from awaithumans_core.discovery.server_key import key_beside_server
from awaithumans_core.discovery.values import discovered_values
from awaithumans_core.errors import SettingsError
from awaithumans_core.http.addresses import http_address, is_same_place
from awaithumans_core.http.local_server import announced_elsewhere
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
    relay_sweep_percent: float = Field(default=2.0, gt=0, le=100)
    """Percentage of the time that the requests of the relay's sweep may take, of all relays of a database together."""
    relay_operator_token: SecretStr | None = None
    """Authenticates the operator at the relay's page and its endpoints for listing and redriving waits.

    Without it, they refuse every request.
    """

    @classmethod
    def load(cls, *, env_file: str | Path | None = None, **given: Any) -> "Settings":
        """Read the settings; arguments that are not None win.

        Args:
            env_file: Also read this file of `NAME=value` lines. A variable of the environment wins over a line of it.
            given: Values by field name.

        Raises:
            SettingsError: a value is malformed, or the file cannot be read. The text names it and never repeats the
                value.
        """
        try:
            values: dict[str, Any] = {"_env_file": _readable(env_file)}
            return cls(**values | {name: value for name, value in given.items() if value is not None})
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
        """Combine the sources in the order that the module documents."""
        return (_Combined(settings_cls, init_settings, _Stripped(env_settings), env_file=_Stripped(dotenv_settings)),)

    def token(self) -> str:
        """The API token, in clear.

        Raises:
            SettingsError: there is none.
        """
        token = self.admin_api_token.get_secret_value().strip() if self.admin_api_token is not None else ""
        if not token:
            elsewhere = announced_elsewhere(self.url)
            raise SettingsError(
                f"AWAITHUMANS_ADMIN_API_TOKEN is not set: the token for the API of the awaithumans server at "
                f"{self.url}. Use the value that this variable has on the server"
                + (f"; {elsewhere} (AWAITHUMANS_URL)" if elsewhere else ""),
                missing=("AWAITHUMANS_ADMIN_API_TOKEN",),
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
                "AWAITHUMANS_RELAY_URL is not set: the address at which the awaithumans server and the callers reach "
                "your relay (`awaithumans-relay serve`), for instance http://localhost:8787",
                missing=("AWAITHUMANS_RELAY_URL",),
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

    def with_local_key(self) -> "Settings":
        """Return the settings of a relay: without a key of their own, with that of a local `awaithumans dev`.

        The server keeps it in `.awaithumans/payload.key` of the folder in which it was started. Only the relay needs
        it, so `load` does not read it.
        """
        if self.webhook_key or self.payload_key or self.admin_api_token is None:
            return self
        key = key_beside_server(self.url, self.admin_api_token.get_secret_value())
        return self if key is None else self.model_copy(update={"payload_key": [key]})

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


def check_all(*checks: Callable[[], object]) -> None:
    """Make all checks of settings, and list everything that is wrong in one error.

    Args:
        checks: For instance `settings.token` and `settings.signer`.

    Raises:
        SettingsError: a check failed. Each problem has a line of its own.
    """
    wrong: list[str] = []
    missing: list[str] = []
    for check in checks:
        try:
            check()
        except SettingsError as error:
            wrong.append(error.text)
            missing.extend(error.missing)
    if missing:
        wrong.append(_OWN_RELAY if "AWAITHUMANS_WEBHOOK_KEY" in missing else _WHERE_TO_SET)
    if wrong:
        raise SettingsError("\n".join(wrong), missing=tuple(missing))


_OWN_RELAY = (
    "For development, an application with a relay of its own needs `awaithumans dev`, started in the folder of the "
    "application (its address, token and key are found there), AWAITHUMANS_RELAY_URL with the path under which the "
    "relay is included, and AWAITHUMANS_RELAY_SECRET. `awaithumans-relay dev` has a relay of its own, and gives its "
    "key to no other. `awaithumans-relay init` writes a `.env` that explains the settings; applications do not read "
    "it by themselves (`uvicorn --env-file .env`)"
)

_WHERE_TO_SET = (
    "For development start `awaithumans-relay dev` in the folder of the project: nothing needs to be set then. "
    "Otherwise set the variables; `awaithumans-relay init` writes a `.env` that explains them. The command line reads "
    "it, other programs only if asked (`Settings.load(env_file=...)`, `uvicorn --env-file .env`)"
)


class _Combined(PydanticBaseSettingsSource):
    """All sources in one. The first source that has a value wins, and development servers fill in what is missing."""

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        *sources: PydanticBaseSettingsSource,
        env_file: PydanticBaseSettingsSource,
    ) -> None:
        super().__init__(settings_cls)
        self._sources, self._env_file = sources, env_file

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        given: dict[str, Any] = {}
        for source in self._sources:
            given = source() | given
        in_file = self._env_file()
        _refuse_mixed(given, in_file)
        given = in_file | given
        return given | discovered_values(given)


def _refuse_mixed(given: Mapping[str, Any], in_file: Mapping[str, Any]) -> None:
    """Refuse to use a secret of an env file with the address of another server.

    Raises:
        SettingsError: the file names the server of its secret, and a variable or an argument names another server.
    """
    for address, secret in (("url", "admin_api_token"), ("relay_url", "relay_secret")):
        both = given.get(address) is not None and in_file.get(address) is not None
        if not both or in_file.get(secret) is None or given.get(secret) is not None:
            continue
        if not is_same_place(given[address], in_file[address]):
            raise SettingsError(
                f"AWAITHUMANS_{address.upper()} in the env file names another address than the variable or argument "
                f"that wins over it, and AWAITHUMANS_{secret.upper()} of the file is not sent there: set both in the "
                "same place"
            )


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


def _readable(file: str | Path | None) -> Path | None:
    """Return the path of an env file.

    Raises:
        SettingsError: it cannot be read as text. A settings library would ignore a missing file without a word.
    """
    if file is None:
        return None
    path = Path(file).expanduser()
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        reason = unreadable.strerror if isinstance(unreadable, OSError) else "it is not text in UTF-8"
        raise SettingsError(f"the env file {path} cannot be read: {reason}") from None
    return path
