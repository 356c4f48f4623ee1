"""What one workflow run knows of its questions: who is asked, what has been answered, what a person may see of it.

Laws: the mailbox is there before the first question, so an early answer is kept; the first answer to a question stays,
later ones are duplicates; what is open when a run continues as new goes on in the next one.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal, Self, cast

from pydantic import ValidationError
from temporalio import workflow

from awaithumans_adapters.temporal.activity_options import ActivityOptions
from awaithumans_adapters.temporal.listed import Listing
from awaithumans_adapters.temporal.names import QUERY, SIGNAL, activity_id, default_key, within
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import markdown
from awaithumans_core.task import HumanTask, subject

MOST_TOLD = 10
"""Decisions that stay in the current details."""

MAX_SHOWN = 20
"""Open questions in the current details; the query lists all of them."""


OnCancel = Literal["wait", "request", "leave"]
"""What a call that is cancelled does with its question: see `await_human`."""

CLOSE_LIMIT = timedelta(minutes=5)
"""How long cancelling a question is tried by default; after that the task's own deadline frees the person."""


@dataclass
class Waiting:
    """A task that a person has before them."""

    key: str
    question: str
    who: str
    """Whom it is assigned to, or "a person"."""
    via: str
    since: str
    until: str
    """UTC, ISO 8601."""
    task_id: str | None = None
    review_url: str | None = None
    """Known in signal mode; an activity that waits tells its workflow nothing until the end."""


@dataclass(eq=False)
class Asked:
    """One `await_human` under way: its key, what it asks, and its task once there is one."""

    key: str
    about: str
    waiting: Waiting | None = None
    named: bool = False
    """Whether its caller has named it; else the mailbox has."""
    inherited: bool = False
    """Whether the run before had it open."""
    task_queue: str | None = None
    """The task queue that its caller has chosen for it alone."""
    activities: ActivityOptions = field(default_factory=ActivityOptions)
    """How its activities are scheduled: its caller's options, and else the worker's."""
    on_cancel: OnCancel = "wait"
    cancel_within: timedelta = CLOSE_LIMIT
    ask_within: timedelta | None = None
    """None: as long as people have."""
    who: str = ""
    """Whom it is assigned to, or "a person"; empty until this run asks it."""
    awaited: list[str] = field(default_factory=list[str])
    """Under which names it has waited for an answer: its own, and one for each time it was asked again."""

    @property
    def family(self) -> tuple[str, str | None]:
        """Which questions of the next run may go on with this one."""
        return self.about, self.key if self.named else None

    def carried(self, *, answered: bool) -> dict[str, Any]:
        """JSON for the next run: which task, until when. No words and no answers, as headers are not always encrypted.

        A question that is answered already is asked again by the next run, which finds the answer on the server.
        """
        waiting = None if self.waiting is None or answered else asdict(self.waiting) | {"question": "", "who": ""}
        own_queue = {} if self.task_queue is None else {"task_queue": self.task_queue}
        left = {} if self.on_cancel == "wait" else {"on_cancel": self.on_cancel}
        known = {"key": self.key, "about": self.about, "named": self.named, "waiting": waiting}
        return known | own_queue | left


@dataclass
class Mailbox:
    """One workflow run's."""

    answers: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    """By what names the question within the workflow. An answer stays until every call that waits for it has ended."""
    open: dict[Asked, None] = field(default_factory=dict[Asked, None])
    """A set in order of asking, as are the other two: a workflow may ask thousands of questions at once."""
    inherited: dict[Asked, None] = field(default_factory=dict[Asked, None])
    """Questions of the run before that this one has not come to yet."""
    _waiting: dict[Asked, None] = field(default_factory=dict[Asked, None])
    """Questions of either kind that a person has been asked."""
    closed: bool = False
    """The run is about to end: nothing arrives any more, and nobody goes on."""
    activities: ActivityOptions = field(default_factory=ActivityOptions)
    """The worker's options."""
    listing: Listing = field(default_factory=lambda: Listing(wanted=False))
    _families: dict[tuple[str, str | None], deque[Asked]] = field(
        default_factory=dict[tuple[str, str | None], deque[Asked]]
    )
    """`inherited`, by `Asked.family`."""
    _arrivals: dict[str, asyncio.Future[None]] = field(default_factory=dict[str, asyncio.Future[None]])
    _awaited: Counter[str] = field(default_factory=Counter[str])
    """How many calls wait for an answer, by the names of `answers`."""
    _taken: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Name and task of each answer that is gone from `answers`: what arrives again is a duplicate."""
    _used: Counter[str] = field(default_factory=Counter[str])
    _told: deque[str] = field(default_factory=lambda: deque[str](maxlen=MOST_TOLD))
    _outdated: bool = False
    """The current details are published at the end of this turn of the event loop."""
    _unlisted: bool = False
    """The assignees may have changed since they were listed."""
    _shown: str = ""
    _users: str = ""
    """What the workflow itself has set as its details."""

    def install(self) -> None:
        """Take the answers of this run, before its own code does anything. A handler of the workflow's own stays."""
        if workflow.get_signal_handler(SIGNAL) is None:  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            workflow.set_signal_handler(SIGNAL, self.receive)  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
        if workflow.get_query_handler(QUERY) is None:  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            workflow.set_query_handler(QUERY, self.pending)  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable

    @classmethod
    def here(cls) -> Self:
        """The running workflow's mailbox. It lives where the SDK keeps signal handlers, so it ends with the run.

        Raises:
            SettingsError: there is none, as the worker lacks the plugin, or the workflow handles our signal itself.
        """
        if (mailbox := cls.found()) is not None:
            return mailbox
        if workflow.get_signal_handler(SIGNAL) is None:  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            raise SettingsError(
                "this worker has no HumanTasksPlugin: await Client.connect(..., plugins=[HumanTasksPlugin()]), or "
                "Worker(..., plugins=[HumanTasksPlugin()]); a Replayer needs it, too"
            )
        raise SettingsError(f"this workflow has its own handler for the signal {SIGNAL!r}; rename it")

    @classmethod
    def found(cls) -> Self | None:
        """The same, or None where `here` raises."""
        handler = cast("object", workflow.get_signal_handler(SIGNAL))  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
        owner = getattr(handler, "__self__", None)
        return owner if isinstance(owner, cls) else None

    # Answers

    def receive(self, outcome: Any) -> None:
        """Signal handler. What is not an outcome is not an answer, and must not stop the workflow."""
        if self.closed:
            return
        try:
            answer = Outcome.model_validate(outcome)
        except ValidationError:
            workflow.logger.warning("a signal %s that holds no outcome was ignored", SIGNAL)
            return
        if not answer.terminal or answer.idempotency_key is None:
            return
        name = within(answer.idempotency_key)
        if (name, answer.task_id) in self._taken:
            return
        self.answers.setdefault(name, answer)
        if (arrival := self._arrivals.pop(name, None)) is not None:
            arrival.set_result(None)

    def answer(self, key: str) -> Outcome | None:
        """The answer to this question, once it is there."""
        return self.answers.get(within(key))

    def arrival(self, key: str) -> asyncio.Future[None]:
        """A future that is done once the answer to this question is there. Callers share it and do not cancel it."""
        name = within(key)
        arrival = self._arrivals.get(name) or asyncio.get_running_loop().create_future()
        if name in self.answers:
            arrival.set_result(None)
        else:
            self._arrivals[name] = arrival
        return arrival

    def _await(self, asked: Asked, key: str) -> None:
        """Keep the answer to this question, which may be there already, until this call has ended."""
        name = within(key)
        asked.awaited.append(name)
        self._awaited[name] += 1

    def _release(self, names: Iterable[str]) -> None:
        """Drop the answers that no call waits for any more; keep of each which task it was about."""
        for name in names:
            self._awaited[name] -= 1
            if self._awaited[name] > 0:
                continue
            del self._awaited[name]
            self._arrivals.pop(name, None)
            if (answer := self.answers.pop(name, None)) is not None:
                self._taken.add((name, answer.task_id))

    # Questions

    def asks(self, question: HumanTask[Any], *, named: bool) -> Asked:
        """A question begins; one that the run before had open goes on."""
        body = question.body()
        about = _about(question, body)
        asked = self._inherited(about, question.idempotency_key if named else None)
        if asked is None:
            asked = Asked(question.idempotency_key if named else self._fresh_key(about), about, named=named)
        asked.who = _assignee(body)
        if asked.waiting is not None:
            asked.waiting.question, asked.waiting.who = question.task, asked.who
            self._relist()
        self.open[asked] = None
        return asked

    def _inherited(self, about: str, key: str | None) -> Asked | None:
        """Take the oldest question of the run before that this one goes on with."""
        held = self._families.get((about, key))
        if not held:
            return None
        asked = held.popleft()
        del self.inherited[asked]
        return asked

    def schedule(self, asked: Asked, own: ActivityOptions) -> None:
        """Schedule its activities with these options of its caller, and else with the worker's."""
        asked.task_queue, asked.activities = own.task_queue, own.over(self.activities)

    def _fresh_key(self, about: str) -> str:
        """A key of its own for every question, the same on replay and after a reset.

        A reset gives a run another id and other random numbers, so neither names a question. Its original id, what is
        asked, and how often that was asked before do: a person's answer outlives the reset, and what is asked
        differently after it is asked afresh.
        """
        info = workflow.info()
        self._used[about] += 1
        place = f"{info.original_execution_run_id}: {about}, {self._used[about]}"
        return default_key(info.namespace, info.workflow_id, place)

    def waits(self, asked: Asked, question: HumanTask[Any], via: str) -> Waiting:
        """A person is asked; whoever looks at the workflow sees so."""
        now = workflow.now()
        asked.waiting = Waiting(
            question.idempotency_key,
            question.task,
            asked.who,
            via,
            now.isoformat(),
            (now + timedelta(seconds=question.seconds)).isoformat(),
        )
        self._await(asked, question.idempotency_key)
        self._waiting[asked] = None
        self._relist()
        return asked.waiting

    def opened(self, waiting: Waiting, question: HumanTask[Any], task_id: str, review_url: str) -> None:
        """It is known which task it is, and where a person answers it. People's time begins only now."""
        waiting.task_id, waiting.review_url = task_id, review_url
        waiting.until = (workflow.now() + timedelta(seconds=question.seconds)).isoformat()
        self._outdate()

    def ends(self, asked: Asked, outcome: Outcome) -> None:
        """The task has ended; who decided stays to be seen."""
        assigned = asked.waiting.who if asked.waiting is not None and "@" in asked.waiting.who else None
        who = outcome.completed_by_display_name or outcome.completed_by_email or (outcome.answered and assigned)
        by = f" by {markdown(who)}" if who else ""
        where = f" ({markdown(outcome.completed_via_channel)})" if outcome.completed_via_channel else ""
        at = outcome.completed_at or outcome.timed_out_at
        when = f", {at:%Y-%m-%d %H:%M} UTC" if at is not None else ""
        question = markdown(asked.waiting.question if asked.waiting else asked.key)
        self._told.append(f"**{question}** {markdown(outcome.status)}{by}{where}{when}")
        self._settled(asked)

    def leaves(self, asked: Asked) -> None:
        """The call has ended."""
        self.open.pop(asked, None)
        self._release(asked.awaited)
        asked.awaited = []
        if asked.waiting is not None:
            self._settled(asked)

    def _settled(self, asked: Asked) -> None:
        """No person is asked any more."""
        asked.waiting = None
        self._waiting.pop(asked, None)
        self._relist()

    def activity_id(self, key: str) -> str:
        """Id for the next activity that waits for this question."""
        self._used[key] += 1
        return activity_id(key, self._used[key] - 1)

    # From run to run

    def carried(self) -> dict[str, Any] | None:
        """What the next run has to know, as JSON. None: nothing is open."""
        going_on = [*self.inherited, *self.open]
        if not going_on:
            return None
        answered = {asked.key for asked in going_on if asked.waiting and self.answer(asked.waiting.key) is not None}
        return {"asked": [asked.carried(answered=asked.key in answered) for asked in going_on]}

    def inherit(self, carried: Mapping[str, Any]) -> None:
        """Take over what the run before had open."""
        for held in carried["asked"]:
            waiting = Waiting(**held["waiting"]) if held["waiting"] is not None else None
            on_cancel = held.get("on_cancel", "wait")
            asked = Asked(held["key"], held["about"], waiting, held["named"], inherited=True, on_cancel=on_cancel)
            self.schedule(asked, ActivityOptions(task_queue=held.get("task_queue")))
            self.inherited[asked] = None
            self._families.setdefault(asked.family, deque()).append(asked)
            if waiting is not None:
                self._await(asked, waiting.key)
                self._waiting[asked] = None
        self._outdate()

    # What people see

    def pending(self) -> list[dict[str, Any]]:
        """Query handler: every task that a person has before them, oldest first."""
        return [asdict(asked.waiting) for asked in self._waiting if asked.waiting is not None]

    def _outdate(self) -> None:
        """Publish once, however many questions change in this turn of the event loop."""
        if not self._outdated:
            self._outdated = True
            asyncio.get_running_loop().call_soon(self._publish)

    def _relist(self) -> None:
        """Publish, and list the workflow by its assignees, who may be others now."""
        self._unlisted = True
        self._outdate()

    def list_assignees(self) -> None:
        """List the workflow by the assignees of what is open, if they may have changed.

        What a run inherits is listed already, and its assignees are known once it is asked again.
        """
        if self._unlisted and not self.closed:
            self._unlisted = False
            self.listing.show(asked.waiting.who for asked in self._waiting if asked.waiting is not None)

    def _publish(self) -> None:
        """The Temporal UI's current details: what is waited for, who has decided, and what the workflow has set.

        They are Markdown. The place to answer comes first, and the texts of others hold no markup and no links.
        """
        self._outdated = False
        now = workflow.get_current_details()
        if now != self._shown:
            self._users = now
        lines = [_line(asked.waiting) for asked in islice(self._waiting, MAX_SHOWN) if asked.waiting is not None]
        if (more := len(self._waiting) - MAX_SHOWN) > 0:
            lines.append(f"and {more} more; the query `{QUERY}` lists all of them")
        self._shown = "\n\n".join([*lines, *self._told, *([self._users] if self._users else [])])
        workflow.set_current_details(self._shown)
        self.list_assignees()

    @staticmethod
    def until(waiting: Waiting) -> timedelta:
        """What is left of the person's time."""
        return max(timedelta(), datetime.fromisoformat(waiting.until) - workflow.now())


def _line(waiting: Waiting) -> str:
    """One open question in the current details."""
    address = f"{waiting.review_url}\n\n" if waiting.review_url else ""
    who, question = waiting.who or "a person", waiting.question or "asked by the run before"
    return f"{address}Waiting for {markdown(who)}: **{markdown(question)}**"


def _assignee(body: Mapping[str, Any]) -> str:
    assigned: Mapping[str, Any] = body.get("assign_to") or {}
    if "email" in assigned:
        return str(assigned["email"])
    if "emails" in assigned:
        return ", ".join(map(str, assigned["emails"]))
    return ", ".join(f"{name} {value}" for name, value in assigned.items()) or "a person"


def _about(question: HumanTask[Any], body: Mapping[str, Any]) -> str:
    """Whether the next run asks the same: text, payload and people."""
    return subject({"payload": [question.task, body["payload"], body.get("assign_to")]})
