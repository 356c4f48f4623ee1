"""The log events in the source: level and text of each call of a logger."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("core/awaithumans_core", "adapters/awaithumans_adapters", "callback_relay/awaithumans_relay")
LEVELS = {"exception": "error"} | {level: level for level in ("debug", "info", "warning", "error", "critical")}


def events() -> set[tuple[str, str]]:
    """Return level and text of every event. A text that is not known before run time is the name it has in the code."""
    trees = [ast.parse(path.read_text()) for source in SOURCES for path in sorted((ROOT / source).rglob("*.py"))]
    constants = {name: texts for tree in trees for name, texts in assigned(tree.body).items()}
    found = set[tuple[str, str]]()
    for tree in trees:
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found |= set(logged(function, constants))
    return found


def logged(
    function: ast.FunctionDef | ast.AsyncFunctionDef, constants: Mapping[str, list[str]]
) -> Iterator[tuple[str, str]]:
    local = assigned(list(ast.walk(function)))
    for call in ast.walk(function):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS:
            owner = call.func.value
            name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
            if name.lstrip("_") == "logger" and call.args:
                shown = call.args[0]
                known = ast.unparse(shown)
                for text in texts_of(shown) or local.get(known) or constants.get(known) or [f"<{known}>"]:
                    yield LEVELS[call.func.attr], text


def assigned(nodes: list[ast.stmt] | list[ast.AST]) -> dict[str, list[str]]:
    """Return the texts that each name is set to."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        if not isinstance(node, ast.Assign):
            continue
        target, value = node.targets[0], node.value
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        values = value.elts if isinstance(value, ast.Tuple) else [value]
        for name, given in zip(names, values, strict=False):
            if isinstance(name, ast.Name):
                found.setdefault(name.id, []).extend(texts_of(given))
    return found


def texts_of(value: ast.expr) -> list[str]:
    """Return the texts that an expression can be."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return [value.value]
    if isinstance(value, ast.IfExp):
        return [*texts_of(value.body), *texts_of(value.orelse)]
    if isinstance(value, ast.BinOp):
        return [left + right for left in texts_of(value.left) for right in texts_of(value.right)]
    return []
