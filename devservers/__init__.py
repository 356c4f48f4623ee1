"""Real servers on free ports of 127.0.0.1 for the demo, tests and benchmarks. Each is stopped by its process id."""

from devservers.awaithumans import HumansServer
from devservers.ports import free_port
from devservers.processes import Process, Server, started, tool
from devservers.relay import RelayServer
from devservers.temporal import TemporalServer

__all__ = ["HumansServer", "Process", "RelayServer", "Server", "TemporalServer", "free_port", "started", "tool"]
