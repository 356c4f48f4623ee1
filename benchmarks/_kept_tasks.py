"""Tasks that a server keeps, copied in its SQLite file, because creating thousands through its API takes minutes."""

import secrets
import sqlite3
from collections.abc import Sequence
from contextlib import closing

import httpx
from devservers import HumansServer

from benchmarks._by_hand import BODY


async def create_task(people: httpx.AsyncClient) -> str:
    """Create a task that waits for an answer and return its id."""
    body = BODY | {"task": "Approve order 1?", "payload": {"order": 1, "amount": 250.0}}
    created = await people.post("/api/tasks", json={**body, "idempotency_key": secrets.token_hex(16)})
    return str(created.raise_for_status().json()["id"])


def copy_task(server: HumansServer, task_id: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Copy a task once for each row. The copies have the values of the row in these columns."""
    with closing(sqlite3.connect(server.folder / "tasks.db", timeout=30)) as db, db:
        kept = [row[1] for row in db.execute("PRAGMA table_info(tasks)") if row[1] not in columns]
        copied, values = ", ".join(kept), ", ".join("?" * len(columns))
        db.executemany(
            f"INSERT INTO tasks ({', '.join(columns)}, {copied}) SELECT {values}, {copied} FROM tasks WHERE id = ?",  # noqa: S608
            [(*row, task_id) for row in rows],
        )


async def keep_ended_tasks(server: HumansServer, people: httpx.AsyncClient, count: int) -> None:
    """Make the server keep this number of tasks that have ended."""
    task_id = await create_task(people)
    (await people.post(f"/api/tasks/{task_id}/complete", json={"response": {"approved": True}})).raise_for_status()
    copies = [(secrets.token_hex(16), secrets.token_hex(16)) for _ in range(count)]
    copy_task(server, task_id, ("id", "idempotency_key"), copies)
