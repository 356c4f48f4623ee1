"""The one object a Temporal user adds."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypedDict, cast

from temporalio import activity
from temporalio.client import ClientConfig
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter, DefaultPayloadConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import Interceptor, WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from awaithumans_adapters.temporal.activities import HumanTaskActivities
from awaithumans_adapters.temporal.failures import SettingErrors
from awaithumans_adapters.temporal.interceptor import HumanTasksInterceptor
from awaithumans_core.errors import AwaitHumansError, SettingsError
from awaithumans_core.settings import Settings

PASSED_THROUGH = ("awaithumans_core", "awaithumans_adapters")

_PROBE = {"text": "é", "number": 1, "list": [True, None, 2.5]}
"""The kind of value that goes over Temporal's wall: JSON."""


class WorkerSoFar(TypedDict, total=False):
    """What of a `WorkerConfig` is looked at here, with whole types."""

    activities: Sequence[Callable[..., Any]]
    interceptors: Sequence[Interceptor]


class HumanTasksPlugin(SimplePlugin):
    """Everything `await_human` needs, in one line on the client (its workers inherit it) or on a worker.

        client = await Client.connect("localhost:7233", plugins=[HumanTasksPlugin()])

    It registers the activities and the interceptor that carries open waits from run to run, lets workflows use pydantic
    models (a payload converter you have set stays), loads this package once instead of in every sandbox, and makes the
    errors of this package fail a workflow instead of suspending it.

    Args:
        settings: Default: read from the worker's environment when the first question is asked.
        setting_errors: What a wrong setting (an address, a token, a secret, a relay without Temporal) does to a
            workflow that asks. `"retry"`: it waits until the setting is corrected, and the Temporal UI names it; after
            `ask_within` (default: `timeout_seconds`) it fails with the typed error. `"fail"`: it fails at once.

    Raises:
        SettingsError: when the client or the worker is made: its converter does not carry JSON, or the activities are
            registered by somebody else, with other settings.
    """

    def __init__(self, settings: Settings | None = None, *, setting_errors: SettingErrors = "retry") -> None:
        self._activities = HumanTaskActivities(settings, setting_errors=setting_errors)
        super().__init__(  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            "awaithumans.HumanTasksPlugin",
            data_converter=_converter,
            interceptors=[HumanTasksInterceptor()],
            activities=self._activities.all(),
            workflow_runner=_runner,
            workflow_failure_exception_types=[AwaitHumansError],
        )

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        """As the SDK has it; looks whether the converter carries JSON."""
        configured = super().configure_client(config)
        _check(configured["data_converter"])
        return configured

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """As the SDK has it, once: a plugin given to a client and to its worker configures the worker twice."""
        registered = cast("WorkerSoFar", config)
        ours = {_name(function) for function in self._activities.all()}
        others = [function for function in registered.get("activities") or () if _name(function) in ours]
        if not others:
            return super().configure_worker(config)
        for function in others:
            owner = getattr(function, "__self__", None)
            if not isinstance(owner, HumanTaskActivities) or not self._activities.same_as(owner):
                raise SettingsError(
                    f"the activity {_name(function)!r} is registered already, and not with this plugin's settings: "
                    "give HumanTasksPlugin to the client or to the worker, once, and leave its activities out of "
                    "activities="
                )
        if not any(isinstance(each, HumanTasksInterceptor) for each in registered.get("interceptors") or ()):
            raise SettingsError("HumanTasksPlugin registers its activities itself: leave them out of activities=")
        return config


def _converter(given: DataConverter | None) -> DataConverter:
    converter = given or DataConverter.default
    if converter.payload_converter_class is not DefaultPayloadConverter:
        return converter
    return replace(converter, payload_converter_class=PydanticPayloadConverter)


def _check(converter: DataConverter) -> None:
    """Raise unless what goes over the wall comes out as it went in."""
    try:
        payloads = converter.payload_converter.to_payloads([_PROBE])
        (back,) = converter.payload_converter.from_payloads(payloads, [dict[str, Any]])
    except Exception as error:
        back = error
    if back != _PROBE:
        raise SettingsError(
            f"the client's payload converter ({converter.payload_converter_class.__name__}) does not carry JSON, which "
            f"questions and answers are: {back!r}. Let yours fall back to "
            "temporalio.contrib.pydantic.PydanticPayloadConverter"
        )


def _name(function: Callable[..., Any]) -> str | None:
    reader = activity._Definition  # pyright: ignore[reportPrivateUsage]  # the SDK offers no public reader
    definition = reader.from_callable(function)  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
    return definition.name if definition else None


def _runner(given: WorkflowRunner | None) -> WorkflowRunner:
    runner = given or SandboxedWorkflowRunner()
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    return replace(runner, restrictions=runner.restrictions.with_passthrough_modules(*PASSED_THROUGH))
