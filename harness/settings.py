"""Reads the YAML of `--config FILE`: options of a command under their own names."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.input_files import brief, read_yaml


def read_settings(path: Path, option_names: Collection[str]) -> dict[str, Any]:
    """The file's options as click's default map. option_names: `--users`, `--no-stream`, ... of the command.

    Keys are the long names with or without dashes for underscores. Lists become `1,4,16`. Raises UsageError.
    """
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise UsageError("expected options such as `users: 4`, one a line", where=str(path))
    known = {name.removeprefix("--").replace("-", "_") for name in option_names if name.startswith("--")}
    settings = {str(key).replace("-", "_"): value for key, value in document.items()}
    if "model" in settings and "model" not in known:
        known |= {"model"}
    for key in settings:
        if key not in known or key in ("config", "json", "help"):
            near = difflib.get_close_matches(key, known, n=1)
            raise UsageError(f"unknown option '{brief(key)}'", where=str(path), advice=_offer(near, known))
    return {key: _as_text(key, value, path) for key, value in settings.items()}


def _offer(near: list[str], known: Collection[str]) -> str:
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."


def _as_text(key: str, value: Any, path: Path) -> Any:
    parts = value if isinstance(value, list) else [*value, *value.values()] if isinstance(value, dict) else [value]
    if any(isinstance(part, (list, dict, set, bytes)) for part in parts):
        raise UsageError(f"{key}: expected a value, a list or a mapping of values, found more in it", where=str(path))
    if any("\0" in str(part) for part in parts):
        raise UsageError(f"{key}: expected text without zero bytes", where=str(path))
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    if isinstance(value, dict):
        return ",".join(f"{key}={part}" for key, part in value.items())
    return value
