"""Authentication and authorisation of a LangGraph server whose users ask people, and whose relay resumes for them.

Name it in the server's langgraph.json: {"auth": {"path": "./langgraph_auth.py:auth"}}. The relay runs with

    awaithumans-relay serve --langgraph-server http://localhost:2024 --langgraph-server-headers langgraph_auth:headers

Each user sees the user's own threads. The relay has a token of its own and states for which user it acts, so a resumed
run is a run of the user who asked. A user's token does not open the notes that nodes keep of the answers they have.
"""

import hmac
import os
from typing import Any

from langgraph_sdk import Auth

from awaithumans_adapters.langgraph import ServerTarget

auth = Auth()


def headers(target: ServerTarget) -> dict[str, str]:
    """The relay's credentials for one target: its own token, and the user whose run asked."""
    user = {"X-On-Behalf-Of": target.user} if target.user else {}
    return {"Authorization": f"Bearer {os.environ['RELAY_TOKEN']}", **user}


@auth.authenticate
async def authenticate(headers: dict[bytes, bytes]) -> Auth.types.MinimalUserDict:
    """Who sends this request."""
    sent = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
    if hmac.compare_digest(sent.encode(), os.environ["RELAY_TOKEN"].encode()):
        return {"identity": headers.get(b"x-on-behalf-of", b"relay").decode(), "permissions": ["relay"]}
    # In place of these lines: your own check of a session, a JWT or a key.
    for user, _, token in (each.partition("=") for each in os.environ["USER_TOKENS"].split(",")):
        if hmac.compare_digest(sent.encode(), token.encode()):
            return {"identity": user}
    raise Auth.exceptions.HTTPException(status_code=401, detail="unknown token")


@auth.on.threads
async def own_threads(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> dict[str, str]:
    """A thread is shown to the user who created it, and its runs are that user's."""
    owner = {"owner": ctx.user.identity}
    value.setdefault("metadata", {}).update(owner)
    return owner


@auth.on.store
async def own_notes(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> bool | None:
    """The notes of answers are for the relay. Other items are in a namespace of their user."""
    namespace = tuple(value.get("namespace") or ())
    if namespace[:1] == ("awaithumans",):
        return "relay" in ctx.permissions
    if namespace[:1] != (ctx.user.identity,):
        value["namespace"] = (ctx.user.identity, *namespace)
    return None
