"""Document: the content of a report, whatever its kind and format. It has sections; formats render them.

A report of a kind (harness/report/run, capacity, ...) makes a Document of its object; a format (to_<name>.py) renders
any Document. Nothing here computes, and nothing here knows HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from harness.stats.evidence import Reason

NOTHING = "–"

NoticeKind = Literal["bad", "care", "note", "good"]
Unit = Literal["", "s", "share"]


@dataclass(frozen=True)
class Paragraph:
    """soft: how to read what is beside it."""

    text: str
    soft: bool = False


@dataclass(frozen=True)
class Bullets:
    """Statements, one each."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Rows of texts under named columns. numbers: the columns that are figures, to be set flush right. title: where a
    section has several.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    title: str = ""


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """What is copied unchanged: settings, a command."""

    text: str


@dataclass(frozen=True)
class Axis:
    """unit: `s` for seconds (shown as ms or s), `share` for 0 to 1 (shown as per cent). log: None: by the values.
    low, high: where it begins and ends, in that unit; None: by the values. names: of a y axis, what its values 0, 1
    and so on are called, from the top down, in lines parted by `\\n`; intervals then lie along x.
    """

    title: str
    unit: Unit = ""
    log: bool | None = False
    low: float | None = None
    high: float | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """A line of points (x, y); a NaN breaks it. intervals: (x, low, high); where the y axis has names, (y, low, high)
    of x. hollow: places of points whose figures are invalid. marks: whether its points are drawn, joined by a line, or
    both.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float, float], ...] = ()
    hollow: frozenset[int] = frozenset()
    marks: Literal["line", "points", "both"] = "both"


@dataclass(frozen=True)
class Mark:
    """A straight line across the chart at a value of one axis, with its name."""

    axis: Literal["x", "y"]
    value: float
    name: str = ""


@dataclass(frozen=True)
class Chart:
    """name: of its file, unique in a document. title: what is drawn. words: the same in words, with the key values.
    bands: spans of x that are shaded. wide: over the whole width, beneath others with the same x axis.
    """

    name: str
    title: str
    words: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    bands: tuple[tuple[float, float], ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Notice:
    """Something to know before any figure. reasons: with the load that each is about."""

    kind: NoticeKind
    text: str
    reasons: tuple[Reason, ...] = ()


Block: TypeAlias = Paragraph | Bullets | Table | Facts | Code | Chart | Notice


@dataclass(frozen=True)
class Section:
    """blocks: in reading order. brief: what the terminal shows of it; nothing unless it is said. detail: for those who
    check, not for those who decide.
    """

    heading: str
    blocks: tuple[Block, ...]
    brief: tuple[Block, ...] = ()
    detail: bool = False

    def charts(self) -> tuple[Chart, ...]:
        return tuple(block for block in self.blocks if isinstance(block, Chart))


@dataclass(frozen=True)
class Verdict:
    """word: one, or two. text: the same as a sentence. kind: how it is shown."""

    word: str
    kind: NoticeKind
    text: str = ""


@dataclass(frozen=True)
class Sheet:
    """The figures as one flat table: numbers as numbers, None where there is none."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()


@dataclass(frozen=True)
class Document:
    """title: unlike that of another report of the kind, and says where it is emulated. about: what was measured when.
    answer: the sentence that the reader came for. remarks: what who reads only the terminal must know. data: the
    document of the JSON form. card: what is laid beside that of others (side_by_side.py). kind, name: of what it is,
    and of its folder.
    """

    title: str
    about: str
    answer: str
    sections: tuple[Section, ...]
    data: Mapping[str, Any]
    verdict: Verdict | None = None
    notices: tuple[Notice, ...] = ()
    remarks: tuple[str, ...] = ()
    sheet: Sheet = field(default_factory=Sheet)
    card: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    name: str = ""

    def charts(self) -> tuple[Chart, ...]:
        return tuple(chart for section in self.sections for chart in section.charts())


def reason_table(reasons: tuple[Reason, ...]) -> Table:
    """One row per reason."""
    rows = tuple((each.found, each.limit, each.advice, each.rule) for each in reasons)
    return Table(("Found", "Limit", "What to do", "Rule"), rows)
