"""The checkpoints cannot be reached while people answer."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="checkpointer",
    fault="Unreachable for the relay while people answer; the waits are reachable",
    result="The relay keeps the answers, and resumes each thread once when the checkpoints are back.",
    during=broken(lambda stage: stage.relay_to_checkpoints, "refuse"),
    caller="graph",
)
