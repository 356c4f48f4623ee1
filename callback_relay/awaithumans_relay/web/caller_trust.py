"""How the relay reports to its HTTP server whether a request is proven, so that the server knows which to prefer."""

from starlette.types import Scope

JUDGE = "awaithumans.judge"
"""Key in an ASGI scope of a function that receives whether the caller is proven.

Only the relay's own server sets it.
"""


def judge(scope: Scope, *, proven: bool) -> None:
    """Report to the server whether this request has been proven, before all of it was received or answered."""
    if (report := scope.get(JUDGE)) is not None:
        report(proven)
