"""Interpreter settings for a process that is only a relay.

An application that includes a relay makes its own choice.
"""

import gc
import sys

SWITCH_SECONDS = 0.0005
"""Seconds after which a busy thread yields to another one, a tenth of Python's default.

Acknowledgements pass from the event loop to the thread that writes, and back.
"""
GARBAGE_OBJECTS = 10_000
"""New objects between two garbage collections; Python's default is 700.

Hundreds of deliveries under way are many objects, none of them garbage, that would be searched again and again.
"""


def tune() -> None:
    """Apply the settings. Call this when everything is loaded."""
    gc.collect()
    gc.freeze()  # what is loaded stays; searching it for garbage would delay acknowledgements
    gc.set_threshold(GARBAGE_OBJECTS)
    sys.setswitchinterval(SWITCH_SECONDS)
