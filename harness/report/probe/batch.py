"""Speed over the number of concurrent chats: from where one more gains little."""

from __future__ import annotations

from collections.abc import Sequence

from harness.probe.batching import KNEE, BatchPoint, knee, of_history
from harness.probe.file import ProbeFile
from harness.report.document import Axis, Chart, Mark, Paragraph, Section, Series
from harness.report.words import plural
from harness.units import format_count, format_duration, format_number, format_percent


def section(found: ProbeFile) -> Section | None:
    """None where no history was measured at several sizes."""
    points = [each.point for each in found.batch]
    histories = sorted({point.history_tokens for point in points})
    curves = {history: of_history(points, history) for history in histories}
    curves = {history: curve for history, curve in curves.items() if len(curve) > 1}
    if not curves:
        return None
    how = f"Knee: from there on one more chat brings less than {format_percent(KNEE)} of what a lone one brings."
    read = tuple(Paragraph(line) for line in _readings(found, curves))
    return Section("Batch curve", (*read, Paragraph(how, soft=True), _rate(curves), _pace(curves)))


def _readings(found: ProbeFile, curves: dict[int, list[BatchPoint]]) -> list[str]:
    """Where many more chats fit than bring anything."""
    lines = []
    fits = {cell.history_tokens: cell.chats_fit for cell in found.capacity}
    for history, curve in curves.items():
        bend, fit = knee(curve), fits.get(history)
        if bend and fit and fit >= 2 * bend:
            lines.append(
                f"{plural(fit, 'chat')} of {_name(history)} fit, but from {bend} on each more brings little: those "
                "beyond share the same tokens per second. For short gaps set the concurrency limit near the knee."
            )
    return lines


def _name(history: int) -> str:
    return f"{format_count(history)} tokens"


def _rate(curves: dict[int, list[BatchPoint]]) -> Chart:
    said, marks = [], []
    for history, curve in curves.items():
        known = [point for point in curve if point.rate]
        bend = knee(curve)
        ends = (
            f"{format_number(known[0].rate)} to {format_number(known[-1].rate)} tokens/s" if known else "not measured"
        )
        where = f"knee at {plural(bend, 'chat')}" if bend else "no knee within what was measured"
        said.append(f"{_name(history)}: {ends} from {curve[0].chats} to {plural(curve[-1].chats, 'chat')}, {where}")
        if bend and len(curves) == 1:
            marks.append(Mark("x", float(bend), "knee"))
    series = tuple(
        Series(_name(history), tuple((float(point.chats), point.rate or float("nan")) for point in curve))
        for history, curve in curves.items()
    )
    return Chart(
        name="tokens-by-batch",
        title="Output tokens per second by chats at once",
        words=f"{'; '.join(said)}.",
        x=Axis("Chats at once", low=0.0),
        y=Axis("Output tokens per second", low=0.0),
        series=series,
        marks=tuple(marks),
    )


def _pace(curves: dict[int, list[BatchPoint]]) -> Chart:
    said = []
    for history, curve in curves.items():
        said.append(f"{_name(history)}: {_duration(curve[:1])} to {_duration(curve[-1:])}")
    series = tuple(
        Series(_name(history), tuple((float(each.chats), each.itl_p95 or float("nan")) for each in curve))
        for history, curve in curves.items()
    )
    return Chart(
        name="itl-by-batch",
        title="ITL p95 by chats at once",
        words=f"{'; '.join(said)}.",
        x=Axis("Chats at once", low=0.0),
        y=Axis("ITL p95", "s", log=None),
        series=series,
    )


def _duration(points: Sequence[BatchPoint]) -> str:
    return format_duration(points[0].itl_p95)
