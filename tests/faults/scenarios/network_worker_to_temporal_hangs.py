"""The connection between worker and Temporal hangs."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="The connection between worker and Temporal hangs while people answer",
    result="Temporal keeps the delivered answers until a worker asks for them.",
    during=broken(lambda stage: stage.worker_to_temporal, "hang"),
)
