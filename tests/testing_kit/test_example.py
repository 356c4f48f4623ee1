"""The tests that the examples show pass."""

from examples.test_temporal_refund import test_refund

__all__ = ["test_refund"]
