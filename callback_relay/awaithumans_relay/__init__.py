"""The callback relay.

It receives the awaithumans server's callbacks, stores waits, sweeps for answers that are not called back, and wakes
callers.
"""

try:
    from awaithumans_relay.app import create_app, create_router
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"{missing.name} is not installed, which the relay needs: pip install 'awaithumans-workflows[relay]'",
        name=missing.name,
    ) from missing

__all__ = ["create_app", "create_router"]
