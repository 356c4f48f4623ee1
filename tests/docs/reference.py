"""python -m tests.docs.reference: write what follows from the code into the reference pages.

Settings, command line, HTTP endpoints and metrics. It is written between two comments of a page; the rest of the page
is written by hand. A test fails when a page differs from what this would write.
"""

import ast
import inspect
import secrets
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

import click
import typer
from fastapi import FastAPI
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from awaithumans_core.settings import Settings
from awaithumans_relay import create_router
from awaithumans_relay.cli import cli
from awaithumans_relay.monitoring.metrics import Metrics

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reference"


def table(*head: str, rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def one_paragraph(text: str) -> str:
    return " ".join(text.split())


# --- settings

EVERYONE = "every process"
ASKING = "Temporal workers, LangGraph processes and servers"
RELAY = "relay"
NEEDED_BY: Mapping[str, str] = {
    "url": EVERYONE,
    "admin_api_token": EVERYONE,
    "public_url": "processes that show review links",
    "relay_url": f"{ASKING}; a relay with `--graph`",
    "relay_secret": f"{ASKING}; {RELAY}",
    "webhook_key": RELAY,
    "payload_key": f"{RELAY}, in place of `AWAITHUMANS_WEBHOOK_KEY`",
    "relay_database": RELAY,
    "relay_sweep_percent": f"{RELAY} that waits for many thousand answers",
    "relay_operator_token": f"{RELAY} that people operate",
}
DEFAULTS: Mapping[str, str] = {
    "url": "a local server for development, then `http://localhost:3001`",
    "admin_api_token": "that of a local server for development",
    "relay_database": "`sqlite:///awaithumans-relay.db`, in the working directory",
}
"""Defaults that are not those of the class."""


def field_docs(kind: type) -> dict[str, str]:
    """Return the text below each field of a class."""
    [node] = ast.parse(dedent(inspect.getsource(kind))).body
    body = cast("ast.ClassDef", node).body
    found: dict[str, str] = {}
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = one_paragraph(ast.literal_eval(below.value))
    return found


def settings_table() -> str:
    docs = field_docs(Settings)

    def default(name: str) -> str:
        given = Settings.model_fields[name].get_default(call_default_factory=True)
        return DEFAULTS.get(name) or ("-" if given in (None, []) else f"`{given:g}`")

    rows = ((f"`AWAITHUMANS_{n.upper()}`", NEEDED_BY[n], docs[n], default(n)) for n in Settings.model_fields)
    return table("variable", "needed by", "what it is", "default", rows=rows)


# --- command line


def help_blocks(text: str) -> str:
    """Return a help text as Markdown: a paragraph that keeps its lines (`\\b`) as a code block."""
    parts: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("\b"):
            parts.append(f"```text\n{paragraph[1:].strip(chr(10))}\n```")
        else:
            parts.append(one_paragraph(paragraph))
    return "\n\n".join(parts) + "\n\n"


def option_row(parameter: click.Parameter) -> tuple[str, str, str]:
    option = cast("Any", parameter)
    name = ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))
    if isinstance(parameter, click.Argument) or option.param_type_name == "argument":
        name = f"`{(parameter.name or '').upper()}`"
    shown = option.show_default if isinstance(getattr(option, "show_default", None), str) else None
    default = shown or ("" if parameter.default in (None, False, ()) or callable(parameter.default) else "given")
    if default == "given":
        default = f"`{getattr(parameter.default, 'value', parameter.default)}`"
    return name, one_paragraph(option.help or ""), default


def commands() -> str:
    group = cast("click.Group", typer.main.get_command(cli))
    parts = [help_blocks(group.help or "")]
    for name, command in group.commands.items():
        parts.append(f"## {name}\n\n{help_blocks(command.help or '')}")
        rows = [option_row(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            parts.append(table("option", "what it does", "default", rows=iter(rows)) + "\n")
    return "".join(parts)


# --- HTTP


def openapi() -> dict[str, Any]:
    """Return the document of an application that includes a relay. The database file is not opened."""
    address, keys = "http://127.0.0.1:9", {name: secrets.token_urlsafe(32) for name in ("relay_secret", "payload_key")}
    settings = Settings.load(url=address, admin_api_token="t", relay_url=address, **keys)
    app = FastAPI()
    app.include_router(create_router([], settings=settings, database="sqlite:///not-opened.db"))
    return app.openapi()


class Document:
    """The OpenAPI document, with the text below each field of its models."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.paths: Mapping[str, Mapping[str, Any]] = document["paths"]
        self._schemas: Mapping[str, Any] = document["components"]["schemas"]
        self._models = {model.__name__: model for model in models(BaseModel)}

    def type_of(self, schema: Mapping[str, Any]) -> str:
        """Return the JSON type of a value in a few words."""
        if "$ref" in schema:
            name = str(schema["$ref"]).rpartition("/")[2]
            return self.type_of(self._schemas[name]) if "enum" in self._schemas[name] else f"[{name}](#{name.lower()})"
        if several := schema.get("anyOf"):
            return " or ".join(dict.fromkeys(self.type_of(each) for each in several))
        if "enum" in schema:
            return ", ".join(f"`{value}`" for value in schema["enum"])
        if schema.get("type") == "array":
            return f"list of {self.type_of(schema.get('items', {}))}"
        kind = schema.get("format") or schema.get("type") or "any"
        return " or ".join(kind) if isinstance(kind, list) else str(kind)

    def named(self, name: str) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self._schemas[name])

    def fields(self, schema: Mapping[str, Any]) -> str:
        """Return the table of the fields of an object; nothing if it has none that are known."""
        if "$ref" in schema:
            schema = self.named(str(schema["$ref"]).rpartition("/")[2])
        model = self._models.get(schema.get("title", "Outcome"))  # the body of a callback has no title
        texts = {} if model is None else field_docs(model)
        rows = [
            (f"`{name}`", self.type_of(each), texts.get(name, ""))
            for name, each in cast("Mapping[str, Any]", schema.get("properties", {})).items()
        ]
        return table("field", "type", "meaning", rows=iter(rows)) if rows else ""


def models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        if model.__module__.startswith("awaithumans_"):
            yield model
        yield from models(model)


def content(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", part.get("content", {}).get("application/json", {}).get("schema", {}))


def endpoint(method: str, path: str, operation: Mapping[str, Any], document: Document) -> Iterator[str]:
    yield f"## {method.upper()} {path}\n\n{one_paragraph(operation['description'])}\n\n"
    asked = [
        (f"`{each['name']}`", document.type_of(each["schema"]), one_paragraph(each.get("description", "")))
        for each in operation.get("parameters", [])
        if each["in"] == "query"
    ]
    if asked:
        yield table("parameter", "type", "meaning", rows=iter(asked)) + "\n"
    if body := content(operation.get("requestBody", {})):
        yield f"Body:\n\n{document.fields(body)}\n"
    for status, reply in operation["responses"].items():
        if status.startswith("2") and (fields := document.fields(content(reply))):
            yield f"Reply ({status}):\n\n{fields}\n"
    refused = ", ".join(status for status in sorted(operation["responses"]) if not status.startswith("2"))
    if refused:
        yield f"[Refused](#error-replies) with: {refused}.\n\n"


def endpoints() -> str:
    document = Document(openapi())
    parts = list[str]()
    for path, operations in document.paths.items():
        for method, operation in operations.items():
            parts += endpoint(method, path, operation, document)
    for name in ("WaitView", "EngineReport"):
        parts.append(f"## {name}\n\n{one_paragraph(document.named(name)['description'])}\n\n")
        parts.append(document.fields(document.named(name)) + "\n")
    return "".join(parts)


# --- metrics


def collectors() -> list[MetricWrapperBase]:
    return [value for value in vars(Metrics()).values() if isinstance(value, MetricWrapperBase)]


def metrics_table() -> str:
    def row(collector: MetricWrapperBase) -> tuple[str, ...]:
        [family] = collector.describe()
        suffix = "_total" if family.type == "counter" else ""
        labels = ", ".join(f"`{label}`" for label in collector._labelnames) or "-"
        return f"`{family.name}{suffix}`", family.type, labels, family.documentation

    rows = (row(collector) for collector in collectors())
    return table("metric", "type", "labels", "meaning", rows=rows)


WRITTEN: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "cli": commands,
    "http": endpoints,
    "metrics": metrics_table,
}
"""What is written into each page."""

BEGIN, END = "<!-- from here written by make reference -->\n", "<!-- to here -->\n"


def updated(page: str) -> str:
    """Return the text of a page, up to date."""
    before, rest = (PAGES / f"{page}.md").read_text().split(BEGIN)
    return f"{before}{BEGIN}\n{WRITTEN[page]().strip()}\n\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Write all pages."""
    for page in WRITTEN:
        (PAGES / f"{page}.md").write_text(updated(page))
        print(f"docs/reference/{page}.md")


if __name__ == "__main__":
    main()
