"""`awaithumans-relay doctor`: everything an answer needs on its way, looked at one after the other.

The last check sends an answer through the running relay: signed as the server's are, to the relay's public address,
into its database, through its dispatcher, to nobody. It leaves nothing behind.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from enum import StrEnum

import httpx
from pydantic import BaseModel
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from awaithumans_core.engine import Engine, Reachable
from awaithumans_core.errors import AwaitHumansError, SettingsError
from awaithumans_core.settings import Settings
from awaithumans_core.signing import SIGNATURE_HEADER, TASK_ID_HEADER
from awaithumans_relay import startup
from awaithumans_relay.commands.existing import existing_store, shown_url
from awaithumans_relay.commands.terminal import plain
from awaithumans_relay.probe import new_probe
from awaithumans_relay.store import Store, WaitState

SECONDS = 10.0
"""For each check."""

Engines = Callable[[AsyncExitStack], Awaitable[Sequence[Engine]]]
"""Makes what is to be reached; the stack closes it."""


class Status(StrEnum):
    """How a check went."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(BaseModel):
    """One check."""

    check: str
    status: Status
    detail: str
    """What was found; with a failure, what mends it."""


async def examine(database: str, engines: Sequence[tuple[str, Engines]], *, as_json: bool) -> bool:
    """Make all checks and print them. Returns whether all went well."""
    logging.disable(logging.CRITICAL)  # what goes wrong is a finding
    try:
        findings = await _findings(database, engines)
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in findings], indent=2))  # noqa: T201 - the result
    else:
        _print(findings)
    return all(each.status != Status.FAILED for each in findings)


async def _findings(database: str, engines: Sequence[tuple[str, Engines]]) -> list[Finding]:
    try:
        settings = Settings.load()
    except SettingsError as malformed:
        return [Finding(check="settings", status=Status.FAILED, detail=str(malformed))]
    findings = [await _check(name, look) for name, look in _settings(settings)]
    findings.append(await _check("awaithumans server", lambda: _server(settings)))
    findings.append(await _check("database", lambda: _database(database)))
    findings += [await _check(name, lambda made=made: _engine(made)) for name, made in engines]
    if not engines:
        told = "none was named: give the flags of `serve` (--temporal, --graph, --langgraph-server)"
        findings.append(Finding(check="engines", status=Status.SKIPPED, detail=told))
    findings.append(await _check("running relay", lambda: _relay(settings, database)))
    return findings


async def _check(name: str, look: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(SECONDS):
            detail = await look()
    except TimeoutError:
        return Finding(check=name, status=Status.FAILED, detail=f"no answer within {SECONDS:g} s")
    except AwaitHumansError as wrong:
        return Finding(check=name, status=Status.FAILED, detail=str(wrong))
    except Exception as away:  # whatever a far end raises is the finding
        return Finding(check=name, status=Status.FAILED, detail=f"{type(away).__name__}: {away}")
    return Finding(check=name, status=Status.OK, detail=detail)


def _settings(settings: Settings) -> list[tuple[str, Callable[[], Awaitable[str]]]]:
    """The settings one by one, each with what tells whether it can be used. No secret is shown."""

    def looked(look: Callable[[], str]) -> Callable[[], Awaitable[str]]:
        async def later() -> str:
            return look()

        return later

    def relay_url() -> str:
        if wrong := startup.relay_address(settings):
            raise SettingsError(wrong)
        return settings.relay()

    def operator() -> str:
        return "set" if settings.operator_token() else "not set: the operator's page and API are closed"

    return [
        ("AWAITHUMANS_URL", looked(lambda: settings.url)),
        ("AWAITHUMANS_ADMIN_API_TOKEN", looked(lambda: settings.token() and "set")),
        ("AWAITHUMANS_RELAY_SECRET", looked(lambda: settings.signer() and _so_many(len(settings.relay_secret)))),
        ("AWAITHUMANS_WEBHOOK_KEY", looked(lambda: settings.key_ring() and _keys(settings))),
        ("AWAITHUMANS_RELAY_URL", looked(relay_url)),
        ("AWAITHUMANS_RELAY_OPERATOR_TOKEN", looked(operator)),
    ]


def _so_many(count: int) -> str:
    return "set" if count == 1 else f"{count} are set: the first signs, all are accepted"


def _keys(settings: Settings) -> str:
    if settings.payload_key:
        return (
            "derived here from AWAITHUMANS_PAYLOAD_KEY; `awaithumans-relay derive-key` prints the derived key, with "
            "which the relay need not know the server's root key"
        )
    return _so_many(len(settings.webhook_key))


async def _server(settings: Settings) -> str:
    if wrong := await startup.server(settings):
        raise SettingsError(wrong)
    return f"answers at {settings.url} and takes the token"


async def _database(url: str) -> str:
    async with existing_store(url) as store:
        counts = await store.counts()
        told = ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items()))
        return f"{shown_url(url)}: {told or 'nobody waits'}"


async def _engine(made: Engines) -> str:
    async with AsyncExitStack() as stack:
        engines = await made(stack)
        try:
            for engine in engines:
                if isinstance(engine, Reachable):
                    await engine.check()
        except Exception as away:  # whatever a far end raises is the finding
            raise SettingsError(
                f"does not answer: start it, or mend its address here and in `serve` ({away})"
            ) from away
    return "answers"


async def _relay(settings: Settings, database: str) -> str:
    """Send the relay an answer for nobody and see it arrive."""
    task_id, route = new_probe()
    body = json.dumps(
        {"task_id": task_id, "idempotency_key": route.idempotency_key, "status": "completed", "response": {}}
    ).encode()
    headers = {SIGNATURE_HEADER: settings.key_ring().sign(body), TASK_ID_HEADER: task_id}
    token = settings.signer().issue(route)
    try:
        async with httpx.AsyncClient(timeout=SECONDS) as http:
            sent = await http.post(f"{settings.relay()}/callbacks/{token}", content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as away:
        raise SettingsError(
            f"nothing answers at {settings.relay()} ({type(away).__name__}): start the relay, or give the address at "
            "which it is reached as AWAITHUMANS_RELAY_URL"
        ) from None
    if sent.status_code != 200:
        raise SettingsError(_refusal(settings.relay(), sent.status_code))
    async with existing_store(database) as store:
        await _arrived(store, task_id, shown_url(database))
    return f"took an answer at {settings.relay()}, stored it and delivered it to nobody"


async def _arrived(store: Store, task_id: str, database: str) -> None:
    try:
        async with asyncio.timeout(SECONDS / 2):
            while not (found := await store.find(task_id)) or found[0].state != WaitState.DELIVERED:
                if not found:
                    raise SettingsError(
                        f"the relay took the probe, but not into {database}: it keeps its waits in another database. "
                        "Give its own with --database or AWAITHUMANS_RELAY_DATABASE"
                    )
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise SettingsError(
            "the relay stored the probe, but its dispatcher does not deliver it: see its log, and restart it"
        ) from None
    finally:
        for wait in await store.find(task_id):
            await store.remove(wait)


def _refusal(address: str, status: int) -> str:
    reason = {
        401: "refuses what was signed with the settings here: its AWAITHUMANS_RELAY_SECRET or its webhook key is "
        "another. Run this with the relay's own environment",
        404: "is not the relay: something else answers there, or a proxy does not pass /callbacks on",
        405: "is not the relay: something else answers there, or a proxy does not pass /callbacks on",
        503: "cannot reach its database: see its log",
    }
    if 300 <= status < 400:
        return (
            f"{address} redirects ({status}): the awaithumans server takes that for delivered, and answers are lost. "
            "Give the address it redirects to as AWAITHUMANS_RELAY_URL"
        )
    return f"{address} {reason.get(status, 'does not take an answer: see its log')} ({status})"


def _print(findings: Sequence[Finding]) -> None:
    console = Console(highlight=False)
    marks = {Status.OK: ("✓", "green"), Status.FAILED: ("✗", "bold red"), Status.SKIPPED: ("-", "dim")}
    for each in findings:
        mark, style = marks[each.status]
        console.print(Text.assemble((f"{mark} {each.check}", style)))
        told = Text(plain(each.detail), style="" if each.status == Status.FAILED else "dim")
        console.print(Padding(told, (0, 0, 0, 2)))
    failed = sum(each.status == Status.FAILED for each in findings)
    console.print(Text("all is well" if not failed else f"{failed} of {len(findings)} checks failed", style="bold"))
