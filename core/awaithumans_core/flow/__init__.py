"""The protocol of the task API and the relay, without a socket and without a clock (sans-IO).

A flow is a generator. It yields steps: a `Call` to send, a `Pause` to wait out, a `Notice` to show. A `Call` is
answered with a `Reply`, or with `Lost` if no reply came. Two small drivers in `http/drivers.py` send the calls, one
async and one blocking, so every rule of the protocol is written once, in this package.

The modules, from the bottom up. Each one imports only from those above it in this list; `tasks` and `listing` do not
import each other:

- `steps`: the steps and replies, the time limits, and `Patience`, which bounds the retries.
- `replies`: sends a call until there is a usable reply, reads records, and turns a refusal into a typed error.
- `tasks`: creates, reads and cancels one task.
- `listing`: reads the list of ended tasks, page by page.
- `waits`: waits for the end of a task, by long polls or by a wait that is registered at the relay.

Law: a reply ends a question only if its own content names the question. Proxies and wrongly shared connections deliver
replies to the wrong request. So an end is read from a record whose task id and idempotency key are those of the
question. A poll names neither: it only says when to read the record. If a server hides the key of a record (null), the
id still names the task. In the reply to a create, the text and the payload must then be those of the question.

The task API is the server's documented long-poll API. `GET /api/tasks/{id}/poll?timeout=25` holds the connection for up
to `timeout` seconds (1 to 30). It replies at once if the status is terminal. Otherwise it reports the current status,
and the client polls again.
"""

from awaithumans_core.flow.listing import (
    HEAVY_PAGE_BYTES,
    MAX_PAGE_TASKS,
    TaskPage,
    ended_page,
    open_page,
)
from awaithumans_core.flow.replies import SAME_KEY, advice_on, advice_on_other, answered_by_proxy, is_refusal
from awaithumans_core.flow.steps import (
    POLL_SECONDS,
    TIMEOUT_GRACE_SECONDS,
    Call,
    Flow,
    Lost,
    Notice,
    Patience,
    Pause,
    Proxy,
    Reply,
    Step,
)
from awaithumans_core.flow.tasks import (
    ASKED_BY,
    close,
    close_if_marked,
    close_if_mine,
    create,
    get,
    withdraw,
    withdraw_key,
)
from awaithumans_core.flow.waits import Proofs, ask, finish, follow, last_look, open_wait, poll, relay_report

__all__ = [
    "ASKED_BY",
    "HEAVY_PAGE_BYTES",
    "MAX_PAGE_TASKS",
    "POLL_SECONDS",
    "SAME_KEY",
    "TIMEOUT_GRACE_SECONDS",
    "Call",
    "Flow",
    "Lost",
    "Notice",
    "Patience",
    "Pause",
    "Proofs",
    "Proxy",
    "Reply",
    "Step",
    "TaskPage",
    "advice_on",
    "advice_on_other",
    "answered_by_proxy",
    "ask",
    "close",
    "close_if_marked",
    "close_if_mine",
    "create",
    "ended_page",
    "finish",
    "follow",
    "get",
    "is_refusal",
    "last_look",
    "open_page",
    "open_wait",
    "poll",
    "relay_report",
    "withdraw",
    "withdraw_key",
]
