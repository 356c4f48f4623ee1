"""Routes and receipts of a node that a LangGraph server runs. A receipt records that the node has taken an answer.

Law: no answer is acted on twice. From outside, a thread of a server looks the same whether its node failed on the way
to its question or after it had the answer. The first must be resumed again, the second must not. A node therefore
records in the server's store that it has taken its answer before it continues. A second resume with the same answer
finds that record and is refused in the node.
"""

from collections.abc import Mapping
from typing import Any, cast

from langgraph.config import get_config, get_store
from langgraph.store.base import BaseStore, Item

from awaithumans_adapters.langgraph.delivery.history import asked_at
from awaithumans_adapters.langgraph.internals import (
    NODE_ERROR,
    NODE_NAMESPACE,
    SERVER_USER,
    SERVER_VERSION,
    run_metadata,
)
from awaithumans_adapters.langgraph.names import (
    ENGINE,
    GRAPH,
    NODE,
    RESUMED_WITH,
    SERVER_ENGINE,
    receipt_name,
    receipt_namespace,
)
from awaithumans_adapters.langgraph.server_engine.target import RUN, USER
from awaithumans_core.errors import SettingsError
from awaithumans_core.route import Route

_CALLED_BY_A_NODE = (
    "await_human is called in a run that a RemoteGraph in a node of another graph has started: the relay would resume "
    "this thread, and the other graph would wait for ever. Ask in a node of the other graph, or start this graph "
    "outside of a node, for instance with client.runs.create. A later run of a thread that was created in this way has "
    f'the same mark in its metadata: start that run with metadata={{"{NODE_NAMESPACE}": ""}}'
)


class AnswerTakenError(RuntimeError):
    """Another run has already brought this answer to the node.

    Nodes must not catch this error, because they must not go on.
    """


def is_served() -> bool:
    """Whether a LangGraph server runs the current node."""
    config = get_config()
    return SERVER_VERSION in config.get("metadata", {}) and "assistant_id" in config.get("configurable", {})


def route(key: str, asked_in: Mapping[str, str]) -> Route:
    """Return the route of the answer to the question with this key.

    Args:
        key: The question's idempotency key.
        asked_in: The checkpoints of the graphs around the node that asks, by namespace.

    Raises:
        SettingsError: the server has no store for the receipt of the answer, or the node is an error handler, whose
            questions the server does not show, or a `RemoteGraph` node of another graph has started the run.
    """
    configurable = _configurable()
    thread_id = str(configurable["thread_id"])
    if not is_served():
        whose = {GRAPH: str(configurable[GRAPH])} if configurable.get(GRAPH) else {}
        return Route(ENGINE, {"thread_id": thread_id, **whose}, key, asked_at=asked_at(asked_in) or None)
    _store()
    if NODE_ERROR in configurable:
        raise SettingsError(
            "await_human is called in an error handler, whose questions a LangGraph server does not show, so the "
            "answer could not be given to it: let the handler lead to a node that asks, Command(goto=...)"
        )
    if run_metadata(configurable).get(NODE_NAMESPACE):
        raise SettingsError(_CALLED_BY_A_NODE)
    target = {"thread_id": thread_id, "assistant_id": str(configurable["assistant_id"])}
    return Route(SERVER_ENGINE, target, key, asked_at=asked_at(asked_in) or None, caller=_caller(configurable))


def _caller(configurable: Mapping[str, Any]) -> dict[str, str]:
    """Return the id of the run that asks, and its user if the server authenticates users."""
    user = configurable.get(SERVER_USER)
    return {RUN: str(configurable["run_id"]), **({USER: str(user)} if user else {})}


async def record_taken(key: str) -> None:
    """Record that the node has taken this answer. Outside of a LangGraph server this does nothing.

    Raises:
        AnswerTakenError: another run of the thread has brought the answer to this node before.
    """
    if is_served():
        store, namespace, name = _receipt(key)
        _refuse_second(key, await store.aget(namespace, name))
        await store.aput(namespace, name, _written())


def record_taken_sync(key: str) -> None:
    """Record that a sync node has taken this answer; errors as in `record_taken`."""
    if is_served():
        store, namespace, name = _receipt(key)
        _refuse_second(key, store.get(namespace, name))
        store.put(namespace, name, _written())


def _receipt(key: str) -> tuple[BaseStore, tuple[str, ...], str]:
    return _store(), receipt_namespace(str(_configurable()["thread_id"]), key), receipt_name(_node())


def _written() -> dict[str, Any]:
    return {NODE: _node(), "run_id": str(_configurable()["run_id"])}


def _refuse_second(key: str, receipt: Item | None) -> None:
    """Stop a run that was started to bring this answer after another run has brought it.

    Runs that the application started itself are not stopped.

    Raises:
        AnswerTakenError: the receipt is of another run.
    """
    metadata = cast("Mapping[str, Any]", get_config().get("metadata", {}))
    if (
        receipt is not None
        and metadata.get(RESUMED_WITH) == key
        and receipt.value["run_id"] != _configurable()["run_id"]
    ):
        raise AnswerTakenError(f"run {receipt.value['run_id']} has brought the answer to {key!r} here before")


def _store() -> BaseStore:
    store = cast("BaseStore | None", get_store())
    if store is None:
        raise SettingsError("this LangGraph server has no store, in which a node records that it has taken its answer")
    return store


def _node() -> str:
    return str(_configurable()["checkpoint_ns"])


def _configurable() -> dict[str, Any]:
    return get_config().get("configurable", {})
