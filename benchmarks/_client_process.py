"""A process that asks many questions with one of the two clients and waits for all answers.

python -m benchmarks._client_process ours|official ADDRESS TASKS        (the token: AWAITHUMANS_ADMIN_API_TOKEN)

A process of its own has the memory, the CPU time and the connections of the client only.
The process writes a line of JSON when all imports are done, and asks as soon as it reads a line. For each question that
ends it writes a line of JSON with the number of the order, the time by the machine's clock and the error. Both clients
ask the same question with the same payload and schema. Each question has a key of its own.
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
"""Asks a number of questions and returns when all have ended. Arguments: server address, token, number of questions."""

TIMEOUT_SECONDS = 3600
"""Longer than any run, so no question times out."""


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
    """Return a function that asks all questions in one `as_completed` loop of this package."""
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
    """Return a function that gathers one `await_human` per question, because the SDK has no call for many questions."""
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
