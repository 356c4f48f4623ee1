"""Replies: send a call until there is a usable one, read records out of it, and turn a refusal into a typed error."""

from collections.abc import Callable, Mapping
from typing import cast

from pydantic import ValidationError
from pydantic.types import JsonValue

from awaithumans_core.errors import (
    ENGINE_UNKNOWN,
    AuthenticationError,
    AwaitHumansError,
    PermissionDeniedError,
    RequestRefusedError,
    ServerUnreachableError,
    TaskNotFoundError,
    TaskRejectedError,
    UnexpectedReplyError,
)
from awaithumans_core.flow.steps import RETRY_AFTER_SECONDS, Call, Flow, Lost, Patience, Pause, Proxy, R, Reply
from awaithumans_core.json_values import read_json
from awaithumans_core.outcome import Outcome
from awaithumans_core.retry import retry_after_seconds

SAME_KEY = ". The same call with the same key picks up where this one stopped"
"""Last sentence of `ServerUnreachableError` and `UnexpectedReplyError`."""


def insist(call: Call, patience: Patience, read: Callable[[Reply], R]) -> Flow[R | Reply]:
    """Send until there is a usable reply. Return what `read` returns for a 2xx, or the `Reply` of a refusal (4xx)."""
    until = patience.clock() + patience.seconds
    attempt = 0
    while True:
        attempt += 1
        reply = cast("Reply | Lost", (yield call))  # a driver replies to every `Call` with one of them
        if isinstance(reply, Reply) and 200 <= reply.status < 300:
            try:
                return read(reply)
            except ValueError as malformed:
                trouble = (
                    f"{reply.status} whose body is not the API's ({str(malformed).splitlines()[0]}){_through(reply)}"
                )
        elif isinstance(reply, Reply) and _final(reply):
            return reply
        else:
            trouble = reply.error if isinstance(reply, Lost) else _trouble(reply)
        pause = patience.backoff.delay(attempt, at_least=min(_retry_after(reply), RETRY_AFTER_SECONDS))
        if patience.clock() + pause > until:
            down = isinstance(reply, Lost) or _away(reply)
            error = ServerUnreachableError if down else UnexpectedReplyError
            server = "AWAITHUMANS_URL the address of an awaithumans server"
            relay = "AWAITHUMANS_RELAY_URL the address of the relay"
            address = "" if down else f". Is {server if call.url.startswith('/') else relay}?"
            if (proxy := answered_by_proxy(reply)) is not None:
                address = f". {proxy.advice}"
            raise error(
                f"{call.method} {call.url}: no usable reply in {patience.seconds:.0f} s and {attempt} attempts; "
                f"last: {trouble}{address}{SAME_KEY}",
                url=call.url,
                attempts=attempt,
                retry_after=min(_retry_after(reply), RETRY_AFTER_SECONDS),
            )
        yield Pause(pause, f"{call.method} {call.url}: {trouble}")


def is_refusal(error: AwaitHumansError) -> bool:
    """Whether there was a usable reply, which refused the request."""
    return not (isinstance(error, ServerUnreachableError) and error.attempts > 0)


def _final(reply: Reply) -> bool:
    """Whether a retry would get the same refusal. A 404 without JSON comes from a proxy whose server is unreachable."""
    return not _away(reply) and not (reply.status == 404 and _quiet_json(reply) is None)


def _away(reply: Reply) -> bool:
    """Whether a later request may succeed: timeout, too early, too many requests, or a server error."""
    return reply.status in {408, 425, 429} or reply.status >= 500


_REFUSALS: Mapping[int, type[RequestRefusedError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
}

_PROXY = "a proxy refuses the request: correct HTTP_PROXY, HTTPS_PROXY or NO_PROXY of this process"

_GATEWAY = (
    "this is not a reply of the API: a proxy or gateway before it refuses the request. {setting} must be an address at "
    "which the API itself answers"
)

_ACCESS = frozenset({401, 403})
"""Statuses with which both a gateway and the API refuse access."""

_ADVICE: Mapping[int, str] = {
    401: "set AWAITHUMANS_ADMIN_API_TOKEN to the server's token",
    403: "use a token of an operator, an admin or the task's assignee",
    404: "is AWAITHUMANS_URL really the address of an awaithumans server?",
    407: _PROXY,
}

_RELAY_ADVICE: Mapping[int | str, str] = {
    401: "AWAITHUMANS_RELAY_SECRET of this process is not the relay's: set both to the same value. If they are the "
    "same, the relay is of an earlier release: update it before the processes that ask",
    403: "a proxy refuses the request: AWAITHUMANS_RELAY_URL of this process must be an address at which the relay "
    "itself answers",
    404: "another service answers: set AWAITHUMANS_RELAY_URL of this process to the address of the relay",
    405: "another service answers: set AWAITHUMANS_RELAY_URL of this process to the address of the relay",
    407: _PROXY,
    ENGINE_UNKNOWN: "start the relay with this engine, or set AWAITHUMANS_RELAY_URL of this process to a relay that "
    "has it",
}
"""Advice on a refusal of the relay, by its code, else by its status."""


def refusal(
    reply: Reply, *, task_id: str | None = None, at_create: bool = False, relay: str | None = None
) -> RequestRefusedError | UnexpectedReplyError:
    """Return the typed error of a 3xx or 4xx, with the server's own text. It reads all three error shapes."""
    server_code, message = _error_words(reply)
    text = f"{reply.status}: {message}"
    setting = "AWAITHUMANS_URL" if relay is None else "AWAITHUMANS_RELAY_URL"
    proxy = answered_by_proxy(reply)
    if 300 <= reply.status < 400:
        what_to_do = (
            f"set the address ({setting}) to where it really is"
            if proxy is None
            else f"through {proxy}. {proxy.advice}"
        )
        return UnexpectedReplyError(
            f"redirected ({reply.status}) to {reply.headers.get('location', 'nowhere')}: {what_to_do}",
            task_id=task_id,
        )
    from_api = _api_form(reply)
    if relay is not None:
        advice = _advice(reply, setting, _RELAY_ADVICE.get(server_code or "") or _RELAY_ADVICE.get(reply.status))
        what_to_do = f". {advice}" if advice else ""
        return RequestRefusedError(
            f"the relay refused the wait: {text} ({relay}, from AWAITHUMANS_RELAY_URL){what_to_do}",
            task_id=task_id,
            status_code=reply.status,
            server_code=server_code,
            from_api=from_api,
        )
    if reply.status == 405 and at_create:
        return UnexpectedReplyError(
            f"{text}; there is no task API at this address: AWAITHUMANS_URL is the server's own, without a path",
            task_id=task_id,
        )
    error = _REFUSALS.get(reply.status)
    if error is None and reply.status == 404 and not at_create:
        if server_code != "TASK_NOT_FOUND":
            return UnexpectedReplyError(f"{text}: there is no task API at this address", task_id=task_id)
        error = TaskNotFoundError
    if error is None:
        error = TaskRejectedError if at_create else RequestRefusedError
    advice = None if error is TaskNotFoundError else _advice(reply, setting, _ADVICE.get(reply.status))
    return error(
        f"{text} ({advice})" if advice else text,
        task_id=task_id,
        status_code=reply.status,
        server_code=server_code,
        from_api=from_api,
    )


def _advice(reply: Reply, setting: str, usual: str | None) -> str | None:
    """Return the advice on a refusal: `usual` if the API refused, otherwise advice about the proxy or gateway."""
    if (proxy := answered_by_proxy(reply)) is not None:
        return f"the reply came through {proxy} and is not the API's. {proxy.advice}"
    if reply.status in _ACCESS and _quiet_json(reply) is None:
        return _GATEWAY.format(setting=setting)
    return usual


def answered_by_proxy(reply: Reply | Lost) -> Proxy | None:
    """Return the proxy of a reply that is not from the API, or None."""
    return reply.proxy if isinstance(reply, Reply) and not _api_form(reply) else None


def _through(reply: Reply) -> str:
    return "" if (proxy := answered_by_proxy(reply)) is None else f", through {proxy}"


def _api_form(reply: Reply) -> bool:
    """Whether the body is one of the API's three error shapes."""
    return not {"detail", "error", "error_code"}.isdisjoint(_quiet_json(reply) or {})


def _error_words(reply: Reply) -> tuple[str | None, str]:
    """Return code and text of a refusal.

    Its form is `{"error": CODE, "message"}`, `{"error_code", ...}`, which is the documented form,
    `{"detail": text}` or `{"detail": [{loc, msg}]}`.
    """
    match _quiet_json(reply):
        case {"detail": list(found)}:
            return None, "; ".join(_problem(entry) for entry in found if isinstance(entry, dict))
        case {"detail": str(words)}:
            return None, words
        case dict(held):
            code = held.get("error_code") or held.get("error")
            return (str(code) if code else None), str(held.get("message") or code or "no reason given")
        case _:
            return None, _summary(reply)


def _problem(entry: Mapping[str, JsonValue]) -> str:
    where = entry.get("loc")
    place = ".".join(map(str, where)) if isinstance(where, list) else "request"
    return f"{place}: {entry.get('msg', '')}"


def read_record(reply: Reply, task_id: str, key: str | None) -> Outcome:
    """Return the record, if it is that of this task and of the question with this key.

    Raises:
        ValueError: it is the record of another task or question.
    """
    outcome = Outcome.model_validate(read_object(reply)).from_server()
    if outcome.task_id != task_id:
        raise ValueError("the record of another task")
    if key is not None and outcome.idempotency_key not in (None, key):
        raise ValueError("the record of another question")
    return outcome


def read_records(reply: Reply) -> tuple[list[Outcome], int]:
    """Return the readable records of a list, and its number of records."""
    held = _content(reply)
    if not isinstance(held, list):
        raise ValueError("not a JSON list")  # noqa: TRY004 - malformed data, not a wrong argument
    return [outcome for record in held if (outcome := _lenient(record)) is not None], len(held)


def _lenient(record: JsonValue) -> Outcome | None:
    """Return one record of a list, or None if it cannot be read, so that it does not hide the others."""
    try:
        return Outcome.model_validate(record).from_server()
    except ValidationError:
        return None


def _content(reply: Reply) -> JsonValue:
    if reply.cut:
        raise ValueError("it is larger than this client reads")
    return read_json(reply.body)


def read_object(reply: Reply) -> dict[str, JsonValue]:
    """Return the JSON object in the body. Raises ValueError for anything else."""
    held = _content(reply)
    if not isinstance(held, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - malformed data, not a wrong argument
    return held


def _quiet_json(reply: Reply) -> dict[str, JsonValue] | None:
    try:
        return read_object(reply)
    except ValueError:
        return None


MAX_TROUBLE_CHARS = 300
"""Maximum length of the reason that is quoted from an error reply."""


def _trouble(reply: Reply) -> str:
    """Return why this reply is not usable, with its own text if it has the form of the API."""
    if _api_form(reply):
        return f"{reply.status}: {_error_words(reply)[1][:MAX_TROUBLE_CHARS]}"
    return _summary(reply) + _through(reply)


def _summary(reply: Reply) -> str:
    return f"{reply.status} {reply.headers.get('content-type', 'without a content type')}"


def _retry_after(reply: Reply | Lost | None) -> float:
    return retry_after_seconds(reply.headers) if isinstance(reply, Reply) else 0.0
