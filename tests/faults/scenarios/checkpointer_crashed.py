"""PostgreSQL, which has the checkpoints of graphs, crashes while people answer."""

from tests.faults.faults import postgres_crashed
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="checkpointer",
    fault="PostgreSQL with the checkpoints and the waits crashes, and is down while people answer",
    result="No node runs while its result could not be stored. Each thread is resumed once.",
    during=postgres_crashed,
    caller="graph",
)
