"""Temporal: `await_human` in workflows, one plugin on the client, an engine for the relay.

from awaithumans_adapters.temporal import HumanTasksPlugin, await_human

client = await Client.connect("localhost:7233", plugins=[HumanTasksPlugin()])
decision = await await_human(task=..., payload=..., response_schema=Decision)   # in @workflow.run

Everything loads on first touch, so that a workflow that asks brings no HTTP client into its sandbox.
"""

from typing import TYPE_CHECKING

from awaithumans_core.lazy_names import lazy_names

try:
    import temporalio as _  # noqa: F401  # imported only to check that it is installed
except ImportError as missing:
    raise ImportError(
        "the Temporal adapter needs temporalio: pip install 'awaithumans-workflows[temporal]'"
    ) from missing

if TYPE_CHECKING:
    from awaithumans_adapters.temporal.activities.human_tasks import HumanTaskActivities
    from awaithumans_adapters.temporal.activities.options import ActivityOptions
    from awaithumans_adapters.temporal.engine.engine import TemporalEngine
    from awaithumans_adapters.temporal.plugin import (
        HumanTasksActivityPlugin,
        HumanTasksPlugin,
        HumanTasksWorkflowPlugin,
    )
    from awaithumans_adapters.temporal.workflow.await_human import await_human

__all__ = [
    "ActivityOptions",
    "HumanTaskActivities",
    "HumanTasksActivityPlugin",
    "HumanTasksPlugin",
    "HumanTasksWorkflowPlugin",
    "TemporalEngine",
    "await_human",
]

_HOMES = {
    "ActivityOptions": "activities.options",
    "HumanTaskActivities": "activities.human_tasks",
    "HumanTasksActivityPlugin": "plugin",
    "HumanTasksPlugin": "plugin",
    "HumanTasksWorkflowPlugin": "plugin",
    "TemporalEngine": "engine.engine",
    "await_human": "workflow.await_human",
}

__getattr__, __dir__ = lazy_names(globals(), _HOMES)
