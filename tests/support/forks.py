"""A program that uses its clients, forks while they hold polls, and uses the clients in every child as well.

Prints a line of JSON for each question that was answered: who asked, what was asked, what came back. As preloaded web
servers and prefork task queues do it: clients at module level, workers forked later.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from pydantic import BaseModel

from awaithumans_core import Answer, HumanTask, HumanTasks, Route, SettingsError, SyncTaskClient, TaskClient, settle

SECONDS = 60
CHILDREN = ("sync", "async", "wait_all", "human_tasks", "held generator", "sync again", "async again")
PARENT = ("sync thread", "async thread", "another sync thread", "another async thread")
AFTERWARDS = ("parent, sync", "parent, async")
POOL = ("pool 1", "pool 2", "pool 3")
EVERYBODY = (*CHILDREN, *PARENT, *AFTERWARDS, *POOL)


class Number(BaseModel):
    number: int


RUN = os.environ.get("RUN", "")
sync_client: SyncTaskClient
async_client: TaskClient
human_tasks: HumanTasks
begun: Generator[Answer[Number]]


def question(name: str) -> HumanTask[Number]:
    text = f"Number of {name}?"
    return HumanTask(task=text, response_schema=Number, timeout_seconds=900, idempotency_key=f"{RUN}:{name}")


def answer_to(name: str) -> int:
    return EVERYBODY.index(name)


def report(name: str, came: object) -> None:
    os.write(1, (json.dumps({"name": name, "came": came}) + "\n").encode())


def ask(name: str) -> None:
    report(name, settle(sync_client.ask(question(name), poll_seconds=5), Number).number)


def ask_async(name: str) -> None:
    report(name, settle(asyncio.run(async_client.ask(question(name), poll_seconds=5)), Number).number)


def wait_all(name: str) -> None:
    answers = sync_client.wait_all([question(name), question("sync thread")])
    assert answers[1].result().number == answer_to("sync thread")
    report(name, answers[0].result().number)


def open_wait(name: str) -> None:
    """Open a wait; the result is the task and not the answer."""
    asked = question(name)
    opened = human_tasks.open_sync(asked.body(), Route("shelf", {"place": name}, asked.idempotency_key))
    assert opened.idempotency_key == asked.idempotency_key
    again = asyncio.run(human_tasks.open(asked.body(), Route("shelf", {"place": name}, asked.idempotency_key)))
    assert again.task_id == opened.task_id
    ask(name)


def refuse_inherited_work(name: str) -> None:
    """Make work that the parent began in its own thread an error here instead of an endless wait."""
    try:
        next(begun)
    except SettingsError:
        ask(name)
    else:
        report(name, "went on")


DOES: dict[str, Callable[[str], Any]] = {
    "sync": ask,
    "async": ask_async,
    "wait_all": wait_all,
    "human_tasks": open_wait,
    "held generator": refuse_inherited_work,
    "sync again": ask,
    "async again": ask_async,
}


def child(name: str) -> None:
    """Ask, close the clients, and end like any program."""
    signal.alarm(SECONDS)
    with sync_client:
        DOES[name](name)
    asyncio.run(async_client.aclose())
    sys.exit()


def main() -> None:
    signal.alarm(SECONDS)
    global sync_client, async_client, human_tasks, begun
    sync_client, async_client, human_tasks = SyncTaskClient(), TaskClient(), HumanTasks()
    for name in PARENT[:2]:
        sync_client.create(question(name))
        asyncio.run(async_client.create(question(name)))
    human_tasks.open_sync(question("sync thread").body(), Route("shelf", {"place": "parent"}, f"{RUN}:sync thread"))
    begun = sync_client.as_completed([question("first"), question("sync thread")])
    assert next(begun).question.task == question("first").task
    asking = [threading.Thread(target=ask if "async" not in name else ask_async, args=[name]) for name in PARENT]
    for thread in asking:
        thread.start()
    time.sleep(0.5)  # their polls are held
    children = []
    for name in CHILDREN:
        if (pid := os.fork()) == 0:
            child(name)
        children.append(pid)
    with multiprocessing.get_context("fork").Pool(len(POOL)) as pool:
        pool.map(ask, POOL, chunksize=1)
    ended = {pid: os.waitpid(pid, 0)[1] for pid in children}
    for thread in asking:
        thread.join()
    ask("parent, sync")
    ask_async("parent, async")
    sync_client.close()
    assert set(ended.values()) == {0}, f"children ended with {ended}"


if __name__ == "__main__":
    main()
