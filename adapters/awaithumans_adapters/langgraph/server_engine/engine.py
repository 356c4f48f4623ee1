"""The relay's engine for threads of a LangGraph server: delivers an outcome through the server's API.

The server runs the runs of a thread one after another, and stores a run durably before it responds. So the server acts
as the lock: the thread is read when none of its runs is active, and the run that brings the answer is refused if
another one was started in between. If the relay or the server is killed meanwhile, the run continues, and the next
delivery waits for it.
"""

import time
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any, assert_never

from httpx import URL, HTTPStatusError
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from awaithumans_adapters.langgraph.delivery.classification import Case, Snapshot, read_case
from awaithumans_adapters.langgraph.delivery.rules import Action, error_for, orphan_reason, read_to_act, rule_of
from awaithumans_adapters.langgraph.delivery.seen_threads import SeenThreads
from awaithumans_adapters.langgraph.names import SERVER_ENGINE
from awaithumans_adapters.langgraph.server_engine.facts import ServerFacts
from awaithumans_adapters.langgraph.server_engine.run import ChangesRun
from awaithumans_adapters.langgraph.server_engine.target import Credentials, Headers, ServerTarget, target_of
from awaithumans_adapters.langgraph.server_engine.thread import AssistantUnknownError, ServerThread, ThreadUnknownError
from awaithumans_core.engine import RelayNotReady, TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.http.addresses import http_address, without_user
from awaithumans_core.http.clients import bounded, warn_if_exposed
from awaithumans_core.http.connections import PerLoop
from awaithumans_core.http.environment import certificate_errors
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route

REFUSED = (401, 403)
"""Status codes with which a server refuses credentials, or refuses a request to them."""
_GIVE = (
    "Give LangGraphServerEngine(headers=...), or `serve --langgraph-server-headers`, credentials that may read and "
    "resume this user's threads, and try them with `awaithumans-relay doctor --thread ID`"
)
MAX_HIDDEN = 100
"""Maximum number of hidden threads that `check` reports. The oldest are dropped."""
HIDDEN_SECONDS = 1800.0
"""Seconds for which `check` reports a hidden thread. The relay's sweep checks every wait more often."""


class LangGraphServerEngine:
    """Resumes threads of a LangGraph server: `langgraph dev`, self-hosted, or LangSmith Deployment.

    Args:
        url: Address of the server. It may contain a user name and a password.
        api_key: Default: LANGGRAPH_API_KEY, LANGSMITH_API_KEY or LANGCHAIN_API_KEY from the environment.
        headers: Sent with every request. Or a function, sync or async, that is called before each request with its
            `ServerTarget` and returns the headers: it chooses the credentials for the user whose run asked.
        run_options: Called, sync or async, before a run that brings an answer starts, with its `ServerTarget` and the
            keyword arguments for `client.runs.create`, which are those of the run that asked. Returns the ones to use.

    Raises:
        SettingsError: `url` is not an address.
    """

    name = SERVER_ENGINE

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        headers: Headers | None = None,
        run_options: ChangesRun | None = None,
    ) -> None:
        try:
            url = http_address(url, credentials=True)
        except ValueError as malformed:
            raise SettingsError(f"the LangGraph server's address: {malformed}") from None
        credentials = Credentials(headers, api_key)

        def client() -> LangGraphClient:
            # To the SDK, None means no key at all, instead of the key from the environment.
            with certificate_errors():
                if api_key is None:
                    made = get_client(url=url, headers=credentials.fixed)
                else:
                    made = get_client(url=url, headers=credentials.fixed, api_key=api_key)
            bounded(made.http.client)
            return made

        def stranger() -> LangGraphClient:
            with certificate_errors():
                made = get_client(url=str(URL(url).copy_with(userinfo=b"")), api_key=None)
            bounded(made.http.client)
            return made

        self._clients, self._strangers = PerLoop(client), PerLoop(stranger)
        self._credentials = credentials
        self._run_options = run_options
        self._hidden: dict[str, tuple[float, str]] = {}
        """Threads that the server does not show to the relay, each with the time and the reason."""
        self._url = without_user(url)
        """The address without credentials, for messages."""
        self._seen = SeenThreads()
        warn_if_exposed("the LangGraph server's address", url, "its API key")

    async def aclose(self) -> None:
        """Close the connections to the server."""
        await self._clients.aclose()
        await self._strangers.aclose()

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Resume the thread with the outcome and wait for its end or its next question.

        Raises:
            TargetGone: the thread has moved on without this answer, or failed after it had taken it. The engine does
                not run a node again that may have acted.
            TargetNotReady: the thread does not show the question yet, or does not exist.
            TargetBusy: a `TargetNotReady`; the node waits for another answer first.
            RelayNotReady: a `TargetNotReady`; the relay's credentials do not show the thread, or may not resume it.
            Exception: the thread has not taken the answer.
        """
        await self._deliver(route, outcome, redriven=False)

    async def redrive(self, route: Route, outcome: Outcome) -> None:
        """Deliver, and continue a thread that failed after it had the answer, because its owner has repaired the cause.

        Errors are those of `deliver`.
        """
        await self._deliver(route, outcome, redriven=True)

    async def _deliver(self, route: Route, outcome: Outcome, *, redriven: bool) -> None:
        thread = await self._thread(route)
        facts = ServerFacts(thread, self._seen, self._why_hidden, wait_until_idle=True)
        known = self._unread_snapshot(thread, redriven=redriven)

        async def read() -> tuple[Case, Snapshot]:
            return await read_case(facts, known, route.idempotency_key)

        with self._refusals(thread):
            while True:
                case, found = await read_to_act(read)
                if found.exists:
                    self._hidden.pop(thread.id, None)
                action = rule_of(case).action
                match action:
                    case Action.RESUME:
                        run_id = await self._started(thread, thread.resume(facts.waiting, outcome))
                        if run_id is not None:
                            await thread.wait_for_run(run_id)
                            await thread.check_taken(facts.waiting, run_id)
                    case Action.RUN_ON | Action.RUN_ON_TO_QUESTION:
                        known = known._replace(redriven=False)  # a redrive permits one more run
                        if run_id := await self._started(thread, thread.run_on()):
                            await thread.wait_for_run(run_id)
                    case Action.FINISH:
                        return
                    case (
                        Action.PARK
                        | Action.PARK_NOT_TAKEN
                        | Action.PARK_FAILED
                        | Action.TRY_LATER
                        | Action.TRY_LATER_BUSY
                        | Action.REFUSE
                    ):
                        raise error_for(case, found)
                    case _:
                        assert_never(action)

    async def orphaned(self, route: Route) -> str | None:
        """Return the reason if the thread has asked this question and moved on without an answer, else None.

        New input or a fork has that effect.

        Raises:
            RelayNotReady: the relay's credentials do not show the thread.
        """
        thread = await self._thread(route)
        facts = ServerFacts(thread, self._seen, self._why_hidden, wait_until_idle=False)
        known = self._unread_snapshot(thread, answer_known=False)

        async def read() -> tuple[Case, Snapshot]:
            return await read_case(facts, known, route.idempotency_key)

        with self._refusals(thread):
            return await orphan_reason(read)

    async def check(self) -> None:
        """Raise if the server is unreachable or refuses the credentials, or if it recently hid a thread from them.

        Raises:
            SettingsError: the server refuses the credentials, or hid a thread within the last `HIDDEN_SECONDS`.
        """
        target = ServerTarget()
        client, headers = await self._clients.get(), await self._credentials.headers(target)
        try:
            await client.assistants.search(limit=1, headers=headers)
            await client.threads.search(limit=1, headers=headers)
        except HTTPStatusError as refused:
            if refused.response.status_code not in REFUSED:
                raise
            raise SettingsError(self._refused(target, refused)) from refused
        since = time.monotonic() - HIDDEN_SECONDS
        if reasons := [reason for found, reason in self._hidden.values() if found > since]:
            raise SettingsError(f"{reasons[-1]} (threads that are hidden so: {len(reasons)})")

    async def check_thread(self, route: Route) -> str:
        """Read a thread as a delivery would, and change nothing. Return a description of its state for an operator.

        Args:
            route: A route of one of its questions. If the target has no `assistant_id` and there is no key, only the
                thread is read.

        Raises:
            RelayNotReady: the relay's credentials do not show the thread, or do not allow to read what is needed.
            TargetGone: the id is not that of a thread.
            TargetNotReady: the server has no such thread.
        """
        thread = await self._thread(route)
        with self._refusals(thread):
            try:
                busy = await thread.busy()
                await thread.taken(delete_stale=False)
                questions = await thread.questions()
            except ThreadUnknownError as unknown:
                raise await self._not_found(thread) from unknown
        self._hidden.pop(thread.id, None)
        return (
            f"the LangGraph server shows thread {thread.id!r} and its receipts with "
            f"{self._credentials.described(thread.target)}. It {'runs' if busy else 'is idle'}, and waits at "
            f"{questions} question{'' if questions == 1 else 's'} of this package. No run was started, so whether one "
            "may be is not known"
        )

    async def _thread(self, route: Route) -> ServerThread:
        client, target = await self._clients.get(), target_of(route)
        return ServerThread(client, route, lambda: self._credentials.headers(target), self._run_options)

    def _unread_snapshot(self, thread: ServerThread, *, answer_known: bool = True, redriven: bool = False) -> Snapshot:
        where = f"the LangGraph server at {self._url}"
        not_yet = f"thread {thread.id!r} on {where} does not show this question yet"
        return Snapshot(answer_known=answer_known, redriven=redriven, thread_id=thread.id, where=where, not_yet=not_yet)

    async def _not_found(self, thread: ServerThread) -> TargetGone | TargetNotReady:
        """Return the error for a thread that the server does not show."""
        facts = ServerFacts(thread, self._seen, self._why_hidden, wait_until_idle=False)
        case, found = await read_case(facts, await facts.not_found(self._unread_snapshot(thread)), "")
        return error_for(case, found)

    async def _started(self, thread: ServerThread, starting: Coroutine[Any, Any, str | None]) -> str | None:
        """Return the id of the run that was started, or None if the thread has to be read again."""
        try:
            return await starting
        except ThreadUnknownError:
            return None
        except AssistantUnknownError as unknown:
            if await self._may_hide(thread):
                raise RelayNotReady(
                    f"the LangGraph server at {self._url} answers 404 for a run of thread {thread.id!r} with "
                    f"{self._credentials.described(thread.target)}: either they may not run assistant "
                    f"{thread.assistant_id!r} on it, or the assistant was deleted"
                ) from unknown
            raise TargetGone(f"the LangGraph server has no assistant {thread.assistant_id!r} any more") from unknown

    @contextmanager
    def _refusals(self, thread: ServerThread) -> Generator[None]:
        """Turn a refusal of the credentials into `RelayNotReady`, which is retried and describes the credentials."""
        try:
            yield
        except HTTPStatusError as refused:
            if refused.response.status_code not in REFUSED:
                raise
            raise self._hide(thread, self._refused(thread.target, refused)) from refused

    def _refused(self, target: ServerTarget, refused: HTTPStatusError) -> str:
        what = f"{refused.request.method} {refused.request.url.path}"
        return (
            f"the LangGraph server at {self._url} refuses {what} ({refused.response.status_code}) to "
            f"{self._credentials.described(target)}. {_GIVE}"
        )

    async def _why_hidden(self, thread: ServerThread) -> str:
        """Return why a thread for which the server answers 404 may be hidden from these credentials, or ""."""
        if not await self._may_hide(thread):
            return ""
        user = f", which user {thread.target.user!r} ran," if thread.target.user else ""
        reason = (
            f"the LangGraph server at {self._url} answers 404 for thread {thread.id!r}{user} with "
            f"{self._credentials.described(thread.target)}: either they may not read it, or it was deleted. "
            f"{_GIVE}"
        )
        self._hide(thread, reason)
        return reason

    def _hide(self, thread: ServerThread, reason: str) -> RelayNotReady:
        self._hidden.pop(thread.id, None)
        self._hidden[thread.id] = (time.monotonic(), reason)
        if len(self._hidden) > MAX_HIDDEN:
            del self._hidden[next(iter(self._hidden))]
        return RelayNotReady(reason)

    async def _may_hide(self, thread: ServerThread) -> bool:
        """Whether a 404 may mean that a thread is hidden. It may if the server knows users by their credentials."""
        if thread.target.user:
            return True
        try:
            await (await self._strangers.get()).threads.get(thread.id)
        except HTTPStatusError as refused:
            return refused.response.status_code in REFUSED
        return True  # a request without credentials finds the thread, and one with these credentials does not
