"""The error classes: their codes, facts and text, and the conversion of foreign errors."""

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import httpx
import pytest
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DataConverter
from temporalio.exceptions import ActivityError

import awaithumans_core.engine
from awaithumans_adapters.temporal.failures import failure, typed
from awaithumans_core import errors
from awaithumans_core.declared_facts import declared_facts
from awaithumans_core.errors import AwaitHumansError, SettingsError
from awaithumans_core.flow import Lost, Reply
from awaithumans_core.http.drivers import _lost
from awaithumans_core.outcome import Outcome
from awaithumans_core.settings import check_all
from awaithumans_relay.store.errors import StoreUnavailableError, public_reason

CODES = {
    "AnswererNotAllowedError": "ANSWERER_NOT_ALLOWED",
    "AuthenticationError": "UNAUTHENTICATED",
    "AwaitHumansError": "AWAITHUMANS_ERROR",
    "CallbackRejectedError": "CALLBACK_REJECTED",
    "EngineUnknownError": "ENGINE_UNKNOWN",
    "InvalidTaskError": "TASK_INVALID",
    "PermissionDeniedError": "PERMISSION_DENIED",
    "QuestionChangedError": "QUESTION_CHANGED",
    "QuestionEndedError": "QUESTION_ENDED",
    "RequestRefusedError": "REQUEST_REFUSED",
    "ResponseMissingError": "RESPONSE_MISSING",
    "ResponseSchemaError": "RESPONSE_INVALID",
    "ServerUnreachableError": "SERVER_UNREACHABLE",
    "SettingsError": "SETTINGS",
    "TargetBusy": "TARGET_BUSY",
    "TargetGone": "TARGET_GONE",
    "TargetNotReady": "TARGET_NOT_READY",
    "TaskCancelledError": "TASK_CANCELLED",
    "TaskNotFoundError": "TASK_NOT_FOUND",
    "TaskRejectedError": "TASK_REJECTED",
    "TaskTimeoutError": "TASK_TIMED_OUT",
    "TooManyWaitsError": "TOO_MANY_WAITS",
    "QuestionNotAskedError": "QUESTION_NOT_ASKED",
    "RelayNotReady": "RELAY_NOT_READY",
    "UnexpectedReplyError": "UNEXPECTED_REPLY",
    "VerificationExhaustedError": "VERIFICATION_EXHAUSTED",
}

FACTS: dict[str, Any] = {
    "task_id": "task-1",
    "outcome": Outcome(task_id="task-1", status="completed", response={"approved": True}),
    "problems": ("approved: Input should be a valid boolean",),
    "refused_fields": ("approved",),
    "differs": ("task", "assign_to"),
    "status_code": 404,
    "server_code": "TASK_NOT_FOUND",
    "from_api": False,
    "url": "/api/tasks",
    "attempts": 3,
    "http_status": 403,
    "retry_after": 2.5,
    "answered_by": "mallory@example.com",
    "allowed": ("anna@example.com",),
    "not_by": ("ben@example.com",),
    "missing": ("AWAITHUMANS_RELAY_URL",),
}

HTTPX_REQUEST_ERRORS = {
    "CloseError",
    "ConnectError",
    "ConnectTimeout",
    "DecodingError",
    "LocalProtocolError",
    "NetworkError",
    "PoolTimeout",
    "ProtocolError",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "TimeoutException",
    "TooManyRedirects",
    "TransportError",
    "UnsupportedProtocol",
    "WriteError",
    "WriteTimeout",
}


def ours(base: type[AwaitHumansError]) -> list[type[AwaitHumansError]]:
    below = [kind for child in base.__subclasses__() for kind in (child, *ours(child))]
    return sorted(
        {kind for kind in below if kind.__module__.startswith(awaithumans_core.__name__)},
        key=lambda kind: kind.__name__,
    )


def httpx_errors(base: type[httpx.RequestError]) -> list[type[httpx.RequestError]]:
    below = [kind for child in base.__subclasses__() for kind in (child, *httpx_errors(child))]
    return sorted({kind for kind in below if kind.__module__ == "httpx"}, key=lambda kind: kind.__name__)


def drawn_tree() -> dict[str, str]:
    """Return class name -> parent name, as the module docstring draws it."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"( +)(\w+Error)\b", line)
        if found is None:
            continue
        depth, name = len(found[1]), found[2]
        path = [(above, parent) for above, parent in path if above < depth]
        parents[name] = path[-1][1] if path else "Exception"
        path.append((depth, name))
    return parents


FAMILY: list[type[AwaitHumansError]] = [AwaitHumansError, *ours(AwaitHumansError)]
every_error = pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)


def test_error_codes_are_stable_and_unique() -> None:
    """Users match on codes, so none changes, none is added unnoticed and no two are equal."""
    assert {kind.__name__: kind.code for kind in FAMILY} == CODES
    assert len(set(CODES.values())) == len(CODES)


@every_error
def test_each_class_has_its_own_upper_case_code(kind: type[AwaitHumansError]) -> None:
    """Every class defines its own code in a form that is safe to log and to match on."""
    assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", vars(kind)["code"])


def facts_of(kind: type[AwaitHumansError]) -> dict[str, Any]:
    """Every fact that an error of this class declares, with a value that is not its default."""
    return {fact.name: FACTS[fact.name] for fact in declared_facts(kind)}


def through_temporal(error: AwaitHumansError) -> BaseException:
    """An error of an activity, as the workflow receives it after the failure was encoded and decoded."""
    return typed(received(failure(error, retried_for=0, attempt=1)))


def received(raised: BaseException) -> ActivityError:
    """What an activity has raised, as the workflow receives it."""
    converter, encoded = DataConverter.default, Failure()
    converter.failure_converter.to_failure(raised, converter.payload_converter, encoded)
    carried = Failure.FromString(encoded.SerializeToString())
    failed = ActivityError(
        "failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="",
        activity_id="",
        retry_state=None,
    )
    failed.__cause__ = converter.failure_converter.from_failure(carried, converter.payload_converter)
    return failed


@every_error
@pytest.mark.parametrize(
    "carry",
    [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy],  # noqa: S301 - our own bytes
    ids=["pickle", "copy", "deepcopy"],
)
def test_error_survives_pickling_and_copying_with_its_facts(
    kind: type[AwaitHumansError], carry: Callable[[AwaitHumansError], AwaitHumansError]
) -> None:
    """Type, text and every fact come through a pickle, as between processes, and through a copy."""
    facts = facts_of(kind)
    again = carry(kind("do this next", **facts))
    assert type(again) is kind
    assert str(again) == f"do this next [{kind.code}]"
    assert again.args == ("do this next",)
    assert {name: getattr(again, name) for name in facts} == facts


@pytest.mark.parametrize(
    "kind", [kind for kind in FAMILY if kind.__module__ == errors.__name__], ids=lambda kind: kind.__name__
)
def test_error_reaches_a_temporal_workflow_with_its_facts(kind: type[AwaitHumansError]) -> None:
    """Type, text and every fact of an activity's error reach the workflow, each fact in its declared form."""
    facts = facts_of(kind)
    again = through_temporal(kind("do this next", **facts))
    assert type(again) is kind
    assert str(again) == f"do this next [{kind.code}]"
    assert again.args == ("do this next",)
    assert {name: getattr(again, name) for name in facts} == facts


def test_error_with_unreadable_fact_reaches_a_temporal_workflow() -> None:
    """A fact in the form of another release is left out; the other facts and the type still arrive."""
    again = through_temporal(errors.TaskTimeoutError("too late", task_id="task-1", outcome={"of another": "release"}))
    assert type(again) is errors.TaskTimeoutError
    assert (again.task_id, again.outcome) == ("task-1", None)


@every_error
def test_code_is_shown_and_not_part_of_the_text(kind: type[AwaitHumansError]) -> None:
    """A log line or a traceback shows the code once, and code that reads or reuses the text is not affected by it."""
    error = kind("do this next")
    assert (str(error), error.text, error.args) == (f"do this next [{kind.code}]", "do this next", ("do this next",))
    assert repr(error) == f"{kind.__name__}('do this next')"
    assert str(kind(str(error))) == str(error)


@pytest.mark.parametrize(
    "kind", [kind for kind in FAMILY if kind.__module__ == errors.__name__], ids=lambda kind: kind.__name__
)
def test_code_is_not_doubled_by_an_activity_that_raises_the_error_itself(kind: type[AwaitHumansError]) -> None:
    """Temporal's converter takes the text of an error from `str`, so it has the code already."""
    again = typed(received(kind("do this next")))
    assert (type(again), str(again)) == (kind, f"do this next [{kind.code}]")


@pytest.mark.parametrize("retried_for", [0, 60])
def test_failure_in_a_history_has_the_text_without_the_code(retried_for: float) -> None:
    """The texts in histories are the same as in earlier releases."""
    raised = failure(SettingsError("set it"), retried_for=retried_for, attempt=1)
    assert "[SETTINGS]" not in raised.message
    assert raised.message.startswith("set it")


def test_store_error_shows_its_code() -> None:
    """An error of the relay's store looks like the others in a log, and its response has the code in a field."""
    error = StoreUnavailableError("the store has been stopped")
    assert str(error) == "the store has been stopped [STORE_UNAVAILABLE]"
    assert public_reason(error) == "the store has been stopped"


def test_several_wrong_settings_have_one_code() -> None:
    """Each wrong setting has its line, and the code is shown at the end."""

    def wrong(name: str) -> None:
        raise SettingsError(f"{name} is not set")

    with pytest.raises(SettingsError) as refused:
        check_all(partial(wrong, "A"), partial(wrong, "B"))
    assert str(refused.value) == "A is not set\nB is not set [SETTINGS]"


@every_error
def test_constructor_takes_exactly_the_declared_facts(kind: type[AwaitHumansError]) -> None:
    """Every fact that a class or one of its bases declares is a keyword argument, and nothing else is."""
    declared = {name for above in kind.__mro__ for name in vars(above).get("__annotations__", {})} - {"code", "message"}
    _, message, *facts = inspect.signature(kind.__init__).parameters.values()
    assert message.name == "message"
    assert {fact.name for fact in facts} == {fact.name for fact in declared_facts(kind)} == declared
    assert {fact.kind for fact in facts} == {inspect.Parameter.KEYWORD_ONLY}


@every_error
def test_default_of_a_fact_is_a_class_attribute(kind: type[AwaitHumansError]) -> None:
    """An error without facts has the defaults that its class shows."""
    assert kind("do this next").facts() == {}
    assert {fact.name: getattr(kind, fact.name) for fact in declared_facts(kind)} == vars(kind("do this next"))


@every_error
def test_undeclared_fact_is_refused(kind: type[AwaitHumansError]) -> None:
    """A misspelled fact fails at once, and at type checking, instead of being set as an attribute that no one reads."""
    misspelled: Any = {"task_idd": "task-1"}
    with pytest.raises(TypeError, match="task_idd"):
        kind("do this next", **misspelled)


@every_error
def test_tests_cover_every_fact(kind: type[AwaitHumansError]) -> None:
    """A fact that is added to an error is covered by the tests above."""
    declared = {name for above in kind.__mro__ for name in vars(above).get("__annotations__", {})} - {"code", "message"}
    assert declared <= FACTS.keys()


def test_drawn_tree_matches_the_classes() -> None:
    """The tree in the docstring names every error of the module below its true parent, and no other."""
    true_tree = {kind.__name__: kind.__bases__[0].__name__ for kind in FAMILY if kind.__module__ == errors.__name__}
    assert drawn_tree() == true_tree


def test_every_httpx_error_is_classified() -> None:
    """A request error that a new release of httpx adds is reviewed before it is retried."""
    assert {kind.__name__ for kind in httpx_errors(httpx.RequestError)} == HTTPX_REQUEST_ERRORS


@pytest.mark.parametrize(("said", "status"), [("407 Proxy Authentication Required", 407), ("403 Forbidden", 403)])
def test_proxy_refusal_counts_as_a_reply(said: str, status: int) -> None:
    """The refusal of a proxy is a reply like any other, so it is no outage and is not retried."""
    assert _lost(httpx.ProxyError(said)) == Reply(status, {}, b"")


@pytest.mark.parametrize(
    "kind",
    [kind for kind in httpx_errors(httpx.RequestError) if kind is not httpx.UnsupportedProtocol],
    ids=lambda kind: kind.__name__,
)
def test_request_error_becomes_a_lost_reply(kind: type[httpx.RequestError]) -> None:
    """Every failure of the connection is one case for a flow, and its text names the failure."""
    assert _lost(kind("went wrong")) == Lost(f"{kind.__name__}: went wrong")


def test_request_error_without_text_shows_its_class_name() -> None:
    """An error of httpx without a text is described by its class, and a timeout in words as well."""
    assert _lost(httpx.ReadTimeout("")) == Lost("ReadTimeout: no reply in time")
    assert _lost(httpx.ReadError("")) == Lost("ReadError")


def test_address_without_scheme_is_a_settings_error() -> None:
    """Retrying cannot turn `localhost:3001` into an address."""
    with pytest.raises(SettingsError, match="http://"):
        _lost(httpx.UnsupportedProtocol("Request URL is missing an 'http://' or 'https://' protocol."))


@every_error
def test_error_is_no_dataclass_to_a_serializer(kind: type[AwaitHumansError]) -> None:
    """A serializer that stores dataclasses by their fields would lose type and text. LangGraph's keeps them as text."""
    error = kind("do this next", **facts_of(kind))
    assert not is_dataclass(error)
    serde = JsonPlusSerializer()
    assert kind.__name__ in str(serde.loads_typed(serde.dumps_typed(error)))
    assert "do this next" in str(serde.loads_typed(serde.dumps_typed(error)))
