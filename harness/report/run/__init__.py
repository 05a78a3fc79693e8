"""The report of one run: its sections, and what is above them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from harness.report.document import Document, Notice, Section, Sheet, Verdict
from harness.report.run import (
    about,
    bounds,
    by_load,
    conversations,
    distribution,
    engine,
    levels,
    machines,
    method,
    metrics,
    money,
    over_time,
    readings,
    requests,
    time_parts,
)
from harness.report.words import gpus, listed, load, loads, moment, rate, shares, unjudged, why_not, with_interval
from harness.stats.evidence import Reason
from harness.stats.figure import LEVELS, WITH_INTERVAL
from harness.stats.summary import Summary, workload_name
from harness.units import format_count, format_percent

# In reading order. A new section is a file with a function `section`, and one line here.
SECTIONS: tuple[Callable[[Summary], Section | None], ...] = (
    levels.section,
    bounds.section,
    readings.section,
    by_load.section,
    money.section,
    over_time.section,
    distribution.section,
    metrics.section,
    requests.section,
    conversations.section,
    time_parts.section,
    engine.section,
    machines.section,
    method.section,
    about.section,
)


def run_document(summary: Summary) -> Document:
    """What a run's report says."""
    manifest = summary.manifest
    return Document(
        title=title(summary),
        about=f"{manifest.engine} · {manifest.run_id}",
        answer=answer(summary),
        sections=tuple(found for make in SECTIONS if (found := make(summary)) is not None),
        data=summary.as_dict(),
        verdict=verdict(summary),
        notices=tuple(notices(summary)),
        remarks=tuple(f"{each.found}. {each.advice}" for each in summary.total.warnings if each.rule in _SAID),
        sheet=_sheet(summary),
        card=_card(summary),
        kind="run",
        name=manifest.run_id,
    )


# What whoever reads only the terminal must know of how answers came and were counted.
_SAID = ("not_told", "invisible", "cut_after_end", "uncounted", "unjudged")


def title(summary: Summary) -> str:
    """Whether it was emulated, what was served, on what, what was asked, and when: unlike that of any other run."""
    manifest = summary.manifest
    card = f" on {gpus(manifest)}" if manifest.gpu else ""
    what = f"{manifest.model}{card}, {workload_name(manifest)}"
    parts = [what, *([loads(summary.levels)] if summary.levels else []), moment(manifest.start)]
    return f"{'Emulated run: ' if manifest.emulated else ''}{', '.join(parts)}"


def verdict(summary: Summary) -> Verdict:
    """Whether the figures may be quoted; green only where they also decide what was asked of them."""
    if not summary.complete:
        return Verdict("incomplete", "bad")
    if not summary.valid:
        return Verdict("invalid", "bad")
    held, slo = summary.capacity.highest, summary.total.attainment.slo
    open_yet = bool(slo.bounds) and (summary.total if held is None else held).decision == "undecided"
    return Verdict("valid, SLO not decided", "care") if open_yet else Verdict("valid", "good")


def notices(summary: Summary) -> list[Notice]:
    """What is at the top of every report, worst first."""
    found, total = [], summary.total
    if not summary.complete:
        text = "Incomplete: the figures cover what was recorded before the run ended. Do not quote them."
        found.append(Notice("bad", text, _placed(total.reasons, summary)))
    elif not summary.valid:
        text = "Invalid: do not quote these figures. Why, and what to do:"
        found.append(Notice("bad", text, _placed(total.reasons, summary)))
    if summary.manifest.emulated:
        text = "Emulated: the engine was a simulation in real time. These figures show the harness, not a GPU."
        found.append(Notice("note", text))
    if total.warnings:
        found.append(Notice("care", "To read with care:", _placed(total.warnings, summary)))
    return found


def _placed(reasons: tuple[Reason, ...], summary: Summary) -> tuple[Reason, ...]:
    """With the load that each is about; what several levels share is said once, with all of their loads."""
    names = {level.level: load(level) for level in summary.levels}
    alike: dict[tuple[str, str, str], list[Reason]] = {}
    for each in reasons:
        alike.setdefault((each.rule, each.limit, each.advice), []).append(each)
    return tuple(replace(group[0], level=None, found=_found(group, names)) for group in alike.values())


def _found(group: Sequence[Reason], names: Mapping[int | None, str]) -> str:
    where: dict[str, list[str]] = {}
    for each in group:
        where.setdefault(each.found, []).extend([] if each.level is None else [names[each.level]])
    return "; ".join(f"{listed(places)}: {found}" if places else found for found, places in where.items())


def answer(summary: Summary) -> str:
    """The sentence that the run was made for."""
    capacity, slo = summary.capacity, summary.total.attainment.slo
    if not slo.bounds:
        return "No SLO was set, so no capacity is given. Set one with --slo or in models.yaml."
    if capacity.unit is None:
        return _of_no_load(summary)
    above = capacity.above
    if capacity.highest is None:
        assert above is not None
        if above.attainment.holds:
            return f"Nothing can be said of the SLO ({slo}) at {load(above)}: {why_not(above)}."
        if above.decision == "undecided" and shares(above):
            return f"Whether the SLO ({slo}) holds at {load(above)} is not decided: {shares(above)}."
        return f"Not even {load(above)} held the SLO ({slo}): {why_not(above)}."
    held = capacity.highest
    text = f"{load(held)} held the SLO ({slo})"
    if held.decision == "undecided":
        text = f"Whether the SLO ({slo}) holds at {load(held)} is not decided: {shares(held)}"
    if held.attainment.judged:
        text += f"; {format_percent(held.attainment.fraction)} of the requests met all of it"
    if above is None:
        return f"{text}, the most that was tried."
    if not above.attainment.holds and above.decision == "undecided" and shares(above):
        return f"{text}; whether {load(above)} do is not decided: {shares(above)}."
    word = "cannot be judged" if above.attainment.holds else "did not"
    return f"{text}; {load(above)} {word}: {why_not(above)}."


def _of_no_load(summary: Summary) -> str:
    """Where levels have no load in common, or nothing can be judged."""
    total, slo = summary.total, summary.total.attainment.slo
    holds, open_ones = total.attainment.holds, unjudged(total)
    if holds is None and open_ones:
        return f"The SLO ({slo}) cannot be judged: {open_ones}."
    if holds is not None and total.decision == "undecided":
        return f"Whether the SLO holds is not decided ({slo}): {shares(total)}."
    words = {True: "The SLO held", False: "The SLO did not hold", None: "Nothing can be said of the SLO"}
    return f"{words[holds]}: {slo}."


def _card(summary: Summary) -> tuple[tuple[str, str], ...]:
    """Of the level that the answer speaks of, else of the lowest."""
    manifest, capacity = summary.manifest, summary.capacity
    level = capacity.highest or capacity.above or (summary.levels[0] if summary.levels else None)
    pairs = [
        ("Model", manifest.model),
        ("GPU", gpus(manifest) or "not known"),
        ("Engine", manifest.engine),
        ("Asked", f"{workload_name(manifest)}, {loads(summary.levels)}" if summary.levels else workload_name(manifest)),
        ("SLO", str(summary.total.attainment.slo) if summary.total.attainment.slo.bounds else "none"),
        ("Verdict", verdict(summary).word),
        ("Holds up to", load(capacity.highest) if capacity.highest else "nothing" if capacity.above else "not known"),
    ]
    if level is not None:
        pairs += [
            ("Figures at", load(level)),
            ("TTFT p95", with_interval(level.figures["ttft"], "p95")),
            ("ITL p95", with_interval(level.figures["itl"], "p95")),
            ("Output tokens/s", rate(level, level.throughput.output_tokens)),
            ("Failed or dropped", format_count(level.requests.failed + level.requests.dropped)),
        ]
    return tuple(pairs)


def _sheet(summary: Summary) -> Sheet:
    """One row per level and metric; durations in seconds."""
    columns = (
        "run_id", "emulated", "level", "users", "offered_rate", "verdict", "metric", "unit", "n", "left_out", "mean",
        *LEVELS, "max", *(f"{name}_ci95_{end}" for name in WITH_INTERVAL for end in ("low", "high")),
    )  # fmt: skip
    rows: list[tuple[object, ...]] = []
    for level in summary.levels:
        for name, figure in level.figures.items():
            numbers = figure.as_dict()
            rows.append((
                summary.manifest.run_id, str(summary.manifest.emulated).lower(), level.level, level.users,
                level.offered_rate, "valid" if level.valid else "invalid", name,
                *(numbers[key] for key in ("unit", "n", "left_out", "mean", *LEVELS, "max")),
                *(end for statistic in WITH_INTERVAL for end in numbers["ci95"][statistic]),
            ))  # fmt: skip
    return Sheet(columns, tuple(rows))
