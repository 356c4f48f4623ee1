"""Test kit for code that asks people, without a server and without people.

    async with FakeHumans() as humans:
        humans.answer("Approve", {"approved": True}).after(3600)
        async with humans.client() as client: ...

or, for code that makes its own clients, the pytest fixture `fake_humans`. Needs the extra `testing`.
"""

try:
    from awaithumans_core.testing import faults
    from awaithumans_core.testing.callbacks import Delivery
    from awaithumans_core.testing.clock import VirtualClock
    from awaithumans_core.testing.fake import FakeHumans
    from awaithumans_core.testing.people import Script
    from awaithumans_core.testing.task_server_state import FakeTask
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"{missing.name} is not installed: pip install 'awaithumans-workflows[testing]'", name=missing.name
    ) from missing

__all__ = ["Delivery", "FakeHumans", "FakeTask", "Script", "VirtualClock", "faults"]
