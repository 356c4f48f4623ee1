"""What the dashboard of the server (0.1.11) submits for a form, as its own code does it."""

import base64
import math
from collections.abc import Mapping
from typing import Any

_SHOWN = {"display_text", "image", "video", "pdf_viewer", "html", "section", "divider"}
_STARTS_AT_DEFAULT = {"switch", "single_select", "opinion_scale", "date", "datetime", "time"}
_STARTS_AS_LIST = {"multi_select", "picture_choice"}


class Dashboard:
    """A form that is open in a browser. Inputs start as the dashboard starts them."""

    def __init__(self, form: Mapping[str, Any]) -> None:
        self._fields: dict[str, Any] = {field["name"]: field for field in form["fields"] if field["kind"] not in _SHOWN}
        self._values: dict[str, Any] = {name: _initial(field) for name, field in self._fields.items()}

    def enter(self, name: str, value: Any) -> None:
        """Type, choose or upload what a person enters; `""` clears the input."""
        self._values[name] = _entered(self._fields[name], value)

    def submit(self) -> dict[str, Any]:
        """The response that is sent: an input that is blank and not required is left out."""
        return {
            name: value
            for name, value in self._values.items()
            if value is not None or self._fields[name].get("required", True)
        }


def _initial(field: Mapping[str, Any]) -> Any:
    kind = field["kind"]
    if kind in _STARTS_AT_DEFAULT:
        return field.get("default")
    if kind in _STARTS_AS_LIST:
        return field.get("default") or []
    if kind == "slider":
        return field.get("default", (field["min"] + field["max"]) / 2)
    return {"star_rating": field.get("default", 0), "table": [], "subform": []}.get(kind)


def _entered(field: Mapping[str, Any], value: Any) -> Any:
    kind = field["kind"]
    if kind == "short_text" and field.get("subtype") in {"number", "currency"}:
        return _number(value)
    if kind in {"short_text", "long_text", "rich_text", "date", "datetime", "time"}:
        assert isinstance(value, str)
        return value or None
    if kind == "single_select":
        assert value == "" or value in [option["value"] for option in field["options"]]
        return value or None
    if kind == "multi_select":
        assert set(value) <= {option["value"] for option in field["options"]}
    if kind == "switch":
        assert isinstance(value, bool)
    return value


def _number(typed: str) -> float | None:
    """A number input drops what is no part of a number, such as a comma, and submits a JavaScript number."""
    digits = "".join(letter for letter in typed if letter in "0123456789+-.eE")
    try:
        number = float(digits)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def uploaded(content: bytes, name: str = "file.bin") -> list[dict[str, Any]]:
    """The value of a file upload with this file."""
    data = f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
    return [{"name": name, "mime": "application/octet-stream", "size": len(content), "data": data}]
