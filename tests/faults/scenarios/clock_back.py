"""The wall clock of a relay is set back by a day, and forward."""

from tests.faults.faults import clock_off
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="clock",
    fault="The relay's clock is set back by a day while people answer, and forward",
    result="No answer waits for the day to pass.",
    during=clock_off(-86400),
)
