"""People answer while no relay runs."""

from tests.faults.faults import relay_down
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="relay",
    fault="Killed, and not running while people answer and workflows ask",
    result="The server repeats its callbacks and the workflows their registrations; the sweep finds answers sooner.",
    during=relay_down,
    asks=True,
)
