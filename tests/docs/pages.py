"""The documentation as it is written: its pages, code blocks, links and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES = [*(ROOT / name for name in TOP_LEVEL), *sorted((ROOT / "docs").rglob("*.md"))]

FENCED = re.compile(r"^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(?P<ticks>`+)(?!`)(?P<code>.*?)(?<!`)(?P=ticks)(?!`)", re.DOTALL)
LINK = re.compile(r"(?<!\\)\]\((?P<target>[^)\s]+)\)")
INCLUDED = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(?P<text>.+?)(?: \{[^}]*#(?P<id>[\w-]+)[^}]*\})?$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: Path
    line: int
    language: str
    """The first word after the fence."""
    title: str | None
    """The file or the terminal that the block belongs to: `title="..."` after the fence."""
    text: str

    def __str__(self) -> str:
        """Name the block as editors name a place."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@cache
def text_of(page: Path) -> str:
    """The text of a page."""
    return page.read_text()


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """All fenced code blocks of a page."""
    return tuple(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    text = text_of(page)
    for found in FENCED.finditer(text):
        info = found["info"].strip()
        title = re.search(r'title="([^"]*)"', info)
        code = re.sub(rf"^{found['indent']}", "", found["text"], flags=re.MULTILINE)
        code = INCLUDED.sub(lambda named: (ROOT / named[1]).read_text(), code)
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, info.split(" ")[0], title and title[1], code)


def python(page: str) -> list[Block]:
    """The Python blocks of a page of docs/."""
    return [block for block in blocks(ROOT / "docs" / page) if block.language == "python"]


def run(*shown: Block) -> dict[str, Any]:
    """Run Python blocks one after the other in one module, and return its names."""
    names: dict[str, Any] = {"__name__": "shown"}
    for block in shown:
        exec(compile(block.text, str(block), "exec"), names)  # noqa: S102
    return names


@cache
def code_spans(page: Path) -> tuple[str, ...]:
    """What the text of a page shows as code."""
    return tuple(found["code"] for found in CODE_SPAN.finditer(FENCED.sub("", text_of(page))))


@cache
def prose(page: Path) -> str:
    """A page without its code blocks and code spans."""
    return CODE_SPAN.sub("", FENCED.sub("", text_of(page)))


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures, without those of other hosts."""
    targets = [found["target"] for found in LINK.finditer(prose(page))]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings."""
    headings = HEADING.finditer(FENCED.sub("", text_of(page)))
    return frozenset(found["id"] or slug(found["text"]) for found in headings)


def slug(heading: str) -> str:
    """The anchor of a heading, as the site and common hosts of repositories make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
