"""What one workflow run knows of its questions: who is asked, what has been answered, what a person may see of it.

Laws: the mailbox is there before the first question, so an early answer is kept; the first answer to a question stays,
later ones are duplicates; what is open when a run continues as new goes on in the next one. Once a question is asked,
its answer is joined on the task that is recorded in the history, because a deploy may change what the code asks.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Self, cast

from pydantic import ValidationError
from temporalio import workflow

from awaithumans_adapters.temporal.names import QUERY, SIGNAL, activity_id, default_key, place_of, within
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import markdown, one_line
from awaithumans_core.task import HumanTask, subject

MOST_TOLD = 10
"""Decisions that stay in the current details."""

REWORDED = "the person was asked in other words"
"""In the details, about a question that was changed while it was open."""

HEADER_VERSION = 1
"""Of what a run hands on. A release reads the fields it knows, of any version, and ignores the others."""


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
    reworded: bool = False
    """Whether the code now asks in other words than the person was asked in; known when the task is."""


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
    activity: dict[str, str] | None = None
    """The activity that waits for it, `{"activity_id", "run_id"}`."""
    activity_before: dict[str, str] | None = None
    """That of the run before."""
    reworded: bool = False
    """Whether the person was asked in other words, so that what they were asked is not known here."""
    original_run: str = ""
    """Original run id of the workflow, or of a run before that was reset with this question."""

    def carried(self, *, answered: bool) -> dict[str, Any]:
        """JSON for the next run: which task, until when. No words and no answers, as headers are not always encrypted.

        A question that is answered already is asked again by the next run, which finds the answer on the server.
        """
        waiting = None if self.waiting is None or answered else asdict(self.waiting) | {"question": "", "who": ""}
        about = "" if self.reworded else self.about  # the next run asks in the new words, which is another question
        held = {"key": self.key, "about": about, "named": self.named, "waiting": waiting}
        if self.activity is not None:
            held["activity"] = self.activity
        if self.original_run != workflow.info().run_id:
            held["original_run"] = self.original_run
        return held

    @classmethod
    def read(cls, held: Mapping[str, Any]) -> Self:
        """What another run has handed on, of this release or another one.

        Raises:
            KeyError, TypeError, ValueError: it has another form.
        """
        waiting = None
        if held["waiting"] is not None:
            known = {each.name for each in fields(Waiting)}
            waiting = Waiting(**{name: value for name, value in held["waiting"].items() if name in known})
            datetime.fromisoformat(waiting.until)
        named, activity = bool(held["named"]), held.get("activity")
        asked = cls(held["key"], held["about"], waiting, named, True, activity, activity)
        asked.original_run = held.get("original_run", workflow.info().original_execution_run_id)
        return asked


@dataclass
class Mailbox:
    """One workflow run's."""

    answers: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    """By what names the question within the workflow."""
    answers_by_task: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    """The same answers by task id."""
    open: list[Asked] = field(default_factory=list[Asked])
    inherited: list[Asked] = field(default_factory=list[Asked])
    """Questions of the run before that this one has not come to yet."""
    closed: bool = False
    """The run is about to end: nothing arrives any more, and nobody goes on."""
    _used: Counter[str] = field(default_factory=Counter[str])
    _asked_about: dict[str, str] = field(default_factory=dict[str, str])
    """What each question of this run is about, by `place_of` its key."""
    _activities: int = 0
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
            self.answers_by_task.setdefault(answer.task_id, answer)

    def answer(self, asked: Asked, key: str) -> Outcome | None:
        """The answer to a question, once it is there: by its recorded task, or by `key` while no task is known.

        Args:
            asked: The question.
            key: The key of what is asked now.
        """
        waiting = asked.waiting
        if waiting is None or waiting.task_id is None or self._is_anothers(asked, waiting.key):
            return self.answers.get(within(key))
        return self.answers_by_task.get(waiting.task_id)

    def _has_answer(self, asked: Asked) -> bool:
        return asked.waiting is not None and self.answer(asked, asked.waiting.key) is not None

    def _is_anothers(self, asked: Asked, key: str) -> bool:
        """Whether this key belongs to another question of this run: the code asks in another order than it did."""
        return self._asked_about.get(place_of(key), asked.about) != asked.about

    @staticmethod
    def is_foreign(asked: Asked, outcome: Outcome) -> bool:
        """Whether an outcome has a key that no mailbox made, although the question has one that a mailbox made."""
        key = outcome.idempotency_key
        return not asked.named and key is not None and within(key) == key

    def joined(self, asked: Asked, key: str, outcome: Outcome) -> Outcome:
        """The outcome of the recorded task, with whether the person was asked in other words than are asked now.

        Args:
            asked: The question.
            key: The key of what is asked now.
            outcome: How the task ended that is recorded in the history.

        Raises:
            workflow.NondeterminismError: the task is that of another question of this run.
        """
        recorded = outcome.idempotency_key or key
        if self._is_anothers(asked, recorded):
            raise workflow.NondeterminismError(
                f"task {outcome.task_id} was recorded for another question of this workflow: the code asks its "
                "questions in another order than it did. Restore the order, or change it behind workflow.patched()"
            )
        self._claimed(lambda held: place_of(held.key) == place_of(recorded))
        self._compare(asked, key, recorded)
        if asked.reworded:
            told = "task %s: the code now asks in other words than the person was asked in (it asks %r)"
            question = asked.waiting.question if asked.waiting else asked.key
            workflow.logger.warning(told, outcome.task_id, one_line(question))
        return outcome.model_copy(update={"reworded": asked.reworded or None})

    def _compare(self, asked: Asked, key: str, recorded: str) -> None:
        """Note whether the recorded task was created for other words. Its key is derived from the words."""
        place = place_of(recorded)
        if place != place_of(key) and place not in self._asked_about:
            asked.reworded = True

    def _claimed(self, is_it: Callable[[Asked], bool]) -> Asked | None:
        """A question of the run before, if this run has recorded its task for one of its own."""
        found = next((held for held in self.inherited if is_it(held)), None)
        if found is not None:
            self.inherited.remove(found)
        return found

    # Questions

    def asks(self, question: HumanTask[Any], *, named: bool) -> Asked:
        """A question begins; one that the run before had open goes on."""
        about = _about(question)
        for held in self.inherited:
            if held.about == about and held.named == named and (held.key == question.idempotency_key or not named):
                self.inherited.remove(held)
                self.open.append(held)
                self._asked_about[place_of(held.key)] = about
                if held.waiting is not None:
                    held.waiting.question, held.waiting.who = question.task, _assignee(question)
                    self._publish()
                return held
        asked = Asked(question.idempotency_key if named else self._fresh_key(about), about, named=named)
        asked.original_run = workflow.info().original_execution_run_id
        self._asked_about[place_of(asked.key)] = about
        self.open.append(asked)
        return asked

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

    def opened(
        self, asked: Asked, question: HumanTask[Any], task_id: str, review_url: str, idempotency_key: str | None = None
    ) -> Waiting:
        """It is known which task it is, and where a person answers it. People's time begins only now.

        The time of a task that the run before had open goes on.

        Args:
            asked: The question.
            question: What is asked now.
            task_id: The task that was recorded, maybe for other words.
            review_url: Where a person answers it.
            idempotency_key: The key of the task. Earlier releases did not record it.
        """
        waiting = asked.waiting or self.waits(asked, question, "signal")
        before = (
            asked
            if waiting.task_id == task_id
            else self._claimed(lambda held: held.waiting is not None and held.waiting.task_id == task_id)
        )
        if before is not None and before.waiting is not None:
            waiting.since, waiting.until = before.waiting.since, before.waiting.until
        else:
            waiting.until = (workflow.now() + timedelta(seconds=question.seconds)).isoformat()
        waiting.task_id, waiting.review_url = task_id, review_url
        if idempotency_key is not None:
            self._compare(asked, question.idempotency_key, idempotency_key)
            waiting.key, waiting.reworded = idempotency_key, asked.reworded
            if question.reask is None:
                asked.key = idempotency_key
        self._publish()
        return waiting

    def ends(self, asked: Asked, outcome: Outcome) -> None:
        """The task has ended; who decided stays to be seen."""
        assigned = asked.waiting.who if asked.waiting is not None and "@" in asked.waiting.who else None
        who = outcome.completed_by_display_name or outcome.completed_by_email or (outcome.answered and assigned)
        by = f" by {markdown(who)}" if who else ""
        where = f" ({markdown(outcome.completed_via_channel)})" if outcome.completed_via_channel else ""
        at = outcome.completed_at or outcome.timed_out_at
        when = f", {at:%Y-%m-%d %H:%M} UTC" if at is not None else ""
        question = markdown(asked.waiting.question if asked.waiting else asked.key)
        reworded = f" ({REWORDED})" if outcome.reworded else ""
        line = f"**{question}** {markdown(outcome.status)}{by}{where}{when}{reworded}"
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

    def activity_id(self, asked: Asked) -> str:
        """Id for the next activity that waits for this question."""
        self._activities += 1
        info = workflow.info()
        made = activity_id(info.original_execution_run_id, self._activities)
        asked.activity = {"activity_id": made, "run_id": info.run_id}
        return made

    # From run to run

    def carried(self) -> dict[str, Any] | None:
        """What the next run has to know, as JSON. None: nothing is open."""
        going_on = [*self.inherited, *self.open]
        if not going_on:
            return None
        held = [asked.carried(answered=self._has_answer(asked)) for asked in going_on]
        return {"version": HEADER_VERSION, "asked": held}

    def inherit(self, carried: Mapping[str, Any]) -> None:
        """Take over what the run before had open. A question that this release cannot read is asked anew."""
        for held in carried.get("asked", ()):
            try:
                self.inherited.append(Asked.read(held))
            except (KeyError, TypeError, ValueError) as unreadable:
                version = carried.get("version")
                told = "a question of the run before (header version %s) cannot be read and is asked anew: %r"
                workflow.logger.warning(told, version, unreadable)
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
            + (f" ({REWORDED})" if waiting["reworded"] else "")
            for waiting in self.pending()
        ]
        self._shown = "\n\n".join([*lines, *self._told, *([self._users] if self._users else [])])
        workflow.set_current_details(self._shown)

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
