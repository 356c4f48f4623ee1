"""Reading of numbers that people type.

Law: a number is read only if there is exactly one reading. Decimal marks and separators of thousands differ between
countries, so `1,234` is 1234 to one person and 1.234 to another. Such a text is refused with an example, never guessed.
"""

import math
import re
from decimal import Decimal

from awaithumans_core.form.refusal import Unreadable

_SIGNS = {"\u2212": "-"}  # the minus sign of typography
_SPACES = dict.fromkeys("\u00a0\u202f\u2009", " ")  # no-break, narrow no-break and thin space
_APOSTROPHES = {"\u2019": "'"}
_UNIFORM = str.maketrans(_SIGNS | _SPACES | _APOSTROPHES)

_PLAIN = re.compile(r"[+-]?(?:\d+(?:_\d+)*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
"""A number as programs write it: digits, and at most one point, which is the decimal mark."""

_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
"""A number whose decimal mark is a comma."""

_GROUPED = tuple(
    (mark, decimal, re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:{re.escape(mark)}\d{{3}})+(?:[{decimal}]\d+)?", re.ASCII))
    for mark, decimal in ((" ", ".,"), ("'", ".,"), (",", "."), (".", ","))
)
"""Separator of thousands, possible decimal marks, and the pattern of such a number."""

ANY_POINT = "write 1234 or 1.23 (a comma or a point before three digits has two readings)"
NO_FRACTION = "write 1234 (a comma or a point before three digits has two readings)"
ANY_COMMA = "write 1234 or 1.23 (a comma before three digits has two readings)"


def readings(text: str) -> frozenset[str]:
    """Return every number that a text may mean, as Python writes numbers; none if the text is no number."""
    uniform = text.strip().translate(_UNIFORM)
    found: set[str] = set()
    if _PLAIN.fullmatch(uniform):
        found.add(uniform.replace("_", ""))
    if _COMMA.fullmatch(uniform):
        found.add(uniform.replace(",", "."))
    for mark, _, pattern in _GROUPED:
        if pattern.fullmatch(uniform):
            found.add(uniform.replace(mark, "").replace(",", "."))
    return frozenset(found)


def read_whole_number(value: object) -> object:
    """Read text as an int; return other values unchanged."""
    if not isinstance(value, str):
        return _finite(value)
    found = Decimal(_only(value, example="1234", advice=NO_FRACTION))
    if found != found.to_integral_value():
        raise Unreadable("write a whole number, for instance 1234")
    if found.adjusted() > _MAX_DIGITS:
        raise Unreadable(f"write a number of at most {_MAX_DIGITS} digits")
    return int(found)


_MAX_DIGITS = 4000
"""Python refuses to convert a text of more than 4300 digits to an int."""


def read_float(value: object) -> object:
    """Read text as a float; return other values unchanged. A point is always the decimal mark."""
    if not isinstance(value, str):
        return _finite(value)
    return _finite(float(_number(value)))


def read_decimal(value: object) -> object:
    """Read text as the text of an exact decimal; return other values unchanged. A point is always the decimal mark."""
    return _number(value) if isinstance(value, str) else _finite(value)


def read_money(value: object, code: str) -> object:
    """Read text as the text of an amount in a currency, whose code or symbol may precede or follow it.

    Raises:
        Unreadable: it is no amount, has two readings, or names another currency.
    """
    if not isinstance(value, str):
        return _finite(value)
    found = _AMOUNT.fullmatch(value.strip().translate(_UNIFORM)) if len(value) <= _MAX_AMOUNT_CHARS else None
    if found is None:
        return _only(value, example="1234 or 1234.50", advice=ANY_POINT)
    units = {unit.upper() for unit in (found["before"], found["after"]) if unit}
    if units - {code.upper(), _SYMBOLS.get(code.upper())}:
        raise Unreadable(f"write an amount in {code}, for instance 1234.50 {code}")
    return _only(found["sign"] + found["number"], example="1234 or 1234.50", advice=ANY_POINT)


_MAX_AMOUNT_CHARS = 100
_UNIT = r"[^\W\d_]{3}|[$€£¥]"
_AMOUNT = re.compile(
    rf"(?P<sign>[+-]?)(?: *(?P<before>{_UNIT}) *)?(?P<number>[+-]?[\d.,'_ ]*[\d.]) *(?P<after>{_UNIT})?"
)
"""An amount, and the code or symbol of a currency before or after it. A dash before a blank may be no sign."""

_SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£", "JPY": "¥"}


def _number(text: str) -> str:
    uniform = text.strip().translate(_UNIFORM)
    return uniform if _PLAIN.fullmatch(uniform) else _only(text, example="1234 or 1.23", advice=ANY_COMMA)


def _only(text: str, *, example: str, advice: str) -> str:
    """Return the only reading of a text. An exponent, as in 1e3, is for measured numbers and not read here.

    Raises:
        Unreadable: there is none, or more than one.
    """
    match [reading for reading in readings(text) if "e" not in reading.lower()]:
        case [only]:
            return only
        case []:
            raise Unreadable(f"write a number, for instance {example}")
        case _:
            raise Unreadable(advice)


def _finite(value: object) -> object:
    """Return the value, unless it is infinity or NaN, which no person means and which would be sent as null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Unreadable("write a finite number")
    return value
