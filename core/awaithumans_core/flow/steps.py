"""The vocabulary of a flow: the steps that it yields, what the driver replies, and the limits of both."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from awaithumans_core import clock as clocks
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import Backoff

R = TypeVar("R")

POLL_SECONDS = 25
"""How long one poll is held: the server's default, under the 60 s after which common gateways cut a connection."""

POLL_MARGIN_SECONDS = 10.0
"""What a held poll may take longer than asked before the connection counts as dead."""

CALL_SECONDS = 15.0
"""Limit of every other call."""

RETRY_AFTER_SECONDS = 60.0
"""A longer Retry-After is cut to this: a proxy's maintenance page must not outlast a person's question."""

FINAL_CHECK_SECONDS = 30.0
"""How long a plain script tries to close its task at the deadline, and to learn who answered it."""

TIMEOUT_GRACE_SECONDS = 15.0
"""What a caller allows the server past a task's deadline.

Its scheduler looks every 5 s, its callback queue every 5 s.
"""


@dataclass(frozen=True, slots=True)
class Call:
    """Send this request; answer with a `Reply` or `Lost`. Its repr shows neither a proof nor content."""

    method: str
    url: str
    """Path below the server's address, or a whole URL."""
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    """The question, and in a task's body the callback URL with its route token."""
    params: Mapping[str, Any] | None = None
    bearer: str | None = field(default=None, repr=False)
    """Proof to send. None: the driver's own API token, which goes to the task server and nowhere else."""
    timeout: float = CALL_SECONDS
    """Seconds until it counts as lost."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds; answer with None. `reason` says what is being waited out."""

    seconds: float
    reason: str
    missing: bool = False
    """Whether the server replies, and does not know the task; otherwise there was no usable reply."""
    logged: bool = True
    """False: the same reason was logged before."""


@dataclass(frozen=True, slots=True)
class Notice:
    """The task's status has changed, or is known for the first time; answer with None."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy that a request was sent through, from the environment of this process."""

    variable: str
    """Which variable names it."""
    address: str
    """Its address, without user name and password."""
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
    """What the other side answered. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cut: bool = False
    """Whether the body was larger than a client reads, and so is missing."""
    proxy: Proxy | None = None
    """The proxy that may have made this reply, unless it is usable."""


@dataclass(frozen=True, slots=True)
class Lost:
    """No reply came: refused, reset, timed out, cut short."""

    error: str


Step = Call | Pause | Notice

Flow = Generator[Step, Reply | Lost | None, R]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to keep trying while there is no usable reply."""

    seconds: float = 60.0
    """From the first try on."""
    backoff: Backoff = field(default_factory=Backoff)
    clock: Callable[[], float] = field(default_factory=lambda: clocks.SYSTEM.now)
    """Seconds that only ever grow."""


def brief(patience: Patience) -> Patience:
    """The same patience, cut to `FINAL_CHECK_SECONDS`."""
    return Patience(min(FINAL_CHECK_SECONDS, patience.seconds), patience.backoff, patience.clock)
