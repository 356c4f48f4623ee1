"""Histories as releases have recorded them; every later release must be able to replay them.

    python -m tests.histories record        record those of this release that are not there yet

A release in which this is needed for another reason than a new case has changed the commands of a workflow: workflows
that wait when it is deployed would fail.
"""

from pathlib import Path

RELEASE = "0.1.0"
FOLDER = Path(__file__).parent


def recorded() -> list[Path]:
    """Every history of every release."""
    return sorted(FOLDER.glob("*/*.json"))
