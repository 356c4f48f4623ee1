"""PostgreSQL's replies to the relay are lost."""

from tests.faults.faults import broken
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="network",
    fault="PostgreSQL's replies to the relay are lost: it does not learn what has been committed",
    result="What is not known to be saved is not acknowledged, and saving it again changes nothing.",
    during=broken(lambda stage: stage.relay_to_database, "lose replies"),
    postgres=True,
)
