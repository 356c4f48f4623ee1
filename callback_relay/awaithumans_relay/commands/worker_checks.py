"""The checks of `doctor` on the machine of a worker or script: what it needs itself, and what the relay reports.

A worker has no webhook key and no database. Whether the relay has them, and whether they are right, the running relay
knows and reports to holders of the relay secret.
"""

import os
from collections.abc import Sequence
from importlib.metadata import version

from pydantic import ValidationError

from awaithumans_core import clock, flow
from awaithumans_core.errors import AwaitHumansError, SettingsError
from awaithumans_core.flow import SAME_KEY, Patience
from awaithumans_core.http.clients import async_client
from awaithumans_core.http.drivers import AsyncDriver
from awaithumans_core.services import RELAY, with_flag
from awaithumans_core.settings import Settings
from awaithumans_relay.commands.engines import EngineFlags
from awaithumans_relay.dispatch.probe_engine import new_probe
from awaithumans_relay.monitoring.report import EngineReport, RelayReport

WORKER_SETTINGS = frozenset(
    f"AWAITHUMANS_{name}" for name in ("URL", "ADMIN_API_TOKEN", "RELAY_SECRET", "RELAY_URL", "PUBLIC_URL")
)
"""The settings that a worker needs. Others are not checked on its machine."""


async def read_report(settings: Settings) -> RelayReport:
    """Ask the running relay what it has, with a proof that is signed with the relay secret.

    Raises:
        SettingsError: there is no usable report. The text says why and what to do.
    """
    _, route = new_probe()
    driver = AsyncDriver(async_client, settings.url, "", clock.SYSTEM)
    try:
        steps = flow.relay_report(settings.relay(), settings.signer().prove(route), Patience(0))
        return RelayReport.model_validate(await driver.run(steps))
    except ValidationError:
        raise SettingsError(f"{RELAY.at(settings.relay())} answers, but not with a report. {RELAY.if_other}") from None
    except AwaitHumansError as error:
        raise SettingsError(error.text.removesuffix(SAME_KEY)) from None
    finally:
        await driver.aclose()


def relay_found(report: RelayReport, settings: Settings) -> str:
    """Return that the relay answers and accepts the secret, with both releases if they differ."""
    own = version("awaithumans-workflows")
    found = f"relay {report.version} answers at {settings.relay()} and accepts AWAITHUMANS_RELAY_SECRET"
    if report.version == own:
        return found
    return f"{found}. This machine has {own}: update the relay before the processes that ask"


def check_relay_engines(report: RelayReport, flags: EngineFlags) -> str:
    """Check that the relay has the engines of this worker, with its namespaces, and that they work."""
    has = {engine.name: engine for engine in report.engines}
    listed = ", ".join(_described(engine) for engine in report.engines) or "none"
    wrong = [
        f"the relay has no engine {with_flag(name)}: start it with this flag of `awaithumans-relay serve`"
        for name in _needed(flags)
        if name not in has
    ]
    if not has:
        wrong = wrong or ["the relay has no engine: start it with a flag of `awaithumans-relay serve`"]
    if (temporal := has.get("temporal")) is not None and temporal.serves:
        wrong += [
            f"the relay does not serve the namespace {namespace!r}: start it with --temporal-namespace {namespace}"
            for namespace in _namespaces(flags)
            if namespace not in temporal.serves
        ]
    wrong += [
        f"the relay cannot use its engine {engine.name!r} now: its log says why"
        for engine in report.engines
        if engine.state == "failing"
    ]
    if wrong:
        raise SettingsError(f"{'; '.join(wrong)}. The relay has: {listed}")
    return listed


def check_relay_server(report: RelayReport, settings: Settings) -> str:
    """Check that the relay can read the awaithumans server."""
    if report.server_problem is not None:
        raise SettingsError(f"reported by the relay: {report.server_problem}. Correct it on the machine of the relay")
    if report.server_url.rstrip("/") == settings.url.rstrip("/"):
        return f"the relay reads tasks at {report.server_url}, as this machine does"
    return (
        f"the relay reads tasks at {report.server_url}, this machine at {settings.url}: make sure that both are the "
        "same server"
    )


def check_relay_store(report: RelayReport) -> str:
    """Check that the relay can store answers."""
    if report.store_problem is not None:
        raise SettingsError(f"the relay cannot store answers now: {report.store_problem}. Its log says why")
    return "the relay can store answers"


def check_relay_key(report: RelayReport) -> str:
    """Check that the relay's webhook key verifies the callbacks of the server, as far as it has received any."""
    verified, refused = report.callback_verified_at, report.callback_refused_at
    if refused is not None and (verified is None or verified < refused):
        raise SettingsError(
            f"the relay refused a callback of {refused:%Y-%m-%d %H:%M} UTC, because its signature is not made with the "
            "relay's webhook key: set AWAITHUMANS_WEBHOOK_KEY on the machine of the relay to the key of its server"
        )
    if verified is None:
        return "the relay has received no callback since it started, so its webhook key is not confirmed yet"
    return f"the relay's webhook key verified a callback of the server at {verified:%Y-%m-%d %H:%M} UTC"


def _needed(flags: EngineFlags) -> Sequence[str]:
    given = {"temporal": bool(flags.temporal or flags.profiles), "langgraph-server": flags.langgraph_server is not None}
    return [name for name, wanted in given.items() if wanted]


def _namespaces(flags: EngineFlags) -> Sequence[str]:
    """Return the namespaces of this machine's workers, as far as they are known without a connection."""
    if flags.namespaces or flags.temporal is None:
        return flags.namespaces
    return [os.environ.get("TEMPORAL_NAMESPACE") or "default"]


def _described(engine: EngineReport) -> str:
    served = f" ({', '.join(engine.serves)})" if engine.serves else ""
    return f"{engine.name}{served}: {'not used yet' if engine.state == 'unknown' else engine.state}"
