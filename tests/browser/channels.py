"""The mail and the Slack modal of a question, as the server renders them."""

import asyncio
import json
from typing import Any

from awaithumans.forms import FormDefinition, form_renders_in  # type: ignore[import-untyped]
from awaithumans.server.channels.slack.blocks import form_to_modal  # type: ignore[import-untyped]
from devservers import HumansServer

from awaithumans_core import HumanTask, Settings, TaskClient
from tests.browser.types import KINDS, response_class
from tests.support.decisions import Decision
from tests.support.people import People

HOSTILE = "<b>bold</b> <!channel> *starred*\nApproved: yes \u202e"
PAYLOAD = {"customer": {"name": "Ann"}, "note": HOSTILE}


async def check_channels(humans: HumansServer, people: People, settings: Settings) -> list[str]:
    """Return what is wrong with the mail and the modal of some questions."""
    wrong: list[str] = []
    address = await people.mail_address()
    async with TaskClient(settings=settings) as client:
        simple = HumanTask(task="One switch?", payload=PAYLOAD, response_schema=Decision, notify=address)
        await client.create(simple)
        html = await _mail(humans, "One switch?")
        wrong += [
            f"mail: {part!r} is missing" for part in ("customer / name", "Ann", "/email/action/") if part not in html
        ]
        wrong += [f"mail: {part!r} is not escaped" for part in ("<b>bold", "\u202e") if part in html]
        long = HumanTask(task="A long one?", payload={"text": "x" * 400}, response_schema=Decision, notify=address)
        await client.create(long)
        if "/email/action/" in await _mail(humans, "A long one?"):
            wrong.append("mail: it offers a button beside a value that it does not show in full")
        kinds = {kind: row.annotation for kind, row in KINDS.items() if "table(" not in kind}  # Slack has no tables
        every = HumanTask(
            task="Every type?", payload=PAYLOAD, response_schema=response_class("model", kinds), notify="slack:#none"
        )
        task = await client.create(every)
        record = await people.task(task.task_id)
    form = FormDefinition.model_validate(record["form_definition"])
    if not form_renders_in(form, "slack"):
        return [*wrong, "Slack: the form of every type is not shown in a modal"]
    modal: Any = form_to_modal(form=form, task_id="1", task_title="Every type?", task_payload=record["payload"])
    inputs = [block["block_id"] for block in modal["blocks"] if block["type"] == "input"]
    if len(inputs) != len(kinds):
        wrong.append(f"Slack: the modal has {len(inputs)} inputs for {len(kinds)} fields")
    text = "\n".join(block["text"]["text"] for block in modal["blocks"] if block["type"] == "section")
    wrong += [f"Slack: {part!r} is missing" for part in ("*customer / name*: Ann",) if part not in text]
    wrong += [
        f"Slack: {part!r} is active"
        for part in ("<!channel>", "\nApproved: yes", "\u202e", " *starred*")
        if part in text
    ]
    return wrong


async def _mail(humans: HumansServer, words: str) -> str:
    """Return the HTML of the mail with these words in its subject or text."""
    async with asyncio.timeout(60):
        while True:
            for file in humans.mail.glob("*.json"):
                mail = json.loads(file.read_text())
                if words in mail["html"] or words in mail.get("subject", ""):
                    return str(mail["html"])
            await asyncio.sleep(0.1)
