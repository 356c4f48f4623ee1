"""The wall clock of a relay is set forward by a day, and back."""

from tests.faults.faults import clock_off
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="clock",
    fault="The relay's clock is set forward by a day while people answer, and back",
    result="No wait expires, and no answer is delayed by the step.",
    during=clock_off(86400),
)
