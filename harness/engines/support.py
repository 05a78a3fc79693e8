"""Whether an engine's release can serve an architecture: by its own code, by Transformers', or not.

The answers are read from the engines' own registries; each engine's folder has them in architectures.txt, with the day
and the releases that were read. What lies between two releases that differ is not known, and is called that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from harness.catalog.config_fields import config_classes
from harness.catalog.version import Version, parse_version, version_text

SupportKind = Literal["native", "fallback", "no", "unknown"]


@dataclass(frozen=True)
class Support:
    """fallback: by Transformers' own code, which is slower and knows fewer options. reason: one sentence."""

    kind: SupportKind
    reason: str

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "reason": self.reason}


class Architecture(Protocol):
    """What is asked for: a ModelShape, or as much of one as is known."""

    @property
    def model_type(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def mixer_layers(self) -> int: ...


@dataclass(frozen=True)
class NamedArchitecture:
    """Of a model whose shape is not known."""

    model_type: str
    architecture: str
    mixer_layers: int = 0


@dataclass(frozen=True)
class Span:
    """Releases that serve an architecture: the first that was read, the last, None for the newest that was read."""

    first: Version
    last: Version | None
    fallback: bool


@dataclass(frozen=True)
class Architectures:
    """One engine's table. spans: by architecture, or by model_type where by_model_type. read: releases that were read.

    fallback: since when it hands what it does not list to Transformers; None where it does not, or where the table
    lists that too. date: when it was read.
    """

    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    read: tuple[Version, ...] = ()
    fallback: Version | None = None
    by_model_type: bool = False
    date: str = ""


NOT_READ = Architectures()


def read_architectures(text: str) -> Architectures:
    """The table of an architectures.txt: `NAME FIRST LAST [fallback]`, LAST `-` for the newest that was read."""
    head = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    spans: dict[str, list[Span]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, first, last, *rest = line.split()
            until = None if last == "-" else _version(last)
            spans.setdefault(name, []).append(Span(_version(first), until, "fallback" in rest))
    listed = re.search(r"\bread: ((?:b?\d[\d.]*(?: |$))+)", head)
    fallback = re.search(r"\bfallback: (\d[\d.]*)", head)
    day = re.search(r"Read (\d{4}-\d\d-\d\d)", head)
    return Architectures(
        {name: tuple(each) for name, each in spans.items()},
        tuple(_version(each) for each in listed[1].split()) if listed else (),
        _version(fallback[1]) if fallback else None,
        "by model_type" in head,
        day[1] if day else "",
    )


def _version(text: str) -> Version:
    found = parse_version(text)
    assert found is not None, text
    return found


def names_of(shape: Architecture) -> tuple[str, ...]:
    """The classes that config.json may name for this shape: its own, else those of its model type in Transformers."""
    if shape.architecture:
        return (shape.architecture,)
    return tuple(config_classes().get(shape.model_type, {}).get("architectures", ()))


def answer(table: Architectures, title: str, version: Version, shape: Architecture) -> Support:
    """Whether this release serves the shape's architecture. title: of the engine, for people."""
    names = (shape.model_type,) if table.by_model_type else names_of(shape)
    engine = f"{title} {_text(version)}".strip()
    if not table.read or not names:
        return Support("unknown", f"whether {engine} serves model type {shape.model_type!r} is not known here")
    found = [_of_span(span, name, table, version, engine) for name in names for span in table.spans.get(name, ())]
    if found:
        return min(found, key=lambda each: _ORDER[each.kind])
    return _unlisted(table, version, engine, names[0], shape)


_ORDER: Mapping[SupportKind, int] = {"native": 0, "fallback": 1, "unknown": 2, "no": 3}


def _of_span(span: Span, name: str, table: Architectures, version: Version, engine: str) -> Support:
    first, before = _text(span.first), [each for each in table.read if each < span.first]
    if version < span.first:
        if span.fallback or not before:
            return Support("unknown", f"whether {engine} serves {name} is not known here, {first} does")
        if version <= before[-1]:
            return Support("no", f"{engine} does not serve {name}: {_text(before[-1])} did not yet, {first} does")
        return Support("unknown", f"{engine} may serve {name}: {_text(before[-1])} does not, {first} does")
    if span.last is not None and version > span.last:
        after = [each for each in table.read if each > span.last]
        if after and version >= after[0]:
            return Support("no", f"{engine} no longer serves {name}; the last release that did is {_text(span.last)}")
        return Support("unknown", f"{engine} may serve {name}: {_text(span.last)} does")
    how = "by its Transformers fallback" if span.fallback else "natively"
    newest = f", {_text(table.read[-1])} is the newest that was read" if version > table.read[-1] else ""
    return Support("fallback" if span.fallback else "native", f"{engine} serves {name} {how}{newest}")


def _unlisted(table: Architectures, version: Version, engine: str, name: str, shape: Architecture) -> Support:
    if version > table.read[-1]:
        return Support("unknown", f"{engine} was not read; {_text(table.read[-1])} does not serve {name}")
    if table.fallback is not None and version >= table.fallback and shape.model_type in config_classes():
        if shape.mixer_layers:
            return Support("no", f"{engine} does not list {name}, and its Transformers fallback has no such layers")
        reason = f"{engine} does not list {name}; its Transformers fallback serves it if its Transformers knows it"
        return Support("fallback", reason)
    return Support("no", f"{engine} does not serve {name}")


def _text(version: Version) -> str:
    return f"b{version[0]}" if version[0] > 1000 else version_text(version)


def who_can(shape: Architecture, engines: Iterable[Any], but: str | None = None) -> list[str]:
    """Engines whose newest release that was read serves this shape, each with the oldest that was read to do so; those
    that do by code of their own first.
    """
    native: list[str] = []
    fallback: list[str] = []
    for engine in engines:
        table: Architectures = engine.architectures
        if engine.name == but or not table.read:
            continue
        kind = answer(table, engine.title, table.read[-1], shape).kind
        if kind in ("native", "fallback"):
            oldest = _oldest(table, engine.title, shape)
            words = f"{engine.title} {_text(oldest)}" + ("" if oldest == table.read[-1] else " or newer")
            (native if kind == "native" else fallback).append(words)
    return native + [f"{words} by Transformers' code" for words in fallback]


def _oldest(table: Architectures, title: str, shape: Architecture) -> Version:
    served: Sequence[Version] = [
        each for each in table.read if answer(table, title, each, shape).kind in ("native", "fallback")
    ]
    return served[0]
