"""Authentication and authorisation for a LangGraph server whose users' runs ask people.

Name it in the server's langgraph.json: {"auth": {"path": "./langgraph_auth.py:auth"}}. The relay runs with

    awaithumans-relay serve --langgraph-server http://localhost:2024 --langgraph-server-headers langgraph_auth:headers

Each user sees only their own threads. The relay has a token of its own and names the user for whom it acts, so a
resumed run belongs to the user who asked. A user's token gives no access to the receipts of answers that nodes store.
"""

import hmac
import os
from typing import Any

from langgraph_sdk import Auth

from awaithumans_adapters.langgraph import ServerTarget

auth = Auth()


def headers(target: ServerTarget) -> dict[str, str]:
    """Return the relay's credentials for one target: its own token, and the user whose run asked."""
    user = {"X-On-Behalf-Of": target.user} if target.user else {}
    return {"Authorization": f"Bearer {os.environ['RELAY_TOKEN']}", **user}


@auth.authenticate
async def authenticate(headers: dict[bytes, bytes]) -> Auth.types.MinimalUserDict:
    """Return the user, or the relay, that sends this request."""
    sent = headers.get(b"authorization", b"").decode().removeprefix("Bearer ")
    if hmac.compare_digest(sent.encode(), os.environ["RELAY_TOKEN"].encode()):
        return {"identity": headers.get(b"x-on-behalf-of", b"relay").decode(), "permissions": ["relay"]}
    # Replace these lines with your own check of a session, a JWT or a key.
    for user, _, token in (each.partition("=") for each in os.environ["USER_TOKENS"].split(",")):
        if hmac.compare_digest(sent.encode(), token.encode()):
            return {"identity": user}
    raise Auth.exceptions.HTTPException(status_code=401, detail="unknown token")


@auth.on.threads
async def own_threads(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> dict[str, str]:
    """Restrict threads and runs to the user who created the thread."""
    owner = {"owner": ctx.user.identity}
    value.setdefault("metadata", {}).update(owner)
    return owner


@auth.on.store
async def own_items(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> bool | None:
    """Restrict the receipts of answers to the relay, and other items to a namespace of their user."""
    namespace = tuple(value.get("namespace") or ())
    if namespace[:1] == ("awaithumans",):
        return "relay" in ctx.permissions
    if namespace[:1] != (ctx.user.identity,):
        value["namespace"] = (ctx.user.identity, *namespace)
    return None
