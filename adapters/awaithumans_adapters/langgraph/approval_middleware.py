"""Middleware that lets a person decide about a LangChain agent's tool calls before they run.

Law: a gated tool runs only after a person's own approval of this very call. Every other end, and every answer that does
not fit, becomes a message to the model that the tool was not run, with the reason. Problems that the agent's author or
operator must fix (settings, a server that refuses) are raised.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias, Unpack, cast

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.prebuilt import ToolRuntime
from langgraph.types import Command, Overwrite
from pydantic import BaseModel, ValidationError

from awaithumans_adapters.langgraph.node.await_human import await_human, await_human_sync
from awaithumans_adapters.langgraph.node.tool_condition import Condition
from awaithumans_adapters.langgraph.unmodified.human_interrupts import PeopleOptions, check_options
from awaithumans_adapters.tool_approval.decisions import KINDS, Call, Decided, Kind, decision_type, decisions, not_run
from awaithumans_adapters.tool_approval.json_types import arguments_schema
from awaithumans_core.display.rows import not_shown
from awaithumans_core.errors import QuestionEndedError, SettingsError
from awaithumans_core.human_tasks import HumanTasks
from awaithumans_core.json_values import json_object
from awaithumans_core.safe_logging import safe_logger
from awaithumans_core.safe_text import one_line
from awaithumans_core.task import MAX_TASK_CHARS, TaskOptions

logger = safe_logger("awaithumans.langgraph")

Result: TypeAlias = ToolMessage | Command[Any]


class ApprovalOptions(PeopleOptions, total=False):
    """Options for how people are asked about a tool."""

    question: str | Callable[[ToolCall], str]
    """The question.

    Default: May the agent run {tool}? Line breaks become visible escapes; it is shortened to 500 characters.
    """
    max_reasks: int
    only_assignee: bool
    not_by: str | Sequence[str]
    may_reword: bool
    """Accept an answer although question, assignee or decisions have changed since; see `await_human`."""
    when: Callable[[ToolCallRequest], bool]
    """Condition: a person is asked about a call only if this returns True.

    It is called once for each call, and its result is kept in the checkpoint. If it raises, or returns neither True nor
    False, nothing runs. Default: every call is asked about.
    """
    allowed_decisions: Sequence[Kind]
    """The decisions that people may choose: some of approve, edit, reject and respond.

    With respond, their message is the result of the call, and the tool does not run. Default: approve, edit, reject. A
    tool without arguments has no edit.
    """


DECISIONS: Sequence[Kind] = ("approve", "edit", "reject")
"""The decisions that people may choose from by default."""

_OWN_OPTIONS = ("question", "may_reword", "when", "allowed_decisions")
"""Options that are not those of a `HumanTask`."""


class HumanApproval(AgentMiddleware[Any, Any, Any]):
    """Have a person approve, edit, reject or answer chosen tool calls of an agent made by `create_agent`.

    People see the tool, what it does, and each argument. A call that they cannot be shown as a whole does not run, and
    the model is informed of the reason. Rejected calls go back to the model with the person's reason. Edited calls
    run with the person's arguments, which are checked first, and the model is informed. Each call is a question of its
    own: all calls of a turn are asked at once, and answered in any order. If there is no decision in time, or the
    question is cancelled, or the answer does not fit, the tool does not run, and the model is informed of the reason.

    List this middleware first: it then also holds back retries and other middleware. The agent needs a checkpointer and
    a thread_id, and a relay must run.

    Args:
        tools: Names of the tools (or the tools) that need a person, or a mapping to options of their own.
        human_tasks: Settings and connections. Default: one instance per process, from the environment.
        options: For all of them: question, when, allowed_decisions, may_reword, timeout_seconds, assign_to, notify,
            max_reasks, only_assignee, not_by and others of `HumanTask`.

    The agent's run raises SettingsError for a name of which the agent has no tool, and what `await_human` raises if the
    call or the settings must be fixed.

    Example:
        agent = create_agent(
            model,
            tools=[lookup, refund],
            middleware=[HumanApproval(["refund"], assign_to="finance@example.com", timeout_seconds=24 * 3600)],
            checkpointer=saver,
        )
    """

    def __init__(
        self,
        tools: Iterable[str | BaseTool] | Mapping[str, ApprovalOptions],
        *,
        human_tasks: HumanTasks | None = None,
        **options: Unpack[ApprovalOptions],
    ) -> None:
        super().__init__()
        if isinstance(tools, str):
            raise SettingsError(f"HumanApproval takes a list of tools: [{tools!r}]")
        own: Mapping[str, ApprovalOptions] = cast(
            "Mapping[str, ApprovalOptions]", tools if isinstance(tools, Mapping) else {}
        )
        names = [tool.name if isinstance(tool, BaseTool) else tool for tool in tools]
        if not names:
            raise SettingsError("HumanApproval without a tool guards nothing: name the tools that need a person")
        self._gated: dict[str, ApprovalOptions] = {name: {**options, **own.get(name, {})} for name in names}
        for gated in self._gated.values():
            check_options({name: value for name, value in gated.items() if name not in _OWN_OPTIONS})
            _check_own(gated)
        self._human_tasks = human_tasks

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        """Ask a person about a gated call, and run it if the decision permits."""
        call = self._gated_call(request)
        if call is None or (call.when is not None and not Condition(call.when, request).holds_sync()):
            return handler(request)
        if call.not_shown is not None:
            return call.refused(call.not_shown)
        try:
            answer = await_human_sync(
                task=call.task,
                response_schema=call.response,
                human_tasks=self._human_tasks,
                may_reword=call.may_reword,
                **call.options,
            )
        except QuestionEndedError as ended:
            return call.refused(not_run(ended))
        decided = call.decided(answer)
        return decided if isinstance(decided, ToolMessage) else call.with_note(handler(decided), decided)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        """Ask a person about a gated call in an async run, and run it if the decision permits."""
        call = self._gated_call(request)
        if call is None or (call.when is not None and not await Condition(call.when, request).holds()):
            return await handler(request)
        if call.not_shown is not None:
            return call.refused(call.not_shown)
        try:
            answer = await await_human(
                task=call.task,
                response_schema=call.response,
                human_tasks=self._human_tasks,
                may_reword=call.may_reword,
                **call.options,
            )
        except QuestionEndedError as ended:
            return call.refused(not_run(ended))
        decided = call.decided(answer)
        return decided if isinstance(decided, ToolMessage) else call.with_note(await handler(decided), decided)

    def _gated_call(self, request: ToolCallRequest) -> "_GatedCall | None":
        options = self._gated.get(request.tool_call["name"])
        if options is not None:
            return _GatedCall(request, options)
        # A misspelt name would leave the intended tool without a gate.
        runtime = cast("ToolRuntime[Any, Any]", request.runtime)  # pyright: ignore[reportUnknownMemberType]
        if unknown := self._gated.keys() - {tool.name for tool in runtime.tools}:
            raise SettingsError(f"HumanApproval names tools the agent does not have: {', '.join(sorted(unknown))}")
        return None


class _GatedCall:
    """One gated call: what a person is asked about it, and what follows from the answer."""

    def __init__(self, request: ToolCallRequest, options: ApprovalOptions) -> None:
        name, args = request.tool_call["name"], request.tool_call["args"]
        expected = request.tool.tool_call_schema if request.tool is not None else None
        schema = _json_schema(expected)
        editable = args or (schema or {}).get("properties")
        self._request = request
        wanted = options.get("allowed_decisions", DECISIONS)
        allowed: list[Kind] = [kind for kind in KINDS if kind in wanted and (editable or kind != "edit")]
        if not allowed:
            raise SettingsError(
                f"allowed_decisions of the tool {name!r} has only edit, and the tool has no arguments: add approve, "
                "reject or respond"
            )
        described = request.tool.description if request.tool is not None else ""
        self._call = Call(name, args, allowed, schema, described, redacted=bool(options.get("redact_payload")))
        self.response = decision_type([self._call], _checker(expected))
        self.when = options.get("when")
        people = {option: value for option, value in options.items() if option not in ("when", "allowed_decisions")}
        self.may_reword = bool(people.pop("may_reword", False))
        question = people.pop("question", f"May the agent run {name}?")
        words = question(request.tool_call) if callable(question) else question
        self.task = one_line(words, MAX_TASK_CHARS)  # a model may have written it; the payload has the whole call
        payload = {"tool": name, "arguments": args}
        self.not_shown = None if self._call.redacted else _not_shown(payload)
        """The message to the model if a person cannot be shown the whole call. In this case no person is asked."""
        self.options = cast("TaskOptions", {**people, "payload": payload})

    def decided(self, answer: BaseModel) -> ToolCallRequest | ToolMessage:
        """Return the call to run, or the message that the model gets in its place."""
        (made,) = decisions(answer, [self._call])
        if made.kind == "reject":
            reason = f"with this reason: {made.message}" if made.message else "without a reason"
            return self.refused(f"A person has rejected this call {reason}. The tool was not run.")
        if made.kind == "respond":
            return self._message(made.message, "success")
        if made.args == self._call.args:
            return self._request
        return self._request.override(tool_call={**self._request.tool_call, "args": dict(made.args)})

    def refused(self, why: str) -> ToolMessage:
        """Return the message to the model for a tool that does not run."""
        return self._message(why, "error")

    def _message(self, content: str, status: Literal["success", "error"]) -> ToolMessage:
        """Return the message that the model gets in place of the tool's result."""
        call = self._request.tool_call
        return ToolMessage(content, name=call["name"], tool_call_id=call["id"], status=status)

    def with_note(self, result: Result, ran: ToolCallRequest) -> Result:
        """Return the tool's result, with a note to the model if a person has changed the arguments.

        The model remembers its own arguments, so it needs to know those that were used.
        """
        if ran is self._request:
            return result
        note = f"(A person has changed the arguments to {json.dumps(ran.tool_call['args'])}.)"
        noted = cast("Result", _noted(result, str(ran.tool_call["id"]), note))
        if noted == result:
            logger.warning(
                "the tool %r has returned no ToolMessage for its call, so the model does not learn that a person has "
                "changed the arguments",
                ran.tool_call["name"],
            )
        return noted


def _noted(value: Any, call_id: str, note: str) -> Any:
    """Return a tool's result in which each tool message of this call begins with the note.

    A command carries its messages in its update: in a dict, a list of pairs or messages, or an `Overwrite` of these.
    """
    if isinstance(value, ToolMessage):
        content = cast("str | Sequence[Any]", value.content)  # pyright: ignore[reportUnknownMemberType]
        ours = value.tool_call_id == call_id
        return value.model_copy(update={"content": _noted_content(content, note)}) if ours else value
    if isinstance(value, Command):
        command: Command[Any] = value  # pyright: ignore[reportUnknownVariableType]
        return replace(command, update=_noted(command.update, call_id, note))
    if isinstance(value, Overwrite):
        return Overwrite(_noted(value.value, call_id, note))
    if isinstance(value, dict):
        fields = cast("Mapping[str, Any]", value)
        if fields.get("tool_call_id") == call_id and "content" in fields:
            return {**fields, "content": _noted_content(fields["content"], note)}
        return {name: _noted(each, call_id, note) for name, each in fields.items()}
    if type(value) in (list, tuple):
        each_noted = [_noted(each, call_id, note) for each in cast("Sequence[Any]", value)]
        return each_noted if isinstance(value, list) else tuple(each_noted)
    return value


def _noted_content(content: str | Sequence[Any], note: str) -> str | list[Any]:
    return f"{note}\n{content}" if isinstance(content, str) else [{"type": "text", "text": note}, *content]


def _not_shown(payload: Mapping[str, Any]) -> str | None:
    why = not_shown(json_object(payload, "the call"))
    if why is None:
        return None
    return f"The tool was not run: no person can be shown the whole call, because {why}. Make a smaller call."


def _json_schema(expected: Any) -> Mapping[str, Any] | None:
    if isinstance(expected, type) and issubclass(expected, BaseModel):
        return arguments_schema(expected)
    return cast("Mapping[str, Any]", expected) if isinstance(expected, Mapping) else None


def _check_own(options: ApprovalOptions) -> None:
    """Check the options that are not those of a `HumanTask`, as far as possible before a call.

    Raises:
        SettingsError: there is an unknown decision, or none; the condition is async.
    """
    allowed: Any = options.get("allowed_decisions", DECISIONS)
    if isinstance(allowed, str) or not allowed or not set(allowed) <= set(KINDS):
        raise SettingsError(f"allowed_decisions is {allowed!r}: give a list with some of {', '.join(KINDS)}")
    when = options.get("when")
    if when is not None and (not callable(when) or iscoroutinefunction(when)):
        raise SettingsError(f"when is {when!r}: give a plain function that takes the request and returns a bool")


def _checker(expected: Any) -> Callable[[Decided], None]:
    """Return a check that a decision can be carried out: a response has a text, and edited arguments fit the tool.

    Arguments are checked against the class with which the tool takes them. A tool without such a class has a JSON
    Schema, by which the fields of the form were checked.
    """
    model = expected if isinstance(expected, type) and issubclass(expected, BaseModel) else None

    def check(decided: Decided) -> None:
        if decided.kind == "respond" and not decided.message.strip():
            raise ValueError("message: write what the model is to get, or choose another decision")
        if decided.kind != "edit" or model is None:
            return
        try:
            model.model_validate(decided.args)
        except ValidationError as invalid:
            wrong = (f"new_{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in invalid.errors(include_input=False))
            raise ValueError("; ".join(wrong)) from None

    return check
