"""What one workflow run knows of its questions: who is asked, what has been answered, what a person may see of it.

Laws: the mailbox is there before the first question, so an early answer is kept; the first answer to a question stays,
later ones are duplicates; what is open when a run continues as new goes on in the next one.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self, cast

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


@dataclass
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

    def carried(self, *, answered: bool) -> dict[str, Any]:
        """JSON for the next run: which task, until when. No words and no answers, as headers are not always encrypted.

        A question that is answered already is asked again by the next run, which finds the answer on the server.
        """
        waiting = None if self.waiting is None or answered else asdict(self.waiting) | {"question": "", "who": ""}
        own_queue = {"task_queue": self.task_queue} if self.task_queue is not None else {}
        return {"key": self.key, "about": self.about, "named": self.named, "waiting": waiting, **own_queue}


@dataclass
class Mailbox:
    """One workflow run's."""

    answers: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    """By what names the question within the workflow."""
    open: list[Asked] = field(default_factory=list[Asked])
    inherited: list[Asked] = field(default_factory=list[Asked])
    """Questions of the run before that this one has not come to yet."""
    closed: bool = False
    """The run is about to end: nothing arrives any more, and nobody goes on."""
    activities: ActivityOptions = field(default_factory=ActivityOptions)
    """The worker's options."""
    listing: Listing = field(default_factory=lambda: Listing(wanted=False))
    _used: Counter[str] = field(default_factory=Counter[str])
    _told: list[str] = field(default_factory=list[str])
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
        if answer.terminal and answer.idempotency_key is not None:
            self.answers.setdefault(within(answer.idempotency_key), answer)

    def answer(self, key: str) -> Outcome | None:
        """The answer to this question, once it is there."""
        return self.answers.get(within(key))

    # Questions

    def asks(self, question: HumanTask[Any], *, named: bool) -> Asked:
        """A question begins; one that the run before had open goes on."""
        about = _about(question)
        for held in self.inherited:
            if held.about == about and held.named == named and (held.key == question.idempotency_key or not named):
                self.inherited.remove(held)
                self.open.append(held)
                if held.waiting is not None:
                    held.waiting.question, held.waiting.who = question.task, _assignee(question)
                    self._publish()
                return held
        asked = Asked(question.idempotency_key if named else self._fresh_key(about), about, named=named)
        self.open.append(asked)
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
            _assignee(question),
            via,
            now.isoformat(),
            (now + timedelta(seconds=question.seconds)).isoformat(),
        )
        self._publish()
        return asked.waiting

    def opened(self, waiting: Waiting, question: HumanTask[Any], task_id: str, review_url: str) -> None:
        """It is known which task it is, and where a person answers it. People's time begins only now."""
        waiting.task_id, waiting.review_url = task_id, review_url
        waiting.until = (workflow.now() + timedelta(seconds=question.seconds)).isoformat()
        self._publish()

    def ends(self, asked: Asked, outcome: Outcome) -> None:
        """The task has ended; who decided stays to be seen."""
        assigned = asked.waiting.who if asked.waiting is not None and "@" in asked.waiting.who else None
        who = outcome.completed_by_display_name or outcome.completed_by_email or (outcome.answered and assigned)
        by = f" by {markdown(who)}" if who else ""
        where = f" ({markdown(outcome.completed_via_channel)})" if outcome.completed_via_channel else ""
        at = outcome.completed_at or outcome.timed_out_at
        when = f", {at:%Y-%m-%d %H:%M} UTC" if at is not None else ""
        question = markdown(asked.waiting.question if asked.waiting else asked.key)
        line = f"**{question}** {markdown(outcome.status)}{by}{where}{when}"
        self._told = [*self._told, line][-MOST_TOLD:]
        asked.waiting = None
        self._publish()

    def leaves(self, asked: Asked) -> None:
        """Nobody waits for it any more."""
        if asked in self.open:
            self.open.remove(asked)
        if asked.waiting is not None:
            asked.waiting = None
            self._publish()

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
            asked = Asked(held["key"], held["about"], waiting, held["named"], inherited=True)
            self.schedule(asked, ActivityOptions(task_queue=held.get("task_queue")))
            self.inherited.append(asked)
        self._publish()

    # What people see

    def pending(self) -> list[dict[str, Any]]:
        """Query handler: every task that a person has before them, oldest first."""
        return [asdict(asked.waiting) for asked in (*self.inherited, *self.open) if asked.waiting is not None]

    def _publish(self) -> None:
        """The Temporal UI's current details: what is waited for, who has decided, and what the workflow has set.

        They are Markdown. The place to answer comes first, and the texts of others hold no markup and no links.
        """
        now = workflow.get_current_details()
        if now != self._shown:
            self._users = now
        lines = [
            (f"{waiting['review_url']}\n\n" if waiting["review_url"] else "")
            + f"Waiting for {markdown(waiting['who'] or 'a person')}: "
            + f"**{markdown(waiting['question'] or 'asked by the run before')}**"
            for waiting in self.pending()
        ]
        self._shown = "\n\n".join([*lines, *self._told, *([self._users] if self._users else [])])
        workflow.set_current_details(self._shown)
        pending = self.pending()
        # What a run inherits is listed already, and its assignees are known once it is asked again.
        if not self.closed and all(waiting["who"] for waiting in pending):
            self.listing.show(waiting["who"] for waiting in pending)

    @staticmethod
    def until(waiting: Waiting) -> timedelta:
        """What is left of the person's time."""
        return max(timedelta(), datetime.fromisoformat(waiting.until) - workflow.now())


def _assignee(question: HumanTask[Any]) -> str:
    assigned: Mapping[str, Any] = question.body().get("assign_to") or {}
    if "email" in assigned:
        return str(assigned["email"])
    if "emails" in assigned:
        return ", ".join(map(str, assigned["emails"]))
    return ", ".join(f"{name} {value}" for name, value in assigned.items()) or "a person"


def _about(question: HumanTask[Any]) -> str:
    """Whether the next run asks the same: text, payload and people."""
    return subject({"payload": [question.task, question.body()["payload"], question.body().get("assign_to")]})
