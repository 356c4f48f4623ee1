"""Ports of 127.0.0.1: the usual one of a server if it is free, or one that no other process chooses meanwhile."""

import atexit
import functools
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import suppress

PORTS = range(10_240, 32_640)
"""Below the ephemeral ports: the system could give one of those to a client between its choice and its use."""
BLOCK = 128
"""Number of ports from which one process chooses."""


@functools.cache
def _own_ports() -> tuple[Iterator[int], socket.socket]:
    """The ports of a block that only this process chooses from, in a cycle, and the socket that claims the block."""
    blocks = PORTS[::BLOCK]
    for place in range(len(blocks)):
        first = blocks[(os.getpid() + place) % len(blocks)]
        claim = socket.socket(type=socket.SOCK_DGRAM)  # UDP port numbers are separate, and no server here uses them
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:  # another process has this block
            claim.close()
        else:
            atexit.register(claim.close)
            return itertools.cycle(range(first + 1, first + BLOCK)), claim  # the claim has the first one
    raise RuntimeError(f"too many processes choose ports of 127.0.0.1 between {PORTS.start} and {PORTS.stop}")


def free_port() -> int:
    """Return a port on which no process listens, from a block that no other test process uses."""
    ports, _ = _own_ports()
    for port in itertools.islice(ports, BLOCK):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("all ports of this process are in use")


def is_free(port: int) -> bool:
    """Whether no process of this machine listens on the port of 127.0.0.1."""
    with socket.socket() as caller:
        caller.settimeout(1.0)
        if caller.connect_ex(("127.0.0.1", port)) == 0:  # some systems let two processes listen on it
            return False
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last run may still be closing
        probe.bind(("127.0.0.1", port))
        return True
    return False


def claim(port: int) -> bool:
    """Claim a port for a server of this process. Return False if it is in use, or claimed by another process."""
    if not is_free(port):
        return False
    mark = socket.socket(type=socket.SOCK_DGRAM)  # two processes that choose at the same time do not both get it
    try:
        mark.bind(("127.0.0.1", port))
    except OSError:
        mark.close()
        return False
    atexit.register(mark.close)  # it is the claim until this process ends
    return True
