"""The awaithumans server is killed while scripts wait."""

from tests.faults.faults import server_down
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="awaithumans server",
    fault="Killed while scripts wait, and down while new ones ask",
    result="The scripts connect again, and ask each question once.",
    during=server_down,
    caller="script",
    asks=True,
)
