"""The target of a request to a LangGraph server: the thread, the user, and the credentials.

Law: a run that brings an answer has the identity that `headers` gives it. The server takes a run's user from the
credentials of the request that starts it. So a node that asked for one user continues for that user only with that
user's credentials, or with those of a service that the server's own authentication allows to act for users.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from awaithumans_core.engine import RelayNotReady
from awaithumans_core.route import Route

USER, RUN = "user", "run_id"
"""Keys of a route's `caller`: the user who asked, as named by the server's authentication, and the run."""


@dataclass(frozen=True, slots=True)
class ServerTarget:
    """The subject of a request to a LangGraph server."""

    thread_id: str | None = None
    """Id of the thread. None when the relay checks whether the server answers."""
    assistant_id: str | None = None
    """Id of the assistant whose thread it is. None when the relay checks whether the server answers."""
    user: str | None = None
    """The user whose run asked, as the server's authentication names them (`langgraph_auth_user_id`).

    None when the server does not authenticate, when an earlier release asked, and when the relay checks whether the
    server answers.
    """


Headers: TypeAlias = Mapping[str, str] | Callable[[ServerTarget], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Headers of all requests, or a function of the target, sync or async."""


def target_of(route: Route) -> ServerTarget:
    """Return the target of a route to a LangGraph server."""
    user = (route.caller or {}).get(USER)
    return ServerTarget(route.target["thread_id"], route.target.get("assistant_id"), user)


class Credentials:
    """The credentials for requests to one server.

    Args:
        headers: The engine's argument `headers`.
        api_key: The engine's argument `api_key`.
    """

    def __init__(self, headers: Headers | None, api_key: str | None) -> None:
        self._choose = headers if callable(headers) else None
        self.fixed: Mapping[str, str] = {} if headers is None or callable(headers) else headers
        """Headers of every request."""
        self._api_key = api_key

    async def headers(self, target: ServerTarget) -> Mapping[str, str]:
        """Return the headers of a request about this target.

        Raises:
            RelayNotReady: the function fails, or returns something other than headers. Its exception is not quoted,
                because it may contain a secret.
        """
        if self._choose is None:
            return self.fixed
        try:
            made = self._choose(target)
            given = await made if inspect.isawaitable(made) else made
            return {str(name): str(value) for name, value in given.items()}
        except Exception as failed:
            raise RelayNotReady(
                f"the function in LangGraphServerEngine(headers=...) fails for {_of(target)} "
                f"({type(failed).__name__}): it must return a mapping of header names to values"
            ) from failed

    def described(self, target: ServerTarget) -> str:
        """Return a description of the source of the credentials for this target, without quoting any of them."""
        if self._choose is not None:
            return f"the credentials that the function in LangGraphServerEngine(headers=...) returns for {_of(target)}"
        if self.fixed:
            return f"the credentials in LangGraphServerEngine(headers=...) ({', '.join(sorted(self.fixed))})"
        if self._api_key is not None:
            return "the key in LangGraphServerEngine(api_key=...)"
        return "the relay's credentials (LANGGRAPH_API_KEY or LANGSMITH_API_KEY, if they are set)"


def _of(target: ServerTarget) -> str:
    return f"user {target.user!r}" if target.user else "no user"
