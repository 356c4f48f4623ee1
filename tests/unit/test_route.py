"""Routes: where an answer goes, how a token carries the route, and what is refused as a token or proof."""

import hashlib
import random
import secrets
import string
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given, reject
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from awaithumans_core.errors import CallbackRejectedError, SettingsError
from awaithumans_core.route import MAX_TOKEN_CHARS, Route, RouteSigner

SECRET, OLD_SECRET = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
ROUTE = Route("temporal", {"namespace": "default", "workflow_id": "refund-1"}, "question-1")
SIGNER = RouteSigner([SECRET])
TOKEN = SIGNER.issue(ROUTE)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
URL_SAFE = string.ascii_letters + string.digits + "-_."

words = st.text(max_size=20)
routes = st.builds(Route, words, st.dictionaries(words, words, max_size=3), words)


def forged(payload: Any, secret: str = SECRET) -> str:
    """Return a token with a correct signature and any payload."""
    serializer = URLSafeSerializer(
        secret, salt=b"awaithumans-route-v1", signer_kwargs={"digest_method": hashlib.sha256}
    )
    token = serializer.dumps(payload)
    return token.decode() if isinstance(token, bytes) else token


def assert_refused(token: str, signer: RouteSigner = SIGNER) -> None:
    with pytest.raises(CallbackRejectedError) as raised:
        signer.open(token)
    assert raised.value.http_status == 401


@given(routes)
def test_token_returns_its_route(route: Route) -> None:
    """A token returns exactly its route, whatever the ids contain."""
    assert SIGNER.open(SIGNER.issue(route)) == route


@given(routes)
def test_token_needs_no_quoting_in_a_url(route: Route) -> None:
    """Every character of a token is allowed in a path."""
    assert set(SIGNER.issue(route)) <= set(URL_SAFE)


long_routes = st.builds(
    Route, words, st.dictionaries(words, st.text(max_size=40).map(lambda text: text * 40), max_size=3), words
)


@given(routes | long_routes)
@example(Route("temporal", {"workflow_id": "refund-" * 300}, "q"))
@example(Route("temporal", {"workflow_id": "1" * 1024}, "q"))
@example(Route("", {}, ""))
def test_token_is_accepted_by_proxies(route: Route) -> None:
    """Rules against hidden files and parent folders refuse path parts that start or end with a dot or contain two."""
    try:
        token = SIGNER.issue(route)
    except SettingsError:
        reject()  # too long for any URL
    assert not token.startswith(".")
    assert not token.endswith(".")
    assert ".." not in token
    assert set(token) <= set(URL_SAFE)
    assert SIGNER.open(token) == route


def test_position_of_the_question_is_not_part_of_the_identity() -> None:
    """A question asked again at another checkpoint has the same route, in the token and in the proof."""
    placed = replace(ROUTE, asked_at={"": "1", "sub:2": "3"})
    assert placed == ROUTE
    assert placed.digest == ROUTE.digest
    assert SIGNER.open(SIGNER.issue(placed)).asked_at == placed.asked_at
    assert SIGNER.open_proof(SIGNER.prove(placed, "t"), "t").asked_at == placed.asked_at
    assert SIGNER.open(TOKEN).asked_at is None


def test_too_long_token_omits_the_position() -> None:
    """The engine can search for the position."""
    random_text = secrets.token_urlsafe(MAX_TOKEN_CHARS)
    assert SIGNER.open(SIGNER.issue(replace(ROUTE, asked_at={"": random_text}))).asked_at is None


def test_long_route_is_compressed() -> None:
    """A route that is too long for a URL is issued if its compressed form fits."""
    route = Route("temporal", {"workflow_id": "refund-" * 1000}, "q")
    assert len(SIGNER.issue(route)) < 300


@given(routes | long_routes)
@example(Route("temporal", {"workflow_id": "refund-" * 300}, "q"))
def test_token_of_an_earlier_release_is_accepted(route: Route) -> None:
    """Earlier releases issued tokens that start with a dot, and their answers may still arrive."""
    token = forged({"e": route.engine, "t": dict(route.target), "k": route.idempotency_key})
    assume(len(token) <= MAX_TOKEN_CHARS)
    assert SIGNER.open(token) == route


def test_earlier_tokens_of_these_tests_begin_with_a_dot() -> None:
    """The tokens above are those of earlier releases."""
    assert forged({"e": "temporal", "t": {"a": "b" * 100}, "k": "q"}).startswith(".")


def test_trace_is_carried_beside_the_route() -> None:
    """A token returns the trace with the route, and the trace is not part of the route's identity."""
    traced = replace(ROUTE, traceparent=TRACEPARENT)
    opened = SIGNER.open(SIGNER.issue(traced))
    assert opened.traceparent == TRACEPARENT
    assert (opened, opened.digest) == (ROUTE, ROUTE.digest)
    assert SIGNER.open(TOKEN).traceparent is None


@pytest.mark.parametrize("caller", [{"run_id": "1", "user": "alice"}, None])
def test_caller_data_is_carried_beside_the_route(caller: dict[str, str] | None) -> None:
    """It is not part of the route's identity, may be missing in earlier tokens, and must be a mapping."""
    route = replace(ROUTE, caller=caller)
    opened = SIGNER.open(SIGNER.issue(route))
    assert (opened.caller, opened.digest) == (caller, ROUTE.digest)
    assert SIGNER.open_proof(SIGNER.prove(route, "task"), "task").caller == caller
    assert SIGNER.open(TOKEN).caller is None
    assert SIGNER.open(forged({"e": "temporal", "t": {"a": "b"}, "k": "q", "u": "alice"})).caller is None


@pytest.mark.parametrize("encoded", [True, False, None])
def test_encoding_mark_is_carried_beside_the_route(encoded: bool | None) -> None:  # noqa: FBT001
    """The mark is not part of the route's identity, and tokens of earlier releases lack it."""
    opened = SIGNER.open(SIGNER.issue(replace(ROUTE, encoded=encoded)))
    assert opened.encoded is encoded
    assert (opened, opened.digest) == (ROUTE, ROUTE.digest)
    assert SIGNER.open(forged({"e": "temporal", "t": {"a": "b"}, "k": "q", "c": 1})).encoded is None


@pytest.mark.parametrize("held", [7, "x" * 56, ["00"]], ids=["number", "too-long", "list"])
def test_invalid_trace_is_left_out(held: Any) -> None:
    """A signed trace that is invalid does not cost the answer."""
    opened = SIGNER.open(forged({"e": "temporal", "t": {"a": "b"}, "k": "q", "p": held}))
    assert (opened.engine, opened.traceparent) == ("temporal", None)


def test_long_route_omits_its_trace() -> None:
    """If the token would be too long for a URL, it is issued without the trace."""
    long_id = random.Random(7).randbytes(2590).hex()  # noqa: S311 - what does not compress well
    route = Route("temporal", {"workflow_id": long_id}, "k", TRACEPARENT)
    assert MAX_TOKEN_CHARS - 20 < len(SIGNER.issue(replace(route, traceparent=None))) <= MAX_TOKEN_CHARS
    assert SIGNER.open(SIGNER.issue(route)).traceparent is None


def test_forged_tokens_have_a_correct_signature() -> None:
    """The refusals below are not caused by a bad signature."""
    assert SIGNER.open(forged({"e": "temporal", "t": {"a": "b"}, "k": "q"})) == Route("temporal", {"a": "b"}, "q")


def test_both_secrets_are_accepted_during_rotation() -> None:
    """Tokens that were issued before stay valid while the secret changes."""
    both = RouteSigner([SECRET, OLD_SECRET])
    assert both.open(RouteSigner([OLD_SECRET]).issue(ROUTE)) == ROUTE
    assert both.open(TOKEN) == ROUTE


def test_first_secret_signs_during_rotation() -> None:
    """A new token is valid for the new secret only."""
    assert SIGNER.open(RouteSigner([SECRET, OLD_SECRET]).issue(ROUTE)) == ROUTE


def test_old_secret_is_refused_after_rotation() -> None:
    """A removed secret verifies nothing."""
    assert_refused(RouteSigner([OLD_SECRET]).issue(ROUTE))


@given(st.text())
@example("")
@example(".")
@example("..")
@example("e30.e30")
@example(TOKEN + "é")
@example(TOKEN + "\ud800")
@example("٣" * 40)
def test_any_other_text_is_refused(token: str) -> None:
    """Any other text in the URL ends in the same 401."""
    assume(token != TOKEN)
    assert_refused(token)


@pytest.mark.parametrize(
    "token",
    [TOKEN + "=", TOKEN + "!!!!", TOKEN + "\n", TOKEN + "\r\n\r\n", TOKEN + "\x00", " " + TOKEN, TOKEN + TOKEN],
    ids=["padding", "foreign characters", "line end", "line ends", "zero", "blank", "itself"],
)
def test_token_with_additions_is_refused(token: str) -> None:
    """A token is exactly what was issued, although base64 decoders skip foreign characters."""
    assert_refused(token)


@given(st.integers(0, len(TOKEN) - 2), st.sampled_from(URL_SAFE))
def test_token_with_one_changed_character_is_refused(place: int, character: str) -> None:
    """No part of a token is optional, except two bits of the last character that base64 itself ignores."""
    assume(TOKEN[place] != character)
    assert_refused(TOKEN[:place] + character + TOKEN[place + 1 :])


@pytest.mark.parametrize("length", range(len(TOKEN)))
def test_truncated_token_is_refused(length: int) -> None:
    """A token that lost its end is refused at every length."""
    assert_refused(TOKEN[:length])


def test_parts_of_two_tokens_cannot_be_combined() -> None:
    """A signature is valid for one payload only."""
    other = SIGNER.issue(Route("temporal", {"namespace": "default", "workflow_id": "refund-2"}, "question-1"))
    assert_refused(f"{other.rpartition('.')[0]}.{TOKEN.rpartition('.')[2]}")


@pytest.mark.parametrize("salt", [b"itsdangerous", b"", b"awaithumans-route-v2"], ids=str)
def test_token_for_another_purpose_is_refused(salt: bytes) -> None:
    """Another use of the same secret makes no tokens for the relay."""
    held = {"e": "temporal", "t": {"workflow_id": "refund-1"}, "k": "question-1"}
    token = URLSafeSerializer(SECRET, salt=salt, signer_kwargs={"digest_method": hashlib.sha256}).dumps(held)
    assert_refused(str(token))


@pytest.mark.parametrize(
    "payload",
    [
        None,
        7,
        "temporal",
        [],
        {},
        {"e": "temporal", "t": {"a": "b"}},
        {"e": "temporal", "k": "q"},
        {"t": {"a": "b"}, "k": "q"},
        {"e": 1, "t": {"a": "b"}, "k": "q"},
        {"e": "temporal", "t": {"a": "b"}, "k": None},
        {"e": "temporal", "t": ["a", "b"], "k": "q"},
        {"e": "temporal", "t": "a", "k": "q"},
    ],
    ids=str,
)
def test_correctly_signed_payload_that_is_no_route_is_refused(payload: Any) -> None:
    """A payload that is not a route is refused like any invalid token."""
    assert_refused(forged(payload))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | words,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["e", "t", "k", "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_signed_payload_is_a_route_of_text_or_refused(payload: Any) -> None:
    """A route that is accepted consists of text, and anything else ends in the 401."""
    try:
        route = SIGNER.open(forged(payload))
    except CallbackRejectedError as refused:
        assert refused.http_status == 401  # noqa: PT017 - either end is right, each in its own way
    else:
        held = [route.engine, route.idempotency_key, *route.target, *route.target.values()]
        assert all(isinstance(part, str) for part in held)


def test_too_long_token_is_refused_unread() -> None:
    """A token longer than any issued one is refused without reading it, even with a correct signature."""
    noise = random.Random(1)  # noqa: S311 - only to be incompressible
    key = "".join(noise.choices(URL_SAFE, k=MAX_TOKEN_CHARS))
    token = forged({"e": "temporal", "t": {}, "k": key})
    assert len(token) > MAX_TOKEN_CHARS
    assert_refused(token)


def test_too_long_route_is_not_issued() -> None:
    """The caller gets an error at once instead of losing the callback to a truncated URL."""
    noise = random.Random(1)  # noqa: S311 - only to be incompressible
    key = "".join(noise.choices(URL_SAFE, k=MAX_TOKEN_CHARS))
    with pytest.raises(SettingsError, match="too long for a URL"):
        SIGNER.issue(Route("temporal", {}, key))


def test_longest_issued_route_is_accepted() -> None:
    """An issued token is never refused for its length."""
    noise = random.Random(1)  # noqa: S311 - only to be incompressible
    issued = 0
    for size in range(3900, 4300, 4):
        route = Route("temporal", {}, "".join(noise.choices(URL_SAFE, k=size)))
        try:
            token = SIGNER.issue(route)
        except SettingsError:
            break
        assert SIGNER.open(token) == route
        issued += 1
    assert 0 < issued < 100


def test_target_has_one_text_form() -> None:
    """The relay finds rows by this text, so it is as stable as the digest made of it."""
    assert ROUTE.target_id == '{"namespace":"default","workflow_id":"refund-1"}'


def test_order_of_target_values_has_no_effect() -> None:
    """Two orders of the same values are the same target."""
    turned = Route("temporal", {"workflow_id": "refund-1", "namespace": "default"}, "question-1")
    assert turned.target_id == ROUTE.target_id
    assert turned.digest == ROUTE.digest


@pytest.mark.parametrize(
    "other",
    [
        Route("langgraph", ROUTE.target, ROUTE.idempotency_key),
        Route(ROUTE.engine, {"namespace": "default", "workflow_id": "refund-2"}, ROUTE.idempotency_key),
        Route(ROUTE.engine, {"namespace": "default", "thread_id": "refund-1"}, ROUTE.idempotency_key),
        Route(ROUTE.engine, {"workflow_id": "refund-1"}, ROUTE.idempotency_key),
        Route(ROUTE.engine, ROUTE.target, "question-2"),
    ],
    ids=["engine", "target value", "target name", "target size", "key"],
)
def test_different_routes_have_different_digests(other: Route) -> None:
    """Engine, target and key together identify a wait."""
    assert other.digest != ROUTE.digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Route("e", {"a": "b"}, "{}\nq"), Route('e\n{"a":"b"}', {}, "q")),
        (Route("e", {"a": 'b","c":"d'}, "q"), Route("e", {"a": "b", "c": "d"}, "q")),
    ],
    ids=["line breaks", "quotes"],
)
def test_ids_with_separators_do_not_collide(one: Route, other: Route) -> None:
    """Ids that contain the separator make no two routes equal."""
    assert one.digest != other.digest


@given(routes, routes)
def test_digests_are_equal_for_equal_routes_only(one: Route, other: Route) -> None:
    """The digest is an identity of fixed size."""
    assert (one.digest == other.digest) is (one == other)
    assert len(one.digest) == 32
    assert set(one.digest) <= set(string.hexdigits.lower())


GUESSABLE = {
    "none": [],
    "empty": [""],
    "31 characters": [secrets.token_hex(16)[:31]],
    "one character": ["s" * 64],
    "one word": ["changeme" * 8],
    "a short old one": [SECRET, secrets.token_hex(8)],
}


@pytest.mark.parametrize("kind", GUESSABLE)
def test_guessable_secret_is_refused(kind: str) -> None:
    """A short or repetitive secret is refused, and the error shows how to generate one without repeating it."""
    given_ = GUESSABLE[kind]
    with pytest.raises(SettingsError, match="AWAITHUMANS_RELAY_SECRET") as raised:
        RouteSigner(given_)
    assert "secrets.token_urlsafe(32)" in str(raised.value)
    assert not any(secret and secret in str(raised.value) for secret in given_)


def test_error_about_an_old_secret_names_its_position() -> None:
    """The error names the refused secret's position and explains the effect on questions asked with it."""
    with pytest.raises(SettingsError) as raised:
        RouteSigner([SECRET, secrets.token_hex(8)])
    assert "(number 2 of 2) has 16 characters" in str(raised.value)
    assert "leave it out" in str(raised.value)


def test_secret_of_32_characters_is_accepted() -> None:
    """This is the shortest accepted secret."""
    shortest = secrets.token_hex(16)
    assert RouteSigner([shortest]).open(RouteSigner([shortest]).issue(ROUTE)) == ROUTE


def test_repr_shows_no_secret() -> None:
    """The representation of a signer in a log or traceback hides its secrets."""
    assert SECRET not in repr(SIGNER)
    assert SECRET not in str(SIGNER)


def test_token_contains_no_secret() -> None:
    """Proxies and logs see tokens, which contain ids and not the secret that signs them."""
    held: Mapping[str, Any] = URLSafeSerializer("anything").loads_unsafe(TOKEN)[1]
    assert held == {"e": ROUTE.engine, "t": ROUTE.target, "k": ROUTE.idempotency_key}


# --- proofs


@given(routes, st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True))
def test_proof_is_valid_for_its_task_only(route: Route, task_id: str | None) -> None:
    """A proof for one task is refused for another task, for asking, and as a callback URL."""
    proof = SIGNER.prove(route, task_id)
    assert SIGNER.open_proof(proof, task_id) == route
    for other in {None, "task-2", "", f"{task_id}x"} - {task_id}:
        with pytest.raises(CallbackRejectedError) as refused:
            SIGNER.open_proof(proof, other)
        assert refused.value.http_status == 401
    assert_refused(proof)


@pytest.mark.parametrize("task_id", [None, "task-1", ""], ids=repr)
def test_callback_token_is_no_proof_of_a_wait(task_id: str | None) -> None:
    """Many parties read a callback URL, so its token neither registers nor reads a wait."""
    for token in (TOKEN, forged({"e": "temporal", "t": {}, "k": "q", "w": task_id})):
        with pytest.raises(CallbackRejectedError) as refused:
            SIGNER.open_proof(token, task_id)
        assert refused.value.http_status == 401


@given(st.text() | st.text(URL_SAFE))
@example(TOKEN)
@example("e30.e30")
def test_any_other_bearer_is_refused(text: str) -> None:
    """Any other bearer ends in the same 401."""
    for task_id in (None, "task-1"):
        with pytest.raises(CallbackRejectedError) as refused:
            SIGNER.open_proof(text, task_id)
        assert refused.value.http_status == 401


def test_proofs_of_both_secrets_are_accepted_during_rotation() -> None:
    """While the secret changes, old and new proofs are accepted, and the first secret signs."""
    both, old = RouteSigner([SECRET, OLD_SECRET]), RouteSigner([OLD_SECRET])
    assert both.open_proof(old.prove(ROUTE, "task-1"), "task-1") == ROUTE
    assert SIGNER.open_proof(both.prove(ROUTE, "task-1"), "task-1") == ROUTE
    with pytest.raises(CallbackRejectedError):
        SIGNER.open_proof(old.prove(ROUTE, "task-1"), "task-1")


def test_longest_route_with_a_token_has_proofs() -> None:
    """Proofs exist for the longest route, too, with the longest task id and a trace."""
    noise = random.Random(1)  # noqa: S311 - only to be incompressible
    proven = 0
    for size in range(2900, 3300, 2):
        route = Route("temporal", {}, "".join(noise.choices(URL_SAFE, k=size)), TRACEPARENT)
        try:
            SIGNER.issue(route)
        except SettingsError:
            break
        assert SIGNER.open_proof(SIGNER.prove(route, "t" * 64), "t" * 64) == route
        proven += 1
    assert proven > 0
