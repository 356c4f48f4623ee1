"""Confirm that the relay at an address is the one that wrote the discovery file.

The client sends a random challenge, and the relay answers with an HMAC of it under the relay secret. Only the challenge
is sent, so a program that has taken the relay's port learns nothing.
"""

import hashlib
import hmac
import re
import secrets
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from awaithumans_core.discovery.instance import DevInstance

INSTANCE_PATH = "/dev/instance"
"""Path of the relay's endpoint that answers `?challenge=...` with `{"proof": ...}`."""

CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""The exact form of a challenge: base64url of 32 random bytes."""

REPLY_SECONDS = 2.0
"""Maximum seconds between two parts of the relay's reply."""

_CHALLENGE_BYTES = 32
_MAX_REPLY_BYTES = 1024


class _Reply(BaseModel):
    proof: str


def proof_of(relay_secret: str, relay_url: str, challenge: str) -> str:
    """Return the proof that the relay gives for a challenge: an HMAC-SHA256 under its secret, in hex.

    The relay's own address is part of it. So a program at another address cannot pass on the challenge to the relay
    and return its proof.
    """
    message = f"awaithumans-dev:{relay_url}:{challenge}"
    return hmac.new(relay_secret.encode(), message.encode(), hashlib.sha256).hexdigest()


def is_running(instance: DevInstance) -> bool:
    """Ask the relay of this instance for the proof. It must not be called in an event loop, because it blocks.

    No proxy is used, no redirect is followed and no secret is sent.
    """
    challenge = secrets.token_urlsafe(_CHALLENGE_BYTES)
    place = urlsplit(instance.relay_url)
    try:
        with closing(HTTPConnection(place.hostname or "", place.port, timeout=REPLY_SECONDS)) as connection:
            connection.request("GET", f"{INSTANCE_PATH}?challenge={challenge}")
            reply = connection.getresponse()
            body = reply.read(_MAX_REPLY_BYTES)
            if reply.status != HTTPStatus.OK:
                return False
            given = _Reply.model_validate_json(body).proof
    except (HTTPException, OSError, ValidationError):
        return False
    expected = proof_of(instance.relay_secret.get_secret_value(), instance.relay_url, challenge)
    return hmac.compare_digest(expected.encode(), given.encode())
