"""`awaithumans-relay doctor`: checks everything that the delivery of an answer depends on, for one of two roles.

On the machine of the relay the last check sends an answer through the running relay. It is signed as the server's
answers are, and goes to the relay's public address, into its database and through its dispatcher, but wakes no caller.
It leaves nothing behind. On the machine of a worker or script, the relay is asked what it has; see `worker_checks`.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from functools import partial

from pydantic import BaseModel
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.safe_text import block
from awaithumans_relay.commands.checks import (
    UnsetError,
    check_database,
    check_engine,
    check_server,
    check_tasks,
    check_thread,
    readable_settings,
    setting_checks,
)
from awaithumans_relay.commands.engines import EngineFactory, EngineFlags
from awaithumans_relay.commands.probe import check_relay
from awaithumans_relay.commands.role import Role, role_here
from awaithumans_relay.commands.worker_checks import (
    WORKER_SETTINGS,
    check_relay_engines,
    check_relay_key,
    check_relay_server,
    check_relay_store,
    read_report,
    relay_found,
)
from awaithumans_relay.monitoring.report import RelayReport

SECONDS = 15.0
"""Maximum seconds for each check."""
_PROBED = {f"AWAITHUMANS_{name}" for name in ("RELAY_SECRET", "WEBHOOK_KEY", "PAYLOAD_KEY")} | {"database"}
"""The prerequisites of the probe. Without these no answer can be signed, or followed and removed again."""


class Status(StrEnum):
    """The result of a check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(BaseModel):
    """One check with its result."""

    check: str
    status: Status
    detail: str
    """What was found; for a failure, how to fix it."""


async def examine(
    database: str, flags: EngineFlags, *, as_json: bool, thread: str | None = None, role: Role | None = None
) -> bool:
    """Make all checks and print them. Returns whether no check failed.

    Args:
        database: URL of the waits table.
        flags: The engines to reach.
        as_json: Print JSON.
        thread: Id of a LangGraph thread to read as well.
        role: Whose machine this is. Default: decided by what is set.
    """
    chosen, reason = (role, "--role") if role else role_here(database, graphs=bool(flags.graphs), thread=thread)
    logging.disable(logging.CRITICAL)  # problems are reported as findings
    try:
        if chosen == Role.WORKER:
            findings = await _findings_of_worker(flags)
        else:
            findings = await _findings(database, flags.separately(), thread)
    finally:
        logging.disable(logging.NOTSET)
    if as_json:
        print(json.dumps([each.model_dump(mode="json") for each in findings], indent=2))  # noqa: T201 - the result
    else:
        _print(findings, f"checking the machine of a {chosen} ({reason}); --role {chosen.other} checks the other")
    return all(each.status != Status.FAILED for each in findings)


async def _findings_of_worker(flags: EngineFlags) -> list[Finding]:
    settings, malformed = readable_settings()
    findings = [
        Finding(check=name, status=Status.FAILED, detail=malformed[name])
        if name in malformed
        else await _check(name, check)
        for name, check in setting_checks(settings)
        if name in WORKER_SETTINGS
    ]
    named = {each.check for each in findings}
    findings += [
        Finding(check=name, status=Status.FAILED, detail=text)
        for name, text in malformed.items()
        if name in WORKER_SETTINGS - named
    ]
    broken = {each.check for each in findings if each.status == Status.FAILED}
    findings.append(
        _skipped("awaithumans server", broken & {"AWAITHUMANS_URL", "AWAITHUMANS_ADMIN_API_TOKEN"})
        or await _check("awaithumans server", partial(check_server, settings))
    )
    findings += [await _check(name, partial(check_engine, made)) for name, made in flags.separately()]
    missing = broken & ({"AWAITHUMANS_RELAY_SECRET"} if settings.relay_url else _ASKS_RELAY)
    report: RelayReport | None = None

    async def relay() -> str:
        nonlocal report
        report = await read_report(settings)
        return relay_found(report, settings)

    findings.append(_skipped("running relay", missing) or await _check("running relay", relay))
    checks: dict[str, Callable[[RelayReport], str]] = {
        "engines of the relay": lambda report: check_relay_engines(report, flags),
        "server of the relay": lambda report: check_relay_server(report, settings),
        "store of the relay": check_relay_store,
        "webhook key of the relay": check_relay_key,
    }
    for name, check in checks.items():
        found = None if report is None else await _check(name, partial(_reported, check, report))
        findings.append(
            found or Finding(check=name, status=Status.SKIPPED, detail="not checked: it needs the running relay")
        )
    return findings


_ASKS_RELAY = {"AWAITHUMANS_RELAY_SECRET", "AWAITHUMANS_RELAY_URL"}
"""The settings without which the relay cannot be asked."""


async def _reported(check: Callable[[RelayReport], str], report: RelayReport) -> str:
    return check(report)


async def _findings(database: str, engines: Sequence[tuple[str, EngineFactory]], thread: str | None) -> list[Finding]:
    settings, malformed = readable_settings()
    findings = [
        Finding(check=name, status=Status.FAILED, detail=malformed.pop(name))
        if name in malformed
        else await _check(name, check)
        for name, check in setting_checks(settings)
    ]
    findings += [Finding(check=name, status=Status.FAILED, detail=text) for name, text in malformed.items()]
    broken = {each.check for each in findings if each.status == Status.FAILED}
    findings.append(
        _skipped("awaithumans server", broken & {"AWAITHUMANS_URL", "AWAITHUMANS_ADMIN_API_TOKEN"})
        or await _check("awaithumans server", partial(check_server, settings))
    )
    findings.append(await _check("database", partial(check_database, database)))
    broken |= {"database"} if findings[-1].status == Status.FAILED else set()
    findings.append(
        _skipped("tasks of open waits", broken & {"database"})
        or await _check("tasks of open waits", partial(check_tasks, database))
    )
    findings += [await _check(name, partial(check_engine, made)) for name, made in engines]
    if thread is not None:
        findings += [
            _skipped(f"thread on {name}", broken & {"database"})
            or await _check(f"thread on {name}", partial(check_thread, made, database, thread))
            for name, made in engines
        ]
    if not engines:
        advice = "none is given: add the flags of `serve` (--temporal, --graph, --langgraph-server)"
        findings.append(Finding(check="engines", status=Status.SKIPPED, detail=advice))
    findings.append(
        _skipped("running relay", broken & (_PROBED if settings.relay_url else _PROBED | {"AWAITHUMANS_RELAY_URL"}))
        or await _check("running relay", partial(check_relay, settings, database))
    )
    return findings


def _skipped(check: str, broken: set[str]) -> Finding | None:
    """Return the finding of a check that is skipped because of failures that are already reported."""
    if not broken:
        return None
    return Finding(check=check, status=Status.SKIPPED, detail=f"not checked: it needs {', '.join(sorted(broken))}")


async def _check(name: str, check: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(SECONDS):
            detail = await check()
    except UnsetError as unset:
        return Finding(check=name, status=Status.SKIPPED, detail=unset.text)
    except TimeoutError:
        problem = f"no response within {SECONDS:g} s: check whether it hangs, and whether its address is right"
        return Finding(check=name, status=Status.FAILED, detail=problem)
    except AwaitHumansError as wrong:
        return Finding(check=name, status=Status.FAILED, detail=str(wrong))
    except Exception as error:  # any error of a dependency is the finding
        return Finding(check=name, status=Status.FAILED, detail=f"{type(error).__name__}: {error}")
    return Finding(check=name, status=Status.OK, detail=detail)


def _print(findings: Sequence[Finding], heading: str) -> None:
    console = Console(highlight=False)
    console.print(Text(heading))
    marks = {Status.OK: ("✓", "green"), Status.FAILED: ("✗", "bold red"), Status.SKIPPED: ("-", "dim")}
    for each in findings:
        mark, style = marks[each.status]
        console.print(Text.assemble((f"{mark} {each.check}", style)))
        detail = Text(block(each.detail), style="" if each.status == Status.FAILED else "dim")
        console.print(Padding(detail, (0, 0, 0, 2)))
    failed = sum(each.status == Status.FAILED for each in findings)
    console.print(
        Text("all checks passed" if not failed else f"{failed} of {len(findings)} checks failed", style="bold")
    )
