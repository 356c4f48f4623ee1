"""Open a wait for a route: create the task with a signed callback URL, then register the wait with the relay.

Every engine adapter asks through this module. `HumanTasks` is built from settings in the caller's process, so that no
token or key ever appears in a workflow input, a checkpoint or a history.
"""

import asyncio
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from awaithumans_core import flow
from awaithumans_core.client import SyncTaskClient, TaskClient, observed
from awaithumans_core.errors import AwaitHumansError
from awaithumans_core.flow import Flow, Patience, Pause, Proofs
from awaithumans_core.http.clients import warn_if_exposed
from awaithumans_core.http.drivers import PAUSED, paused_facts
from awaithumans_core.outcome import Outcome
from awaithumans_core.relay_loops import refuse_to_block
from awaithumans_core.route import Route
from awaithumans_core.safe_logging import show_if_unconfigured
from awaithumans_core.settings import Settings, check_all
from awaithumans_core.trace import asking, note

if TYPE_CHECKING:
    import httpx

CLOSE_PATIENCE_SECONDS = 60.0
"""Seconds that closing a task keeps trying if no patience is given.

That is enough, because the task ends at its own deadline in any case.
"""


class HumanTasks:
    """Opens and closes tasks for callers, with the settings, signer and connections of one process.

    Safe to share between event loops and threads, and to use after a fork.

    Args:
        settings: Default: from the environment, or from a local `awaithumans-relay dev` or `awaithumans dev`.
        patience: Seconds that an operation keeps trying while server or relay give no usable reply. Default: the task's
            own timeout for opening a wait, a minute for closing one.
        transport: An httpx transport for the async operations. In tests it reaches server and relay without a socket.

    Raises:
        SettingsError: token, relay address or relay secret is not known. The text lists all that are missing.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        patience: float | None = None,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self.settings = settings or Settings.load()
        check_all(self.settings.token, self.settings.relay, self.settings.signer)
        self._relay = self.settings.relay()
        warn_if_exposed("AWAITHUMANS_RELAY_URL", self._relay, "the proofs of registrations")
        self._signer = self.settings.signer()
        self._patience = patience
        # No connection is kept open between two questions, because a caller may ask only once a day.
        self._client = TaskClient(settings=self.settings, keep_alive=0, transport=transport)
        self._sync_client = SyncTaskClient(settings=self.settings, keep_alive=0)
        self._creating: set[tuple[str, Future[None]]] = set()
        """Creates that are under way: idempotency key, end."""

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
        """Create the task, register the wait, and return the task's status. Safe to repeat.

        If the task has already ended, because its key was used before, its outcome is returned and no wait is
        registered.

        Args:
            body: The task body, from `HumanTask.body()`.
            route: Where the answer must go.
            same_words: Whether text, assignee and response class must match those first asked under the key, and not
                only the payload.
            asked_by: Identifies the caller. It must be the same at every attempt. Default: the route's digest.
            gives_up: Whether the caller gives up the question because of this error. Then a task that was created for
                it is cancelled. Default: every refusal is a reason.
            known: Id of the task that an earlier attempt has created for this question. It is never created again.
            on_created: Called with the new task before its wait is registered, so that the next attempt knows it.
            may_repeat: Whether an earlier attempt may have created the task without a record of it here. Then the relay
                is asked for the task first.
            within: Seconds after which no request is repeated, if that is less than the patience.
            asked_before: The route under which the relay knows a wait for the same question by an earlier caller, for
                `may_repeat`. Default: `route`.

        Raises:
            TaskRejectedError, AuthenticationError, RequestRefusedError: server or relay refused the request. Trying
                again will not help.
            ServerUnreachableError: there was no usable reply within the patience.
        """
        with asking(route) as traced, self._create_of(body["idempotency_key"]) as created:

            def is_created(outcome: Outcome) -> None:
                created()
                if on_created is not None:
                    on_created(outcome)

            steps = self._open(body, traced, same_words, asked_by, gives_up, known, may_repeat, within, asked_before)
            outcome = await self._client.run(steps, on_status=is_created)
            note(task_id=outcome.task_id)
            return outcome

    @contextmanager
    def _create_of(self, key: str) -> Generator[Callable[[], None]]:
        """Let a withdrawal of this key wait until the returned function is called, or this context ends.

        A create that is under way while its question is withdrawn can leave an open task (see `flow.withdraw_key`).
        """
        creating = key, Future[None]()
        self._creating.add(creating)

        def done() -> None:
            if creating in self._creating:
                self._creating.discard(creating)
                creating[1].set_result(None)

        try:
            yield done
        finally:
            done()

    def open_sync(
        self, body: Mapping[str, Any], route: Route, *, same_words: bool = True, may_repeat: bool = True
    ) -> Outcome:
        """Create the task, register the wait, and return the task's status, as `open` does, without an event loop.

        Raises:
            SettingsError: the call would block the event loop of the relay that it needs.
        """
        refuse_to_block()
        with asking(route) as traced:
            outcome = self._sync_client.run(self._open(body, traced, same_words, None, None, None, may_repeat, None))
            note(task_id=outcome.task_id)
            return outcome

    async def close(self, task_id: str, *, asked_by: Callable[[str], str | None] | None = None) -> Outcome:
        """Cancel the task unless it has ended, and return how it ended. An answer given in the meantime wins.

        Args:
            task_id: Id of the task.
            asked_by: Returns the mark that this caller's tasks carry under the given key, or None for a key that is
                never shared. A task that was created for another caller stays open. Default: the task is cancelled,
                regardless of which caller created it.
        """
        patience = Patience(self._patience or CLOSE_PATIENCE_SECONDS)
        closing = flow.close(task_id, patience) if asked_by is None else flow.close_if_mine(task_id, asked_by, patience)
        return await self._client.run(closing)

    async def last_look(self, task_id: str, given: float, *, key: str | None = None) -> Outcome:
        """Return the outcome of a task whose caller has no more time and had given people `given` seconds to answer.

        See `flow.last_look`.
        """
        patience = Patience(self._patience or CLOSE_PATIENCE_SECONDS)
        return await self._client.run(flow.last_look(task_id, given, patience, key=key))

    async def withdraw(
        self, key: str, *, asked_by: str | None = None, on_missing: Callable[[Outcome], None] | None = None
    ) -> Outcome:
        """Cancel a question by its key, whether or not its task is known to exist. Return how it ended.

        Args:
            key: The idempotency key.
            asked_by: Cancel only a task that was created for this caller, with the `asked_by` given to `open`. Default:
                cancel the task of any caller.
            on_missing: Called if no question was asked under this key, with the task that was created in its place.
        """
        patience = Patience(self._patience or CLOSE_PATIENCE_SECONDS)
        if creating := [asyncio.wrap_future(end) for each, end in tuple(self._creating) if each == key]:
            await asyncio.wait(creating, timeout=patience.seconds)
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
        opening = flow.open_wait(
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
        return observed(opening, None, self._show)

    def _show(self, pause: Pause) -> None:
        """Show why a question is not asked yet, which its caller has no other way to report."""
        show_if_unconfigured(PAUSED, *paused_facts(pause, self.settings.url))

    def _proofs(self, route: Route, asked_before: Route) -> Proofs:
        prove = self._signer.prove
        return Proofs(self._signer.issue(route), lambda task_id: prove(route, task_id), lambda: prove(asked_before))
