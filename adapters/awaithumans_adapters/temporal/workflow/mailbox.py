"""The state of one workflow run's questions: who is asked, what was answered, and what is shown of it.

Laws: the mailbox exists before the first question, so an early answer is kept. The first answer to a question stays,
and later ones are duplicates. Questions that are open when a run continues as new stay open in the next run. Once a
question is asked, its answer is matched by the task that is recorded in the history, because a deploy may change what
the code asks.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal, Self, cast

from pydantic import ValidationError
from temporalio import workflow

from awaithumans_adapters.temporal.activities.options import ActivityOptions
from awaithumans_adapters.temporal.names import QUERY, SIGNAL, activity_id, default_key, place_of, within
from awaithumans_adapters.temporal.workflow.search_attribute import Listing
from awaithumans_core.errors import SettingsError
from awaithumans_core.outcome import Outcome
from awaithumans_core.safe_text import markdown, one_line
from awaithumans_core.task import HumanTask, subject

MAX_DECISIONS_SHOWN = 10
"""Maximum number of decisions that are shown in the current details."""

MAX_SHOWN = 20
"""Maximum number of open questions in the current details. The query lists all of them."""

REWORDED = "the person was asked in other words"
"""Text in the current details for a question that was changed while it was open."""

HEADER_VERSION = 1
"""Version of the header that a run hands on.

A release reads the fields it knows, whatever the version, and ignores the others.
"""

OnCancel = Literal["wait", "request", "leave"]
"""What a cancelled call does with its question: see `await_human`."""

CLOSE_LIMIT = timedelta(minutes=5)
"""Default time in which cancelling a question is tried. After that the task's own deadline frees the person."""

Address = tuple[Literal["name", "task"], str]
"""Address of an answer: the name of the question within the workflow (`within`), or its task id."""


@dataclass
class PendingTask:
    """A task that a person has been asked to answer, as shown to people and by the query."""

    key: str
    question: str
    who: str
    """The assignee, or "a person"."""
    via: str
    since: str
    until: str
    """Deadline: UTC, ISO 8601."""
    task_id: str | None = None
    review_url: str | None = None
    """Known in signal mode only. In activity mode the workflow learns nothing about the task until it ends."""
    reworded: bool = False
    """Whether the code now asks in other words than the person was asked in. Known once the task is known."""


@dataclass(eq=False)
class Wait:
    """One active `await_human` call: its key, what it asks, and its task once there is one."""

    key: str
    """Key of the question itself. `Mailbox.own_task` returns the key of its recorded task."""
    about: str
    pending: PendingTask | None = None
    named: bool = False
    """Whether the caller has named the question with a key. Otherwise the mailbox has made the key."""
    inherited: bool = False
    """Whether the question was already open in the previous run."""
    activity: dict[str, str] | None = None
    """The activity that waits for the answer: `{"activity_id", "run_id"}`."""
    activity_before: dict[str, str] | None = None
    """The activity that waited for the answer in the previous run."""
    reworded: bool = False
    """Whether the person was asked in other words, so that the words they read are not known here."""
    original_run: str = ""
    """Original run id of the workflow, or of an earlier run that was reset with this question."""
    task_queue: str | None = None
    """The task queue that the caller has chosen for this question alone."""
    activities: ActivityOptions = field(default_factory=ActivityOptions)
    """How the activities are scheduled: the caller's options, and for the rest the worker's."""
    on_cancel: OnCancel = "wait"
    cancel_within: timedelta = CLOSE_LIMIT
    ask_within: timedelta | None = None
    """Limit for creating the task. None: the time that people have to answer."""
    who: str = ""
    """The assignee, or "a person". Empty until this run asks the question."""
    place: str = ""
    """`place_of` the key of what is asked now. A question that is asked again (re-ask) has another key."""
    recorded: str | None = None
    """Key of the task that the history has recorded for this question."""
    awaited: list[Address] = field(default_factory=list[Address])
    """Addresses at which the call has waited for an answer.

    They are the name and the task of the first question, and those of each re-ask.
    """

    @property
    def family(self) -> tuple[str, str | None]:
        """Identifies which questions of the next run may continue this one."""
        return self.about, self.key if self.named else None

    def carried(self, key: str, pending: PendingTask | None) -> dict[str, Any]:
        """Return JSON for the next run: which task, and its deadline.

        It contains no question texts and no answers, because headers are not always encrypted.

        Args:
            key: The key under which the next run asks.
            pending: Its task. None: it is not known or was answered, and the next run finds the answer on the server.
        """
        shown = None if pending is None else asdict(pending) | {"question": "", "who": ""}
        # the next run asks in the new words, which counts as another question
        about = "" if self.reworded else self.about
        held = {"key": key, "about": about, "named": self.named, "waiting": shown}
        if self.activity is not None:
            held["activity"] = self.activity
        if self.original_run != workflow.info().run_id:
            held["original_run"] = self.original_run
        if self.task_queue is not None:
            held["task_queue"] = self.task_queue
        if self.on_cancel != "wait":
            held["on_cancel"] = self.on_cancel
        return held

    @classmethod
    def read(cls, held: Mapping[str, Any]) -> Self:
        """Read a question that another run has handed on, from this release or another one.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it has another form.
        """
        pending = None
        if held["waiting"] is not None:
            known = {each.name for each in fields(PendingTask)}
            pending = PendingTask(**{name: value for name, value in held["waiting"].items() if name in known})
            datetime.fromisoformat(pending.until)
        wait = cls(held["key"], held["about"], pending, bool(held["named"]), inherited=True)
        wait.activity = wait.activity_before = held.get("activity")
        wait.place = place_of(wait.key)
        wait.original_run = held.get("original_run", workflow.info().original_execution_run_id)
        wait.task_queue, wait.on_cancel = held.get("task_queue"), held.get("on_cancel", "wait")
        return wait


@dataclass
class Mailbox:
    """The questions and answers of one workflow run."""

    answers: dict[Address, Outcome] = field(default_factory=dict[Address, Outcome])
    """Received answers. An answer is kept until every call that waits for it has ended."""
    open: dict[Wait, None] = field(default_factory=dict[Wait, None])
    """Active calls, as a set in the order of asking, like the next two: a workflow may ask thousands at once."""
    inherited: dict[Wait, None] = field(default_factory=dict[Wait, None])
    """Questions of the previous run that this run has not asked yet."""
    _waiting: dict[Wait, None] = field(default_factory=dict[Wait, None])
    """Questions, inherited or not, that a person has been asked."""
    closed: bool = False
    """Whether the run is about to end: no more answers are received, and no call continues."""
    activities: ActivityOptions = field(default_factory=ActivityOptions)
    """The worker's activity options."""
    listing: Listing = field(default_factory=lambda: Listing(wanted=False))
    _families: dict[tuple[str, str | None], deque[Wait]] = field(
        default_factory=dict[tuple[str, str | None], deque[Wait]]
    )
    """The questions in `inherited`, grouped by `Wait.family`."""
    _arrivals: dict[Address, list[asyncio.Future[None]]] = field(
        default_factory=dict[Address, list[asyncio.Future[None]]]
    )
    _awaited: Counter[Address] = field(default_factory=Counter[Address])
    """Number of calls that wait for the answer at each address."""
    _taken: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Name and task of each answer that was removed from `answers`. If it arrives again, it is a duplicate."""
    _used: Counter[str] = field(default_factory=Counter[str])
    _asked_about: dict[str, str] = field(default_factory=dict[str, str])
    """Digest of what each question of this run is about, by `place_of` its key."""
    _recorded: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Key and task id of each task that the history has recorded, by `place_of` its key."""
    _activities: int = 0
    _decisions_shown: deque[str] = field(default_factory=lambda: deque[str](maxlen=MAX_DECISIONS_SHOWN))
    _outdated: bool = False
    """Whether the current details have changed. They are published at the end of this iteration of the event loop."""
    _unlisted: bool = False
    """Whether the assignees may have changed since they were listed."""
    _shown: str = ""
    _users: str = ""
    """The details that the workflow itself has set."""

    def install(self) -> None:
        """Register the signal and query handlers before the workflow's own code runs.

        Handlers the workflow has are kept.
        """
        if workflow.get_signal_handler(SIGNAL) is None:  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            workflow.set_signal_handler(SIGNAL, self.receive)  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
        if workflow.get_query_handler(QUERY) is None:  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
            workflow.set_query_handler(QUERY, self.pending)  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable

    @classmethod
    def here(cls) -> Self:
        """Return the running workflow's mailbox. The SDK's table of signal handlers holds it, so it ends with the run.

        Raises:
            SettingsError: there is none, because the worker lacks the plugin, or the workflow handles our signal
                itself.
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
        """Return the running workflow's mailbox, or None where `here` raises."""
        handler = cast("object", workflow.get_signal_handler(SIGNAL))  # pyright: ignore[reportUnknownMemberType]  # the SDK's bare Callable
        owner = getattr(handler, "__self__", None)
        return owner if isinstance(owner, cls) else None

    # Answers

    def receive(self, outcome: Any) -> None:
        """Handle the signal that delivers an outcome.

        Anything that is not an outcome is ignored, because it must not stop the workflow.
        """
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
        addresses: list[Address] = [("name", name), ("task", answer.task_id)]
        for address in addresses:
            self.answers.setdefault(address, answer)
            for arrival in self._arrivals.pop(address, ()):
                if not arrival.done():
                    arrival.set_result(None)

    def answer(self, wait: Wait, key: str) -> Outcome | None:
        """Return the answer to a question, if it has arrived: by its recorded task, or by `key` while no task is known.

        Args:
            wait: The question.
            key: The key of what is asked now.
        """
        pending, (_, task_id) = wait.pending, self.own_task(wait)
        if pending is None or task_id is None:
            return self.answers.get(("name", within(key)))
        found = self.answers.get(("task", task_id))
        if found is None and self._is_anothers(wait, pending.key):  # the answer for that task belongs to other calls
            found = self.answers.get(("name", within(key)))
        return found

    def own_task(self, wait: Wait) -> tuple[str, str | None]:
        """Return key and task id of a question. The task id is None while no task is known.

        If the history has recorded the task of another question for this one, the task recorded at this question's own
        place is returned.
        """
        pending = wait.pending
        key, task_id = (wait.recorded or wait.key, None) if pending is None else (pending.key, pending.task_id)
        if self._is_anothers(wait, key):
            return self._recorded.get(wait.place, (wait.key, None))
        return key, task_id

    def _is_anothers(self, wait: Wait, key: str) -> bool:
        """Whether this key belongs to another question of this run, because the code now asks in another order."""
        place = place_of(key)
        return place != wait.place and self._asked_about.get(place, wait.about) != wait.about

    def other_order(self, task_id: str | None) -> workflow.NondeterminismError:
        """Return the error for a question for which the history has recorded the task of another question."""
        return workflow.NondeterminismError(
            f"task {task_id} was recorded for another question of this workflow: the code asks its "
            "questions in another order than it did. Restore the order, or change it behind workflow.patched()"
        )

    @staticmethod
    def is_foreign(wait: Wait, outcome: Outcome) -> bool:
        """Whether an outcome has a key that no mailbox made, although the question has a key made by a mailbox."""
        key = outcome.idempotency_key
        return not wait.named and key is not None and within(key) == key

    def joined(self, wait: Wait, key: str, outcome: Outcome) -> Outcome:
        """Return the outcome of the recorded task, marked if the person was asked in other words than the current ones.

        Args:
            wait: The question.
            key: The key of what is asked now.
            outcome: The outcome of the task that is recorded in the history.

        Raises:
            workflow.NondeterminismError: the task belongs to another question of this run.
        """
        recorded = outcome.idempotency_key or key
        if self._is_anothers(wait, recorded):
            raise self.other_order(outcome.task_id)
        self._claim(wait, lambda held: place_of(held.key) == place_of(recorded))
        self._compare(wait, key, recorded)
        if wait.reworded:
            message = "task %s: the code now asks in other words than the person was asked in (it asks %r)"
            question = wait.pending.question if wait.pending else wait.key
            workflow.logger.warning(message, outcome.task_id, one_line(question))
        return outcome.model_copy(update={"reworded": wait.reworded or None})

    def _compare(self, wait: Wait, key: str, recorded: str) -> None:
        """Record whether the task was created for other words, as its key shows.

        The key is derived from the words.
        """
        place = place_of(recorded)
        if place != place_of(key) and place not in self._asked_about:
            wait.reworded = True

    def _claim(self, wait: Wait, is_it: Callable[[Wait], bool]) -> Wait | None:
        """Take over a question of the previous run whose task this run has recorded for the given question."""
        found = next((held for held in self.inherited if is_it(held)), None)
        if found is not None:
            self._families[found.family].remove(found)
            del self.inherited[found]
            self._waiting.pop(found, None)
            wait.awaited += found.awaited
            found.awaited = []
        return found

    def arrival(self, wait: Wait, key: str) -> asyncio.Future[None]:
        """Return a future that is done once an answer arrives that may belong to this question; see `answer`."""
        arrival = asyncio.get_running_loop().create_future()
        if self.answer(wait, key) is not None:
            arrival.set_result(None)
            return arrival
        addresses: list[Address] = [("name", within(key))]
        tasks = {self.own_task(wait)[1], None if wait.pending is None else wait.pending.task_id}
        addresses.extend(("task", task_id) for task_id in sorted(filter(None, tasks)))
        for address in addresses:
            self._arrivals.setdefault(address, []).append(arrival)
        return arrival

    def _await(self, wait: Wait, address: Address) -> None:
        """Keep the answer with this address, which may have arrived already, until this call has ended."""
        wait.awaited.append(address)
        self._awaited[address] += 1

    def _release(self, addresses: Iterable[Address]) -> None:
        """Drop the answers that no call waits for any more, and remember the name and task of each."""
        for address in addresses:
            self._awaited[address] -= 1
            if self._awaited[address] > 0:
                continue
            del self._awaited[address]
            self._arrivals.pop(address, None)
            if (answer := self.answers.pop(address, None)) is not None and answer.idempotency_key is not None:
                self._taken.add((within(answer.idempotency_key), answer.task_id))

    # Questions

    def asks(self, question: HumanTask[Any], *, named: bool) -> Wait:
        """Begin a question, or continue one that the previous run had open."""
        body = question.body()
        about = _about(question, body)
        wait = self._inherited(about, question.idempotency_key if named else None)
        if wait is None:
            wait = Wait(question.idempotency_key if named else self._fresh_key(about), about, named=named)
            wait.original_run = workflow.info().original_execution_run_id
        wait.place = place_of(wait.key)
        self._asked_about[wait.place] = about
        wait.who = _assignee(body)
        if wait.pending is not None:
            wait.pending.question, wait.pending.who = question.task, wait.who
            self._relist()
        self.open[wait] = None
        return wait

    def _inherited(self, about: str, key: str | None) -> Wait | None:
        """Take the oldest question of the previous run that this one continues, if any."""
        held = self._families.get((about, key))
        if not held:
            return None
        wait = held.popleft()
        del self.inherited[wait]
        return wait

    def schedule(self, wait: Wait, own: ActivityOptions) -> None:
        """Set the activity options of a question: those of its caller, and for the rest the worker's."""
        wait.task_queue, wait.activities = own.task_queue, own.over(self.activities)

    def _fresh_key(self, about: str) -> str:
        """Return a unique key for a question, which is the same on replay and after a reset.

        A reset gives a run another id and other random numbers, so neither can name a question. The key is made from
        the original run id, what is asked, and how often that was asked before. So a person's answer survives a reset,
        and a question that is different after it is asked anew.
        """
        info = workflow.info()
        self._used[about] += 1
        place = f"{info.original_execution_run_id}: {about}, {self._used[about]}"
        return default_key(info.namespace, info.workflow_id, place)

    def waits(self, wait: Wait, question: HumanTask[Any], via: str) -> PendingTask:
        """Record that a person is asked, and show it in the workflow's details."""
        now = workflow.now()
        wait.place = place_of(question.idempotency_key)
        wait.pending = PendingTask(
            question.idempotency_key,
            question.task,
            wait.who,
            via,
            now.isoformat(),
            (now + timedelta(seconds=question.seconds)).isoformat(),
        )
        self._await(wait, ("name", within(question.idempotency_key)))
        self._waiting[wait] = None
        self._relist()
        return wait.pending

    def opened(
        self, wait: Wait, question: HumanTask[Any], task_id: str, review_url: str, idempotency_key: str | None = None
    ) -> PendingTask:
        """Record the task of a question and where a person answers it. People's time begins only now.

        The deadline of a task that the previous run had open is kept.

        Args:
            wait: The question.
            question: The question as it is asked now.
            task_id: The recorded task, which may have been created for other words.
            review_url: Where a person answers it.
            idempotency_key: The key of the task. Earlier releases did not record it.
        """
        pending = wait.pending or self.waits(wait, question, "signal")
        before = (
            wait
            if pending.task_id == task_id
            else self._claim(wait, lambda held: held.pending is not None and held.pending.task_id == task_id)
        )
        if before is not None and before.pending is not None:
            pending.since, pending.until = before.pending.since, before.pending.until
        else:
            pending.until = (workflow.now() + timedelta(seconds=question.seconds)).isoformat()
        pending.task_id, pending.review_url = task_id, review_url
        self._await(wait, ("task", task_id))
        if idempotency_key is not None:
            self._compare(wait, question.idempotency_key, idempotency_key)
            pending.key, pending.reworded = idempotency_key, wait.reworded
            self._await(wait, ("name", within(idempotency_key)))
            self._recorded[place_of(idempotency_key)] = idempotency_key, task_id
            if question.reask is None:
                wait.recorded = idempotency_key
        self._outdate()
        return pending

    def ends(self, wait: Wait, outcome: Outcome) -> None:
        """Record that the task has ended, and keep who decided in the current details."""
        assigned = wait.pending.who if wait.pending is not None and "@" in wait.pending.who else None
        who = outcome.completed_by_display_name or outcome.completed_by_email or (outcome.answered and assigned)
        by = f" by {markdown(who)}" if who else ""
        where = f" ({markdown(outcome.completed_via_channel)})" if outcome.completed_via_channel else ""
        at = outcome.completed_at or outcome.timed_out_at
        when = f", {at:%Y-%m-%d %H:%M} UTC" if at is not None else ""
        question = markdown(wait.pending.question if wait.pending else wait.key)
        reworded = f" ({REWORDED})" if outcome.reworded else ""
        self._decisions_shown.append(f"**{question}** {markdown(outcome.status)}{by}{where}{when}{reworded}")
        self._settled(wait)

    def leaves(self, wait: Wait) -> None:
        """Record that the call has ended, and drop its answers."""
        self.open.pop(wait, None)
        self._release(wait.awaited)
        wait.awaited = []
        if wait.pending is not None:
            self._settled(wait)

    def _settled(self, wait: Wait) -> None:
        """Record that no person is asked any more."""
        wait.pending = None
        self._waiting.pop(wait, None)
        self._relist()

    def activity_id(self, wait: Wait) -> str:
        """Return the id for the next activity that waits for this question."""
        self._activities += 1
        info = workflow.info()
        made = activity_id(info.original_execution_run_id, self._activities)
        wait.activity = {"activity_id": made, "run_id": info.run_id}
        return made

    # From run to run

    def carried(self) -> dict[str, Any] | None:
        """Return the state that the next run needs, as JSON, or None if no question is open."""
        going_on = [*self.inherited, *self.open]
        if not going_on:
            return None
        return {"version": HEADER_VERSION, "asked": [self._carried(wait) for wait in going_on]}

    def _carried(self, wait: Wait) -> dict[str, Any]:
        key, task_id = self.own_task(wait)
        pending = None
        if wait.pending is not None and self.answer(wait, key) is None:
            pending = replace(wait.pending, key=key, task_id=task_id)
        first = wait.recorded or wait.key
        return wait.carried(key if self._is_anothers(wait, first) else first, pending)

    def inherit(self, carried: Mapping[str, Any]) -> None:
        """Take over the open questions of the previous run. A question that this release cannot read is asked anew."""
        for held in carried.get("asked", ()):
            try:
                wait = Wait.read(held)
            except (AttributeError, KeyError, TypeError, ValueError) as unreadable:
                version = carried.get("version")
                message = "a question of the run before (header version %s) cannot be read and is asked anew: %r"
                workflow.logger.warning(message, version, unreadable)
                continue
            self.schedule(wait, ActivityOptions(task_queue=wait.task_queue))
            self.inherited[wait] = None
            self._families.setdefault(wait.family, deque()).append(wait)
            if wait.pending is not None:
                self._await(wait, ("name", within(wait.pending.key)))
                if wait.pending.task_id is not None:
                    self._await(wait, ("task", wait.pending.task_id))
                self._waiting[wait] = None
        self._outdate()

    # What people see

    def pending(self) -> list[dict[str, Any]]:
        """Query handler: return every task that a person has been asked to answer, oldest first."""
        return [asdict(wait.pending) for wait in self._waiting if wait.pending is not None]

    def _outdate(self) -> None:
        """Schedule publishing, once per iteration of the event loop, however many questions change in it."""
        if not self._outdated:
            self._outdated = True
            asyncio.get_running_loop().call_soon(self._publish)

    def _relist(self) -> None:
        """Schedule publishing, and update the listed assignees, which may have changed."""
        self._unlisted = True
        self._outdate()

    def list_assignees(self) -> None:
        """List the workflow by the assignees of its open questions, if they may have changed.

        An inherited question is already listed, and its assignees are known once it is asked again.
        """
        if self._unlisted and not self.closed:
            self._unlisted = False
            self.listing.show(wait.pending.who for wait in self._waiting if wait.pending is not None)

    def _publish(self) -> None:
        """Publish the Temporal UI's current details: open questions, decisions, and what the workflow itself has set.

        They are Markdown. The address where a person answers comes first. Texts of others are escaped, so they contain
        no markup and no links.
        """
        self._outdated = False
        now = workflow.get_current_details()
        if now != self._shown:
            self._users = now
        lines = [_line(wait.pending) for wait in islice(self._waiting, MAX_SHOWN) if wait.pending is not None]
        if (more := len(self._waiting) - MAX_SHOWN) > 0:
            lines.append(f"and {more} more; the query `{QUERY}` lists all of them")
        self._shown = "\n\n".join([*lines, *self._decisions_shown, *([self._users] if self._users else [])])
        workflow.set_current_details(self._shown)
        self.list_assignees()

    @staticmethod
    def until(pending: PendingTask) -> timedelta:
        """Return the remaining part of the person's time."""
        return max(timedelta(), datetime.fromisoformat(pending.until) - workflow.now())


def _line(pending: PendingTask) -> str:
    """Return the text of one open question in the current details."""
    address = f"{pending.review_url}\n\n" if pending.review_url else ""
    who, question = pending.who or "a person", pending.question or "asked by the run before"
    reworded = f" ({REWORDED})" if pending.reworded else ""
    return f"{address}Waiting for {markdown(who)}: **{markdown(question)}**{reworded}"


def _assignee(body: Mapping[str, Any]) -> str:
    assigned: Mapping[str, Any] = body.get("assign_to") or {}
    if "email" in assigned:
        return str(assigned["email"])
    if "emails" in assigned:
        return ", ".join(map(str, assigned["emails"]))
    return ", ".join(f"{name} {value}" for name, value in assigned.items()) or "a person"


def _about(question: HumanTask[Any], body: Mapping[str, Any]) -> str:
    """Return a digest of text, payload and people, by which the next run recognizes the same question."""
    return subject({"payload": [question.task, body["payload"], body.get("assign_to")]})
