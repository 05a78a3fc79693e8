"""Edits models.yaml without touching any other character of it: at the places that the parser names.

A round trip through a YAML library keeps most of a file, but moves a comment that follows the last key of an
entry, and re-indents what it writes; a file that people keep by hand should come back as they left it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harness.catalog.document import Value, parse
from harness.errors import UsageError, cannot_write

_OLDER = {"max_input_tokens": "max_input_length"}
_OURS = "# probe: "
_PLAIN = re.compile(r"[A-Za-z][\w./-]*")
_NOT_TEXT = re.compile(r"(?i)true|false|null|yes|no|on|off|y|n")


def with_limits(text: str, file: str, name: str, limits: Mapping[str, int | float], comments: Mapping[str, str]) -> str:
    """The file's text with these limits in the entry; comments: of a limit, why it is what it is.

    What the entry says of other limits stays, and so does a comment that somebody wrote. Raises UsageError where the
    entry is written in a form that cannot be edited. Limits that came by a merge key are written out with the new ones,
    because an entry's own `limits` hides them.
    """
    root, _ = parse(text, file)
    entry = root.entries["models"].entries[name]
    _refuse_shared(entry, file, name, limits)
    own = entry.entries.get("limits")
    if own is not None and "limits" in entry.merged:
        limits = {key: _number(number) for key, number in _over(own, limits).items()}
        own = None
    if own is not None:
        _refuse_shared(own, file, name, limits)
    if entry.flow:
        return _into_flow_entry(text, entry, own, limits)
    if own is None or own.kind == "null":
        return _new_limits(text, entry, own, limits, comments)
    if own.flow:
        return _from_flow_limits(text, own, entry, limits, comments)
    return _into_limits(text, own, limits, comments)


def _number(written: str | int | float) -> int | float:
    value = float(written)
    return int(value) if value.is_integer() else value


def _refuse_shared(value: Value, file: str, name: str, limits: Mapping[str, int | float]) -> None:
    if value.shared:
        raise UsageError(
            "is shared with another entry through an anchor, so it is not changed here",
            where=f"{file}:{value.line}: models/{name}",
            advice=f"Write by hand: limits: {_flow(limits)}.",
        )


def _flow(limits: Mapping[str, object]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in limits.items()) + "}"


def _into_flow_entry(text: str, entry: Value, own: Value | None, limits: Mapping[str, int | float]) -> str:
    """`name: {repo: a/b}`: one line has no room for comments."""
    if own is not None and own.kind == "mapping":
        return text[: own.start] + _flow(_over(own, limits)) + text[own.end :]
    if own is not None:
        return text[: own.end] + f" {_flow(limits)}" + text[own.end :]
    body = text[entry.start : entry.end - 1].rstrip().rstrip(",")
    return text[: entry.start] + f"{body}, limits: {_flow(limits)}" + text[entry.end - 1 :]


def _over(own: Value, limits: Mapping[str, int | float]) -> dict[str, str | int | float]:
    """What is written there, with the new values under the names that are used there."""
    merged: dict[str, str | int | float] = {key: value.text for key, value in own.entries.items()}
    return merged | {_name_in(own, key): value for key, value in limits.items()}


def _name_in(own: Value, key: str) -> str:
    older = _OLDER.get(key)
    return older if older is not None and older in own.entries else key


def _new_limits(
    text: str, entry: Value, own: Value | None, limits: Mapping[str, int | float], comments: Mapping[str, str]
) -> str:
    indent = _indent(text, entry.start)
    lines = [_line(indent + "  ", key, value, comments.get(key)) for key, value in limits.items()]
    if own is None:
        return _insert_below(text, entry.end, [f"{indent}limits:", *lines])
    return _insert_below(text, own.end, lines)


def _from_flow_limits(
    text: str, own: Value, entry: Value, limits: Mapping[str, int | float], comments: Mapping[str, str]
) -> str:
    """`limits: {...}` becomes a block, so that each limit has a line for its comment."""
    if "\n" in text[own.start : own.end]:
        return text[: own.start] + _flow(_over(own, limits)) + text[own.end :]
    indent = _indent(text, entry.start) + "  "
    reasons = {_name_in(own, key): comment for key, comment in comments.items()}
    lines = [_line(indent, key, value, reasons.get(key)) for key, value in _over(own, limits).items()]
    without = text[: own.start].rstrip(" ") + text[own.end :]
    return _insert_below(without, len(text[: own.start].rstrip(" ")), lines)


def _into_limits(text: str, own: Value, limits: Mapping[str, int | float], comments: Mapping[str, str]) -> str:
    indent = _indent(text, own.start)
    missing = [key for key in limits if _name_in(own, key) not in own.entries]
    lines = [_line(indent, key, limits[key], comments.get(key)) for key in missing]
    text = _insert_below(text, own.end, lines)
    present = [(own.entries[_name_in(own, key)], key) for key in limits if key not in missing]
    for value, key in sorted(present, key=lambda pair: pair[0].start, reverse=True):
        text = _replace_value(text, value, limits[key], comments.get(key))
    return text


def _replace_value(text: str, value: Value, number: int | float, comment: str | None) -> str:
    end = _line_end(text, value.end)
    rest = text[value.end : end]
    if comment is not None and (not rest.strip() or rest.strip().startswith(_OURS)):
        rest = f"  {_OURS}{comment}"
    return f"{text[: value.start]}{number}{rest}{text[end:]}"


def _line(indent: str, key: str, value: object, comment: str | None) -> str:
    return f"{indent}{key}: {value}" + (f"  {_OURS}{comment}" if comment else "")


def _indent(text: str, at: int) -> str:
    """The blanks in front of the key that starts at `at`."""
    return " " * (at - (text.rfind("\n", 0, at) + 1))


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return end - 1 if text[end - 1 : end] == "\r" and end > at else end


def _insert_below(text: str, at: int, lines: list[str]) -> str:
    """These lines below the line in which `at` lies, with the file's own line ends."""
    newline = "\r\n" if "\r\n" in text else "\n"
    end = _line_end(text, at)
    return text[:end] + "".join(newline + line for line in lines) + text[end:]


def with_values(text: str, file: str, name: str, values: Mapping[str, object]) -> str:
    """The file's text with these keys of the entry set to other single values; new ones are put below its repo."""
    entry = _entry(text, file, name)
    places = [(entry.entries[key], value) for key, value in values.items() if key in entry.entries]
    new = {key: value for key, value in values.items() if key not in entry.entries}
    touched = [place for place, _ in places] + ([entry.entries["repo"]] if new else [])
    elsewhere = any(place.shared or not entry.start <= place.start < entry.end for place in touched)
    if entry.shared or elsewhere:
        raise UsageError(
            "says it by an anchor, so it is not changed here",
            where=f"{file}: models/{name}",
            advice=f"Write by hand: {_flow(values)}.",
        )
    for place, value in sorted(places, key=lambda pair: pair[0].start, reverse=True):
        text = text[: place.start] + _scalar(value) + text[place.end :]
    if not new:
        return text
    entry = _entry(text, file, name)
    repo = entry.entries["repo"]
    if entry.flow:
        more = "".join(f", {key}: {_scalar(value)}" for key, value in new.items())
        return text[: repo.end] + more + text[repo.end :]
    indent = _indent(text, entry.start)
    return _insert_below(text, repo.end, [_line(indent, key, _scalar(value), None) for key, value in new.items()])


def _entry(text: str, file: str, name: str) -> Value:
    root, _ = parse(text, file)
    return root.entries["models"].entries[name]


def with_entry(text: str, file: str, name: str, keys: Mapping[str, object]) -> str:
    """The file's text with a new entry behind the last one. Values: text, numbers, or mappings of them."""
    root, _ = parse(text, file)
    models = root.entries["models"]
    if models.flow or models.shared:
        raise UsageError(
            "is not written as a block, one entry below the other, so nothing is added to it",
            where=f"{file}:{models.line}: models",
            advice="Add the entry by hand.",
        )
    return _insert_below(text, models.end, ["", *entry_lines(name, keys, _indent(text, models.start))])


def entry_lines(name: str, keys: Mapping[str, object], indent: str = "  ") -> list[str]:
    """One entry as lines of YAML."""
    return [f"{indent}{name}:", *(f"{indent}  {key}: {_scalar(value)}" for key, value in keys.items())]


def _scalar(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_scalar(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    text = str(value)
    return text if _PLAIN.fullmatch(text) and not _NOT_TEXT.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def write_whole(path: Path, text: str) -> None:
    """Replaces the file at once: whoever reads it meanwhile sees the old or the new one.

    Raises UsageError, and MissingError where there is no space or no leave.
    """
    target = path.resolve()
    try:
        handle, scratch = tempfile.mkstemp(dir=target.parent, prefix=".models-", suffix=".yaml")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            os.chmod(scratch, target.stat().st_mode & 0o777 if target.exists() else 0o644)
            os.replace(scratch, target)
        except BaseException:
            os.unlink(scratch)
            raise
    except OSError as error:
        raise cannot_write(error, path) from error
