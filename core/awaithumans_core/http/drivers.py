"""The two drivers of flows: they send the calls that a flow yields, one awaiting and one blocking."""

import asyncio
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import httpx

from awaithumans_core.clock import Clock, SystemClock, refuse_frozen_loop
from awaithumans_core.errors import SettingsError
from awaithumans_core.flow import Call, Flow, Lost, Notice, Pause, Reply
from awaithumans_core.http.clients import ReplyTooLarge, lost, proxy_of, reply_of, url_of
from awaithumans_core.http.connections import PerLoop, PerProcess
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_logging import safe_logger

logger = safe_logger("awaithumans")

PAUSED = "awaithumans (server %s): %s; trying again in %.1f s%s"
"""Log line about a pause."""

TOTAL = 4.0
"""Multiple of a call's timeout in which its reply must be complete. The timeout itself counts anew with each piece."""

R = TypeVar("R")
OnStatus = Callable[[Outcome], None]
"""Called with every status change that is observed while waiting."""


class AsyncDriver:
    """Sends the calls that flows yield, over one httpx client for each event loop and process."""

    def __init__(
        self, http: Callable[[], httpx.AsyncClient], url: str, token: str, clock: Clock, *, direct: bool = False
    ) -> None:
        self._http = PerLoop(http)
        self._url = url
        self._token = token
        self._clock = clock
        self._direct = direct
        """Whether requests use a transport given by the caller, which uses no proxy."""

    async def run(
        self,
        steps: Flow[R],
        on_status: OnStatus | None = None,
        *,
        slots: asyncio.Semaphore | None = None,
    ) -> R:
        """Drive a flow to its end and return its result. Every call takes one of the `slots`, if any are given."""
        reply: Reply | Lost | None = None
        try:
            while True:
                match step := steps.send(reply):
                    case Call():
                        async with slots or nullcontext():
                            reply = await self._send(step)
                    case Pause():
                        _paused(step, self._url)
                        await self._clock.sleep(step.seconds)
                        reply = None
                    case Notice():
                        _notice(step, on_status)
                        reply = None
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time

    async def _send(self, call: Call) -> Reply | Lost:
        try:
            http = await self._http.get()
            if isinstance(self._clock, SystemClock):
                refuse_frozen_loop()
            async with asyncio.timeout(TOTAL * call.timeout):
                return reply_of(await http.send(_request(http, self._token, call)), direct=self._direct)
        except ReplyTooLarge as large:
            return Reply(large.status, {}, b"", cut=True, url=url_of(large))
        except httpx.RequestError as error:
            return _lost(error, direct=self._direct)
        except TimeoutError:
            return Lost(f"no complete reply in {TOTAL * call.timeout:.0f} s")

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._http.aclose()


class SyncDriver:
    """Sends the calls that flows yield, without an event loop, over one httpx client for each process."""

    def __init__(
        self, http: Callable[[], httpx.Client], url: str, token: str, clock: Clock, *, direct: bool = False
    ) -> None:
        self._http = PerProcess(http)
        self._url = url
        self._token = token
        self._clock = clock
        self._direct = direct
        """Whether requests use a transport given by the caller, which uses no proxy."""

    def run(self, steps: Flow[R], on_status: OnStatus | None = None) -> R:
        """Drive a flow to its end and return its result."""
        reply: Reply | Lost | None = None
        try:
            while True:
                match step := steps.send(reply):
                    case Call():
                        reply = self._send(step)
                    case Pause():
                        _paused(step, self._url)
                        self._clock.sleep_sync(step.seconds)
                        reply = None
                    case Notice():
                        _notice(step, on_status)
                        reply = None
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # a generator's return value has no type at run time

    def _send(self, call: Call) -> Reply | Lost:
        try:
            http = self._http.get()
            return reply_of(http.send(_request(http, self._token, call)), direct=self._direct)
        except ReplyTooLarge as large:
            return Reply(large.status, {}, b"", cut=True, url=url_of(large))
        except httpx.RequestError as error:
            return _lost(error, direct=self._direct)

    def close(self) -> None:
        """Close the connections of this process."""
        if (http := self._http.pop()) is not None:
            http.close()


def _request(http: httpx.Client | httpx.AsyncClient, token: str, call: Call) -> httpx.Request:
    try:
        return http.build_request(
            call.method,
            call.url,
            json=call.json,
            params=call.params,
            headers={"Authorization": f"Bearer {call.bearer or token}"},
            timeout=call.timeout,
        )
    except httpx.InvalidURL as error:
        raise SettingsError(f"{http.base_url or call.url} is not an address: {error}") from None


_STATUS = re.compile(r"[45]\d\d(?= )")


def _lost(error: httpx.RequestError, *, direct: bool = False) -> Reply | Lost:
    if isinstance(error, httpx.UnsupportedProtocol):
        raise SettingsError(f"{error}: an address starts with http:// or https://") from None
    # A proxy that refuses to open a tunnel has replied: "407 Proxy Authentication Required".
    if isinstance(error, httpx.ProxyError) and (refused := _STATUS.match(str(error))):
        return Reply(int(refused[0]), {}, b"", proxy=proxy_of(error), url=url_of(error))
    return lost(error, direct=direct)


def _paused(pause: Pause, url: str) -> None:
    if pause.logged:
        logger.warning(PAUSED, *paused_facts(pause, url))


def paused_facts(pause: Pause, url: str) -> tuple[str, str, float, str]:
    """Return the arguments of the log line `PAUSED`."""
    return url, pause.reason, pause.seconds, f". {pause.advice}" if pause.advice else ""


def _notice(notice: Notice, on_status: OnStatus | None) -> None:
    if on_status is not None:
        on_status(notice.outcome)
