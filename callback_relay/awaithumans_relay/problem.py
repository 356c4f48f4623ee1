"""What every door of the relay says when it does not do what was asked."""

from collections.abc import Mapping

from fastapi.responses import JSONResponse
from pydantic import BaseModel


class Problem(BaseModel):
    """Body of every 4xx and 5xx."""

    error: str
    """Stable code."""
    message: str
    """What is wrong."""


def problem(status: int, error: str, message: str, *, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A response that says so."""
    return JSONResponse(Problem(error=error, message=message).model_dump(), status_code=status, headers=headers)
