"""The steps that a flow yields, the replies of the driver, and the limits of both."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from awaithumans_core import clock as clocks
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff
from awaithumans_core.services import SERVER, Service

R = TypeVar("R")

POLL_SECONDS = 25
"""Default duration of one long poll: the server's default, below the 60 s after which common gateways time out."""

POLL_MARGIN_SECONDS = 10.0
"""Seconds beyond the duration of a long poll after which the connection counts as dead."""

CALL_SECONDS = 15.0
"""Timeout of every other call in seconds."""

RETRY_AFTER_SECONDS = 60.0
"""Maximum of a Retry-After in seconds, so that a proxy's maintenance page does not outlast a person's question."""

FINAL_CHECK_SECONDS = 30.0
"""Seconds for which a plain script tries to close its task at the deadline, and to read who answered it."""

TIMEOUT_GRACE_SECONDS = 15.0
"""Seconds that a caller waits beyond the deadline of a task.

The server's scheduler and its callback queue run every 5 s.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """Step: send this request. The driver replies with `Reply` or `Lost`. The repr shows no proof and no content."""

    method: str
    url: str
    """Path below the server's address, or a whole URL."""
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    """The question, and in a task's body the callback URL with its route token."""
    params: Mapping[str, Any] | None = None
    bearer: str | None = field(default=None, repr=False)
    """Proof to send. None: the driver's own API token, which goes to the task server and nowhere else."""
    timeout: float = CALL_SECONDS
    """Seconds after which the request counts as lost."""
    service: Service = field(default=SERVER, repr=False, compare=False)
    """The service that is called, for the text of errors."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Step: wait this number of seconds. The driver replies with None."""

    seconds: float
    reason: str
    """Why the flow waits."""
    missing: bool = False
    """Whether the server replied that it does not know the task. Otherwise there was no usable reply."""
    logged: bool = True
    """Whether to log the pause. False: the same reason was logged before."""
    advice: str = ""
    """What to do if the reason does not pass by itself, as a sentence without its full stop."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Step: report a changed status, or the first known one. The driver replies with None."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy that a request was sent through, from the environment of this process."""

    variable: str
    """Name of the environment variable that sets it."""
    address: str
    """Address of the proxy, without user name and password."""
    host: str
    """The host that was to be reached through it."""

    def __str__(self) -> str:
        return f"the proxy {self.address} ({self.variable})"

    @property
    def advice(self) -> str:
        """What to do if it refuses or alters requests."""
        return f"Correct {self.variable}, or add {self.host} to NO_PROXY if it can be reached without a proxy"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP reply. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cut: bool = False
    """Whether the body is missing because it was larger than a client reads."""
    proxy: Proxy | None = None
    """The proxy that may have made this reply, unless it is usable."""
    url: str = field(default="", compare=False)
    """The whole URL that was called, without its query."""
    elsewhere: str = field(default="", compare=False)
    """A note on the awaithumans server of this machine, if it has announced itself at another address."""


@dataclass(frozen=True, slots=True)
class Lost:
    """There was no complete reply: the connection was refused, reset or cut, or timed out."""

    error: str
    url: str = field(default="", compare=False)
    """The whole URL that was called, without its query."""
    elsewhere: str = field(default="", compare=False)
    """A note on the awaithumans server of this machine, if it has announced itself at another address."""


Step = Call | Pause | Notice

Flow = Generator[Step, Reply | Lost | None, R]


@dataclass(frozen=True, slots=True)
class Patience:
    """Limit of the retries while there is no usable reply."""

    seconds: float = 60.0
    """Seconds from the first attempt."""
    backoff: Backoff = field(default_factory=Backoff)
    clock: Callable[[], float] = field(default_factory=lambda: clocks.SYSTEM.now)
    """Returns monotonic seconds."""


def brief(patience: Patience) -> Patience:
    """Return a patience of at most `FINAL_CHECK_SECONDS`."""
    return Patience(min(FINAL_CHECK_SECONDS, patience.seconds), patience.backoff, patience.clock)
