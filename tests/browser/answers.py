"""Every type of an answer's field in the dashboard: as a model, a dataclass and a TypedDict; valid, blank and wrong."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from awaithumans_core import (
    HumanTask,
    InvalidTaskError,
    ResponseSchemaError,
    Settings,
    TaskClient,
    settle,
)
from awaithumans_core.form import form_definition
from awaithumans_core.safe_text import one_line
from tests.browser.dashboard import REVIEWER, Dashboard
from tests.browser.types import KINDS, NO_FIELDS, REFUSED, REFUSED_WHEN_ASKED, SHAPES, Kind, response_class, value_of

Entered: TypeAlias = Literal["valid", "blank", "wrong"]
ENTERED: tuple[Entered, ...] = ("valid", "blank", "wrong")

Cells: TypeAlias = dict[str, dict[str, str]]
"""What happened, by type and column."""


class Answers:
    """Asks for every type, has a person answer in the dashboard, and writes down what the caller got."""

    def __init__(self, dashboard: Dashboard, settings: Settings) -> None:
        self._dashboard = dashboard
        self._settings = settings
        self.failures: list[str] = []

    async def run(self) -> Cells:
        """Return the cells of the table. What is not as it must be is added to `failures`."""
        cells: Cells = {kind: {} for kind in (*KINDS, *REFUSED_WHEN_ASKED)}
        async with TaskClient(settings=self._settings) as client:
            for shape in SHAPES:
                for entered in ENTERED:
                    await self._answer(client, shape, entered, cells)
        cells[NO_FIELDS] = {entered: await self._confirm(client, entered) for entered in ("valid", "blank")}
        cells[NO_FIELDS]["input"] = "switch to confirm"
        for kind, annotation in REFUSED_WHEN_ASKED.items():
            cells[kind] = {"input": "refused when asked"}
            for shape in SHAPES:
                self._must_refuse(kind, response_class(shape, {kind: annotation}))
        return cells

    def _must_refuse(self, kind: str, schema: Any) -> None:
        try:
            HumanTask(task="A secret?", response_schema=schema)
        except InvalidTaskError:
            return
        self.failures.append(f"{kind} is asked for, although its answer would be stored")

    async def _confirm(self, client: TaskClient, entered: Entered) -> str:
        """Confirm a question whose response class has no fields, or submit it without a confirmation."""
        found: Any = None
        for shape in SHAPES:
            schema = response_class(shape, {})
            question = HumanTask(task=f"{shape}, confirm {entered}?", response_schema=schema, assign_to=REVIEWER)
            task = await client.create(question)
            await self._dashboard.open(task.task_id)
            if entered == "valid":
                (field,) = question.body()["form_definition"]["fields"]
                await self._dashboard.fill(field, "Yes")
            await self._dashboard.submit()
            try:
                found = settle(await client.get(task.task_id), schema)
            except ResponseSchemaError as error:
                found = error
            if isinstance(found, ResponseSchemaError) != (entered == "blank"):
                self.failures.append(f"{NO_FIELDS}, {shape}, {entered}: {_shown(found)}")
        return "an instance" if entered == "valid" else _shown(found)

    async def _answer(self, client: TaskClient, shape: str, entered: Entered, cells: Cells) -> None:
        kinds = {kind: row for kind, row in KINDS.items() if entered != "wrong" or row.wrong is not None}
        schema = response_class(shape, {kind: row.annotation for kind, row in kinds.items()})
        question = HumanTask(task=f"{shape}, {entered}?", response_schema=schema, assign_to=REVIEWER)
        task = await client.create(question)
        await self._dashboard.open(task.task_id)
        fields = {field.get("name"): field for field in question.body()["form_definition"]["fields"]}
        names = _names(schema, kinds)
        for kind, row in kinds.items():
            field = fields[names[kind]]
            if entered != "blank":
                await self._dashboard.fill(field, row.entered if entered == "valid" else row.wrong)
            subtype = field.get("subtype", "plain")
            cells[kind]["input"] = field["kind"] if subtype == "plain" else f"{field['kind']} ({subtype})"
        await self._dashboard.screenshot(f"{shape}-{entered}")
        await self._dashboard.submit()
        outcome = await client.get(task.task_id)
        for kind, row in kinds.items():
            single = response_class(shape, {kind: row.annotation})
            response = {name: value for name, value in (outcome.response or {}).items() if name == names[kind]}
            try:
                found: Any = value_of(settle(outcome.model_copy(update={"response": response}), single), kind)
            except ResponseSchemaError as error:
                found = error
            self._note(f"{kind} in a {shape}, {entered}", found, _wanted(row, entered))
            cells[kind].setdefault(entered, _shown(found))

    def _note(self, what: str, found: Any, wanted: Any) -> None:
        refused = isinstance(found, ResponseSchemaError)
        if (wanted is REFUSED) != refused or (not refused and (found != wanted or type(found) is not type(wanted))):
            self.failures.append(f"{what}: {_shown(found)} instead of {_shown(wanted)}")


def _names(schema: Any, kinds: Mapping[str, Kind]) -> dict[str, str]:
    """Return the names in an answer: the alias of a field that has one."""
    asked = [field["name"] for field in form_definition(schema)["fields"]]
    return dict(zip(kinds, asked, strict=True))


def _wanted(row: Kind, entered: Entered) -> Any:
    return {"valid": row.value, "blank": row.blank, "wrong": REFUSED}[entered]


def _shown(value: Any) -> str:
    """Return a cell of the table."""
    if value is REFUSED:
        return "refused"
    if isinstance(value, ResponseSchemaError):
        return "refused: " + one_line(value.problems[0].partition(": ")[2] or value.problems[0], 90)
    return repr(value)
