"""What suits a process that is a relay and nothing else; an application with a relay in it decides for itself."""

import gc
import sys

SWITCH_SECONDS = 0.0005
"""How soon a busy thread lets another one go on, a tenth of Python's default. Acknowledgements pass from the event loop
to the thread that writes and back.
"""
GARBAGE_OBJECTS = 10_000
"""New objects between two looks for garbage, for Python's 700. Hundreds of deliveries under way are many objects, none
of them garbage, that were looked through again and again.
"""


def tune() -> None:
    """Call this when everything is loaded."""
    gc.collect()
    gc.freeze()  # what is loaded stays: looking through it for garbage would hold up acknowledgements
    gc.set_threshold(GARBAGE_OBJECTS)
    sys.setswitchinterval(SWITCH_SECONDS)
