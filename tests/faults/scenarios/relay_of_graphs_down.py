"""People answer questions of LangGraph threads while no relay runs."""

from tests.faults.faults import relay_down
from tests.faults.scenario import Scenario

SCENARIO = Scenario(
    part="relay",
    fault="The relay that resumes LangGraph threads is killed, and not running while people answer",
    result="It resumes each thread once after its next start.",
    during=relay_down,
    caller="graph",
)
