"""Decides once per tool call, by a condition of the application, whether a person must approve it.

Law: a call about which a person was asked runs only with that person's approval. The node of a call runs again whenever
the thread is resumed, and the condition may then return another result (other state, another release of the code). Its
result is therefore stored in the checkpoint like the question itself, and a resumed node asks in any case.
"""

from collections.abc import Callable
from typing import Any, cast

from awaithumans_adapters.langgraph.names import CONDITION
from awaithumans_adapters.langgraph.node.await_human import check_resumable
from awaithumans_adapters.langgraph.node.hidden_task import HiddenCall
from awaithumans_adapters.langgraph.node.position import is_resumed
from awaithumans_core.errors import SettingsError


class Condition:
    """A condition with the tool call it applies to. Opaque, as the argument of a hidden task must be.

    Args:
        when: Returns whether a person is to be asked.
        request: The tool call, passed to `when`.
    """

    def __init__(self, when: Callable[[Any], Any], request: Any) -> None:
        check_resumable()
        self._when, self._request = when, request
        self._resumed = is_resumed()

    def __repr__(self) -> str:
        return "<condition>"

    async def holds(self) -> bool:
        """Return whether a person is to be asked. For async nodes.

        Raises:
            SettingsError: the condition returned neither True nor False.
        """
        call = HiddenCall(_evaluated, self)
        return cast("bool", await call.future)

    def holds_sync(self) -> bool:
        """Return whether a person is to be asked. For sync nodes; errors as in `holds`."""
        call = HiddenCall(_evaluated_sync, self)
        return cast("bool", call.future.result())

    def evaluate(self) -> bool:
        """Call the condition, or return True if the node was resumed before a result was stored.

        Raises:
            SettingsError: the condition returned neither True nor False.
        """
        if self._resumed:
            return True
        needed = self._when(self._request)
        if not isinstance(needed, bool):
            raise SettingsError(
                f"HumanApproval(when=...) has returned {type(needed).__name__}: return True to ask a person about the "
                "call, False to run it without"
            )
        return needed


async def _evaluated(condition: Condition) -> bool:
    return condition.evaluate()


def _evaluated_sync(condition: Condition) -> bool:
    return condition.evaluate()


_evaluated.__name__ = _evaluated_sync.__name__ = CONDITION  # names the task, also in checkpoints
