"""A comparison as text, Markdown and JUnit XML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree

from harness.report.document import Table
from harness.report.to_markdown import table
from harness.report.to_text import aligned
from harness.stats.comparison import MOST_REPEATS, UNKNOWN, Change, Comparison
from harness.stats.good_share import GOOD_SHARE
from harness.stats.run_figure import THROUGHPUT
from harness.text import markdown, visible
from harness.units import format_duration, format_number, format_percent

FEW = 2  # problems that the last line names; all are listed above it
HOW = (  # to read the table
    "In brackets: 95 % interval of the ratio; each run counts as one value. Spread: how much runs of the same thing "
    "differ (standard deviation). Smallest: the change that such repeats find in 80 % of cases, with the number of "
    "figures allowed for."
)
MOST_SHOWN = 10.0  # share; what only a change beyond it would show, shows nothing


def comparison_to_text(comparison: Comparison) -> str:
    """For the terminal."""
    lines = [*aligned(change_table(comparison)), ""] if comparison.changes else []
    lines += [f"Not comparable: {problem}." for problem in comparison.problems]
    lines += [f"Left out: {each}." for each in comparison.left_out]
    lines += [f"Accepted: {each}." for each in accepted_lines(comparison)]
    lines += [f"Note: {each}." for each in comparison.notes]
    lines += [f"Differs: {difference}" for difference in comparison.differences]
    lines += [
        f"Verdict: {comparison.verdict}{' (emulated)' if comparison.emulated else ''}. {gate_sentence(comparison)}"
    ]
    return "\n".join(lines)


def comparison_to_markdown(comparison: Comparison) -> str:
    """For a pull request or a step summary."""
    emulated = "Emulated runs: " if comparison.emulated else ""
    parts = [f"# {emulated}NEW is {WORDS[comparison.verdict]} BASE", markdown(gate_sentence(comparison))]
    parts += [f"> **Not comparable: {markdown(problem)}.**" for problem in comparison.problems]
    if comparison.changes:
        parts.append(table(change_table(comparison)))
        parts.append(HOW)
    if comparison.left_out:
        parts.append("Left out, as neither side has them:\n\n" + _listed(comparison.left_out))
    if accepted := accepted_lines(comparison):
        parts.append("Accepted for a while:\n\n" + _listed(accepted))
    if comparison.notes:
        parts.append("To know:\n\n" + _listed(comparison.notes))
    parts.append(_listed(["BASE: " + ", ".join(comparison.base), "NEW: " + ", ".join(comparison.new)]))
    if comparison.differences:
        parts.append("What else differs:\n\n" + _listed(comparison.differences))
    return "\n\n".join(parts) + "\n"


def accepted_lines(comparison: Comparison) -> list[str]:
    """Regressions that the gate file accepts, each once."""
    return list(dict.fromkeys(str(each.accepted) for each in comparison.gated if each.accepted is not None))


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown(line)}" for line in lines)


def comparison_to_junit(comparison: Comparison) -> str:
    """One test case per figure and level, and one for whether the runs can be compared at all."""
    failures = sum(map(comparison.breaks, comparison.changes)) + bool(comparison.problems)
    unknown = [change for change in comparison.changes if not change.gated]
    tests = str(len(comparison.changes) + 1 + len(comparison.left_out))
    skipped = str(len(comparison.left_out) + len(unknown))
    attributes = {"name": "harness compare", "tests": tests, "failures": str(failures), "errors": "0"}
    suites = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(suites, "testsuite", {**attributes, "skipped": skipped})
    case = ElementTree.SubElement(suite, "testcase", {"classname": "comparable", "name": "the runs can be compared"})
    if comparison.problems:
        text = "; ".join(comparison.problems)
        ElementTree.SubElement(case, "failure", {"message": text, "type": "not comparable"}).text = text
    for change in comparison.changes:
        case = ElementTree.SubElement(suite, "testcase", {"classname": change.load, "name": change.figure})
        if comparison.breaks(change):
            kind = "undecided" if change.passes is None else change.verdict
            failure = ElementTree.SubElement(case, "failure", {"message": sentence(change), "type": kind})
            failure.text = sentence(change)
        elif not change.gated:
            ElementTree.SubElement(case, "skipped", {"message": f"shown, not gated: {sentence(change)}"})
        else:
            ElementTree.SubElement(case, "system-out").text = sentence(change)
    for each in comparison.left_out:
        figure, _, load = each.partition(": ")[0].partition(" at ")
        case = ElementTree.SubElement(suite, "testcase", {"classname": load, "name": figure})
        ElementTree.SubElement(case, "skipped", {"message": each})
    for element in suites.iter():  # XML has no way to write a control code
        element.attrib = {name: visible(value) for name, value in element.attrib.items()}
        element.text = None if element.text is None else visible(element.text)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def workflow_commands(comparison: Comparison) -> Iterator[str]:
    """Workflow commands of GitHub Actions: an error per failure, a warning per figure that cannot be judged, or whose
    regression is accepted.
    """
    for problem in comparison.problems:
        yield _annotation("error", "harness compare", f"Not comparable: {problem}")
    for change in comparison.gated:
        if comparison.breaks(change):
            yield _annotation("error", f"{change.figure} at {change.load}", sentence(change))
        elif change.passes is None or change.accepted is not None:
            yield _annotation("warning", f"{change.figure} at {change.load}", sentence(change))


def gate_sentence(comparison: Comparison) -> str:
    """Whether the gate holds, what broke it, and what would decide it."""
    if comparison.problems:
        more = f"; and {len(comparison.problems) - FEW} more" if len(comparison.problems) > FEW else ""
        found = "; ".join(comparison.problems[:FEW])
        return f"The gate does not hold: the runs cannot be compared ({found}{more})."
    undecided = f"cannot tell for {_named(comparison.undecided)}{_needed(comparison)}" if comparison.undecided else ""
    if comparison.passes:
        passed = "The gate holds: nothing is shown to be worse by more than its limit"
        return f"{passed}, though it {undecided}; the gate lets that pass." if undecided else f"{passed}, nor may be."
    broken = [change for change in comparison.gated if change.passes is False]
    if broken:
        return f"The gate does not hold for {_named(broken)}{f'; it {undecided}' if undecided else ''}."
    return f"The gate does not hold: it {undecided or 'has no figure to judge by'}."


def _named(changes: Sequence[Change]) -> str:
    return ", ".join(f"{change.figure} at {change.load}" for change in changes)


def _needed(comparison: Comparison) -> str:
    needs = comparison.needs
    if needs is None or needs.repeats == 0:
        return ""
    if needs.repeats >= MOST_REPEATS:
        return ": the limit is as good as reached, and no number of repeats would settle it soon"
    minutes = f" ({format_duration(needs.seconds)})" if needs.seconds else ""
    return f": needs about {needs.repeats} more repeats of each side{minutes}"


def sentence(change: Change) -> str:
    """One figure in words."""
    values = f"{_value(change, change.base)} -> {_value(change, change.new)}"
    said = f"{change.figure} at {change.load} is {change.verdict}: {values}, limit {format_percent(change.limit)}"
    if change.accepted is not None:
        said += f" (accepted until {change.accepted.until}: {change.accepted.reason})"
    elif change.expired is not None:
        said += f" (more was accepted until {change.expired.until}, which is over: {change.expired.reason})"
    if math.isinf(change.new):
        return f"{said}; too many of NEW's requests were never answered"
    low, high = (format_number(end) for end in change.ci95)
    known = "of these two runs alone; how much runs differ is not measured" if change.spread_from == UNKNOWN else ""
    return f"{said}, ratio {format_number(change.ratio)} (95 % interval {low} to {high}{known and f', {known}'})"


def change_table(comparison: Comparison) -> Table:
    """A row for each figure and level."""
    columns = ("Load", "Figure", "BASE", "NEW", "Ratio", "Spread", "Smallest", "Limit", "Verdict", "Gate")
    rows = tuple(_row(change) for change in comparison.changes)
    return Table(columns, rows, frozenset(range(2, 8)))


def _row(change: Change) -> tuple[str, ...]:
    low, high = (format_number(end) for end in change.ci95)
    gate = {True: "holds", None: "cannot tell", False: "broken"}[change.passes] if change.gated else "not gated"
    if change.accepted is not None and change.gated:
        gate += f", accepted until {change.accepted.until}"
    unknown = change.spread_from == UNKNOWN
    return (
        change.load,
        change.figure,
        _value(change, change.base),
        _value(change, change.new),
        "–" if math.isinf(change.new) else f"{format_number(change.ratio)} ({low}–{high})",
        "unknown" if unknown else "–" if change.spread is None else format_percent(change.spread),
        "–" if change.smallest is None else _at_most(change.smallest),
        format_percent(change.limit),
        change.verdict,
        gate,
    )


def _at_most(share: float) -> str:
    return format_percent(share) if share <= MOST_SHOWN else f"over {format_percent(MOST_SHOWN)}"


def _value(change: Change, value: float) -> str:
    if math.isinf(value):
        return "never"
    if change.figure == GOOD_SHARE:
        return format_percent(value)
    return f"{format_number(value)}/s" if change.figure == THROUGHPUT else format_duration(value)


def _annotation(kind: str, title: str, text: str) -> str:
    def escaped(part: str) -> str:
        return part.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    name = escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={name}::{escaped(text)}"


WORDS = {
    "same": "the same as",
    "faster": "faster than",
    "slower": "slower than",
    "inconclusive": "not shown to differ from",
}
