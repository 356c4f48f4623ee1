"""The arguments of a run that brings an answer, copied from the run that asked.

Law: to its application a resumed run is the same as the run that asked. It has its context, tags, metadata and limits,
stops at the same nodes, streams the same and calls the same webhook.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, cast

from awaithumans_adapters.langgraph.internals import CONTEXT_GIVEN, TRACING
from awaithumans_adapters.langgraph.names import RESUMED_WITH
from awaithumans_adapters.langgraph.server_engine.target import ServerTarget
from awaithumans_core.errors import SettingsError

RunOptions: TypeAlias = dict[str, Any]
"""Keyword arguments of `client.runs.create` of langgraph-sdk."""
ChangesRun: TypeAlias = Callable[[ServerTarget, RunOptions], RunOptions | Awaitable[RunOptions]]
"""Returns the options of the run that is about to start, given those of the run that asked."""

CARRIED: Final = {
    "stream_mode": "stream_mode",
    "stream_subgraphs": "subgraphs",
    "stream_resumable": "resumable",
    "interrupt_before": "interrupt_before",
    "interrupt_after": "interrupt_after",
    "webhook": "webhook",
    "durability": "durability",
}
"""Argument of `runs.create` -> key of its value in a run's record."""
CHANGEABLE: Final = frozenset(CARRIED) | {"config", "context", "metadata", "langsmith_tracing"}
"""Options that `run_options` may return. All other arguments of the run are determined by the answer."""

_CONFIG = ("tags", "recursion_limit", "max_concurrency", "run_name")
_SERVERS_METADATA = ("thread_id", "assistant_id", "run_id", "cron_id", "counters_since_delta_snapshot", RESUMED_WITH)
"""Metadata that the server refuses or replaces. The last one is set by this package, for an earlier answer."""


def options_of(run: Mapping[str, Any]) -> RunOptions:
    """Return the options of a run, read from its record.

    Durability is at least "sync" unless the run asked for "exit". The server records "async" for a run that did not
    choose, and "sync" keeps every promise of "async".
    """
    record: Mapping[str, Any] = run.get("kwargs") or {}
    options = {name: record[kept] for name, kept in CARRIED.items() if record.get(kept)}
    if options.get("durability") == "async":
        options["durability"] = "sync"
    given: Mapping[str, Any] = record.get("config") or {}
    configurable: Mapping[str, Any] = given.get("configurable") or {}
    config: dict[str, Any] = {name: given[name] for name in _CONFIG if given.get(name)}
    if context := record.get("context"):
        if CONTEXT_GIVEN in configurable:
            options["context"] = context
        else:
            config["configurable"] = context
    if config:
        options["config"] = config
    metadata: Mapping[str, Any] = run.get("metadata") or {}
    if own := {name: value for name, value in metadata.items() if name not in _SERVERS_METADATA}:
        options["metadata"] = own
    if tracing := {name: configurable[kept] for kept, name in TRACING.items() if configurable.get(kept)}:
        options["langsmith_tracing"] = tracing
    return options


async def changed(change: ChangesRun | None, target: ServerTarget, options: RunOptions) -> RunOptions:
    """Return the options, changed by the application's function if there is one.

    Raises:
        SettingsError: the function returned no dict, or an option that it may not choose.
    """
    if change is None:
        return options
    made = change(target, options)
    wanted: Any = await made if inspect.isawaitable(made) else made
    if not isinstance(wanted, dict):
        raise SettingsError(f"{_HOOK} returned {type(wanted).__name__}: return a dict")
    chosen = cast("RunOptions", wanted)
    if unknown := sorted(chosen.keys() - CHANGEABLE):
        raise SettingsError(
            f"{_HOOK} returned the options {', '.join(unknown)}: only {', '.join(sorted(CHANGEABLE))} can be chosen"
        )
    return chosen


_HOOK = "LangGraphServerEngine(run_options=...)"
