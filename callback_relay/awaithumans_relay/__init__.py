"""The callback relay.

It receives the awaithumans server's callbacks, stores waits, sweeps for answers that are not called back, and wakes
callers.

The names load on first use, so that the command line starts quickly.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from awaithumans_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from awaithumans_relay.app import create_app, create_router

__all__ = ["create_app", "create_router"]

for _needed in ("fastapi", "jinja2", "prometheus_client", "sqlalchemy", "typer", "uvicorn"):
    if find_spec(_needed) is None:
        raise ModuleNotFoundError(
            f"{_needed} is not installed, which the relay needs: pip install 'awaithumans-workflows[relay]'",
            name=_needed,
        )

__getattr__, __dir__ = lazy_names(globals(), {"create_app": "app", "create_router": "app"})
