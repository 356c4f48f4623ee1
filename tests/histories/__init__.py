"""Recorded histories of releases, which every later release must be able to replay.

    python -m tests.histories record        record the missing histories of this release

If a release needs this for any reason other than a new case, it has changed the commands of a workflow, and workflows
that wait when it is deployed would fail.
"""

from pathlib import Path

RELEASE = "0.1.0"
FOLDER = Path(__file__).parent


def recorded() -> list[Path]:
    """Return every history of every release."""
    return sorted(FOLDER.glob("*/*.json"))
