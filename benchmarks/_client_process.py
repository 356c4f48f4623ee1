"""One process that asks many questions and waits for all of them, as one of the two clients would have it done.

python -m benchmarks._client_process ours|official ADDRESS TASKS        (the token: AWAITHUMANS_ADMIN_API_TOKEN)

It is a process of its own so that its memory, its CPU and its connections are those of the client and of nothing else.
It says `ready` once everything is imported, asks as soon as it is sent a line, and writes one line of JSON for each
question that ends: which, when (the machine's clock, which whoever answers reads too), and what went wrong, if anything
did. Both clients ask the same question, with the same payload and the same schema, each under a key of its own.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pydantic import BaseModel

AskAll = Callable[[str, str, int], Coroutine[Any, Any, None]]
"""Takes the server's address, the token and how many questions there are; ends when all of them have."""

TIMEOUT_SECONDS = 3600
"""What people have; no run lasts as long."""


class Order(BaseModel):
    order: int
    amount: float


class Decision(BaseModel):
    approved: bool
    note: str = ""


def question(order: int) -> str:
    return f"Approve order {order}?"


def write_result(order: int, error: BaseException | None) -> None:
    ended = {"order": order, "at": time.time(), "failed": type(error).__name__ if error else None}
    print(json.dumps(ended), flush=True)


def ours() -> AskAll:
    """All of them in one loop, over the connections that `as_completed` allows itself."""
    from awaithumans_core import HumanTask, TaskClient

    async def ask(url: str, token: str, count: int) -> None:
        orders = [Order(order=number, amount=250.0) for number in range(count)]
        questions = [
            HumanTask(
                task=question(order.order),
                payload=order,
                response_schema=Decision,
                timeout_seconds=TIMEOUT_SECONDS,
                idempotency_key=f"order:{order.order}",
            )
            for order in orders
        ]
        async with TaskClient(url, token) as client:
            async for answer in client.as_completed(questions):
                write_result(answer.question.payload.order, answer.error)

    return ask


def official() -> AskAll:
    """One `await_human` for each, gathered: the SDK has no call for many."""
    from awaithumans import await_human  # type: ignore[import-untyped]  # it ships no types

    async def one(url: str, token: str, order: Order) -> None:
        try:
            await await_human(
                task=question(order.order),
                payload_schema=Order,
                payload=order,
                response_schema=Decision,
                timeout_seconds=TIMEOUT_SECONDS,
                idempotency_key=f"order:{order.order}",
                server_url=url,
                api_key=token,
            )
        except Exception as error:
            write_result(order.order, error)
        else:
            write_result(order.order, None)

    async def ask(url: str, token: str, count: int) -> None:
        orders = [Order(order=number, amount=250.0) for number in range(count)]
        await asyncio.gather(*(one(url, token, order) for order in orders), return_exceptions=True)

    return ask


def main() -> None:
    side, url, count = sys.argv[1:]
    ask = {"ours": ours, "official": official}[side]()
    print(json.dumps({"ready": True}), flush=True)
    if sys.stdin.readline():
        asyncio.run(ask(url, os.environ["AWAITHUMANS_ADMIN_API_TOKEN"], int(count)))


if __name__ == "__main__":
    main()
