"""Create, read and cancel one task.

A create is idempotent: the same key returns the same task. Several callers may use one key, so a task can carry a mark
(`ASKED_BY`) that names the caller it was created for.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, cast

from awaithumans_core.binding import differences, parts, parts_asked
from awaithumans_core.display.channels import warn_if_unrendered
from awaithumans_core.display.request import displayed
from awaithumans_core.errors import (
    AwaitHumansError,
    InvalidTaskError,
    QuestionChangedError,
    ServerUnreachableError,
    TaskNotFoundError,
    UnexpectedReplyError,
)
from awaithumans_core.flow.listing import MAX_PAGE_TASKS, ended_page, open_page
from awaithumans_core.flow.replies import insist, read_object, read_record, refusal
from awaithumans_core.flow.steps import Call, Flow, Notice, Patience, Pause, Reply
from awaithumans_core.outcome import Outcome
from awaithumans_core.status import TaskStatus
from awaithumans_core.task_id import MAX_TASK_ID_CHARS, TASK_ID_RULE, is_task_id


def task_url(task_id: str, below: str = "") -> str:
    """Return the path of a task on the server.

    Raises:
        InvalidTaskError: no task can have this id. Nothing was sent.
    """
    if not is_task_id(task_id):
        raise InvalidTaskError(
            f"{task_id[:MAX_TASK_ID_CHARS]!r} is not a task id: {TASK_ID_RULE}. Use the id that the server returned "
            "when the task was created"
        )
    return f"/api/tasks/{task_id}{below}"


def create(body: Mapping[str, Any], patience: Patience) -> Flow[Outcome]:
    """`POST /api/tasks`: create the task, or find the task with this key in any status. Repeating it is safe.

    A key of a different question is refused, because the answer to that question is not the answer to this one.
    """
    outcome, _ = yield from create_or_find(body, patience)
    return outcome


def create_or_find(
    body: Mapping[str, Any], patience: Patience, *, same_words: bool = True
) -> Flow[tuple[Outcome, bool]]:
    """Return the task, and whether this call, or an earlier one with the same mark, created it for this caller.

    Args:
        body: The task body, with its idempotency key.
        patience: Limit of the retries.
        same_words: Whether text, assignee and response class must be those first asked under the key. False: only the
            payload must be the same.

    Raises:
        QuestionChangedError: the key belongs to a different question.
        RequestRefusedError: the server refused the request; the subclass says why.
        ServerUnreachableError: there was no usable reply within the patience.
    """
    sent = displayed(body)
    warn_if_unrendered(sent)
    call = Call("POST", "/api/tasks", json=sent)
    reply = yield from insist(call, patience, lambda reply: _created(reply, body))
    if isinstance(reply, Reply):
        raise refusal(reply, call, at_create=True)
    outcome, record, ours = reply
    _check_same(body, record, outcome.task_id, same_words=same_words)
    return outcome, ours


def _created(reply: Reply, body: Mapping[str, Any]) -> tuple[Outcome, Mapping[str, Any], bool]:
    """Return the task, its record, and whether it was created for this caller."""
    record, key = read_object(reply), body.get("idempotency_key")
    shown = record.get("idempotency_key")
    if not (_is_about(record, body) if shown is None else shown == key):
        raise ValueError("the record of another question")
    ours = reply.headers.get("idempotent-replayed", "").lower() != "true" or _is_marked(record, body)
    outcome = Outcome.model_validate(record | {"idempotency_key": key}).from_server()
    if not is_task_id(outcome.task_id):
        raise ValueError(f"{outcome.task_id[:MAX_TASK_ID_CHARS]!r} is not a task id: {TASK_ID_RULE}")
    return outcome, record, ours


def _is_about(record: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a record without a key shows the text and the payload of this question."""
    known = parts(record)
    return {"task", "payload"} <= known.keys() and {"task", "payload"}.isdisjoint(differences(parts_asked(body), known))


def _check_same(body: Mapping[str, Any], record: Mapping[str, Any], task_id: str, *, same_words: bool) -> None:
    """Raise if the task is another question than the one that is asked; see `binding`."""
    differs = differences(parts_asked(body), parts(record), payload_only=not same_words)
    if differs:
        key, asked = body.get("idempotency_key"), record.get("task")
        raise QuestionChangedError(
            f"idempotency_key {key!r} belongs to a question that differs in {', '.join(differs)}: task {task_id}, "
            f"{asked!r}. Give each question a key of its own, or ask what was asked",
            task_id=task_id,
            differs=differs,
        )


def get(task_id: str, patience: Patience, *, key: str | None = None) -> Flow[Outcome]:
    """`GET /api/tasks/{id}`: read the record once, with who answered and on which channel.

    Args:
        task_id: Id of the task. The record of another task is not a usable reply.
        patience: Limit of the retries.
        key: The idempotency key that the record must have, unless the server hides it. None: any.
    """
    call = Call("GET", task_url(task_id))
    reply = yield from insist(call, patience, lambda reply: read_record(reply, task_id, key))
    if isinstance(reply, Outcome):
        return reply
    raise refusal(reply, call, task_id=task_id)


def reread(
    task_id: str, body: Mapping[str, Any], patience: Patience, *, same_words: bool
) -> Flow[tuple[Outcome, bool] | None]:
    """Return a task that was created for this question, and whether it has this caller's mark.

    None: the server does not know the task, or has another one with its id.
    """
    call = Call("GET", task_url(task_id))
    reply = yield from insist(call, patience, lambda reply: (read_record(reply, task_id, None), read_object(reply)))
    if isinstance(reply, Reply):
        refused = refusal(reply, call, task_id=task_id)
        if isinstance(refused, TaskNotFoundError):
            return None
        raise refused
    outcome, record = reply
    if outcome.idempotency_key not in (None, body["idempotency_key"]):
        return None
    _check_same(body, record, task_id, same_words=same_words)
    return outcome, _is_marked(record, body)


def close(task_id: str, patience: Patience, *, key: str | None = None) -> Flow[Outcome]:
    """Cancel the task unless it has ended, and return how it ended. An answer given in the meantime wins.

    `POST /api/tasks/{id}/cancel`, and a read if that is too late. Both are repeated while the returned record is open.
    """
    call = Call("POST", task_url(task_id, "/cancel"))
    until = patience.clock() + patience.seconds
    attempt = 0
    while True:
        attempt += 1
        reply = yield from insist(call, patience, lambda reply: read_record(reply, task_id, key))
        if isinstance(reply, Reply) and reply.status != 409:
            raise refusal(reply, call, task_id=task_id)
        record = (yield from get(task_id, patience, key=key)) if isinstance(reply, Reply) else reply
        if record.terminal:
            return record
        trouble = f"{call.method} {call.url}: {record.status!r} is not the status of a cancelled task"
        pause = patience.backoff.delay(attempt)
        if patience.clock() + pause > until:
            raise UnexpectedReplyError(trouble, url=call.url, attempts=attempt, task_id=task_id)
        yield Pause(pause, trouble)


def withdraw(body: Mapping[str, Any], patience: Patience) -> Flow[Outcome]:
    """Cancel the question, whether or not its task is known to exist. Return how it ended.

    A caller that is stopped while it asks cannot know whether the task was created. If it was, the key finds it.
    """
    try:
        outcome = yield from create(body, patience)
    except ServerUnreachableError as error:
        return (yield from _close_listed(str(body["idempotency_key"]), error, patience))
    return outcome if outcome.terminal else (yield from close(outcome.task_id, patience, key=outcome.idempotency_key))


def withdraw_key(key: str, patience: Patience, *, asked_by: str | None = None) -> Flow[Outcome]:
    """Cancel the question with this key, whether or not its task is known to exist.

    If no task has this key, create an unassigned one, notice it, and cancel it.

    Args:
        key: The idempotency key.
        patience: Limit of the retries of each call.
        asked_by: Cancel only a task that was created for this caller (see `open_wait`). Default: a task of any caller.
    """
    stub: dict[str, Any] = {"task": "(withdrawn before it was asked)", "payload": {}, "timeout_seconds": 60}
    schemas = {"payload_schema": marked({"type": "object"}, asked_by), "response_schema": {"type": "object"}}
    body = {**stub, **schemas, "idempotency_key": key}
    call = Call("POST", "/api/tasks", json=body)
    try:
        reply = yield from insist(call, patience, lambda reply: _created(reply, body))
    except ServerUnreachableError as error:
        return (yield from _close_listed(key, error, patience, asked_by=asked_by))
    if isinstance(reply, Reply):
        raise refusal(reply, call, at_create=True)
    outcome, record, ours = reply
    if record.get("task") == stub["task"]:
        yield Notice(outcome)
    if outcome.terminal or (asked_by is not None and not ours):
        return outcome
    return (yield from close(outcome.task_id, patience, key=key))


def _close_listed(
    key: str, trouble: ServerUnreachableError, patience: Patience, *, asked_by: str | None = None
) -> Flow[Outcome]:
    """Cancel the tasks with this key that the lists show, and return how the question ended.

    The server keeps keys unique among open tasks only. If a question is withdrawn while its create is under way, the
    create may insert a second task after the first was cancelled, and the server then fails at every create with this
    key. The second task is among the newest ones.

    Raises:
        ServerUnreachableError: `trouble`, if no list shows the key, or the lists cannot be read.
    """
    once = Patience(0, patience.backoff, patience.clock)
    ended: list[Outcome] = []
    try:
        pages = (
            (yield from open_page(TaskStatus.CREATED, 0, MAX_PAGE_TASKS, once)),
            (yield from ended_page(0, MAX_PAGE_TASKS, once)),
        )
        for task_id in [task.task_id for page in pages for task in page.tasks if task.idempotency_key == key]:
            outcome = yield from _close_if(partial(_own, key, asked_by), task_id, patience)
            ended.append(outcome)
    except AwaitHumansError as error:
        raise trouble from error
    if not ended:
        raise trouble
    return next((outcome for outcome in ended if outcome.status == TaskStatus.COMPLETED), ended[0])


def _own(key: str, asked_by: str | None, shown: str | None, mark: str | None) -> bool:
    """Whether a record has this key and was created for this caller. `asked_by` None: for any caller."""
    return shown == key and asked_by in (None, mark)


def close_if_mine(task_id: str, asked_by: Callable[[str], str | None], patience: Patience) -> Flow[Outcome]:
    """Close a task, unless it was created for another caller under a shared key. Return its outcome either way.

    Args:
        task_id: Id of the task.
        asked_by: Returns the mark of this caller's tasks with that key. None: the key is never shared.
        patience: Limit of the retries of each call.
    """

    def own(key: str | None, mark: str | None) -> bool:
        expected = asked_by(key or "")
        return expected is None or expected == mark

    return _close_if(own, task_id, patience)


def close_if_marked(task_id: str, key: str, marks: Collection[str], patience: Patience) -> Flow[Outcome]:
    """Close a task if it has this key and one of these marks of callers. Return its outcome either way.

    A task that was created for another caller is never closed.
    """
    return _close_if(lambda shown, mark: shown in (None, key) and mark in marks, task_id, patience)


def _close_if(ours: Callable[[str | None, str | None], bool], task_id: str, patience: Patience) -> Flow[Outcome]:
    """Close a task if `ours` accepts the key and the mark of its record. Return its outcome either way."""
    call = Call("GET", task_url(task_id))
    reply = yield from insist(
        call, patience, lambda reply: (read_record(reply, task_id, None), _mark(read_object(reply)))
    )
    if isinstance(reply, Reply):
        raise refusal(reply, call, task_id=task_id)
    outcome, mark = reply
    if outcome.terminal or not ours(outcome.idempotency_key, mark):
        return outcome
    return (yield from close(task_id, patience, key=outcome.idempotency_key))


ASKED_BY = "x-awaithumans-asked-by"
"""Annotation in a task's payload_schema: a digest that names the caller it was created for.

It is not shown to people, and the server returns it with the record. So a later attempt, in another process, knows
whether a task with its key was created for its own question or for another caller.
"""


def marked(schema: Mapping[str, Any], asked_by: str | None) -> dict[str, Any]:
    """Return a copy of the payload_schema with this mark, if there is one."""
    return {**schema} if asked_by is None else {**schema, ASKED_BY: asked_by}


def _mark(body: Mapping[str, Any]) -> str | None:
    """Return the mark of a task body or task record."""
    schema = body.get("payload_schema")
    mark = cast("Mapping[str, Any]", schema).get(ASKED_BY) if isinstance(schema, Mapping) else None
    return mark if isinstance(mark, str) else None


def _is_marked(record: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a record has the mark of this body, which has one."""
    return (mark := _mark(body)) is not None and _mark(record) == mark
