"""What every door of the relay says when it does not do what was asked."""

from collections.abc import Mapping

from fastapi.responses import JSONResponse
from pydantic import BaseModel

HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"Connection": "close"},
    408: {"Connection": "close"},
    413: {"Connection": "close"},
    429: {"Retry-After": "30"},
    503: {"Retry-After": "5"},
}
"""Headers by status. What is left of a body that is too large is not read."""


class Problem(BaseModel):
    """Body of every 4xx and 5xx."""

    error: str
    """Stable code."""
    message: str
    """What is wrong."""


def problem(status: int, error: str, message: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A response that says so, with the headers its status has unless it is given others."""
    told = Problem(error=error, message=message).model_dump()
    return JSONResponse(told, status_code=status, headers=HEADERS.get(status) if headers is None else headers)
