"""A locustfile's parameters, read from its syntax tree: what `bench --workload NAME` needs of it.

The file is not imported. It imports Locust, which patches the standard library of the process that does so; and what it
does beside naming a workload is meant for Locust's own process.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

BASE = "StreamUser"
PARAMETERS = ("workload", "input_tokens", "output_tokens")
_LOCUST_ONLY = {"wait_time", "tasks"}


@dataclass(frozen=True)
class Parameter:
    """What stands behind a name in the class. where: file and line."""

    text: str
    where: str


@dataclass(frozen=True)
class UserClass:
    """The one user of a locustfile. parameters: those of PARAMETERS that it gives. reason: its docstring."""

    name: str
    where: str
    parameters: dict[str, Parameter]
    reason: str


def read_locustfile(path: Path) -> UserClass:
    """Raises UsageError, with file and line, where there is not one user class that bench can read."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    except SyntaxError as error:
        raise UsageError(f"is no Python: {error.msg}", where=f"{path}:{error.lineno}") from error
    classes = _user_classes(tree)
    if not classes:
        advice = f"Derive one from harness.load.user.{BASE}, as locustfiles/chat.py does."
        raise UsageError(f"holds no class derived from {BASE}", where=str(path), advice=advice)
    if len(classes) > 1:
        lines = ", ".join(f"{lineage[0].name} (line {lineage[0].lineno})" for lineage in classes)
        advice = "Keep one to a file, or run it with `locust -f`, which mixes them."
        raise UsageError(f"holds {len(classes)} users: {lines}", where=str(path), advice=advice)
    return _read_class(path, classes[0], _constants(tree))


def _user_classes(tree: ast.Module) -> list[list[ast.ClassDef]]:
    """Each class that Locust would start, followed by those of this file that it is derived from."""
    bases = {BASE} | {
        alias.asname
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == BASE and alias.asname
    }
    known: dict[str, list[ast.ClassDef]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            names = [base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in node.bases]
            parent = next((known[name] for name in names if name in known), None)
            if parent is not None or bases & set(names):
                known[node.name] = [node, *(parent or [])]
    return [lineage for lineage in known.values() if not _is_abstract(lineage[0])]


def _is_abstract(node: ast.ClassDef) -> bool:
    return any(
        name == "abstract" and isinstance(value, ast.Constant) and value.value is True
        for name, value in _assignments(node.body)
    )


def _read_class(path: Path, lineage: list[ast.ClassDef], constants: dict[str, ast.expr]) -> UserClass:
    parameters: dict[str, Parameter] = {}
    for node in reversed(lineage):
        for name, value in _assignments(node.body):
            if name in PARAMETERS:
                parameters[name] = _parameter(path, name, value, constants)
            elif name in _LOCUST_ONLY:
                raise _only_with_locust(path, value.lineno, f"{name} is set")
        for part in node.body:
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                raise _only_with_locust(path, part.lineno, f"{part.name}() is defined")
    own = lineage[0]
    return UserClass(own.name, f"{path}:{own.lineno}", parameters, ast.get_docstring(own) or "")


def _parameter(path: Path, name: str, value: ast.expr, constants: dict[str, ast.expr]) -> Parameter:
    where = f"{path}:{value.lineno}"
    found = constants.get(value.id, value) if isinstance(value, ast.Name) else value
    if isinstance(found, ast.Constant) and type(found.value) in (str, int):
        return Parameter(str(found.value), where)
    raise UsageError(
        f"{name} is {ast.unparse(value)!r}, which is only known when the file runs",
        where=where,
        advice="Write a text, a number or the name of a constant of the file: bench reads the file without running it.",
    )


def _only_with_locust(path: Path, line: int, found: str) -> UsageError:
    return UsageError(
        f"{found}: bench, which sends by its own rules, would pass over it",
        where=f"{path}:{line}",
        advice=f"Run it with `locust -f {path} --host URL`, or keep what bench needs in a file of its own.",
    )


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    return dict(_assignments(tree.body))


def _assignments(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """`name = value` and `name: hint = value`."""
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
