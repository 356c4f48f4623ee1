"""The error raised when the store cannot accept a write, and the description of it that a response may show."""


class StoreUnavailableError(OSError):
    """Raised when a write was not stored, or when that is not certain. The caller must retry (HTTP 503)."""

    code = "STORE_UNAVAILABLE"

    def __str__(self) -> str:
        return f"{super().__str__()} [{self.code}]"


def public_reason(error: Exception) -> str:
    """Describe a store failure for a response. The database's own message may hold names and addresses."""
    if isinstance(error, StoreUnavailableError):
        return str(error.args[0])
    if isinstance(error, TimeoutError):
        return "the database does not answer in time"
    return f"the database refuses it, or does not answer ({type(error).__name__})"
