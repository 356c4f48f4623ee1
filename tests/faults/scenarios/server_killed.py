"""The awaithumans server is killed while workflows wait, and is down while new ones ask."""

from tests.faults.faults import server_down
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="awaithumans server",
    fault="Killed, and down while workflows ask",
    result="The new questions are asked, each once, when it is back. People who could not answer try again.",
    during=server_down,
    asks=True,
)
