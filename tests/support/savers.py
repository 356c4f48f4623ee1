"""LangGraph checkpointers on real databases, and faults of their storage."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any, Literal

import psycopg
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from awaithumans_adapters.langgraph import await_human_sync
from tests.support.graph_bench import Bench, State
from tests.support.workflows import Decision

Opens = Callable[[], AbstractAsyncContextManager[Any]]
SAVERS = ["memory", "sqlite", "sqlite-async", "postgres", "postgres-async"]
SYNC = (SqliteSaver, PostgresSaver)
"""Savers without async methods: their graphs have sync nodes."""

Refused = Literal["everything", "checkpoints", "results", "after the first write"]
NOT_RESULTS = {"__resume__", "__interrupt__", "__error__"}


class StorageRefusedError(OSError):
    """The storage of a checkpointer refuses a write."""


class Refusals:
    """A mixin for savers that refuses the writes named in `refused` and accepts all others."""

    refused: Refused | None = None
    accepted = 0

    def _check_checkpoint(self) -> None:
        if self.refused is not None and (self.refused != "after the first write" or self.accepted):
            raise StorageRefusedError("no space left on device")

    def _check_writes(self, writes: Sequence[tuple[str, Any]]) -> None:
        is_result = any(channel not in NOT_RESULTS for channel, _ in writes)
        if self.refused == "everything" or (self.refused == "results" and is_result):
            raise StorageRefusedError("no space left on device")
        if self.refused == "after the first write":
            self.accepted += 1
            if self.accepted > 1:
                raise StorageRefusedError("no space left on device")

    def put(self, *args: Any) -> Any:
        self._check_checkpoint()
        return super().put(*args)  # type: ignore[misc]

    async def aput(self, *args: Any) -> Any:
        self._check_checkpoint()
        return await super().aput(*args)  # type: ignore[misc]

    def put_writes(self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        self._check_writes(writes)
        super().put_writes(config, writes, task_id, task_path)  # type: ignore[misc]

    async def aput_writes(
        self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._check_writes(writes)
        await super().aput_writes(config, writes, task_id, task_path)  # type: ignore[misc]


class RefusingMemorySaver(Refusals, InMemorySaver):
    # The async methods of that saver call the sync ones, which already check.
    aput = InMemorySaver.aput
    aput_writes = InMemorySaver.aput_writes


class RefusingSqliteSaver(Refusals, SqliteSaver): ...


class RefusingAsyncSqliteSaver(Refusals, AsyncSqliteSaver): ...


class RefusingPostgresSaver(Refusals, PostgresSaver): ...


class RefusingAsyncPostgresSaver(Refusals, AsyncPostgresSaver): ...


def opener(name: str, database: str) -> Opens:
    """Return a function that opens a saver, anew on the same database each time; the one in memory stays the same."""
    kept = RefusingMemorySaver()

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Any]:
        if name == "memory":
            yield kept
        elif name == "sqlite":
            with RefusingSqliteSaver.from_conn_string(database) as saver:
                yield saver
        elif name == "sqlite-async":
            async with RefusingAsyncSqliteSaver.from_conn_string(database) as saver_:
                yield saver_
        elif name == "postgres":
            with RefusingPostgresSaver.from_conn_string(database) as pg:
                pg.setup()
                yield pg
        else:
            async with RefusingAsyncPostgresSaver.from_conn_string(database) as pg_:
                await pg_.setup()
                yield pg_

    return opened


class SaverBench(Bench):
    """A graph on any saver, with sync nodes for a sync saver: `ask`, then `act`, which counts."""

    @property
    def is_sync(self) -> bool:
        return isinstance(self.saver, SYNC)

    def build(self) -> None:
        builder = StateGraph(State)
        builder.add_node("ask", self._ask_sync if self.is_sync else self._ask)
        builder.add_node("act", self.act)
        builder.add_edge(START, "ask")
        builder.add_edge("ask", "act")
        builder.add_edge("act", END)
        self.use(builder)

    async def start(self) -> None:
        if self.is_sync:
            await asyncio.to_thread(self.compiled.invoke, {"answers": []}, self.config)
        else:
            await self.compiled.ainvoke({"answers": []}, self.config)

    async def state(self) -> Any:
        if self.is_sync:
            return await asyncio.to_thread(self.compiled.get_state, self.config)
        return await self.compiled.aget_state(self.config)

    async def _ask(self, state: State) -> State:
        first, second = await self.ask("first"), await self.ask("second")
        return {"answers": [("first", first.approved), ("second", second.approved)]}

    def _ask_sync(self, state: State) -> State:
        return {"answers": [(name, self.ask_sync(name)) for name in ("first", "second")]}

    def ask_sync(self, name: str) -> bool:
        decision: Decision = await_human_sync(
            task=f"{name} {self.thread_id}", response_schema=Decision, human_tasks=self.human_tasks
        )
        return decision.approved


class PartlyRefusingSaver(InMemorySaver):
    """A saver that refuses writes by channel, or "checkpoints", of all graphs or only of the outer one."""

    refused: frozenset[str] = frozenset()
    outer = False

    def _check(self, config: Any, names: set[str]) -> None:
        if names & self.refused and not (self.outer and config["configurable"].get("checkpoint_ns")):
            raise StorageRefusedError("no space left on device")

    def put(self, config: Any, *args: Any) -> Any:
        self._check(config, {"checkpoints"})
        return super().put(config, *args)

    def put_writes(self, config: Any, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        self._check(config, {channel for channel, _ in writes})
        super().put_writes(config, writes, task_id, task_path)


# --- Faults of real databases -----------------------------------------------------------------------------------------


@asynccontextmanager
async def full_disk(saver: Any, database: str) -> AsyncGenerator[None]:
    """Prevent SQLite from growing its file, with the last pages of the saver's tables full."""
    size = (await _sqlite(saver, "PRAGMA page_count"))[0][0]
    await _sqlite(saver, f"PRAGMA max_page_count = {size + 8}")
    for fill in (
        "INSERT INTO checkpoints (thread_id, checkpoint_id) VALUES ('ballast', hex(randomblob(8)))",
        "INSERT INTO writes (thread_id, checkpoint_id, task_id, idx, channel) "
        "VALUES ('ballast', hex(randomblob(8)), '', 0, '')",
    ):
        with suppress(sqlite3.OperationalError):
            while True:
                await _sqlite(saver, fill)
    yield
    await _sqlite(saver, "PRAGMA max_page_count = 1000000")


@asynccontextmanager
async def locked(saver: Any, database: str) -> AsyncGenerator[None]:
    """Hold SQLite's write lock in another process for longer than the saver waits."""
    await _sqlite(saver, "PRAGMA busy_timeout = 50")
    with closing(sqlite3.connect(Path(database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("CREATE TABLE other (id)")
        yield
        other.execute("COMMIT")


@asynccontextmanager
async def read_only(saver: Any, database: str) -> AsyncGenerator[None]:
    """Make PostgreSQL refuse writes, as after a failover."""
    await _postgres(saver, "SET default_transaction_read_only = on")
    yield
    await _postgres(saver, "SET default_transaction_read_only = off")


@asynccontextmanager
async def killed(saver: Any, database: str) -> AsyncGenerator[None]:
    """Terminate the saver's only connection to PostgreSQL for good."""
    mine = saver.conn.info.backend_pid
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s)", [mine])
    yield


STORAGE_FAULTS = {
    "full": ("sqlite", full_disk),
    "locked": ("sqlite", locked),
    "read-only": ("postgres", read_only),
    "killed": ("postgres", killed),
}
"""Name -> kind of database and fault."""


async def _sqlite(saver: Any, statement: str) -> list[Any]:
    if isinstance(saver, AsyncSqliteSaver):
        async with saver.lock, saver.conn.execute(statement) as cursor:
            found = list(await cursor.fetchall())
            await saver.conn.commit()
            return found
    with saver.cursor() as cursor:
        return list(cursor.execute(statement).fetchall())


async def _postgres(saver: Any, statement: str) -> None:
    if isinstance(saver, AsyncPostgresSaver):
        await saver.conn.execute(statement)  # type: ignore[union-attr]
    else:
        saver.conn.execute(statement)
