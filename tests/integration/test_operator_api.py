"""Operator endpoints over HTTP: list and redrive waits by API and by page, and refuse everyone else."""

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncGenerator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from itsdangerous import TimestampSigner
from pydantic import SecretStr

from awaithumans_core import Engine, Outcome, Route, Settings, SettingsError, TargetGone
from awaithumans_core.signing import derive_webhook_key, sign
from awaithumans_relay import create_app, create_router
from awaithumans_relay.dispatch.dispatcher import TICK_SECONDS
from awaithumans_relay.store import WaitState
from tests.support import hostile
from tests.support.engines import CollectingEngine
from tests.support.relay import RunningRelay, settings_for
from tests.support.servers import TaskServer

TOKEN = secrets.token_urlsafe(32)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"' {{ 7 * 7 }}"
SHOWN = f"{HOSTILE} [TARGET_GONE]"


class FailingEngine(CollectingEngine):
    """Fail every delivery until repaired; distinguishes a redrive from a delivery."""

    def __init__(self) -> None:
        super().__init__()
        self.mended = False
        self.redriven: list[str] = []

    async def deliver(self, route: Route, outcome: Outcome) -> None:
        if not self.mended:
            raise TargetGone(HOSTILE)
        await super().deliver(route, outcome)

    async def redrive(self, route: Route, outcome: Outcome) -> None:
        self.redriven.append(outcome.task_id)
        await self.deliver(route, outcome)


@pytest.fixture
def relay_settings(task_server: TaskServer) -> Settings:
    settings = settings_for(task_server, "http://127.0.0.1:1")
    return settings.model_copy(update={"relay_operator_token": SecretStr(TOKEN)})


@pytest.fixture
async def engine() -> FailingEngine:
    return FailingEngine()


@pytest.fixture
async def stranger(relay: RunningRelay) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=relay.url) as http:
        yield http


@pytest.fixture
async def operator(relay: RunningRelay) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=relay.url, headers={"Authorization": f"Bearer {TOKEN}"}) as http:
        yield http


@pytest.fixture
async def browser(relay: RunningRelay) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=relay.url, auth=("anybody", TOKEN), follow_redirects=True) as http:
        yield http


async def answered(
    relay: RunningRelay, *task_ids: str, engine: str = "shelf", status: str = "completed", then: str = "parked"
) -> None:
    """Return waits whose answer has been called back and parked."""
    signer, key = relay.settings.signer(), derive_webhook_key(relay.settings.payload_key[0].get_secret_value())
    async with httpx.AsyncClient(base_url=relay.url) as http:
        for task_id in task_ids:
            body = json.dumps(
                {"task_id": task_id, "idempotency_key": task_id, "status": status, "response": {"secret": "yes"}}
            ).encode()
            token = signer.issue(Route(engine, {"place": task_id}, task_id))
            sent = await http.post(
                f"/callbacks/{token}", content=body, headers={"X-Awaithumans-Signature": sign(body, key)}
            )
            assert sent.status_code == 200
            if engine != "shelf":  # this relay does not deliver for that engine
                (wait,) = await relay.store.leases.acquire(engine, "test", limit=1, seconds=5)
                await relay.store.leases.park(wait, "test", reason="gone")
            await relay.wait_for(task_id, then)


class Page(HTMLParser):
    """The parsed page: its texts, links, forms with their fields, and the name of every element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.links: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = dict(attrs)
        self.elements.append((tag, has))
        if tag == "a":
            self.links.append(has["href"] or "")
        if tag == "form":
            self.forms.append({"method": has.get("method") or "get"})
        if tag in ("input", "button", "select") and (name := has.get("name")):
            self.forms[-1][name] = has.get("value") or ""

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def redrives(self) -> list[dict[str, str]]:
        return [{k: v for k, v in form.items() if k != "method"} for form in self.forms if form["method"] == "post"]


DOORS = [
    ("GET", "/waits"),
    ("GET", "/waits?limit=nonsense"),
    ("POST", "/waits/redrive"),
    ("POST", "/waits/task-1/redrive"),
    ("GET", "/operate"),
    ("POST", "/operate"),
]


def proof(of: str = TOKEN, says: str = "redrive", hours_old: int = 0) -> str:
    """Return the hidden proof of our forms, or an altered one."""

    class Then(TimestampSigner):
        def get_timestamp(self) -> int:
            return super().get_timestamp() - hours_old * 3600

    return Then(of, salt="awaithumans-relay-form-v1").sign(says).decode()


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


async def test_requests_without_the_token_get_401(relay: RunningRelay, stranger: httpx.AsyncClient) -> None:
    """Without the token, or with an altered one, every endpoint replies the same, and nothing happens."""
    await answered(relay, "task-1")
    like_it = [f"Bearer {TOKEN}x", "Bearer", "Bearer é", basic(f"{TOKEN}:"), basic(TOKEN), "Basic %", TOKEN, ""]
    headers = [{}, *[{b"Authorization": header.encode()} for header in like_it]]
    asked = [stranger.request(method, path, headers=each) for method, path in DOORS for each in headers]
    for reply in await asyncio.gather(*asked):  # all at once, because each refusal is delayed
        assert (reply.status_code, reply.json()) == (401, {"error": "UNAUTHORISED", "message": "not authorised"})
    assert await relay.store.queries.counts() == {"parked": 1}


async def test_without_a_configured_token_every_request_is_refused(relay_settings: Settings, tmp_path: Path) -> None:
    """A relay without an operator token has no operator, and its replies do not reveal that."""
    closed = relay_settings.model_copy(update={"relay_operator_token": None})
    app = create_app([], settings=closed, database=f"sqlite:///{tmp_path / 'waits.db'}")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://relay") as http:
        asked = [
            http.request(method, path, headers={"Authorization": header})
            for method, path in DOORS
            for header in ("Bearer ", "Bearer None", basic(":"), basic(":None"))
        ]
        for reply in await asyncio.gather(*asked):
            assert (reply.status_code, reply.json()["error"]) == (401, "UNAUTHORISED")


@pytest.mark.parametrize("token", ["short", "ä" * 20, "with\na newline in it"])
def test_weak_operator_token_is_refused(relay_settings: Settings, token: str) -> None:
    """A token that is guessable or invalid in a header is a settings error that does not repeat it."""
    poor = relay_settings.model_copy(update={"relay_operator_token": SecretStr(token)})
    with pytest.raises(SettingsError, match="AWAITHUMANS_RELAY_OPERATOR_TOKEN") as refused:
        create_app([], settings=poor)
    assert token not in str(refused.value)
    assert token not in repr(poor)


async def test_listing_omits_the_answers(relay: RunningRelay, operator: httpx.AsyncClient) -> None:
    """A listed wait has target, state, reason and times, and nothing of the answer."""
    await answered(relay, "task-1")
    await relay.store.intake.register("task-2", Route("shelf", {"place": "there"}, "question-2"), 900)
    reply = await operator.get("/waits")
    assert "secret" not in reply.text
    assert reply.json()["counts"] == {"open": 1, "answered": 0, "delivered": 0, "parked": 1}
    newest, parked = reply.json()["waits"]
    assert (newest["task_id"], newest["state"], newest["answered_at"]) == ("task-2", "open", None)
    assert {name: parked[name] for name in ("task_id", "engine", "target", "state", "last_error", "found_by")} == {
        "task_id": "task-1",
        "engine": "shelf",
        "target": {"place": "task-1"},
        "state": "parked",
        "last_error": SHOWN,
        "found_by": "callback",
    }
    assert parked["review_url"] == relay.settings.review_url("task-1")
    assert parked["answered_at"].endswith("Z")
    assert parked["attempts"] == 1


async def test_listing_is_filtered_and_paged(relay: RunningRelay, operator: httpx.AsyncClient) -> None:
    """The listing can be filtered by several states and by engine, and is paged."""
    await answered(relay, "a", "b", "c")
    await answered(relay, "d", engine="other")

    async def listed(**query: Any) -> list[str]:
        return [wait["task_id"] for wait in (await operator.get("/waits", params=query)).json()["waits"]]

    assert await listed() == ["d", "c", "b", "a"]
    assert await listed(limit=2, offset=1) == ["c", "b"]
    assert await listed(engine="other") == ["d"]
    assert await listed(state=["open", "delivered"]) == []
    assert await listed(state=["open", "parked"], engine="shelf") == ["c", "b", "a"]


@pytest.mark.parametrize(
    "query", ["state=lost", "limit=0", "limit=501", "offset=-1", "offset=1" + "0" * 20, "engine=%00"]
)
async def test_listing_with_impossible_parameters_is_refused(operator: httpx.AsyncClient, query: str) -> None:
    """Parameters that no database can take are refused with 422."""
    assert (await operator.get(f"/waits?{query}")).status_code == 422


async def test_redrive_is_delivered_at_once_as_a_redrive(
    relay: RunningRelay, operator: httpx.AsyncClient, engine: FailingEngine
) -> None:
    """A redriven answer does not wait for the next tick, and the engine learns that it is a redrive."""
    await answered(relay, "task-1", "task-2")
    engine.mended = True
    began = time.monotonic()
    assert (await operator.post("/waits/task-1/redrive")).json() == {"redriven": 1}
    await relay.wait_for("task-1", "delivered")
    assert time.monotonic() - began < TICK_SECONDS
    assert engine.redriven == ["task-1"]
    await relay.wait_for("task-2", "parked")
    assert (await operator.post("/waits/task-1/redrive")).json() == {"redriven": 0}


async def test_delivery_after_a_redrive_is_an_ordinary_one(
    relay: RunningRelay, operator: httpx.AsyncClient, engine: FailingEngine
) -> None:
    """A redrive applies once; the answer to a caller that registers again is an ordinary delivery."""
    await answered(relay, "task-1")
    await operator.post("/waits/task-1/redrive")
    await relay.wait_for("task-1", "parked")
    assert engine.redriven == ["task-1"]
    engine.mended = True
    proof = relay.settings.signer().prove(Route("shelf", {"place": "task-1"}, "task-1"), "task-1")
    asker = {"Authorization": f"Bearer {proof}"}
    registered = await operator.put("/waits/task-1", json={"timeout_seconds": 900}, headers=asker)
    assert registered.json() == {"state": "answered"}
    await relay.wait_for("task-1", "delivered")
    assert engine.redriven == ["task-1"]


async def test_redrive_of_an_unknown_task_is_404(operator: httpx.AsyncClient) -> None:
    """A mistyped id gives another status than a wait that is not parked."""
    assert (await operator.post("/waits/nobody/redrive")).json()["error"] == "WAIT_NOT_FOUND"


async def test_redrive_selects_one_engine_or_all(
    relay: RunningRelay, operator: httpx.AsyncClient, engine: FailingEngine
) -> None:
    """A redrive takes every parked wait, or those of one engine."""
    await answered(relay, "a", "b")
    await answered(relay, "c", engine="other")
    engine.mended = True
    assert (await operator.post("/waits/redrive", params={"engine": "shelf"})).json() == {"redriven": 2}
    await engine.until(2)
    await relay.wait_for("c", "parked")
    assert (await operator.post("/waits/redrive")).json() == {"redriven": 1}


async def test_page_shows_hostile_errors_as_text(relay: RunningRelay, browser: httpx.AsyncClient) -> None:
    """An error text is escaped: it becomes no element and no attribute, and is not evaluated."""
    await answered(relay, "task-1")
    reply = await browser.get("/operate")
    page = Page(reply.text)
    assert SHOWN in page.texts
    assert {tag for tag, _ in page.elements} & {"script", "img", "iframe", "object", "embed"} == set()
    assert not any(name.startswith("on") for _, has in page.elements for name in has)
    assert "secret" not in reply.text


async def test_page_shows_no_hidden_characters(relay: RunningRelay, browser: httpx.AsyncClient) -> None:
    """A target named by a workflow's author or a model cannot reverse or hide what an operator reads."""
    name = hostile.ALL.replace("\x00", "").replace("\ud800", "")  # characters that a database can store
    await relay.store.intake.register("task-1", Route("shelf", {"place": name}, "k"), 900)
    page = Page((await browser.get("/operate")).text)
    (shown,) = [text for text in page.texts if "owned" in text]
    assert hostile.hidden(shown) == set()
    assert hostile.hidden("".join(page.texts), allowed="\n") == set()


async def test_page_has_strict_security_headers(relay: RunningRelay, browser: httpx.AsyncClient) -> None:
    """The page has no script, external resource, frame, cache or token."""
    reply = await browser.get("/operate")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-store"
    assert TOKEN not in reply.text
    sources = [has.get("src") or has.get("href") or "" for tag, has in Page(reply.text).elements if tag != "a"]
    assert all(source.startswith("data:") for source in sources if source)


async def test_page_is_accessible(relay: RunningRelay, browser: httpx.AsyncClient) -> None:
    """Language, title, table heads and buttons are labelled for screen readers."""
    await answered(relay, "task-1")
    elements = Page((await browser.get("/operate?engine=shelf")).text).elements
    has: dict[str, list[dict[str, str | None]]] = {}
    for tag, attributes in elements:
        has.setdefault(tag, []).append(attributes)
    assert has["html"] == [{"lang": "en"}]
    assert {"main", "header", "footer", "h1", "caption", "title"} <= has.keys()
    assert all(head["scope"] == "col" for head in has["th"])
    assert [label["for"] for label in has["label"]] == [select["id"] for select in has["select"]]
    assert "Redrive task task-1" in [button.get("aria-label") for button in has["button"]]


async def test_page_links_to_the_question_and_filters(relay: RunningRelay, browser: httpx.AsyncClient) -> None:
    """Counts are filters, and a task links to its review page."""
    await answered(relay, "task-1")
    await relay.store.intake.register("task-2", Route("shelf", {}, "question-2"), 900)
    page = Page((await browser.get("/operate")).text)
    assert relay.settings.review_url("task-1") in page.links
    assert "?state=parked" in page.links
    parked = Page((await browser.get("/operate?state=parked")).text)
    assert "task-1" in parked.texts
    assert "task-2" not in parked.texts


async def test_filter_form_shows_every_engine(
    relay: RunningRelay, browser: httpx.AsyncClient, operator: httpx.AsyncClient, engine: FailingEngine
) -> None:
    """Choosing "every engine" and pressing "Show" lists every engine's waits, and a redrive from there takes all."""
    await answered(relay, "task-1")
    await answered(relay, "task-2", engine="other")
    (form,) = [f for f in Page((await browser.get("/operate?engine=shelf")).text).forms if f["method"] == "get"]
    fields = {name: value for name, value in form.items() if name != "method"}
    assert fields == {"engine": ""}
    for query in (fields, {"state": "", "engine": ""}):
        reply = await browser.get("/operate", params=query)
        page = Page(reply.text)
        assert {"task-1", "task-2"} <= set(page.texts)
        listed = (await operator.get("/waits", params=query)).json()
        assert [wait["task_id"] for wait in listed["waits"]] == ["task-2", "task-1"]
        assert listed["counts"]["parked"] == 2
    engine.mended = True
    (form,) = [f for f in page.redrives() if f.get("all")]
    sent = await browser.post(str(reply.url), data=form)
    assert str(sent.url).endswith("/operate?redriven=2")
    assert (await operator.post("/waits/redrive?engine=")).json() == {"redriven": 0}
    await relay.wait_for("task-1", "delivered")


async def test_redrive_with_an_empty_engine_takes_all(
    relay: RunningRelay, operator: httpx.AsyncClient, engine: FailingEngine
) -> None:
    """An empty engine means no filter, as in a listing."""
    await answered(relay, "task-1")
    engine.mended = True
    assert (await operator.post("/waits/redrive?engine=")).json() == {"redriven": 1}
    await relay.wait_for("task-1", "delivered")


async def test_page_is_paginated(relay: RunningRelay, browser: httpx.AsyncClient) -> None:
    """The page shows fifty waits at a time, newest first."""
    for number in range(51):
        await relay.store.intake.register(f"task-{number}", Route("shelf", {}, str(number)), 900)
    first = Page((await browser.get("/operate")).text)
    assert "task-50" in first.texts
    assert "task-0" not in first.texts
    assert "?offset=50" in first.links
    second = Page((await browser.get("/operate?offset=50")).text)
    assert "task-0" in second.texts


async def test_answer_whose_caller_had_ended_is_marked(
    relay: RunningRelay, browser: httpx.AsyncClient, operator: httpx.AsyncClient, engine: FailingEngine
) -> None:
    """Page and API distinguish a wait whose caller was gone from one that was delivered."""
    await answered(relay, "gone", status="cancelled", then="delivered")
    alone = Page((await browser.get("/operate?state=delivered")).text).texts
    assert {"Delivered", "caller gone", "caller found gone", SHOWN} <= set(alone)
    engine.mended = True
    await answered(relay, "there", status="cancelled", then="delivered")
    page = Page((await browser.get("/operate")).text).texts
    assert page.count("caller gone") == 1
    assert "delivered" in page
    told = {wait["task_id"]: wait["caller_gone"] for wait in (await operator.get("/waits")).json()["waits"]}
    assert told == {"gone": True, "there": False}


async def test_page_and_api_use_the_same_words(relay: RunningRelay, browser: httpx.AsyncClient) -> None:
    """A state has one name everywhere, and the first column is called task."""
    await answered(relay, "task-1")
    page = Page((await browser.get("/operate")).text).texts
    assert page[page.index("State") :][:4] == ["State", "Task", "Caller", "Since"]
    assert {state.capitalize() for state in WaitState} <= set(page)


async def test_form_redrives_one_wait(relay: RunningRelay, browser: httpx.AsyncClient, engine: FailingEngine) -> None:
    """The button of a row redrives that answer, and the page confirms it."""
    await answered(relay, "task-1", "task-2")
    (form,) = [f for f in Page((await browser.get("/operate")).text).redrives() if f.get("task_id") == "task-1"]
    engine.mended = True
    reply = await browser.post("/operate?state=parked", data=form)
    assert str(reply.url).endswith("/operate?state=parked&redriven=1")
    assert "1 wait is redriven and is delivered again now." in Page(reply.text).texts
    await relay.wait_for("task-1", "delivered")
    await relay.wait_for("task-2", "parked")


async def test_form_redrives_all_parked_waits(
    relay: RunningRelay, browser: httpx.AsyncClient, engine: FailingEngine
) -> None:
    """One button redrives everything that is parked."""
    await answered(relay, "task-1", "task-2")
    (form,) = [f for f in Page((await browser.get("/operate")).text).redrives() if f.get("all")]
    engine.mended = True
    await browser.post("/operate", data=form)
    await engine.until(2)


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "redrive",
        "é",
        proof(of="another token"),
        proof(says="another form"),
        proof(hours_old=13),
    ],
    ids=["none", "empty", "unsigned", "not-ascii", "another-token", "another-form", "yesterday"],
)
async def test_form_of_another_site_is_refused(
    relay: RunningRelay, browser: httpx.AsyncClient, given: str | None
) -> None:
    """A foreign page can make a browser send the operator's credentials, but not the fresh proof of our form."""
    await answered(relay, "task-1")
    reply = await browser.post("/operate", data={"all": "1", **({} if given is None else {"proof": given})})
    assert reply.status_code == 403
    assert await relay.store.queries.counts() == {"parked": 1}


@pytest.mark.parametrize("path", ["/waits/redrive", "/waits/task-1/redrive"])
async def test_api_refuses_browser_credentials(relay: RunningRelay, browser: httpx.AsyncClient, path: str) -> None:
    """A browser sends its stored credentials for any page's form, so the API accepts only a bearer token."""
    await answered(relay, "task-1")
    foreign = {"Origin": "https://elsewhere.example", "Content-Type": "application/x-www-form-urlencoded"}
    reply = await browser.post(path, content=b"", headers=foreign)
    assert (reply.status_code, reply.headers["www-authenticate"].split()[0]) == (401, "Bearer")
    assert await relay.store.queries.counts() == {"parked": 1}


async def test_page_works_under_a_prefix(relay_settings: Settings, tmp_path: Path) -> None:
    """Inside an application, links and forms stay under the prefix."""
    engines: list[Engine] = []
    app = FastAPI(redirect_slashes=False)
    router = create_router(engines, settings=relay_settings, database=f"sqlite:///{tmp_path / 'waits.db'}")
    app.include_router(router, prefix="/relay")
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host", auth=("me", TOKEN))
    async with app.router.lifespan_context(app), client as http:
        page = Page((await http.get("/relay/operate")).text)
        sent = await http.post("/relay/operate", data={"proof": proof(), "all": "1"})
    assert all(link.startswith(("?", "#")) for link in page.links)
    assert (sent.status_code, sent.headers["location"]) == (303, "?redriven=0")


def test_engine_with_the_probes_name_is_refused(relay_settings: Settings) -> None:
    """No other engine can have the name of the doctor's probe."""
    with pytest.raises(SettingsError, match="'doctor'"):
        create_app([CollectingEngine("doctor")], settings=relay_settings)


async def test_log_of_a_redrive_holds_no_secret(
    relay: RunningRelay, browser: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """A redrive is logged without the token and the proof."""
    caplog.set_level("DEBUG", logger="awaithumans")
    await answered(relay, "task-1")
    (form, *_) = Page((await browser.get("/operate")).text).redrives()
    await browser.post("/operate", data=form)
    assert "an operator has redriven" in caplog.text
    assert TOKEN not in caplog.text
    assert form["proof"] not in caplog.text
