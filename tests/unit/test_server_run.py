"""Runs on a LangGraph server: what a run that brings an answer keeps of the run that asked."""

from typing import Any

import pytest

from awaithumans_adapters.langgraph.server_engine.run import options_of


def run(metadata: dict[str, Any] | None = None, **kwargs: Any) -> dict[str, Any]:
    return {"run_id": "1", "metadata": metadata, "kwargs": kwargs}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a run that was deleted": ({}, {}),
    "nothing was chosen": (run({}, webhook=None, config={"configurable": {"thread_id": "t"}}, context={}), {}),
    "the server's default durability becomes sync": (run(durability="async"), {"durability": "sync"}),
    "exit stays": (run(durability="exit"), {"durability": "exit"}),
    "configurable": (
        run(config={"tags": ["a"], "configurable": {"tenant": "x", "run_id": "1"}}, context={"tenant": "x"}),
        {"config": {"tags": ["a"], "configurable": {"tenant": "x"}}},
    ),
    "context": (
        run(config={"configurable": {"tenant": "x", "__context_provided__": True}}, context={"tenant": "x"}),
        {"context": {"tenant": "x"}},
    ),
    "metadata without the server's and that of an earlier answer": (
        run({"order": "1", "assistant_id": "a", "run_id": "1", "awaithumans_key": "q"}),
        {"metadata": {"order": "1"}},
    ),
    "streaming": (
        run(stream_mode=["updates"], subgraphs=True, resumable=True, interrupt_after="*"),
        {
            "stream_mode": ["updates"],
            "stream_subgraphs": True,
            "stream_resumable": True,
            "interrupt_after": "*",
        },
    ),
    "project of LangSmith": (
        run(config={"configurable": {"__langsmith_project__": "refunds"}}),
        {"langsmith_tracing": {"project_name": "refunds"}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_options_are_those_of_the_run_that_asked(case: str) -> None:
    """Each part of the record becomes the argument that made it, and the server's own parts are left out."""
    record, options = CASES[case]
    assert options_of(record) == options
