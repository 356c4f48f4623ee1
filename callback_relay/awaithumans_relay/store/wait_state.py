"""The states of a wait."""

from enum import StrEnum


class WaitState(StrEnum):
    """The states of a wait."""

    OPEN = "open"
    ANSWERED = "answered"
    DELIVERED = "delivered"
    PARKED = "parked"
