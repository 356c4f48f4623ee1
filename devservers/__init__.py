"""Real servers on free ports of 127.0.0.1 for the demo, tests and benchmarks. Each is stopped by its process id."""

from awaithumans_relay.dev.humans_server import HumansServer
from awaithumans_relay.dev.ports import free_port
from awaithumans_relay.dev.processes import Process, Server, guard_group, release_group, started, tool
from awaithumans_relay.dev.temporal_server import TemporalServer
from devservers.relay import RelayServer

__all__ = [
    "HumansServer",
    "Process",
    "RelayServer",
    "Server",
    "TemporalServer",
    "free_port",
    "guard_group",
    "release_group",
    "started",
    "tool",
]
