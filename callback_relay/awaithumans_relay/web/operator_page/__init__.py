"""The operator's page: the waits, their callers and ages, and the parked waits with a button to redrive them.

It is rendered here, without a script and without external resources. The content policy allows nothing else. It is at
`/operate`, since `/` belongs to the application that includes the relay. A redrive is a form post that ends in a
redirect to the page, so that reloading does not redrive again. (The law against redirects is about callbacks, which
this endpoint does not receive.)
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from awaithumans_core.safe_text import one_line
from awaithumans_relay.store import WaitState
from awaithumans_relay.web.authentication import Operator, operator_route
from awaithumans_relay.web.operator_api import EngineName, Offset, OneState, Operations
from awaithumans_relay.web.wait_view import WaitView, ago

PAGE_SIZE = 50
"""Number of waits on one page."""
MAX_FORM_BYTES = 4096

_NAMES = {
    WaitState.OPEN: "Open",
    WaitState.ANSWERED: "Answered",
    WaitState.PARKED: "Parked",
    WaitState.DELIVERED: "Delivered",
}
"""Names of the states, in the order in which they are offered.

The words are those of the API and of `awaithumans-relay waits`.
"""
_MEANINGS = {
    WaitState.OPEN: "A person has not answered yet",
    WaitState.ANSWERED: "The answer is stored and is being delivered to the caller",
    WaitState.PARKED: "It cannot be delivered; the last error is the reason",
    WaitState.DELIVERED: "The caller has the answer, or no longer exists",
}


def _safe(value: object) -> object:
    """Return a template value without hidden characters. Our own markup (`| safe`) is returned unchanged."""
    return one_line(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_PAGES = Environment(
    loader=PackageLoader("awaithumans_relay.web", "operator_page"),
    autoescape=select_autoescape(),
    finalize=_safe,
    trim_blocks=True,
    lstrip_blocks=True,
)
_STYLE = _PAGES.get_template("operate.css").render().strip()
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def page_router(operations: Operations, operator: Operator, engines: Sequence[str]) -> APIRouter:
    """Create the routes `GET /operate`, and `POST /operate` to redrive."""
    route_class = operator_route(operator, operations.refusal, forms=True)
    router = APIRouter(route_class=route_class, include_in_schema=False)
    page = _Page(operations, operator, engines)
    router.add_api_route("/operate", page.show, methods=["GET"], response_model=None)
    router.add_api_route("/operate", page.redrive, methods=["POST"], response_model=None)
    return router


class _Page:
    """The operator's endpoints for browsers."""

    def __init__(self, operations: Operations, operator: Operator, engines: Sequence[str]) -> None:
        self._operations = operations
        self._operator = operator
        self._engines = engines

    async def show(
        self,
        state: OneState = None,
        engine: EngineName = None,
        offset: Offset = 0,
        redriven: Annotated[int | None, Query(ge=0)] = None,
    ) -> HTMLResponse:
        """Render a page of waits."""
        waits, counts = await self._operations.listed(
            [state] if state else [], engine, limit=PAGE_SIZE + 1, offset=offset
        )
        html = _PAGES.get_template("operate.html").render(
            style=_STYLE,
            waits=waits[:PAGE_SIZE],
            more=len(waits) > PAGE_SIZE,
            names=_NAMES,
            meanings=_MEANINGS,
            counts=counts,
            total=sum(counts.values()),
            state=state,
            engine=engine,
            engines=sorted({*self._engines, engine} - {None, ""}, key=str),
            offset=offset,
            page=PAGE_SIZE,
            redriven=redriven,
            proof=self._operator.form_proof(),
            now=datetime.now(UTC),
            ago=ago,
            since=_since,
            link=_link,
        )
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})

    async def redrive(self, request: Request, state: OneState = None, engine: EngineName = None) -> Response:
        """Redrive the waits that a form names, and redirect to the page."""
        form = await _form(request)
        if not self._operator.is_our_form(form.get("proof", "")):
            html = _PAGES.get_template("refused.html").render(style=_STYLE)
            return HTMLResponse(html, status_code=403, headers={"Content-Security-Policy": _POLICY})
        if task_id := form.get("task_id"):
            redriven = await self._operations.redrive(task_id=task_id)
        elif form.get("all"):
            redriven = await self._operations.redrive(engine=engine)
        else:
            redriven = 0
        return RedirectResponse(_link(state=state, engine=engine, redriven=redriven), status_code=303)


def _link(**query: object) -> str:
    """Return a link to this page with another query. It is relative, so it works under any prefix of the relay."""
    return "?" + urlencode({name: value for name, value in query.items() if value not in (None, "")})


def _since(wait: WaitView) -> list[tuple[str, datetime]]:
    """Return the events of a wait with their times."""
    answered = f"answered ({wait.found_by})" if wait.found_by else "answered"
    ended = ("caller found gone" if wait.caller_gone else "delivered", wait.delivered_at)
    events = [("asked", wait.created_at), (answered, wait.answered_at), ended]
    if wait.redriven_at is not None:
        events = [("asked", wait.created_at), ("redriven", wait.redriven_at), ended]
    return [(what, when) for what, when in events if when is not None]


async def _form(request: Request) -> dict[str, str]:
    """Return the fields of a form, or none if it is larger than any of ours."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            return {}
    return {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
