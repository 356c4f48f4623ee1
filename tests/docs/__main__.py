"""python -m tests.docs: the pages in site/ load nothing from another host; exit status 1 on failure.

A reader's browser sends no request to another host, and the site looks the same without internet access.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

SITE = Path("site")
LOADING = {"src", "srcset", "poster", "data", "style", "xlink:href"}
"""Attributes that make a browser load their value, whatever the element is."""
LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}
FOREIGN = re.compile(r"(?:^|[\s(,'\"])(?:https?:)?//", re.IGNORECASE)
"""The beginning of an address with a host."""
STYLE_LOADS = re.compile(r"(?:@import\s+|url\()\s*['\"]?((?:https?:)?//[^'\")]*)", re.IGNORECASE)


class Loads(HTMLParser):
    """What a browser loads to show one page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.foreign: list[str] = []
        self._in_style = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        values = {name: value or "" for name, value in attrs}
        found = {name: value for name, value in values.items() if name in LOADING}
        if tag == "link" and LOADED_LINKS & set(values.get("rel", "").split()):
            found["href"] = values.get("href", "")
        if tag in {"image", "use"}:
            found["href"] = values.get("href", "")
        self.foreign += [f"<{tag} {name}={value}>" for name, value in found.items() if FOREIGN.search(value)]
        if "mermaid" in values.get("class", "").split():
            self.foreign.append("a mermaid diagram, whose renderer the theme loads from another host")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.foreign += STYLE_LOADS.findall(data)


def foreign_loads() -> Iterator[str]:
    """Each file of the site with what it loads from another host."""
    for path in sorted(SITE.rglob("*")):
        if path.suffix == ".html":
            found = Loads(path.read_text()).foreign
        elif path.suffix in {".css", ".svg"}:
            text = path.read_text()
            found = STYLE_LOADS.findall(text) + (Loads(text).foreign if path.suffix == ".svg" else [])
        else:
            continue
        yield from (f"{path}: {load}" for load in found)


def main() -> int:
    """Check all files and print a line for each finding."""
    pages = len(list(SITE.rglob("*.html")))
    found = list(foreign_loads())
    print(*found, f"{pages} pages, {len(found)} loads from another host", sep="\n")
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main())
