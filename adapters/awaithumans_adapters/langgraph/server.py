"""The relay's side, for threads of a LangGraph server: an outcome resumes the interrupt that asked, through its API.

The server runs one run of a thread after another, and takes a run for good before it answers. So it is the lock: the
thread is looked at when none of its runs is under way, and the run that brings the answer is refused if one has come in
between. Whoever is killed meanwhile, relay or server, the run goes on, and the next delivery waits for it.
"""

from collections.abc import Mapping

from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from awaithumans_adapters.langgraph.engine import NOT_YET_SECONDS, SUPERSEDED, behind
from awaithumans_adapters.langgraph.failures import MEND
from awaithumans_adapters.langgraph.names import SERVER_ENGINE
from awaithumans_adapters.langgraph.server_thread import ServerThread, ThreadUnknownError
from awaithumans_core.addresses import http_address, without_user
from awaithumans_core.connections import PerLoop
from awaithumans_core.engine import TargetGone, TargetNotReady
from awaithumans_core.errors import SettingsError
from awaithumans_core.http_clients import bounded, warn_if_exposed
from awaithumans_core.http_environment import certificate_errors
from awaithumans_core.outcome import Outcome
from awaithumans_core.route import Route


class LangGraphServerEngine:
    """Resumes threads of a LangGraph server: `langgraph dev`, self-hosted, or LangSmith Deployment.

    Args:
        url: Where the server is; it may hold a user name and a password.
        api_key: Default: LANGGRAPH_API_KEY, LANGSMITH_API_KEY or LANGCHAIN_API_KEY from the environment.
        headers: Sent with every request.

    Raises:
        SettingsError: `url` is not an address.
    """

    name = SERVER_ENGINE

    def __init__(self, url: str, *, api_key: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        try:
            url = http_address(url, credentials=True)
        except ValueError as malformed:
            raise SettingsError(f"the LangGraph server's address: {malformed}") from None

        def client() -> LangGraphClient:
            # To the SDK, None means no key at all, and not the one of the environment.
            with certificate_errors():
                if api_key is None:
                    made = get_client(url=url, headers=headers)
                else:
                    made = get_client(url=url, headers=headers, api_key=api_key)
            bounded(made.http.client)
            return made

        self._clients = PerLoop(client)
        self._url = without_user(url)
        """As it is shown."""
        warn_if_exposed("the LangGraph server's address", url, "its API key")

    async def aclose(self) -> None:
        """Close the connections to the server."""
        await self._clients.aclose()

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        """Resume the thread with the outcome and wait for its end or its next question.

        Raises:
            TargetGone: the thread has moved on without this answer, or failed after it had taken it: running a node
                again that may have acted is not ours to decide.
            TargetNotReady: the thread does not show the question yet, or is not there; TargetBusy, which is one of
                these: its node waits for another answer first.
            Exception: the thread has not taken the answer.
        """
        await self._bring(await self._thread(route), outcome)

    async def redrive(self, route: Route, outcome: Outcome) -> None:
        """The same, and a thread that failed after it had the answer runs on: its owner says that it is mended."""
        thread = await self._thread(route)
        try:
            await self._bring(thread, outcome)
        except _FailedWithAnswer:
            if run_id := await thread.run_on():
                await thread.ended(run_id)
            await self._bring(thread, outcome)

    async def _bring(self, thread: ServerThread, outcome: Outcome) -> None:
        while waiting := await self._waiting(thread):
            run_id = await thread.resume(waiting, outcome)
            if run_id is not None:
                await thread.ended(run_id)
                await thread.check_taken(waiting, run_id)

    async def orphaned(self, route: Route) -> str | None:
        """Say so when the thread has asked this question and moved on without an answer: new input, or a fork."""
        thread = await self._thread(route)
        try:
            if await thread.busy() or await thread.waiting() or await thread.taken() or not await thread.asked():
                return None
            # Twice: a run may have come and gone between the look at the thread and the one at its history.
            return None if await thread.busy() or await thread.waiting() or await thread.taken() else SUPERSEDED
        except ThreadUnknownError:  # deleted, or forgotten by a restart that lost its data
            return None

    async def check(self) -> None:
        """Raise when the server is away, or does not take the key."""
        await (await self._clients.get()).assistants.search(limit=1)

    async def _thread(self, route: Route) -> ServerThread:
        return ServerThread(await self._clients.get(), route)

    async def _waiting(self, thread: ServerThread) -> set[str]:
        """Ids of the interrupts that wait for the answer; none if it was taken before."""
        try:
            await thread.idle()
        except ThreadUnknownError as unknown:
            raise TargetNotReady(
                f"the LangGraph server at {self._url} has no thread {thread.id!r}: it was deleted, belonged to a run "
                "without a thread, or is on another server",
                retry_after=NOT_YET_SECONDS,
            ) from unknown
        if waiting := await thread.waiting():
            if failed := await thread.failed_with_answer():
                raise TargetNotReady(
                    f"beside the question, {failed} after it had its own answer; resuming now would run it again",
                    retry_after=NOT_YET_SECONDS,
                )
            return waiting
        if await thread.taken():
            await self._check_whole(thread)
            return set()
        if await thread.asked():
            raise TargetGone(SUPERSEDED)
        if await thread.gathered():
            raise behind()
        raise TargetNotReady(
            f"thread {thread.id!r} on the LangGraph server at {self._url} does not show this question yet",
            retry_after=NOT_YET_SECONDS,
        )

    async def _check_whole(self, thread: ServerThread) -> None:
        """Raise if the thread took the answer and failed, or is not what it was."""
        failed = await thread.failure()
        if not failed:
            return
        if not await thread.asked():
            raise TargetGone(
                f"the LangGraph server at {self._url} has lost what thread {thread.id!r} was doing, together with the "
                f"answer it had taken ({failed})"
            )
        raise _FailedWithAnswer(f"{failed}, after it had the answer. {MEND}")


class _FailedWithAnswer(TargetGone):
    """The one way of being gone that a redrive mends."""
