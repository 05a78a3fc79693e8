"""Log lines in the form of TGI's launcher (compact) and router (full), as text or as JSON, with or without colours.

Everything goes to stdout. The router's lines carry the spans of the request that they belong to. A reader that goes
away does not stop the server.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

from harness.emulator import rust
from harness.emulator.bodies import Grammar, Parameters
from harness.emulator.request_timings import Timings

_LEVELS = {"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "ERROR": 4, "OFF": 5}
_COLOURS = {"TRACE": "35", "DEBUG": "34", "INFO": "32", "WARN": "33", "ERROR": "31"}


@dataclass(frozen=True)
class Span:
    """What a line belongs to. fields: values as they are printed in the text; bare numbers are ints."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


class Bare(str):
    """Text that is printed without quotation marks in the text form."""


@dataclass(frozen=True)
class Style:
    """How lines look. level: the least that is shown."""

    json: bool = False
    launcher_colour: bool = False
    router_colour: bool = False
    level: str = "INFO"

    @classmethod
    def of(cls, environment: Mapping[str, str], json: bool) -> Style:
        """As the two programs decide it: colours unless NO_COLOR or LOG_COLORIZE=1 say otherwise."""
        asked = environment.get("LOG_LEVEL", "info").rpartition("=")[2].upper()
        return cls(
            json=json,
            launcher_colour=not environment.get("NO_COLOR"),
            router_colour=environment.get("LOG_COLORIZE") != "1",
            level=asked if asked in _LEVELS else "INFO",
        )


class Log:
    """Where all lines go. fd: written without buffering, so that a reader sees each line at once."""

    def __init__(self, style: Style, fd: int | None = None) -> None:
        self.style = style
        self._fd = sys.stdout.fileno() if fd is None else fd
        self._least = _LEVELS[style.level]

    def shows(self, level: str) -> bool:
        return _LEVELS[level] >= self._least

    def launcher(
        self, level: str, text: str, span: str | None = None, rank: int | None = None, target: str = ""
    ) -> None:
        """A line of the launcher, or of the shard through it."""
        if not self.shows(level):
            return
        name = "text_generation_launcher" + target
        named = {} if rank is None else {"rank": rank}
        if self.style.json:
            line: dict[str, Any] = {"timestamp": _now(), "level": level, "fields": {"message": text}, "target": name}
            if span is not None:
                line |= {"span": {**named, "name": span}, "spans": [{**named, "name": span}]}
            self.raw(rust.dumps(line).decode())
            return
        paint = _paint if self.style.launcher_colour else _plain
        before = f"{paint('1', span)}: " if span else ""
        after = "" if rank is None else f" {_field('rank', rank, self.style.launcher_colour, dim_name=True)}"
        head = f"{paint('2', _now())} {paint(_COLOURS[level], level.rjust(5))} {before}"
        self.raw(f"{head}{paint('2', name)}{paint('2', ':')} {text}{after}")

    def router(self, level: str, target: str, where: str, text: str, spans: Sequence[Span] = ()) -> None:
        """A line of the router. where: file and line, `router/src/server.rs:432`."""
        if not self.shows(level):
            return
        file, _, number = where.rpartition(":")
        if self.style.json:
            line: dict[str, Any] = {
                "timestamp": _now(),
                "level": level,
                "message": text,
                "target": target,
                "filename": file,
                "line_number": int(number),
            }
            if spans:
                named = [{**{k: v for k, v in sorted(s.fields.items())}, "name": s.name} for s in spans]
                line |= {"span": named[-1], "spans": named}
            self.raw(rust.dumps(line).decode())
            return
        paint = _paint if self.style.router_colour else _plain
        place = f"{paint('2', file)}{paint('2', ':')}{paint('2', number + ':')}"
        head = f"{paint('2', _now())} {paint(_COLOURS[level], level.rjust(5))} {self._spans(spans)}"
        self.raw(f"{head}{paint('2', target)}{paint('2', ':')} {place} {text}")

    def _spans(self, spans: Sequence[Span]) -> str:
        colour = self.style.router_colour
        paint = _paint if colour else _plain
        parts = []
        for span in spans:
            inner = " ".join(_field(name, value, colour) for name, value in span.fields.items())
            body = f"{paint('1', '{')}{inner}{paint('1', '}')}" if inner else ""
            parts.append(f"{paint('1', span.name)}{body}{paint('2', ':')}")
        return "".join(parts) + (" " if parts else "")

    def success(self, name: str, parameters: Parameters, timings: Timings, seed: int | None, line: int) -> None:
        """The line of a finished request."""
        values = {**request_fields(name, parameters)}
        for key in ("total", "validation", "queue", "inference"):
            values[f"{key}_time"] = rust.duration(getattr(timings, key))
        values["time_per_token"] = rust.duration(timings.per_token)
        values["seed"] = "None" if seed is None else f"Some({seed})"
        target, where = "text_generation_router::server", f"router/src/server.rs:{line}"
        self.router("INFO", target, where, "Success", [Span(name, values)])

    def raw(self, text: str) -> None:
        """A line, unchanged."""
        data = (text + "\n").encode("utf-8", "replace")
        try:
            os.write(self._fd, data)
        except OSError:  # the reader is gone; requests are served all the same
            return


def request_fields(name: str, parameters: Parameters) -> dict[str, Any]:
    """The fields that a request's span has from its beginning."""
    if name in ("completions", "vertex_compatibility"):
        return {}
    text = _parameters(parameters)
    return {"parameters": text if name == "chat_completions" else Bare(text)}


def _parameters(parameters: Parameters) -> str:
    shown = []
    for each in fields(parameters):
        value = getattr(parameters, each.name)
        shown.append(f"{each.name}: {_option(value, each.name)}")
    return "GenerateParameters { " + ", ".join(shown) + " }"


_NOT_OPTIONAL = ("do_sample", "stop", "watermark", "details", "decoder_input_details")


def _option(value: Any, name: str) -> str:
    if name in _NOT_OPTIONAL or value is None:
        return rust.debug(value)
    if isinstance(value, Grammar):
        if value.kind == "regex":
            return f"Some(Regex({rust.string(value.value)}))"
        if value.kind == "json":
            return f"Some(Json({rust.debug_json(value.value)}))"
        return f"Some(JsonSchema(JsonSchemaConfig {{ name: None, schema: {rust.debug_json(value.value)} }}))"
    return f"Some({rust.debug(value)})"


def _field(name: str, value: Any, colour: bool, dim_name: bool = False) -> str:
    shown = str(value) if isinstance(value, (int, Bare)) else f'"{value}"'
    if not colour:
        return f"{name}={shown}"
    if dim_name:
        return f"\x1b[2m\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{shown}\x1b[0m"
    return f"\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{shown}"


def _paint(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def _plain(code: str, text: str) -> str:
    return text


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
