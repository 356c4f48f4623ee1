"""Temporal: `await_human` in workflows, one plugin on the client, an engine for the relay.

from awaithumans_adapters.temporal import HumanTasksPlugin, await_human

client = await Client.connect("localhost:7233", plugins=[HumanTasksPlugin()])
decision = await await_human(task=..., payload=..., response_schema=Decision)   # in @workflow.run
"""

try:
    import temporalio as _  # noqa: F401  # only whether it is there is asked
except ImportError as missing:
    raise ImportError(
        "the Temporal adapter needs temporalio: pip install 'awaithumans-workflows[temporal]'"
    ) from missing

from awaithumans_adapters.temporal.activities import HumanTaskActivities
from awaithumans_adapters.temporal.engine import TemporalEngine
from awaithumans_adapters.temporal.plugin import HumanTasksPlugin
from awaithumans_adapters.temporal.workflow import await_human

__all__ = ["HumanTaskActivities", "HumanTasksPlugin", "TemporalEngine", "await_human"]
