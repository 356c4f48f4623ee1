"""Hypothesis without deadlines, because a busy machine is not a failing property."""

from hypothesis import settings

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
