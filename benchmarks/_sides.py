"""The sides of the Temporal benchmarks: each has a workflow, its activities, and the settings of client and worker."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from awaithumans.adapters.temporal import awaithumans_create_task  # type: ignore[import-untyped]  # it ships no types
from temporalio.client import Client

from awaithumans_adapters.temporal import HumanTasksPlugin
from benchmarks import (
    _by_hand,
    _workflows,
    _workflows_bare,
    _workflows_gather,
    _workflows_many,
    _workflows_official,
    _workflows_own_file,
)

AMOUNT = 250.0


@dataclass(frozen=True)
class ServerAddresses:
    """Addresses of the servers of one run."""

    humans: str
    token: str
    receiver: str = ""
    """Address that receives the callbacks of the official adapter."""


@dataclass(frozen=True)
class Side:
    workflow: type[Any]
    argument: Callable[[int, ServerAddresses], Any]
    """Returns the workflow's argument for the number of an order."""
    activities: Sequence[Callable[..., Any]] = ()
    """Activities in addition to those that a plugin registers."""
    plugin: bool = True
    """Whether the client has `HumanTasksPlugin`."""
    timer: bool = True
    """Whether a timer runs while the workflow waits. Otherwise its activity waits for completion from outside."""

    async def client(self, address: str) -> Client:
        return await Client.connect(address, plugins=self.plugins())

    def plugins(self) -> list[Any]:
        return [HumanTasksPlugin()] if self.plugin else []


def _ours(order: int, _: ServerAddresses) -> _workflows.Order:
    return _workflows.Order(order=order, amount=AMOUNT)


def _many(order: int, _: ServerAddresses) -> _workflows_many.Order:
    return _workflows_many.Order(order=order, amount=AMOUNT)


def _official(order: int, addresses: ServerAddresses) -> _workflows_official.Question:
    return _workflows_official.Question(order, AMOUNT, addresses.humans, addresses.token, addresses.receiver)


def _bare(order: int, _: ServerAddresses) -> int:
    return order


SIGNAL, ACTIVITY, OFFICIAL, BARE = "signal", "activity", "official", "bare"
NO_OP = {SIGNAL: "no-op", ACTIVITY: "no-op-activity"}
BY_HAND = {SIGNAL: "by-hand", ACTIVITY: "by-hand-activity"}
"""Workflows of the same shape for comparison: the activity does nothing, or makes hand-written HTTP calls."""
OWN_FILE: Mapping[str, str] = {SIGNAL: "signal-alone", ACTIVITY: "activity-alone"}
"""Each mode in a workflow file of its own."""
MANY = {SIGNAL: "many-signal", ACTIVITY: "many-activity"}
GATHER = {SIGNAL: "gather-signal", ACTIVITY: "gather-activity"}
"""Many questions in one workflow, by mode."""
GATHER_PLAIN, GATHER_BY_HAND = "gather-plain", "gather-by-hand"
"""The same number of activities for comparison. They ask no question or ask by hand."""
MODES = [SIGNAL, ACTIVITY]

SIDES: Mapping[str, Side] = {
    SIGNAL: Side(_workflows.AskBySignal, _ours),
    ACTIVITY: Side(_workflows.AskByActivity, _ours, timer=False),
    OFFICIAL: Side(_workflows_official.AskOfficially, _official, [awaithumans_create_task], plugin=False),
    BARE: Side(_workflows_bare.WaitForSignal, _bare, plugin=False),
    NO_OP[SIGNAL]: Side(_workflows.NoOpBySignal, _ours, [_by_hand.do_nothing]),
    BY_HAND[SIGNAL]: Side(_workflows.AskByHand, _ours, [_by_hand.ask_by_hand]),
    NO_OP[ACTIVITY]: Side(_workflows.NoOpByActivity, _ours, [_by_hand.do_nothing_until_completed], timer=False),
    BY_HAND[ACTIVITY]: Side(_workflows.AskByHandByActivity, _ours, [_by_hand.ask_by_hand_until_completed], timer=False),
    OWN_FILE[SIGNAL]: Side(_workflows_own_file.AskBySignal, _ours),
    OWN_FILE[ACTIVITY]: Side(_workflows_own_file.AskByActivity, _ours, timer=False),
    MANY[SIGNAL]: Side(_workflows_many.AskBySignal, _many, [_workflows_many.record_answer]),
    MANY[ACTIVITY]: Side(_workflows_many.AskByActivity, _many, [_workflows_many.record_answer], timer=False),
    GATHER[SIGNAL]: Side(_workflows_gather.GatherBySignal, _bare),
    GATHER[ACTIVITY]: Side(_workflows_gather.GatherByActivity, _bare, timer=False),
    GATHER_PLAIN: Side(_workflows_gather.GatherPlain, _bare, [_by_hand.do_nothing], plugin=False),
    GATHER_BY_HAND: Side(_workflows_gather.GatherByHand, _bare, [_by_hand.ask_one_by_hand], plugin=False),
}
