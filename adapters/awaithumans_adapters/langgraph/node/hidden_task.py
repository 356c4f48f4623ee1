"""A LangGraph task inside a node that streams, events and traces do not show.

Law: an application's user interface shows the application's own steps. The task that asks a question belongs to this
package. Its tag excludes it from `updates` and `tasks` streams, and callbacks (`astream_events`, tracers) are not
called for it.

LangGraph has no public way to tag such a task, because its config is that of the calling node. The task is therefore
called for a copy of the node whose config has the tag. If a release of LangGraph calls tasks in another way, the task
becomes visible and nothing else changes. `tests/integration/test_langgraph_streams.py` then fails.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from langchain_core.callbacks import CallbackManager
from langgraph.config import get_config
from langgraph.constants import TAG_HIDDEN

from awaithumans_adapters.langgraph.internals import CALL, calling_for, node_of


class HiddenCall:
    """A function called as a hidden task of the running node.

    Keep a reference to this object until the result is available.

    Args:
        function: A function of a module. Its `__name__` names the task.
        argument: The only argument of the function. Make it opaque: a release that shows the task shows its argument.
    """

    def __init__(self, function: Callable[[Any], Any], argument: object) -> None:
        call: Any = get_config().get("configurable", {})[CALL]
        self._node = _tagged(call)  # keeps the node alive: LangGraph only has a weak reference to it
        hidden = call if self._node is None else calling_for(call, self._node)
        self.future: Any = hidden(function, ((argument,), {}), callbacks=CallbackManager([]))
        """Future of the result: awaitable in async nodes, with `result()` in sync nodes."""


def _tagged(call: Any) -> Any:
    """Return a copy of the calling node with the tag, or None if LangGraph does not make the call in the known way."""
    node = node_of(call)
    if node is None:
        return None
    return replace(node, config={**node.config, "tags": [*(node.config.get("tags") or []), TAG_HIDDEN]})
