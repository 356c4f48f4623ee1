"""Command line, progress lines and tables of a benchmark that is not part of the book."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def argument_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the docstring of the benchmark, with the option that all of them have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return parser


def progress(side: str, message: str) -> None:
    print(f"{side}: {message}", file=sys.stderr, flush=True)


def columns(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """Format rows as a table: the first column left-aligned, the others right-aligned."""
    first, *others = widths
    return "\n".join(
        row[0].ljust(first) + "".join(cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
