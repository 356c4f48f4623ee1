"""Temporal is killed while people answer questions asked with `via="activity"`."""

from tests.faults.faults import temporal_down
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="Temporal",
    fault='The same, for questions asked with `via="activity"`',
    result="The relay keeps the answers, and completes the activities when Temporal is back.",
    during=temporal_down,
    caller="activity",
)
