"""Open a wait for a route: create the task with a signed callback URL, then tell the relay that somebody waits.

Every engine adapter asks through here. Built on the asker's side from settings, so that no token or key ever stands in
a workflow input, a checkpoint or a history.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from awaithumans_core import flow
from awaithumans_core.client import SyncTaskClient, TaskClient
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.flow import Flow, Patience, Proofs
from awaithumans_core.http.clients import warn_if_exposed
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route
from awaithumans_core.settings import Settings
from awaithumans_core.trace import asking, note

if TYPE_CHECKING:
    import httpx

CLOSE_PATIENCE_SECONDS = 60.0
"""How long closing a task is tried when no patience is given: the task's deadline frees people in any case."""


class HumanTasks:
    """Settings, signer and connections of one asking process.

    Safe to share between event loops and threads, and to use after a fork.

    Args:
        settings: Default: from the environment, or from a local `awaithumans dev`.
        patience: Seconds an operation keeps trying while server or relay give no usable reply. Default: the task's own
            timeout for opening a wait, a minute for closing one.
        transport: For the async operations; in tests, a way to server and relay without a socket.

    Raises:
        SettingsError: token, relay address or relay secret are not known.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        patience: float | None = None,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self.settings = settings or Settings.load()
        self.settings.token()
        self._relay = self.settings.relay()
        warn_if_exposed("AWAITHUMANS_RELAY_URL", self._relay, "the proofs of registrations")
        self._signer = self.settings.signer()
        self._patience = patience
        # No connection is kept open between two questions: an asker may ask once a day.
        self._client = TaskClient(settings=self.settings, keep_alive=0, transport=transport)
        self._sync_client = SyncTaskClient(settings=self.settings, keep_alive=0)

    async def open(
        self,
        body: Mapping[str, Any],
        route: Route,
        *,
        same_words: bool = True,
        asked_by: str | None = None,
        gives_up: Callable[[AwaitHumansError], bool] | None = None,
        known: str | None = None,
        on_created: Callable[[Outcome], None] | None = None,
        may_repeat: bool = True,
        within: float | None = None,
        asked_before: Route | None = None,
    ) -> Outcome:
        """Create the task and register the wait; return how the task stands. Repeating it is harmless.

        A task that has ended already (its key was used before) comes back with its outcome, and nobody waits for it.

        Args:
            body: `HumanTask.body()`.
            route: Where the answer must go.
            same_words: Whether text, assignee and response class must be those the key was first asked with, and not
                the payload alone.
            asked_by: Names the caller, in the same words at every attempt. Default: the route's digest.
            gives_up: Whether the caller gives the question up because of this error; then a task that was created for
                it is cancelled. Default: because of every refusal.
            known: The task that an earlier attempt has created for this question. It is never created again.
            on_created: Called with the new task before its wait is registered, so that the next attempt knows it.
            may_repeat: Whether an earlier attempt may have created the task without a trace here: then the relay is
                asked for it first.
            within: Seconds after which no request is repeated, if that is less than the patience.
            asked_before: The route under which the relay knows a wait of the same question by an earlier caller, for
                `may_repeat`. Default: `route`.

        Raises:
            TaskRejectedError, AuthenticationError, RequestRefusedError: server or relay said no; trying again will not
                help.
            ServerUnreachableError: no usable reply within the patience.
        """
        with asking(route) as traced:
            steps = self._open(body, traced, same_words, asked_by, gives_up, known, may_repeat, within, asked_before)
            outcome = await self._client.run(steps, on_status=on_created)
            note(task_id=outcome.task_id)
            return outcome

    def open_sync(
        self, body: Mapping[str, Any], route: Route, *, same_words: bool = True, may_repeat: bool = True
    ) -> Outcome:
        """`open`, without an event loop."""
        with asking(route) as traced:
            outcome = self._sync_client.run(self._open(body, traced, same_words, None, None, None, may_repeat, None))
            note(task_id=outcome.task_id)
            return outcome

    async def close(self, task_id: str, *, asked_by: Callable[[str], str | None] | None = None) -> Outcome:
        """Cancel the task unless it has ended, and say how it ended: an answer given in the meantime wins.

        Args:
            task_id: Which.
            asked_by: The mark this caller's tasks carry under the task's key; None for a key that is never shared. A
                task that was created for another caller stays open. Default: it is cancelled, whoever created it.
        """
        patience = Patience(self._patience or CLOSE_PATIENCE_SECONDS)
        closing = flow.close(task_id, patience) if asked_by is None else flow.close_own(task_id, asked_by, patience)
        return await self._client.run(closing)

    async def last_look(self, task_id: str, given: float, *, key: str | None = None) -> Outcome:
        """How a task stands whose asker, who gave people `given` seconds, has no more time; see `flow.last_look`."""
        patience = Patience(self._patience or CLOSE_PATIENCE_SECONDS)
        return await self._client.run(flow.last_look(task_id, given, patience, key=key))

    async def withdraw(
        self, key: str, *, asked_by: str | None = None, on_missing: Callable[[Outcome], None] | None = None
    ) -> Outcome:
        """Cancel a question by its key, whether or not its task is known to exist yet; say how it ended.

        Args:
            key: The idempotency key.
            asked_by: Cancel only a task that was created for this caller, as named to `open`. Default: any.
            on_missing: Called if no question was asked under this key, with the task that takes its place.
        """
        patience = Patience(self._patience or CLOSE_PATIENCE_SECONDS)
        return await self._client.run(flow.withdraw_key(key, patience, asked_by=asked_by), on_status=on_missing)

    def _open(
        self,
        body: Mapping[str, Any],
        route: Route,
        same_words: bool,  # noqa: FBT001
        asked_by: str | None,
        gives_up: Callable[[AwaitHumansError], bool] | None,
        known: str | None,
        may_repeat: bool,  # noqa: FBT001
        within: float | None,
        asked_before: Route | None = None,
    ) -> Flow[Outcome]:
        seconds = self._patience or float(body["timeout_seconds"])
        patience = Patience(seconds if within is None else min(seconds, within))
        return flow.open_wait(
            body,
            self._relay,
            self._proofs(route, asked_before or route),
            patience,
            same_words=same_words,
            asked_by=asked_by or route.digest,
            gives_up=gives_up or flow.is_refusal,
            known=known,
            may_repeat=may_repeat,
        )

    def _proofs(self, route: Route, asked_before: Route) -> Proofs:
        prove = self._signer.prove
        return Proofs(self._signer.issue(route), lambda task_id: prove(route, task_id), lambda: prove(asked_before))
