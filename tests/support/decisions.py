"""The response class of tests in which the answer's shape does not matter.

It has no docstring of its own, because pydantic would write that into the schema that reviewers see.
"""

from pydantic import BaseModel


class Decision(BaseModel):
    approved: bool
