"""PostgreSQL, which has the waits, crashes while people answer."""

from tests.faults.faults import postgres_crashed
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="PostgreSQL",
    fault="Crashes, and is down while people answer and workflows ask",
    result="The relay refuses callbacks and registrations with 503, so they are repeated.",
    during=postgres_crashed,
    postgres=True,
    asks=True,
)
