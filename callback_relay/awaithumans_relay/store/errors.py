"""The error of a store that cannot take a write at this moment, and what callers may know of it."""


class StoreUnavailableError(OSError):
    """Nothing was stored, or it is not certain; the caller is asked to try again (503)."""

    code = "STORE_UNAVAILABLE"


def public_reason(error: Exception) -> str:
    """What is wrong with the store, for a response. A database's own words may hold names and addresses."""
    if isinstance(error, StoreUnavailableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the database does not answer in time"
    return f"the database refuses it, or does not answer ({type(error).__name__})"
