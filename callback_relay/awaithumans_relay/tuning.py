"""What suits a process that is a relay and nothing else; an application with a relay in it decides for itself."""

import gc
import sys

SWITCH_SECONDS = 0.0005
"""How soon a busy thread lets another one go on, a tenth of Python's default. Acknowledgements pass from the event loop
to the thread that writes and back.
"""


def tune() -> None:
    """Call this when everything is loaded."""
    gc.collect()
    gc.freeze()  # what is loaded stays: looking through it for garbage would hold up acknowledgements
    sys.setswitchinterval(SWITCH_SECONDS)
