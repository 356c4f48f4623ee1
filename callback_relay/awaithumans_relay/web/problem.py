"""The error response of every endpoint of the relay."""

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
"""Headers by status. The connection is closed because the rest of a body that is too large is not read."""


class Problem(BaseModel):
    """Body of every 4xx and 5xx."""

    error: str
    """Stable code of the error."""
    message: str
    """Description of the error."""
    started: bool | None = None
    """False if the relay was never started, so that callers need not try again. Otherwise absent."""


def problem(
    status: int, error: str, message: str, *, headers: Mapping[str, str] | None = None, started: bool | None = None
) -> JSONResponse:
    """Return an error response. Its headers are those of its status unless others are given."""
    body = Problem(error=error, message=message, started=started).model_dump(exclude_none=True)
    return JSONResponse(body, status_code=status, headers=HEADERS.get(status) if headers is None else headers)
