"""Temporal is killed while people answer."""

from tests.faults.faults import temporal_down
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="Temporal",
    fault="Killed, and down while people answer",
    result="The relay keeps the answers, and delivers them when Temporal is back.",
    during=temporal_down,
)
