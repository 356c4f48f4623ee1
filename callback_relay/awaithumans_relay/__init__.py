"""The callback relay.

Takes the awaithumans server's callbacks, keeps waits, sweeps for answers nobody calls back, wakes askers.
"""

from awaithumans_relay.app import create_app, create_router

__all__ = ["create_app", "create_router"]
