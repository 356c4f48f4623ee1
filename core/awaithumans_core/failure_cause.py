"""What a failed request is about, and so who can act on it. Decided in this table and nowhere else.

QUESTION  the server or the relay has read the question and refuses it: asked again, it is refused again
SETTING   an address, a token, a secret or an engine is wrong: the same question is accepted once that is corrected
OUTAGE    there is no usable reply for now
"""

from collections.abc import Mapping
from enum import StrEnum

from awaithumans_core.errors import (
    ENGINE_UNKNOWN,
    AwaitHumansError,
    InvalidTaskError,
    QuestionChangedError,
    QuestionEndedError,
    RequestRefusedError,
    ServerUnreachableError,
    SettingsError,
    TaskNotFoundError,
    UnexpectedReplyError,
)


class Cause(StrEnum):
    """What has to change before the request can succeed."""

    QUESTION = "question"
    SETTING = "setting"
    OUTAGE = "outage"


_BY_TYPE: tuple[tuple[type[AwaitHumansError], Cause], ...] = (
    (InvalidTaskError, Cause.QUESTION),
    (QuestionChangedError, Cause.QUESTION),
    (TaskNotFoundError, Cause.QUESTION),
    (QuestionEndedError, Cause.QUESTION),
    (SettingsError, Cause.SETTING),
    (UnexpectedReplyError, Cause.SETTING),
    (ServerUnreachableError, Cause.OUTAGE),
)
"""Causes by type of error. The first matching type applies."""

_BY_SERVER_CODE: Mapping[str, Cause] = {ENGINE_UNKNOWN: Cause.SETTING}
"""Causes by server code, for refusals whose status is ambiguous."""

_BY_STATUS: Mapping[int, Cause] = {
    401: Cause.SETTING,  # another token or secret
    403: Cause.SETTING,  # a token with too few rights, or a proxy
    404: Cause.SETTING,  # another service
    405: Cause.SETTING,  # another service
    407: Cause.SETTING,  # a proxy
    413: Cause.QUESTION,  # too large, also for a proxy
    421: Cause.SETTING,  # another host
    426: Cause.SETTING,  # another protocol
    503: Cause.SETTING,  # a relay that its application does not start
}
"""Causes by status. With any other status the question is refused, unless a proxy or another service replied."""


def cause_of(error: AwaitHumansError) -> Cause:
    """Classify an error of asking, closing or reading a question."""
    for kind, cause in _BY_TYPE:
        if isinstance(error, kind):
            return cause
    if not isinstance(error, RequestRefusedError):
        return Cause.OUTAGE
    named = _BY_SERVER_CODE.get(error.server_code or "") or _BY_STATUS.get(error.status_code or 0)
    return named or (Cause.QUESTION if error.from_api else Cause.SETTING)
