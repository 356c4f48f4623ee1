"""Write what programs read beside the pages: `llms.txt` with a link to each page, and each page as Markdown."""

import re
from itertools import groupby
from pathlib import Path
from typing import Any

INCLUDED = re.compile(r'^--8<-- "([^":]+)(?::(\w+))?"$', re.MULTILINE)


def on_post_build(config: Any) -> None:
    """Write the files into the site, in the order of the navigation."""
    site = Path(config["site_dir"])
    lines = [f"# {config['site_name']}", "", f"> {config['site_description']}"]
    for section, pages in groupby(
        _NAVIGATION, key=lambda page: page.ancestors[-1].title if page.ancestors else "Start"
    ):
        lines += ["", f"## {section}", ""]
        for page in pages:
            (site / page.file.src_uri).write_text(INCLUDED.sub(_included, page.markdown))
            lines.append(f"- [{page.title}]({page.file.src_uri})")
    (site / "llms.txt").write_text("\n".join(lines) + "\n")


_NAVIGATION: list[Any] = []


def on_nav(nav: Any, **_: Any) -> None:
    """Keep the pages of the navigation."""
    _NAVIGATION[:] = nav.pages


def _included(named: re.Match[str]) -> str:
    text = Path(named[1]).read_text()
    if named[2]:
        text = text.partition(f"[start:{named[2]}] -->\n")[2].partition("<!-- --8<-- [end:")[0]
    return text.rstrip("\n")
