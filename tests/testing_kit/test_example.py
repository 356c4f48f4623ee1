"""The tests that the examples show pass."""

from examples.test_langgraph_refund import test_refund as test_langgraph
from examples.test_script_refund import test_refund as test_script
from examples.test_temporal_refund import test_refund as test_temporal

__all__ = ["test_langgraph", "test_script", "test_temporal"]
