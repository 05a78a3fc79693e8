"""The report of a capacity search: page one for who decides, then what an engineer checks."""

from __future__ import annotations

from collections.abc import Callable

from harness.report.capacity import bounds, curve, habits, levels, overload, settings, surface, validity, what_binds
from harness.report.capacity.subject import SearchReport, answer
from harness.report.document import Document, Notice, Section, Sheet, Verdict
from harness.report.words import gpus, moment
from harness.stats.capacity_report import unit_words
from harness.units import format_count

# In reading order. A new section is a file with a function `section`, and one line here.
SECTIONS: tuple[Callable[[SearchReport], Section | None], ...] = (
    habits.section,
    bounds.section,
    curve.section,
    surface.section,
    what_binds.section,
    overload.section,
    settings.section,
    validity.section,
    levels.section,
)


def capacity_document(searched: SearchReport) -> Document:
    """What a capacity search's report says."""
    manifest = searched.manifest
    about = [] if manifest is None else [manifest.engine, gpus(manifest)]
    return Document(
        title=_title(searched),
        about=" · ".join(part for part in (*about, searched.name) if part),
        answer=answer(searched),
        sections=tuple(found for make in SECTIONS if (found := make(searched)) is not None),
        data=searched.document,
        verdict=_verdict(searched),
        notices=tuple(_notices(searched)),
        sheet=_sheet(searched),
        card=_card(searched),
        kind="capacity",
        name=searched.name,
    )


def _title(searched: SearchReport) -> str:
    manifest = searched.manifest
    card = f" on {gpus(manifest)}" if manifest is not None and manifest.gpu else ""
    histories = [each.history for each in searched.report.histories if each.history is not None]
    long = f", {' and '.join(format_count(each) for each in histories)} tokens of history" if histories else ""
    when = f", {moment(manifest.start)}" if manifest is not None else ""
    title = f"Capacity of {searched.report.model}{card}{long}{when}"
    return f"Emulated: {title[:1].lower()}{title[1:]}" if searched.emulated else title


def _verdict(searched: SearchReport) -> Verdict:
    found = searched.report.first.answer
    if found.holds == 0:
        return Verdict("nothing holds", "bad")
    return Verdict("decided", "good") if found.narrow else Verdict("interval still wide", "care")


def _notices(searched: SearchReport) -> list[Notice]:
    found = []
    if searched.emulated:
        text = "Emulated: the engine was a simulation in real time. These figures show the harness, not a GPU."
        found.append(Notice("note", text))
    if searched.manifest is None:
        found.append(
            Notice("care", "The runs of the levels are not in the folder: image, settings and GPU are unknown.")
        )
    return found


def _card(searched: SearchReport) -> tuple[tuple[str, str], ...]:
    report, manifest = searched.report, searched.manifest
    first = report.first.answer
    unit = unit_words(report.unit)
    pairs = [
        ("Model", report.model),
        ("GPU", (gpus(manifest) if manifest is not None else "") or "not known"),
        ("Engine", manifest.engine if manifest is not None else "not known"),
        ("SLO", str(report.slo)),
        ("Sure to hold", f"{first.holds:,.4g} {unit}"),
        ("Best estimate", f"{first.best:,.4g} {unit}" if first.best is not None else "not known"),
        ("Sure to break", f"{first.breaks:,.4g} {unit}" if first.breaks is not None else "none found"),
        ("Limited by", first.limited_by or "not known"),
        *habits.card(searched),
    ]
    return tuple(pairs)


def _sheet(searched: SearchReport) -> Sheet:
    """One row per level."""
    columns = (
        "model",
        "unit",
        "history_tokens",
        "load",
        "came",
        "share",
        "low",
        "high",
        "needed",
        "bound",
        "decision",
        "seconds",
    )
    rows = []
    for each in searched.report.histories:
        for outcome in each.search.told:
            nearest = outcome.attainment
            share = (nearest.share, *nearest.interval, nearest.needed, nearest.bound.name) if nearest else (None,) * 5
            rows.append((
                searched.report.model, searched.report.unit, each.history, outcome.load, outcome.came, *share,
                outcome.decision, outcome.seconds,
            ))  # fmt: skip
    return Sheet(columns, tuple(rows))
