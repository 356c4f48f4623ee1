"""Reads what the interrupt of a foreign node asks a person, and makes the value with which the node is resumed.

Law: a node gets the value it expects, or none. What it expects is read from the interrupt, which is stored in the
checkpoint with its response schema, both by the process that asks and by the relay. So nothing else has to be stored.
For a tool call, an end without an answer and an answer that does not fit become a rejection. Any other node has no way
to receive a refusal, so its interrupt stays pending.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple, cast

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Interrupt
from pydantic import BaseModel, Field, create_model
from pydantic_core import to_jsonable_python

from awaithumans_adapters.tool_approval.decisions import KINDS, Call, Decided, Kind, decision_type, decisions, not_run
from awaithumans_adapters.tool_approval.json_types import Schema, json_type, object_type, resolved
from awaithumans_core.binding import schema_digest
from awaithumans_core.display.rows import not_shown
from awaithumans_core.engine import TargetGone
from awaithumans_core.errors import QuestionEndedError
from awaithumans_core.outcome import Outcome, settle
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import MAX_TASK_CHARS

_SERDE = JsonPlusSerializer()
_KEY = re.compile(r"langgraph:.*:interrupt:([0-9a-f]{32}):[0-9a-f]{16}", re.DOTALL)
_WORDS = ("question", "task", "message", "prompt", "description")
"""Keys under which interrupts commonly describe what they ask."""

OPEN_QUESTION = "An answer is needed"


class Question(NamedTuple):
    """The question that an interrupt asks, and how its answer is converted."""

    task: str
    payload: Any
    response_schema: type[BaseModel]
    resume_value: Callable[[BaseModel], Any]
    """Converts an answer to the form that the node expects."""
    refusal: Callable[[str], Any] | None
    """Makes the node's own form of "no, because ...". None if it has none."""


def key_of(shown: Interrupt, thread_id: str) -> str:
    """Return the idempotency key of an interrupt's question.

    A node runs again while others beside it are resumed, and may then ask about something else, or for other answers,
    under the same id. The key therefore also contains a digest of what is asked and of the answers that are accepted.
    """
    content = _as_read(shown)
    if isinstance(schema := shown.response_schema, dict):
        content = [content, schema_digest(cast("Schema", schema))]
    return _key(shown, thread_id, content)


def keys_of(shown: Interrupt, thread_id: str) -> set[str]:
    """Return the keys under which an interrupt may have been asked: that of `key_of`, and that of earlier releases."""
    return {key_of(shown, thread_id), _key(shown, thread_id, _as_read(shown))}


def _key(shown: Interrupt, thread_id: str, content: Any) -> str:
    about = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return f"langgraph:{thread_id}:interrupt:{shown.id}:{about}"


def _as_read(shown: Interrupt) -> Any:
    """Return the value of an interrupt as JSON, in the form in which a checkpoint returns it."""
    return to_jsonable_python(_SERDE.loads_typed(_SERDE.dumps_typed(shown.value)), fallback=repr)


def interrupt_id(key: str) -> str | None:
    """Return the interrupt id in a key, or None for the keys of this package's own questions."""
    found = _KEY.fullmatch(key)
    return found[1] if found else None


def resume_with(shown: Interrupt, outcome: Outcome) -> Any:
    """Return the value with which the node that waits at this interrupt is to be resumed.

    Raises:
        TargetGone: there was no usable answer, and the node has no form for a refusal.
    """
    question = question_of(shown)
    try:
        return question.resume_value(settle(outcome, question.response_schema))
    except QuestionEndedError as ended:
        if question.refusal is not None:
            return question.refusal(not_run(ended))
        raise TargetGone(
            f"{ended}. The node that waits has no way to be told so: its interrupt {shown.id} stays pending, and the "
            "application can resume it itself"
        ) from ended


def question_of(shown: Interrupt, *, redacted: bool = False) -> Question:
    """Read an interrupt: tool calls of `HumanInTheLoopMiddleware`, a response schema, or anything that takes text.

    Args:
        shown: The interrupt.
        redacted: Whether nothing of its value may appear in the text of the question and in the form.
    """
    schema: Schema | None = shown.response_schema if isinstance(shown.response_schema, dict) else None
    value: Any = shown.value
    if isinstance(value, dict):
        shape = cast("Mapping[str, Any]", value)
        with suppress(KeyError, TypeError, AttributeError):  # another value that happens to use these keys
            if shape.get("type") == "tool_approval" and schema and (call := _per_call(shape, schema)):
                return _review([call], shape, one=True, redacted=redacted)
            if "action_requests" in shape and (calls := _batched(shape)):
                return _review(calls, shape, one=False, redacted=redacted)
    question = _plain(value, schema)
    return question._replace(task=OPEN_QUESTION) if redacted else question


def _review(calls: Sequence[Call], value: Any, *, one: bool, redacted: bool) -> Question:
    """Return the question about tool calls that are held back.

    With `one`, it is about a single call that is answered by itself. Otherwise it is about all calls of a turn at once.
    Calls that no person can be shown in full can only be rejected, if the application allows that.
    """
    why = not_shown(to_jsonable_python(value, fallback=repr))
    calls = [(_only_rejected(call, why) if why else call)._replace(redacted=redacted) for call in calls]

    def answer(made: Sequence[Any]) -> Any:
        return made[0] if one else {"decisions": made}

    def decided(said: BaseModel) -> Any:
        made = zip(calls, decisions(said, calls), strict=True)
        return answer(
            [_decision(call, each if each.message else each._replace(message=why or "")) for call, each in made]
        )

    def refused(why: str) -> Any:
        return answer([{"type": "reject", "message": why} for _ in calls])

    tools = ", ".join(call.tool for call in calls)
    can_refuse = all("reject" in call.allowed for call in calls)
    return Question(
        one_line(f"May the agent run {tools}?", MAX_TASK_CHARS),
        value,
        decision_type(calls),
        decided,
        refusal=refused if can_refuse else None,
    )


def _only_rejected(call: Call, why: str) -> Call:
    if "reject" not in call.allowed:
        return call
    return call._replace(allowed=["reject"], description=f"This call can only be rejected, because {why}.")


def _decision(call: Call, made: Decided) -> dict[str, Any]:
    if made.kind == "edit":
        return {"type": "edit", "edited_action": {"name": call.tool, "args": dict(made.args)}}
    if made.kind == "respond" or (made.kind == "reject" and made.message):
        return {"type": made.kind, "message": made.message}
    return {"type": made.kind}


def _batched(value: Mapping[str, Any]) -> list[Call] | None:
    allowed = {each["action_name"]: _kinds(each["allowed_decisions"]) for each in value["review_configs"]}
    calls = [Call(each["name"], each["args"], allowed.get(each["name"], [])) for each in value["action_requests"]]
    return calls if all(call.allowed for call in calls) else None


def _per_call(value: Mapping[str, Any], schema: Schema) -> Call | None:
    """Read a tool call whose response schema lists the possible decisions, and the arguments an edit may give."""
    kinds: list[Kind] = []
    arguments: Schema | None = None
    for branch in schema.get("oneOf") or schema.get("anyOf") or [schema]:
        parts: Schema = resolved(branch, schema).get("properties", {})
        kinds += _kinds([resolved(parts.get("type", {}), schema).get("const")])
        if "edited_action" in parts:
            edited: Schema = resolved(parts["edited_action"], schema).get("properties", {})
            arguments = {**resolved(edited.get("args", {}), schema), "$defs": schema.get("$defs", {})}
    return Call(value["name"], value["args"], kinds, arguments) if kinds else None


def _kinds(named: Sequence[Any]) -> list[Kind]:
    return [kind for kind in KINDS if kind in named]


def _plain(value: Any, schema: Schema | None) -> Question:
    said = resolved(schema, schema) if schema is not None else None
    if schema is not None and said is not None and said.get("properties"):
        return Question(_words(value), _payload(value), object_type(said, schema), _given, refusal=None)
    kind: Any = Annotated[str, Field(min_length=1)] if schema is None else json_type(schema, schema)
    response = create_model("Answer", answer=(kind, ...))
    return Question(_words(value), _payload(value), response, _given_answer, refusal=None)


def _given_answer(answer: BaseModel) -> Any:
    return _given(answer)["answer"]


def _given(answer: BaseModel) -> dict[str, Any]:
    """Return what a person entered, without the fields that they left to the node's own defaults."""
    return answer.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        named = cast("Mapping[str, Any]", value)
        value = next((named[name] for name in _WORDS if isinstance(named.get(name), str)), None)
    return one_line(value.strip() if isinstance(value, str) else "", MAX_TASK_CHARS) or OPEN_QUESTION


def _payload(value: Any) -> Any:
    """Return the payload for the value of an interrupt.

    An object is returned as it is, and any other value inside an object. None is returned for a text that fits into the
    question.
    """
    if value is None or (isinstance(value, str) and _words(value) == (value.strip() or OPEN_QUESTION)):
        return None
    plain: Any = to_jsonable_python(value, fallback=lambda other: other)
    return value if isinstance(plain, dict) else {"value": value}
