"""The page of the documentation that has the faults, and the seconds until they were healed."""

import os
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from tests.faults.scenario import ANSWERED_DURING, BEFORE, DURING, Run
from tests.faults.stage import ROOT

PAGE = ROOT / "docs" / "reliability.md"


def page(runs: Sequence[Run], load: float) -> str:
    """Return the page for a run in which no law was broken; `load` is that of the machine when it began."""
    return "\n".join([*_text(runs, load), ""])


INTRODUCTION = """# Reliability

<!-- Written by `make faults`. Do not edit it by hand. -->

In each scenario {before} workflows, LangGraph threads or scripts ask a person, each about an order of its own.
Then the fault begins, people answer {answered} of the questions (in some scenarios {during} more callers ask), and the
fault ends. Afterwards people answer the rest. All servers, relays and callers are real processes, with a TCP proxy
between each pair. Each caller records its answer with a line in a file when it acts.

**In all {scenarios} scenarios every answer was acted on exactly once and by its own caller, each question was asked
once, and no delivery was given up: {effects} effects of {effects} answers.**

Run of {date}: {cores} cores, load average {load:.1f} at the beginning, {system}, Python {python}. The last column has
the seconds from the end of the fault until the answers that were given while it lasted had their effects, and the
callers that asked meanwhile wait. The start of the processes that were down is part of it."""


def _text(runs: Sequence[Run], load: float) -> Iterator[str]:
    yield INTRODUCTION.format(
        before=len(BEFORE),
        answered=len(ANSWERED_DURING),
        during=len(DURING),
        scenarios=len(runs),
        effects=sum(each.effects for each in runs),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        cores=os.cpu_count(),
        load=load,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
    )
    for part in dict.fromkeys(each.scenario.part for each in runs):
        yield from (
            "",
            f"## {part[0].upper()}{part[1:]}",
            "",
            "| fault | what happens | fault lasted (s) | healed after (s) |",
            "|---|---|---|---|",
        )
        for each in runs:
            if each.scenario.part == part:
                scenario = each.scenario
                yield f"| {scenario.fault} | {scenario.result} | {each.lasted:.0f} | {each.healed:.1f} |"
