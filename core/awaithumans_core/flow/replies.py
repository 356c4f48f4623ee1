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
from awaithumans_core.services import RELAY, SERVER, WRONG_RELAY_SECRET, Service

SAME_KEY = ". The same call with the same key picks up where this one stopped"
"""Last sentence of `ServerUnreachableError` and `UnexpectedReplyError`."""


def insist(
    call: Call, patience: Patience, read: Callable[[Reply], R], *, task_id: str | None = None
) -> Flow[R | Reply]:
    """Send until there is a usable reply. Return what `read` returns for a 2xx, or the `Reply` of a refusal (4xx).

    Raises:
        ServerUnreachableError: there was none within the patience. It names the task of this id, if it is given.
    """
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
        elif isinstance(reply, Reply) and (_final(reply) or _never_started(call, reply)):
            return reply
        else:
            trouble = reply.error if isinstance(reply, Lost) else _trouble(reply)
        pause = patience.backoff.delay(attempt, at_least=min(_retry_after(reply), RETRY_AFTER_SECONDS))
        advice = advice_on(call.service, reply)
        if patience.clock() + pause > until:
            down = isinstance(reply, Lost) or _away(reply)
            error = ServerUnreachableError if down else UnexpectedReplyError
            attempts = f"{attempt} attempt{'s' if attempt > 1 else ''}"
            raise error(
                f"{_called(call, reply)}: no usable reply in {patience.seconds:.0f} s and {attempts}; last: "
                f"{trouble}{_sentence(advice)}{SAME_KEY}",
                task_id=task_id,
                url=reply.url or call.url,
                attempts=attempt,
                retry_after=min(_retry_after(reply), RETRY_AFTER_SECONDS),
            )
        yield Pause(pause, f"{_called(call, reply)}: {trouble}", advice=advice)


def _called(call: Call, reply: Reply | Lost) -> str:
    """Return method and URL of a call, with the setting that the address comes from."""
    return f"{call.method} {call.service.at(reply.url or call.url)}"


def advice_on(service: Service, reply: Reply | Lost) -> str:
    """Return what to do about a reply that is not usable; nothing if the service itself asks for a later request."""
    if isinstance(reply, Lost):
        return service.if_silent + _sentence(reply.elsewhere)
    if (proxy := answered_by_proxy(reply)) is not None:
        return proxy.advice
    if not _api_form(reply):
        return advice_on_other(service, reply)
    return "" if reply.status in _LATER else f"The log of {service.name} has the cause"


def advice_on_other(service: Service, reply: Reply) -> str:
    """Return what to do about a reply that is not from the service that was called."""
    return service.if_other + _sentence(reply.elsewhere)


def _sentence(text: str) -> str:
    """Return a text to append to another one, as its next sentence."""
    return f". {text[0].upper()}{text[1:]}" if text else ""


def is_refusal(error: AwaitHumansError) -> bool:
    """Whether there was a usable reply, which refused the request."""
    return not (isinstance(error, ServerUnreachableError) and error.attempts > 0)


def _final(reply: Reply) -> bool:
    """Whether a retry would get the same refusal. A 404 without JSON comes from a proxy whose server is unreachable."""
    return not _away(reply) and not (reply.status == 404 and _quiet_json(reply) is None)


def _never_started(call: Call, reply: Reply) -> bool:
    """Whether this is the reply of a relay that the application which contains it does not start."""
    return call.service is RELAY and reply.status == 503 and (_quiet_json(reply) or {}).get("started") is False


def _away(reply: Reply) -> bool:
    """Whether a later request may succeed: timeout, too early, too many requests, or a server error."""
    return reply.status in _LATER or reply.status >= 500


_LATER = frozenset({408, 425, 429})
"""Statuses that ask for a later request."""


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

_ADVICE: Mapping[Service, Mapping[int | str, str]] = {
    SERVER: {
        401: "set AWAITHUMANS_ADMIN_API_TOKEN to the token of this server",
        403: "use a token of an operator, an admin or the task's assignee (AWAITHUMANS_ADMIN_API_TOKEN)",
        404: SERVER.if_other,
        405: SERVER.if_other,
        407: _PROXY,
    },
    RELAY: {
        401: f"{WRONG_RELAY_SECRET}. If AWAITHUMANS_RELAY_SECRET of this process is the same, the relay is of an "
        "earlier release: update it before the processes that ask",
        403: "a proxy refuses the request: AWAITHUMANS_RELAY_URL of this process must be an address at which the relay "
        "itself answers",
        404: RELAY.if_other,
        405: RELAY.if_other,
        407: _PROXY,
        503: "start the relay in the lifespan of the application that contains it, around its yield: `async with "
        "relay_app.router.lifespan_context(relay_app):` for create_app, `async with "
        "relay_router.lifespan_context(app):` for create_router. A router that is included before the application "
        "starts needs no such line",
        ENGINE_UNKNOWN: "start the relay with this engine (a flag of `awaithumans-relay serve`: `--temporal`, "
        "`--graph` or `--langgraph-server`), or set AWAITHUMANS_RELAY_URL of this process to a relay that has it",
    },
}
"""Advice on a refusal of each service, by its code, else by its status."""


def refusal(
    reply: Reply, call: Call, *, task_id: str | None = None, at_create: bool = False
) -> RequestRefusedError | UnexpectedReplyError:
    """Return the typed error of a 3xx or 4xx, with the server's own text. It reads all three error shapes."""
    server_code, message = _error_words(reply)
    service, called = call.service, _called(call, reply)
    text = f"{reply.status}: {message}"
    proxy = answered_by_proxy(reply)
    if 300 <= reply.status < 400:
        what_to_do = (
            f"set the address ({service.setting}) to where it really is"
            if proxy is None
            else f"through {proxy}. {proxy.advice}"
        )
        return UnexpectedReplyError(
            f"{called}: redirected ({reply.status}) to {reply.headers.get('location', 'nowhere')}: {what_to_do}",
            task_id=task_id,
        )
    by_code = _ADVICE[service]
    missing = service is SERVER and reply.status == 404 and not at_create and server_code == "TASK_NOT_FOUND"
    advice = None if missing else _advice(reply, service, by_code.get(server_code or "") or by_code.get(reply.status))
    if advice:
        text = f"{called}: {text.removesuffix('.')}{_sentence(advice)}"
    if service is RELAY:
        error: type[RequestRefusedError] = RequestRefusedError
        text = f"the relay refused the request: {text}"
    elif missing:
        error = TaskNotFoundError
    elif (reply.status == 405 and at_create) or (reply.status == 404 and not at_create):
        return UnexpectedReplyError(text, task_id=task_id)
    else:
        error = _REFUSALS.get(reply.status) or (TaskRejectedError if at_create else RequestRefusedError)
    return error(text, task_id=task_id, status_code=reply.status, server_code=server_code, from_api=_api_form(reply))


def _advice(reply: Reply, service: Service, usual: str | None) -> str | None:
    """Return the advice on a refusal: `usual` if the API refused, otherwise advice about the proxy or gateway."""
    if (proxy := answered_by_proxy(reply)) is not None:
        return f"the reply came through {proxy} and is not the API's. {proxy.advice}"
    if reply.status in _ACCESS and _quiet_json(reply) is None:
        return _GATEWAY.format(setting=service.setting)
    return advice_on_other(service, reply) if usual == service.if_other else usual


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
