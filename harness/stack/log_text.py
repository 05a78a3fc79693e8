"""Log lines as plain text: colours taken away, JSON records turned into the form that TGI prints without
--json-output.
"""

from __future__ import annotations

import json
import re

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def plain_line(raw: str) -> str:
    """One line without colours, carriage returns and trailing space; a JSON log record as `TIME LEVEL target: message`.

    The launcher's record holds its text under `fields.message`, the router's at the top; further fields follow as
    `name=value` like in the plain form (`rank=0`).
    """
    line = _ESCAPE.sub("", raw).rstrip()
    if "\r" in line:  # a progress bar: only its last state counts
        line = line.rsplit("\r", 1)[-1]
    return _from_json(line) if line.startswith("{") and line.endswith("}") else line


def _from_json(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return line
    if not isinstance(record, dict):
        return line
    inner = record.get("fields")
    fields = dict(inner) if isinstance(inner, dict) else {key: record[key] for key in ("message",) if key in record}
    message = fields.pop("message", None)
    if not isinstance(message, str):
        return line
    rest = "".join(f" {key}={value}" for key, value in fields.items())
    start = " ".join(str(record[key]) for key in ("timestamp", "level") if record.get(key))
    target = f"{record['target']}: " if record.get("target") else ""
    return f"{start} {target}{message}{rest}".strip()
