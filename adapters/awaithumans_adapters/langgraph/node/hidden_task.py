"""A LangGraph task inside a node that streams, events and traces do not show.

Law: an application's user interface shows the application's own steps. The task in which a question is asked is this
package's: `updates` and `tasks` streams leave it out by its tag, and callbacks (`astream_events`, tracers) are not
called for it.

LangGraph has no public way to tag such a task: its config is that of the node that calls it. So the node is handed over
with a copy of its config that has the tag. If a release of LangGraph calls tasks in another way, the task is visible
again, and nothing else changes; `tests/integration/test_langgraph_streams.py` then fails.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from langchain_core.callbacks import CallbackManager
from langgraph.config import get_config
from langgraph.constants import TAG_HIDDEN

from awaithumans_adapters.langgraph.internals import CALL, calling_for, node_of


class HiddenCall:
    """A function that is called as a hidden task of the node that runs. Keep this until the result is there.

    Args:
        function: Of a module; its `__name__` names the task.
        argument: It is called with this alone. Make it opaque: a release that shows the task shows this.
    """

    def __init__(self, function: Callable[[Any], Any], argument: object) -> None:
        call: Any = get_config().get("configurable", {})[CALL]
        self._node = _tagged(call)  # LangGraph holds it by a weak reference
        hidden = call if self._node is None else calling_for(call, self._node)
        self.future: Any = hidden(function, ((argument,), {}), callbacks=CallbackManager([]))
        """Of the result: awaitable in async nodes, with `result()` in sync ones."""


def _tagged(call: Any) -> Any:
    """The node that makes this call, with the tag; None if the call is not made as it is known to be."""
    node = node_of(call)
    if node is None:
        return None
    return replace(node, config={**node.config, "tags": [*(node.config.get("tags") or []), TAG_HIDDEN]})
