"""`HumanApproval` for the tool calls of agents, and `HumanInterrupts` for graphs with unmodified nodes."""

import asyncio
import json
import os
import secrets
import sys
import uuid
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest
from devservers import HumansServer, RelayServer, free_port, started
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId
from langgraph.callbacks import GraphInterruptEvent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from pydantic import AfterValidator, BaseModel

from awaithumans_adapters.langgraph import GraphEngine, HumanApproval, HumanInterrupts, await_human
from awaithumans_adapters.langgraph.unmodified.interrupt_question import keys_of
from awaithumans_core import HumanTasks, InvalidTaskError, Outcome, Route, SettingsError, TargetGone
from awaithumans_core.display.rows import original_payload
from awaithumans_core.safe_text import one_line
from awaithumans_relay.store import Store
from tests.support.people import People
from tests.support.relay import RunningRelay, running_relay, settings_for
from tests.support.scripted_model import ScriptedModel, calling
from tests.support.workflows import Decision

ROOT = Path(__file__).resolve().parents[2]
Mode = Literal["batched", "per_call"]


def inputs_of(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of a task's form that people fill in."""
    return [field for field in task["form_definition"]["fields"] if field["kind"] != "display_text"]


class Heard(TypedDict, total=False):
    said: Any
    also: Any


class Bench:
    """A graph under test with what it did, and a person whose answers are delivered without a relay."""

    def __init__(self, human_tasks: HumanTasks, people: People) -> None:
        self.human_tasks = human_tasks
        self.people = people
        self.thread_id = uuid.uuid4().hex
        self.saver: Any = InMemorySaver()
        self.config: Any = {"configurable": {"thread_id": self.thread_id}}
        self.ran: list[tuple[Any, ...]] = []

    def use(self, graph: Any, **options: Any) -> None:
        self.graph = graph
        self.engine = GraphEngine({"bench": graph}, **options)

    def agent(self, middleware: Any, *calls: dict[str, Any]) -> None:
        """Return an agent that makes these calls in one turn."""

        def refund(order: str, amount: float) -> str:
            """Pay back."""
            self.ran.append((order, amount))
            return f"paid {amount:g}"

        def look_up(order: str) -> str:
            """Look."""
            self.ran.append((order,))
            return "found"

        turn = [{"name": "refund", "id": f"call-{number}", **call} for number, call in enumerate(calls)]
        model = ScriptedModel(responses=[AIMessage("", tool_calls=turn), AIMessage("done")])
        self.use(create_agent(model, [refund, look_up], middleware=[middleware], checkpointer=self.saver))

    def large_call(self, middleware: Any) -> None:
        """Use an agent whose only call, of `pay`, has more arguments than a person can be shown."""

        def pay(orders: list[str]) -> str:
            """Pay all."""
            self.ran.append(tuple(orders))
            return "paid"

        model = calling("pay", {"orders": [f"A-{n}" for n in range(150)]})
        self.use(create_agent(model, [pay], middleware=[middleware], checkpointer=self.saver))

    def approval(self, **options: Any) -> HumanApproval:
        return HumanApproval(
            ["refund"],
            human_tasks=self.human_tasks,
            question=lambda call: f"Refund {call['args']['order']} {self.thread_id}?",
            **options,
        )

    def interrupts(self) -> HumanInterrupts:
        return HumanInterrupts(human_tasks=self.human_tasks, question=lambda shown: f"Adopted {self.thread_id}")

    async def start(self, *handlers: Any) -> None:
        given = {"messages": [("user", "please")]} if "messages" in self.graph.channels else {"said": None}
        await self.graph.ainvoke(given, {**self.config, "callbacks": list(handlers)})

    async def asked(self, order: str) -> dict[str, Any]:
        (task,) = await self.people.find(f"Refund {order} {self.thread_id}?")
        return task

    async def adopted(self, count: int = 1) -> list[dict[str, Any]]:
        """Return the tasks made from interrupts, oldest first."""
        found = await self.people.find(f"Adopted {self.thread_id}", count=count)
        return sorted(found, key=lambda task: task["created_at"])

    async def give(self, task: dict[str, Any], response: dict[str, Any] | None = None, **ended: Any) -> None:
        """Deliver an outcome as the relay would."""
        key = task["idempotency_key"]
        said = {"status": "completed", "response": response, **ended}
        outcome = Outcome.model_validate({"task_id": task["id"], "idempotency_key": key, **said})
        await self.engine.deliver(Route("langgraph", {"thread_id": self.thread_id}, key), outcome)

    async def values(self) -> dict[str, Any]:
        return dict((await self.graph.aget_state(self.config)).values)

    async def told(self) -> list[ToolMessage]:
        """Return the results that the model received, in the order of the calls."""
        found = [message for message in (await self.values())["messages"] if isinstance(message, ToolMessage)]
        return sorted(found, key=lambda message: message.tool_call_id)

    async def done(self) -> bool:
        return not (await self.graph.aget_state(self.config)).next


@pytest.fixture
def bench(registrar: RunningRelay, people: People) -> Bench:
    return Bench(registrar.human_tasks(), people)


def call(order: str, amount: float = 250, **other: Any) -> dict[str, Any]:
    return {"args": {"order": order, "amount": amount}, **other}


async def test_approved_call_runs_once_as_the_model_made_it(bench: Bench) -> None:
    """The person sees tool and arguments; after a yes, delivered twice, the tool runs once, unchanged."""
    bench.agent(bench.approval(), call("A"))
    await bench.start()
    assert bench.ran == []
    task = await bench.asked("A")
    assert original_payload(task) == {"tool": "refund", "arguments": {"order": "A", "amount": 250}}
    assert task["payload"] == {"tool": "refund", "arguments / order": "A", "arguments / amount": 250}
    await bench.give(task, {"decision": "approve"})
    await bench.give(task, {"decision": "approve"})
    assert bench.ran == [("A", 250)]
    assert [message.content for message in await bench.told()] == ["paid 250"]
    assert await bench.done()


async def test_approval_by_another_person_runs_no_tool(bench: Bench) -> None:
    """The tool does not run, and the model receives the reason."""
    bench.agent(bench.approval(assign_to="anna@example.com", only_assignee=True), call("A"))
    await bench.start()
    await bench.give(await bench.asked("A"), {"decision": "approve"}, completed_by_email="mallory@example.com")
    assert bench.ran == []
    assert "another person decided" in str((await bench.told())[0].content)
    assert await bench.done()


@pytest.mark.parametrize(
    ("part", "later"),
    [("task", {"question": "Something else?"}), ("assign_to", {"assign_to": "bob@example.com"})],
    ids=["question", "assignee"],
)
async def test_approval_of_another_question_runs_no_tool(bench: Bench, part: str, later: dict[str, Any]) -> None:
    """An approval covers the call as shown and the assignee; a release that changes either must opt in."""

    def release(**options: Any) -> None:
        asking: dict[str, Any] = {"question": f"Refund A {bench.thread_id}?", **options}
        bench.agent(HumanApproval(["refund"], human_tasks=bench.human_tasks, **asking), call("A"))

    release()
    await bench.start()
    task = await bench.asked("A")
    release(**later)
    with pytest.raises(TargetGone, match=f"differs in {part}"):
        await bench.give(task, {"decision": "approve"})
    assert bench.ran == []
    release(**later, may_reword=True)
    await bench.give(task, {"decision": "approve"})
    assert bench.ran == [("A", 250)]


async def test_form_offers_decisions_and_shows_the_arguments(bench: Bench) -> None:
    """The reviewer chooses among three decisions and sees each argument's current value."""
    bench.agent(bench.approval(), call("A"))
    await bench.start()
    description, *inputs = (await bench.asked("A"))["form_definition"]["fields"]
    assert (description["label"], description["text"]) == ("refund", "\u2502 Pay back.")
    fields = {field["name"]: field for field in inputs}
    assert list(fields) == ["decision", "message", "new_order", "new_amount"]
    assert [option["label"] for option in fields["decision"]["options"]] == ["Approve", "Edit", "Reject"]
    assert fields["new_amount"]["hint"] == "Number (left blank: 250)"
    assert [field["required"] for field in fields.values()] == [True, False, False, False]


async def test_call_that_cannot_be_shown_in_full_is_not_offered(bench: Bench) -> None:
    """Nobody is asked to approve what they cannot see, and the model is informed of the reason."""
    bench.large_call(HumanApproval(["pay"], human_tasks=bench.human_tasks))
    await bench.start()
    (message,) = await bench.told()
    assert await bench.done()
    assert bench.ran == []
    assert message.status == "error"
    assert "it has 151 values, and at most 100 are shown" in message.content


@pytest.mark.parametrize("decision", ["edit", "approve"])
async def test_edited_arguments_run_and_are_reported_to_the_model(bench: Bench, decision: str) -> None:
    """The tool runs with the edited arguments, under either word for yes, and the model is informed."""
    bench.agent(bench.approval(), call("A"))
    await bench.start()
    await bench.give(await bench.asked("A"), {"decision": decision, "new_order": "", "new_amount": "25"})
    assert bench.ran == [("A", 25)]
    (message,) = await bench.told()
    assert message.status == "success"
    assert message.content == '(A person has changed the arguments to {"order": "A", "amount": 25}.)\npaid 25'


def _messages(call_id: str, content: Any) -> list[Any]:
    return [ToolMessage(content, tool_call_id=call_id)]


RESULTS: dict[str, Any] = {
    "content blocks": lambda _: [{"type": "text", "text": "paid"}],
    "command": lambda call_id: Command(update={"messages": _messages(call_id, "paid")}),
    "command with content blocks": lambda call_id: Command(
        update={"messages": _messages(call_id, [{"type": "text", "text": "paid"}])}
    ),
    "command with a message as dict": lambda call_id: Command(
        update={"messages": [{"role": "tool", "tool_call_id": call_id, "content": "paid"}]}
    ),
    "handoff": lambda call_id: Command(
        graph=Command.PARENT, goto="end", update={"messages": _messages(call_id, "paid"), "active_agent": "end"}
    ),
}
"""Results of tools, given the id of their call."""


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS.keys())
async def test_edit_is_reported_with_every_kind_of_tool_result(bench: Bench, result: Any) -> None:
    """Content blocks, commands and handoffs carry the note about changed arguments, as text does."""

    def refund(order: str, tool_call_id: Annotated[str, InjectedToolCallId]) -> Any:
        """Pay back."""
        bench.ran.append((order,))
        return result(tool_call_id)

    class Parent(MessagesState, total=False):
        active_agent: str

    turn = {"name": "refund", "id": "call-0", "args": {"order": "A"}}
    model = ScriptedModel(responses=[AIMessage("", tool_calls=[turn]), AIMessage("done")])
    builder = StateGraph(Parent)
    builder.add_node("agent", create_agent(model, [refund], middleware=[bench.approval()]))
    builder.add_node("end", lambda _: {})
    builder.add_edge(START, "agent")
    bench.use(builder.compile(checkpointer=bench.saver))
    await bench.start()
    await bench.give(await bench.asked("A"), {"decision": "approve", "new_order": "B"})
    assert bench.ran == [("B",)]
    (message,) = await bench.told()
    assert (
        message.text
        == '(A person has changed the arguments to {"order": "B"}.)'
        + ("\n" if isinstance(message.content, str) else "")
        + "paid"
    )


async def test_rejected_call_does_not_run_and_its_reason_reaches_the_model(bench: Bench) -> None:
    """The tool does not run, and the model receives the person's reason."""
    bench.agent(bench.approval(), call("A"))
    await bench.start()
    await bench.give(await bench.asked("A"), {"decision": "reject", "message": "too late", "new_amount": "25"})
    (message,) = await bench.told()
    assert bench.ran == []
    assert message.status == "error"
    assert "too late" in message.content
    assert await bench.done()


async def test_calls_of_one_turn_are_asked_in_parallel(bench: Bench) -> None:
    """Two gated calls are open at once and answered in the other order; an ungated call has already run."""
    bench.agent(bench.approval(), call("A"), {"name": "look_up", "args": {"order": "L"}}, call("B"))
    await bench.start()
    assert bench.ran == [("L",)]
    first, second = await bench.asked("A"), await bench.asked("B")
    await bench.give(second, {"decision": "approve"})
    assert not await bench.done()
    await bench.give(first, {"decision": "reject"})
    await bench.give(second, {"decision": "approve"})
    assert bench.ran == [("L",), ("B", 250)]
    assert [message.status for message in await bench.told()] == ["error", "success", "success"]
    assert await bench.done()


ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "timed out": ({"status": "timed_out"}, "in time"),
    "cancelled": ({"status": "cancelled"}, "cancelled"),
    "exhausted": ({"status": "verification_exhausted"}, "turned down"),
    "no decision": ({"response": {}}, "does not fit"),
    "another word": ({"response": {"decision": "yes"}}, "does not fit"),
    "misspelt": ({"response": {"decision": "approve", "new_amout": 25}}, "does not fit"),
    "no number": ({"response": {"decision": "edit", "new_amount": "1e999"}}, "new_amount"),
    "arguments the tool does not take": ({"response": {"decision": "edit", "new_amount": "lots"}}, "new_amount"),
}


@pytest.mark.parametrize(("end", "why"), ENDS.values(), ids=ENDS)
async def test_question_without_a_usable_answer_runs_no_tool(bench: Bench, end: dict[str, Any], why: str) -> None:
    """However a question fails, the tool does not run, and the model receives the reason."""
    bench.agent(bench.approval(max_reasks=0), call("A"))
    await bench.start()
    await bench.give(await bench.asked("A"), **end)
    (message,) = await bench.told()
    assert bench.ran == []
    assert message.status == "error"
    assert why in message.content
    assert await bench.done()


async def test_edit_that_the_tool_refuses_is_asked_for_again(bench: Bench) -> None:
    """A validation rule of the tool refuses an edit; with max_reasks the person learns why and is asked again."""

    def positive(amount: float) -> float:
        if amount < 0:
            raise ValueError("less than nothing")
        return amount

    def refund(order: str, amount: Annotated[float, AfterValidator(positive)]) -> str:
        """Pay back."""
        bench.ran.append((order, amount))
        return "paid"

    turn = [{"name": "refund", "id": "call-0", **call("A")}]
    model = ScriptedModel(responses=[AIMessage("", tool_calls=turn), AIMessage("done")])
    approval = bench.approval(max_reasks=1)
    bench.use(create_agent(model, [refund], middleware=[approval], checkpointer=bench.saver))
    await bench.start()
    first = await bench.asked("A")
    await bench.give(first, {"decision": "edit", "new_amount": "-1"})
    again = await bench.people.by_key(f"{first['idempotency_key']}:reask:1")
    assert "less than nothing" in again["task"]
    await bench.give(again, {"decision": "edit", "new_amount": "1"})
    assert bench.ran == [("A", 1)]


async def test_sync_agent_is_asked_about_and_resumed(bench: Bench, tmp_path: Path) -> None:
    """An agent without an event loop, on a saver without async methods, is asked about and resumed."""
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
        bench.saver = saver
        bench.agent(bench.approval(), call("A"), call("B"))
        await asyncio.to_thread(bench.graph.invoke, {"messages": [("user", "please")]}, bench.config)
        await bench.give(await bench.asked("B"), {"decision": "approve"})
        await bench.give(await bench.asked("A"), {"decision": "edit", "new_amount": "25"})
        assert bench.ran == [("B", 250), ("A", 25)]
        assert bench.graph.get_state(bench.config).next == ()


async def test_gate_for_an_unknown_tool_stops_the_agent(bench: Bench) -> None:
    """An unknown tool name would leave the real tool open, so the agent stops before it runs any."""
    bench.agent(HumanApproval(["refnud"], human_tasks=bench.human_tasks), call("A"))
    with pytest.raises(SettingsError, match="refnud"):
        await bench.start()
    assert bench.ran == []


MISSPELT: Any = {"asign_to": "x"}
NOT_CHECKED: Any = {"not_by": "x@example.com"}
UNKNOWN: Any = ["approve", "maybe"]
ONE_TEXT: Any = "approve"
ASYNC: Any = asyncio.sleep


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: HumanApproval({"refund": MISSPELT}), "asign_to"),
        (lambda: HumanApproval(["refund"], timeout_seconds=3), "60"),
        (lambda: HumanApproval([]), "guards nothing"),
        (lambda: HumanInterrupts(**MISSPELT), "asign_to"),
        (lambda: HumanApproval(["refund"], only_assignee=True), "by e-mail address"),
        (lambda: HumanApproval(["refund"], allowed_decisions=[]), "approve, edit, reject, respond"),
        (lambda: HumanApproval({"refund": {"allowed_decisions": UNKNOWN}}), "maybe"),
        (lambda: HumanApproval(["refund"], allowed_decisions=ONE_TEXT), "give a list"),
        (lambda: HumanApproval(["refund"], when=ASYNC), "plain function"),
        (lambda: HumanInterrupts(**NOT_CHECKED), "cannot check who answered"),
    ],
    ids=[
        *("unknown", "too-short", "no-tool", "interrupts", "no-assignee"),
        *("no-decision", "unknown-decision", "decisions-as-text", "async-condition", "not-checked"),
    ],
)
def test_misspelt_option_raises_when_the_agent_is_built(made: Any, told: str) -> None:
    """A misspelt option raises when the agent is built, and not at the first question."""
    with pytest.raises((SettingsError, InvalidTaskError), match=told):
        made()


async def test_options_of_one_tool_override_the_common_ones(bench: Bench) -> None:
    """An option for one tool takes precedence over the option for all tools."""
    own: Any = {"refund": {"assign_to": "finance@example.com", "question": f"Refund A {bench.thread_id}?"}}
    bench.agent(
        HumanApproval(own, human_tasks=bench.human_tasks, assign_to="ops@example.com", timeout_seconds=90), call("A")
    )
    await bench.start()
    task = await bench.asked("A")
    assert (task["assign_to"], task["timeout_seconds"]) == ({"email": "finance@example.com"}, 90)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_condition_selects_the_calls_to_ask_about(bench: Bench, tmp_path: Path, *, sync: bool) -> None:
    """`when` receives the call; if it is false the call runs at once, and no task is created."""
    approval = bench.approval(when=lambda request: request.tool_call["args"]["amount"] > 100)
    if not sync:
        bench.agent(approval, call("A"), call("B", 5))
        await bench.start()
        assert bench.ran == [("B", 5)]
        await bench.give(await bench.asked("A"), {"decision": "approve"})
    else:
        with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.db")) as saver:
            bench.saver = saver
            bench.agent(approval, call("A"), call("B", 5))
            await asyncio.to_thread(bench.graph.invoke, {"messages": [("user", "please")]}, bench.config)
            assert bench.ran == [("B", 5)]
            await bench.give(await bench.asked("A"), {"decision": "approve"})
    assert bench.ran == [("B", 5), ("A", 250)]
    assert await bench.people.find(f"Refund B {bench.thread_id}?", count=0) == []


async def test_condition_is_evaluated_once_per_call(bench: Bench) -> None:
    """A condition that becomes false while the question is open does not run the call."""
    evaluated: list[str] = []

    def first_time(request: Any) -> bool:
        evaluated.append(request.tool_call["args"]["order"])
        return len(evaluated) <= 2

    bench.agent(bench.approval(when=first_time), call("A"), call("B"))
    await bench.start()
    await bench.give(await bench.asked("B"), {"decision": "approve"})
    assert bench.ran == [("B", 250)]
    await bench.give(await bench.asked("A"), {"decision": "reject"})
    assert bench.ran == [("B", 250)]
    assert sorted(evaluated) == ["A", "B"]
    assert await bench.done()


async def test_condition_added_by_a_later_release_keeps_the_answer(bench: Bench) -> None:
    """A no given before the condition existed counts, even if the condition would not ask now."""
    bench.agent(bench.approval(), call("A"))
    await bench.start()
    bench.agent(bench.approval(when=lambda _: False))  # the model of this release calls no more tools
    await bench.give(await bench.asked("A"), {"decision": "reject"})
    assert bench.ran == []
    assert [message.status for message in await bench.told()] == ["error"]


def _no_bool(_: Any) -> Any:
    return None


def _fails(_: Any) -> bool:
    raise LookupError("no such order")


@pytest.mark.parametrize(("when", "error"), [(_no_bool, SettingsError), (_fails, LookupError)])
async def test_condition_that_fails_or_returns_none_runs_nothing(
    bench: Bench, when: Any, error: type[Exception]
) -> None:
    """A missing return value and an exception both fail the run before tool and question."""
    bench.agent(bench.approval(when=when), call("A"))
    with pytest.raises(error):
        await bench.start()
    assert bench.ran == []
    assert await bench.people.find(f"Refund A {bench.thread_id}?", count=0) == []


async def test_respond_decision_replaces_the_tool_result(bench: Bench) -> None:
    """With respond, the person's message is the result of the call, and the tool does not run."""
    bench.agent(bench.approval(allowed_decisions=["respond", "reject"]), call("A"))
    await bench.start()
    task = await bench.asked("A")
    fields = {field["name"]: field for field in inputs_of(task)}
    assert list(fields) == ["decision", "message"]
    assert [option["label"] for option in fields["decision"]["options"]] == ["Reject", "Respond"]
    await bench.give(task, {"decision": "respond", "message": "paid by hand"})
    (message,) = await bench.told()
    assert (bench.ran, message.status, message.content) == ([], "success", "paid by hand")
    assert await bench.done()


@pytest.mark.parametrize(
    ("response", "why"),
    [
        ({"decision": "approve"}, "decision"),
        ({"decision": "edit", "new_amount": 25}, "does not fit"),
        ({"decision": "respond"}, "write what the model is to get"),
        ({"decision": "respond", "message": " "}, "write what the model is to get"),
    ],
)
async def test_decision_that_is_not_allowed_runs_no_tool(bench: Bench, response: dict[str, Any], why: str) -> None:
    """A decision that is not offered and an empty response are refused, and the model learns of the failure."""
    bench.agent(bench.approval(allowed_decisions=["reject", "respond"]), call("A"))
    await bench.start()
    await bench.give(await bench.asked("A"), response)
    (message,) = await bench.told()
    assert (bench.ran, message.status) == ([], "error")
    assert why in message.content


async def test_decisions_can_be_set_per_tool(bench: Bench) -> None:
    """A tool may have its own decisions; edit alone is refused for a tool without arguments."""
    own: Any = {"refund": {"allowed_decisions": ["approve"], "question": f"Refund A {bench.thread_id}?"}}
    bench.agent(HumanApproval(own, human_tasks=bench.human_tasks), call("A"))
    await bench.start()
    fields = inputs_of(await bench.asked("A"))
    assert [option["label"] for field in fields for option in field["options"]] == ["Approve"]

    def restart() -> str:
        """Restart."""
        bench.ran.append(("restarted",))
        return "done"

    turn = AIMessage("", tool_calls=[{"name": "restart", "id": "call-0", "args": {}}])
    approval = HumanApproval(["restart"], human_tasks=bench.human_tasks, allowed_decisions=["edit"])
    agent: Any = create_agent(
        ScriptedModel(responses=[turn]), [restart], middleware=[approval], checkpointer=bench.saver
    )
    with pytest.raises(SettingsError, match="has no arguments"):
        await agent.ainvoke({"messages": [("user", "please")]}, {"configurable": {"thread_id": uuid.uuid4().hex}})
    assert bench.ran == []


async def test_graphs_do_not_import_langchain() -> None:
    """Graphs work without langchain, and `HumanApproval` without it raises an error with the package to install."""
    code = (
        "import sys; sys.modules['langchain'] = None\n"
        "import awaithumans_adapters.langgraph as adapter\n"
        "assert 'awaithumans_adapters.langgraph.approval_middleware' not in sys.modules\n"
        "try: from awaithumans_adapters.langgraph import HumanApproval\n"
        "except ImportError as missing: print(missing)"
    )
    running = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await asyncio.wait_for(running.communicate(), 30)
    assert "pip install 'awaithumans-workflows[langchain]'" in out.decode()


# Unmodified nodes.


def review(mode: Mode, *allowed: str) -> HumanInTheLoopMiddleware[Any, Any, Any]:
    """LangChain's own review of tool calls, as an existing application may have it."""
    rule: Any = {"allowed_decisions": list(allowed)} if allowed else True
    return HumanInTheLoopMiddleware({"refund": rule}, interrupt_mode=mode)


def node(bench: Bench, *nodes: Any) -> None:
    """A graph of parallel nodes that do not use this package."""
    builder = StateGraph(Heard)
    for number, each in enumerate(nodes):
        builder.add_node(str(number), each)
        builder.add_edge(START, str(number))
    bench.use(builder.compile(checkpointer=bench.saver))


def asks(bench: Bench, value: Any, name: Literal["said", "also"] = "said", **schema: Any) -> Any:
    def run(state: Heard) -> Heard:
        said = interrupt(value, **schema)
        bench.ran.append((name, said))
        return {"said": said} if name == "said" else {"also": said}

    return run


async def test_review_that_cannot_be_shown_in_full_can_only_be_rejected(bench: Bench) -> None:
    """Nobody is asked to approve what they cannot see, and the model receives the reason."""
    bench.large_call(HumanInTheLoopMiddleware(interrupt_on={"pay": True}))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    decision = next(field for field in inputs_of(task) if field["name"] == "decision")
    assert [option["value"] for option in decision["options"]] == ["reject"]
    await bench.give(task, {"decision": "reject"})
    (message,) = await bench.told()
    assert bench.ran == []
    assert "at most 100 are shown" in message.content


async def test_redacted_review_shows_no_argument(bench: Bench) -> None:
    """Neither the form nor the text of the question contains anything of the call."""
    bench.agent(review("batched"), call("SECRET-ORDER"))
    redacted = HumanInterrupts(
        human_tasks=bench.human_tasks, question=lambda shown: f"Adopted {bench.thread_id}", redact_payload=True
    )
    await bench.start(redacted)
    (task,) = await bench.adopted()
    assert "SECRET-ORDER" not in json.dumps([task["form_definition"], task["task"]])


async def test_batched_review_is_one_task_with_a_decision_per_call(bench: Bench) -> None:
    """Two calls held back together make one task; each is decided separately, and allowed ones run once."""
    bench.agent(review("batched"), call("A"), call("B"))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    decided = {"decision_1": "edit", "new_amount_1": "25", "decision_2": "reject", "message_2": "too late"}
    await bench.give(task, decided)
    await bench.give(task, decided)
    assert bench.ran == [("A", 25)]
    first, second = await bench.told()
    assert "paid 25" in first.content
    assert "too late" in second.content
    assert await bench.done()


async def test_review_per_call_is_one_task_per_call(bench: Bench) -> None:
    """Each call held back on its own is a task of its own, answered in any order."""
    bench.agent(review("per_call"), call("A"), call("B"))
    await bench.start(bench.interrupts())
    tasks = {original_payload(task)["args"]["order"]: task for task in await bench.adopted(2)}
    await bench.give(tasks["B"], {"decision": "approve"})
    await bench.give(tasks["B"], {"decision": "approve"})
    await bench.give(tasks["A"], {"decision": "respond", "message": "paid by hand"})
    assert bench.ran == [("B", 250)]
    assert [message.content for message in await bench.told()] == ["paid by hand", "paid 250"]


@pytest.mark.parametrize("mode", ["batched", "per_call"])
@pytest.mark.parametrize("end", ["timed out", "no decision", "another word"])
async def test_review_without_an_answer_is_a_rejection(bench: Bench, mode: Mode, end: str) -> None:
    """LangChain's review receives a rejection with the reason if there is no decision."""
    bench.agent(review(mode), call("A"))
    await bench.start(bench.interrupts())
    said, why = ENDS[end]
    await bench.give((await bench.adopted())[0], **said)
    (message,) = await bench.told()
    assert bench.ran == []
    assert message.status == "error"
    assert why in message.content


@pytest.mark.parametrize("mode", ["batched", "per_call"])
async def test_review_form_offers_the_allowed_decisions(bench: Bench, mode: Mode) -> None:
    """The form offers the decisions that the application allows, and no edit field if edits are not allowed."""
    bench.agent(review(mode, "approve", "reject"), call("A"))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    description, decision, message = task["form_definition"]["fields"]
    assert description["kind"] == "display_text"
    assert [option["value"] for option in decision["options"]] == ["approve", "reject"]
    assert message["name"] == "message"
    await bench.give(task, {"decision": "approve", "new_amount": 25})
    assert bench.ran == []


class Plan(BaseModel):
    steps: int
    note: str = "none"


SCHEMAS: dict[str, tuple[Any, Any]] = {
    "class": (Plan, Plan(steps=3)),
    "schema": (Plan.model_json_schema(), {"steps": 3}),
}


@pytest.mark.parametrize(("schema", "heard"), SCHEMAS.values(), ids=SCHEMAS)
async def test_interrupt_with_a_schema_returns_the_declared_value(bench: Bench, schema: Any, heard: Any) -> None:
    """The form has the schema's fields, and the node receives the value that it declared."""
    node(bench, asks(bench, {"question": "How?"}, response_schema=schema))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    assert [field["name"] for field in task["form_definition"]["fields"]] == ["steps", "note"]
    await bench.give(task, {"steps": "3", "note": None})
    assert (await bench.values())["said"] == heard


async def test_interrupt_with_a_scalar_schema_returns_the_bare_value(bench: Bench) -> None:
    """A schema that is no object is asked in one field, and the node receives the bare value."""
    node(bench, asks(bench, ["a", "b"], response_schema={"type": "boolean"}))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    assert original_payload(task) == {"value": ["a", "b"]}
    await bench.give(task, {"answer": False})
    assert (await bench.values())["said"] is False


async def test_interrupt_without_a_schema_returns_a_text(bench: Bench) -> None:
    """The question is the interrupt's text, and the node receives the line that the person wrote."""
    node(bench, asks(bench, f"Which colour, {bench.thread_id}?"))
    await bench.start(HumanInterrupts(human_tasks=bench.human_tasks))
    (task,) = await bench.people.find(f"Which colour, {bench.thread_id}?")
    await bench.give(task, {"answer": "blue"})
    await bench.give(task, {"answer": "blue"})
    assert bench.ran == [("said", "blue")]


@pytest.mark.parametrize("way", ["config", "with_config"])
async def test_second_interrupt_of_a_node_is_asked_after_the_first(bench: Bench, way: str) -> None:
    """The second is asked once the first is resumed, and a duplicate of the first does not answer it."""

    def twice(state: Heard) -> Heard:
        return {"said": [interrupt("one"), interrupt("two")]}

    node(bench, twice)
    if way == "config":
        bench.use(bench.graph, config=lambda _, __: {**bench.config, "callbacks": [bench.interrupts()]})
        await bench.start(bench.interrupts())
    else:
        bench.use(bench.graph.with_config(callbacks=[bench.interrupts()]))
        await bench.graph.ainvoke({"said": None}, bench.config)
    (first,) = await bench.adopted()
    await bench.give(first, {"answer": "a"})
    await bench.give(first, {"answer": "a"})
    assert not await bench.done()
    _, second = await bench.adopted(2)
    await bench.give(second, {"answer": "b"})
    await bench.give(first, {"answer": "a"})
    assert (await bench.values())["said"] == ["a", "b"]


async def test_interrupt_that_could_not_be_asked_is_asked_by_the_next_delivery(bench: Bench) -> None:
    """If the server is unreachable when the graph pauses again, the next delivery creates the task."""
    away = [True]

    class Stumbling(HumanInterrupts):
        def on_interrupt(self, event: GraphInterruptEvent) -> None:
            if away:
                raise ConnectionError("the server is unreachable")
            super().on_interrupt(event)

    def twice(state: Heard) -> Heard:
        return {"said": [interrupt("one"), interrupt("two")]}

    node(bench, twice)
    await bench.start(bench.interrupts())
    later = Stumbling(human_tasks=bench.human_tasks, question=lambda _: f"Adopted {bench.thread_id}")
    bench.use(bench.graph, config=lambda _, __: {**bench.config, "callbacks": [later]})
    (first,) = await bench.adopted()
    with pytest.raises(ConnectionError):
        await bench.give(first, {"answer": "a"})
    away.clear()
    await bench.give(first, {"answer": "a"})
    _, second = await bench.adopted(2)
    await bench.give(second, {"answer": "b"})
    assert (await bench.values())["said"] == ["a", "b"]


async def test_parallel_interrupts_get_their_own_answers(bench: Bench) -> None:
    """Branches wait at once, and each receives its own answer once."""
    node(bench, asks(bench, {"n": 1}), asks(bench, {"n": 2}, "also"))
    await bench.start(bench.interrupts())
    tasks = {task["payload"]["n"]: task for task in await bench.adopted(2)}
    await bench.give(tasks[2], {"answer": "two"})
    await bench.give(tasks[2], {"answer": "two"})
    await bench.give(tasks[1], {"answer": "one"})
    assert bench.ran == [("also", "two"), ("said", "one")]
    assert await bench.done()


async def test_interrupt_of_a_subgraph_is_asked_and_answered_once(bench: Bench) -> None:
    """An interrupt in a subgraph is found there, and its answer is taken once."""
    builder = StateGraph(Heard)
    builder.add_node("inner", asks(bench, "inside?"))
    builder.add_edge(START, "inner")
    outer = StateGraph(Heard)
    outer.add_node("outer", builder.compile())
    outer.add_edge(START, "outer")
    bench.use(outer.compile(checkpointer=bench.saver))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    await bench.give(task, {"answer": "yes"})
    await bench.give(task, {"answer": "yes"})
    assert bench.ran == [("said", "yes")]


HOSTILE_ORDER = "A-1\n# approved \u202e" + "x" * 600
"""Text as a model may write it."""


async def test_question_of_a_tool_call_is_one_short_line(bench: Bench) -> None:
    """Model-written arguments become one line in the question, and the payload has them in full."""
    bench.agent(bench.approval(), {"args": {"order": HOSTILE_ORDER, "amount": 5}})
    await bench.start()
    shown = one_line(f"Refund {HOSTILE_ORDER} {bench.thread_id}?", 500)
    (task,) = await bench.people.find(shown)
    assert original_payload(task)["arguments"]["order"] == HOSTILE_ORDER
    assert "\n" not in shown
    await bench.give(task, {"decision": "reject"})
    assert bench.ran == []


async def test_question_of_an_interrupt_is_one_short_line(bench: Bench) -> None:
    """The text that an application makes of an interrupt becomes one line as well."""
    node(bench, asks(bench, "inside?"))
    handler = HumanInterrupts(
        human_tasks=bench.human_tasks, question=lambda _: f"Adopted {bench.thread_id} {HOSTILE_ORDER}"
    )
    await bench.start(handler)
    await bench.people.find(one_line(f"Adopted {bench.thread_id} {HOSTILE_ORDER}", 500))


async def test_graph_called_inside_a_node_gets_its_answer_once(bench: Bench) -> None:
    """A graph that a node calls itself, whose interrupts are not visible outside, gets its answer once."""
    builder = StateGraph(Heard)
    builder.add_node("inner", asks(bench, "inside?"))
    builder.add_edge(START, "inner")
    hidden = [builder.compile()]

    def calls(state: Heard) -> Any:
        return hidden[0].invoke(state)

    node(bench, calls)
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    await bench.give(task, {"answer": "yes"})
    with pytest.raises(TargetGone):
        await bench.give(task, {"answer": "yes"})
    assert bench.ran == [("said", "yes")]


async def test_thread_of_a_relay_killed_after_an_adopted_answer_is_finished(bench: Bench) -> None:
    """If the relay is killed after a foreign node took the answer, the next delivery finishes the thread."""
    gate, started_ = asyncio.Event(), asyncio.Event()

    async def waits(state: Heard) -> Any:
        said = interrupt("Which?")
        started_.set()
        await gate.wait()
        bench.ran.append(("said", said))
        return {"said": said}

    node(bench, waits)
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    first = asyncio.create_task(bench.give(task, {"answer": "blue"}))
    await asyncio.wait_for(started_.wait(), 20)
    await asyncio.sleep(0.2)  # the checkpointer cannot show that the node has the answer
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    await bench.give(task, {"answer": "blue"})
    await bench.give(task, {"answer": "blue"})
    assert bench.ran == [("said", "blue")]


async def test_foreign_node_that_fails_after_the_answer_is_not_run_again(bench: Bench) -> None:
    """The node may have acted, so it is not run again, and the failure is kept with the wait."""

    def fails(state: Heard) -> Any:
        bench.ran.append(("charge", interrupt("Which?")))
        raise ZeroDivisionError

    node(bench, fails)
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    for _ in range(2):
        with pytest.raises(TargetGone, match="ZeroDivisionError"):
            await bench.give(task, {"answer": "blue"})
    assert bench.ran == [("charge", "blue")]


async def test_bare_interrupt_without_an_answer_stays_pending(bench: Bench) -> None:
    """No error can reach such a node: it stays pending, the wait has the reason, and the application can resume it."""
    node(bench, asks(bench, "Which?"))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    with pytest.raises(TargetGone, match=r"deadline.*stays pending"):
        await bench.give(task, status="timed_out")
    assert bench.ran == []
    await bench.graph.ainvoke(Command(resume="by hand"), bench.config)
    assert bench.ran == [("said", "by hand")]


async def test_answer_that_the_node_refuses_is_not_saved(bench: Bench) -> None:
    """A rule beyond the schema refuses the answer: nothing is saved, and the interrupt stays pending."""

    class Even(BaseModel):
        number: Annotated[int, AfterValidator(even)]

    node(bench, asks(bench, "Which?", response_schema=Even))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    with pytest.raises(TargetGone, match="odd"):
        await bench.give(task, {"number": 3})
    assert bench.ran == []
    await bench.give(task, {"number": 4})
    assert bench.ran == [("said", Even(number=4))]


def even(number: int) -> int:
    if number % 2:
        raise ValueError("odd")
    return number


async def test_answer_to_a_superseded_interrupt_is_not_taken(bench: Bench) -> None:
    """New input replaces the interrupt, and the old answer does not reach the new one."""
    node(bench, asks(bench, "Which?"))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    await bench.start()
    with pytest.raises(TargetGone, match="moved on"):
        await bench.give(task, {"answer": "old"})
    assert bench.ran == []


async def test_interrupt_with_a_changed_payload_gets_no_answer(bench: Bench) -> None:
    """A node that runs again beside its sibling and asks about another amount gets no answer to the first."""
    amounts = iter([10, 1_000_000])

    def changing(state: Heard) -> Heard:
        said = interrupt({"amount": next(amounts)})
        bench.ran.append(("changing", said))
        return {"also": said}

    node(bench, asks(bench, {"amount": 1}), changing)
    await bench.start(bench.interrupts())
    tasks = {task["payload"]["amount"]: task for task in await bench.adopted(2)}
    await bench.give(tasks[1], {"answer": "yes"})
    with pytest.raises(TargetGone, match="moved on"):
        await bench.give(tasks[10], {"answer": "yes"})
    assert bench.ran == [("said", "yes")]


async def test_interrupt_with_changed_choices_gets_no_answer(bench: Bench) -> None:
    """A node that runs again beside its sibling and offers other choices does not get the earlier choice."""
    offers = iter([["monthly", "yearly"], ["yearly", "weekly"]])

    def changing(state: Heard) -> Heard:
        said = interrupt({"plan": "?"}, response_schema={"type": "string", "enum": next(offers)})
        bench.ran.append(("changing", said))
        return {"also": said}

    node(bench, asks(bench, {"amount": 1}), changing)
    await bench.start(bench.interrupts())
    tasks = {tuple(task["payload"]): task for task in await bench.adopted(2)}
    await bench.give(tasks["amount",], {"answer": "yes"})
    with pytest.raises(TargetGone, match="moved on"):
        await bench.give(tasks["plan",], {"answer": "yearly"})
    assert bench.ran == [("said", "yes")]


async def test_interrupt_asked_by_an_earlier_release_is_answered(bench: Bench) -> None:
    """A key of an earlier release omits the response schema, and its interrupt still gets its answer."""
    node(bench, asks(bench, {"amount": 1}, response_schema=Decision))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    (shown,) = (await bench.graph.aget_state(bench.config)).interrupts
    (earlier,) = keys_of(shown, bench.thread_id) - {task["idempotency_key"]}
    await bench.give({**task, "idempotency_key": earlier}, {"approved": True})
    assert bench.ran == [("said", Decision(approved=True))]


async def test_await_human_beside_human_interrupts_is_asked_once(bench: Bench) -> None:
    """A question of `await_human` in a graph with `HumanInterrupts` has one task."""

    async def ours(state: Heard) -> Heard:
        decision = await await_human(
            task=f"Adopted {bench.thread_id}", response_schema=Decision, human_tasks=bench.human_tasks
        )
        return {"said": decision.approved}

    node(bench, asks(bench, "Which?", "also"), ours)
    await bench.start(bench.interrupts())
    tasks = await bench.adopted(2)
    assert len(tasks) == 2
    own, other = sorted(tasks, key=lambda task: ":interrupt:" in task["idempotency_key"])
    await bench.give(own, {"approved": True})
    await bench.give(other, {"answer": "blue"})
    assert {key: (await bench.values())[key] for key in ("said", "also")} == {"said": True, "also": "blue"}


async def test_run_whose_interrupt_could_not_be_asked_raises(bench: Bench) -> None:
    """A run that pauses without a task raises an error instead of appearing to have asked."""
    node(bench, asks(bench, "Which?"))
    with pytest.raises(SettingsError):
        await bench.start(HumanInterrupts())


async def test_sync_run_creates_the_task_of_its_interrupt(bench: Bench) -> None:
    """A graph run without an event loop creates its task as well."""
    node(bench, asks(bench, "Which?"))
    listening = {**bench.config, "callbacks": [bench.interrupts()]}
    await asyncio.to_thread(bench.graph.invoke, {"said": None}, listening)
    await bench.give((await bench.adopted())[0], {"answer": "blue"})
    assert bench.ran == [("said", "blue")]


async def test_interrupt_resumed_by_the_application_cancels_its_task(bench: Bench) -> None:
    """The task of an interrupt that the application resumed is not needed, and the relay learns of it."""
    node(bench, asks(bench, "Which?"))
    await bench.start(bench.interrupts())
    (task,) = await bench.adopted()
    route = Route("langgraph", {"thread_id": bench.thread_id}, task["idempotency_key"])
    assert await bench.engine.orphaned(route) is None
    await bench.graph.ainvoke(Command(resume="by itself"), bench.config)
    assert "itself" in (await bench.engine.orphaned(route) or "")


async def test_adopted_interrupt_is_answered_through_the_relay(
    humans: HumansServer, people: People, tmp_path: Path
) -> None:
    """The run pauses, a person answers on the server, the relay resumes the agent, and the tool runs once."""
    port = free_port()
    settings = settings_for(humans, f"http://127.0.0.1:{port}")
    bench = Bench(HumanTasks(settings), people)
    bench.agent(review("per_call"), call("A"))
    async with running_relay([bench.engine], humans, tmp_path, settings=settings, port=port) as registrar:
        await bench.start(bench.interrupts())
        (task,) = await bench.adopted()
        await people.complete(task["id"], {"decision": "approve"})
        await registrar.check_now(task["id"])
        await registrar.wait_for(task["id"], "delivered")
    assert bench.ran == [("A", 250)]
    assert await bench.done()


@pytest.mark.edges
async def test_example_asks_and_resumes_in_two_processes(humans: HumansServer, people: People, tmp_path: Path) -> None:
    """The example asks in one process and resumes in the relay's, with the amount that a person gave."""
    secret = secrets.token_urlsafe(32)
    environment = {"CHECKPOINTS": str(tmp_path / "checkpoints.db"), "PYTHONPATH": str(ROOT)}
    graph = ["--graph", "refunds=examples.langchain_refund:refunds"]
    registrar = RelayServer(tmp_path, humans, graph, secret=secret, env=environment)
    store = Store(f"sqlite:///{tmp_path / 'awaithumans-relay.db'}")
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "examples.langchain_refund"),
        env={
            **os.environ,
            **environment,
            "AWAITHUMANS_URL": humans.url,
            "AWAITHUMANS_ADMIN_API_TOKEN": humans.token,
            "AWAITHUMANS_RELAY_URL": registrar.url,
            "AWAITHUMANS_RELAY_SECRET": secret,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with started(registrar):
            task = await people.answer("May the agent run refund?", {"decision": "edit", "new_amount": "25"})
            await RunningRelay(registrar.url, settings_for(humans, registrar.url, secret), store).check_now(task["id"])
            out, _ = await asyncio.wait_for(running.communicate(), 30)
    finally:
        if running.returncode is None:
            running.kill()
        await store.stop()
    assert out.decode().splitlines()[-1] == "$25 paid back for A-1004"
