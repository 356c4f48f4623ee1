"""What the relay tells its HTTP server about the caller of a request, so that the server knows which to prefer."""

from starlette.types import Scope

JUDGE = "awaithumans.judge"
"""Key in an ASGI scope of a function that takes whether the caller is proven. Only the relay's own server sets it."""


def judge(scope: Scope, *, proven: bool) -> None:
    """Tell the server whether this request has been proven, before all of it was received or answered."""
    if (tell := scope.get(JUDGE)) is not None:
        tell(proven)
