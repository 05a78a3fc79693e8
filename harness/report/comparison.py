"""A comparison as text, Markdown and JUnit XML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from harness.report.content import Table
from harness.report.to_markdown import table
from harness.report.to_text import aligned
from harness.stats.compare import Change, Comparison
from harness.stats.ratio import THROUGHPUT
from harness.text import markdown, visible
from harness.units import format_duration, format_number, format_percent


def comparison_to_text(comparison: Comparison) -> str:
    """For the terminal."""
    lines = [*aligned(_table(comparison)), ""] if comparison.changes else []
    lines += [f"Not comparable: {problem}." for problem in comparison.problems]
    lines += [f"Left out: {each}." for each in comparison.left_out]
    lines += [f"Differs: {difference}" for difference in comparison.differences]
    lines += [
        f"Verdict: {comparison.verdict}{' (emulated)' if comparison.emulated else ''}. {gate_sentence(comparison)}"
    ]
    return "\n".join(lines)


def comparison_to_markdown(comparison: Comparison) -> str:
    """For a pull request or a step summary."""
    emulated = "Emulated runs: " if comparison.emulated else ""
    parts = [f"# {emulated}NEW is {_WORDS[comparison.verdict]} BASE", markdown(gate_sentence(comparison))]
    parts += [f"> **Not comparable: {markdown(problem)}.**" for problem in comparison.problems]
    if comparison.changes:
        parts.append(table(_table(comparison)))
        parts.append(
            "In brackets: 95 % interval of the ratio, from resampling requests. Noise: by how much two measurements of "
            "the same thing differ. Smallest: the smallest change that this data could have shown, corrected for the "
            "number of figures."
        )
    if comparison.left_out:
        parts.append("Left out, as neither side has them:\n\n" + _listed(comparison.left_out))
    parts.append(_listed(["BASE: " + ", ".join(comparison.base), "NEW: " + ", ".join(comparison.new)]))
    if comparison.differences:
        parts.append("What else differs:\n\n" + _listed(comparison.differences))
    return "\n\n".join(parts) + "\n"


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown(line)}" for line in lines)


def comparison_to_junit(comparison: Comparison) -> str:
    """One test case per figure and level, and one for whether the runs can be compared at all."""
    failures = sum(not change.passes for change in comparison.changes) + bool(comparison.problems)
    tests, skipped = str(len(comparison.changes) + 1 + len(comparison.left_out)), str(len(comparison.left_out))
    attributes = {"name": "harness compare", "tests": tests, "failures": str(failures), "errors": "0"}
    suites = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(suites, "testsuite", {**attributes, "skipped": skipped})
    case = ElementTree.SubElement(suite, "testcase", {"classname": "comparable", "name": "the runs can be compared"})
    if comparison.problems:
        text = "; ".join(comparison.problems)
        ElementTree.SubElement(case, "failure", {"message": text, "type": "not comparable"}).text = text
    for change in comparison.changes:
        case = ElementTree.SubElement(suite, "testcase", {"classname": change.load, "name": change.figure})
        if not change.passes:
            failure = ElementTree.SubElement(case, "failure", {"message": sentence(change), "type": change.verdict})
            failure.text = sentence(change)
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
    """Workflow commands of GitHub Actions: an error per failure, a warning per figure that cannot be judged."""
    for problem in comparison.problems:
        yield _annotation("error", "harness compare", f"Not comparable: {problem}")
    for change in comparison.changes:
        if not change.passes:
            yield _annotation("error", f"{change.figure} at {change.load}", sentence(change))
        elif change.verdict == "inconclusive":
            yield _annotation("warning", f"{change.figure} at {change.load}", sentence(change))


def gate_sentence(comparison: Comparison) -> str:
    """Whether the gate holds, and what broke it."""
    if comparison.passes:
        return "The gate holds: nothing is worse by more than its limit."
    broken = [f"{change.figure} at {change.load}" for change in comparison.changes if not change.passes]
    if comparison.problems:
        return f"The gate does not hold: the runs cannot be compared ({'; '.join(comparison.problems)})."
    return f"The gate does not hold for {', '.join(broken)}."


def sentence(change: Change) -> str:
    """One figure in words."""
    low, high = (format_number(end) for end in change.ci95)
    values = f"{_value(change, change.base)} -> {_value(change, change.new)}"
    return (
        f"{change.figure} at {change.load} is {change.verdict}: {values}, "
        f"ratio {format_number(change.ratio)} (95 % interval {low} to {high}), limit {format_percent(change.limit)}"
    )


def _table(comparison: Comparison) -> Table:
    columns = ("Load", "Figure", "BASE", "NEW", "Ratio", "Noise", "Smallest", "Limit", "Verdict", "Gate")
    return Table(columns, tuple(_row(change) for change in comparison.changes), frozenset(range(2, 8)))


def _row(change: Change) -> tuple[str, ...]:
    low, high = (format_number(end) for end in change.ci95)
    return (
        change.load,
        change.figure,
        _value(change, change.base),
        _value(change, change.new),
        f"{format_number(change.ratio)} ({low}–{high})",
        format_percent(change.noise_floor),
        format_percent(change.smallest),
        format_percent(change.limit),
        change.verdict,
        "holds" if change.passes else "broken",
    )


def _value(change: Change, value: float) -> str:
    return f"{format_number(value)}/s" if change.figure == THROUGHPUT else format_duration(value)


def _annotation(kind: str, title: str, text: str) -> str:
    def escaped(part: str) -> str:
        return part.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    name = escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{kind} title={name}::{escaped(text)}"


_WORDS = {
    "same": "the same as",
    "faster": "faster than",
    "slower": "slower than",
    "inconclusive": "not shown to differ from",
}
