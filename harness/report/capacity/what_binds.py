"""What limits at the capacity, what to change first, and the gain where the levels allow an estimate."""

from __future__ import annotations

from harness.report.capacity.subject import SearchReport
from harness.report.capacity_text import load_of
from harness.report.document import Block, Bullets, Paragraph, Section
from harness.stats.capacity_report import RATES, HistoryCapacity
from harness.stats.gains import Gain, gains
from harness.stats.outcome import Outcome
from harness.units import format_count

SAME = 0.01  # of the limit: a rate that came is never quite another

# What to change first, by the resource that binds.
CHANGES = {
    "client": "Give the client more: a higher --processes, or a machine of its own; this limit is the client's.",
    "queue limit": "Raise the engine's limit of requests at once (max_concurrent_requests, max_batch_size) where the KV"
    " cache has room: `harness probe` finds how far.",
    "kv memory": "Give the KV cache more room: a quantized model or cache, a shorter history, or another GPU.",
    "prefill": "Shorten prompts, or let a prefix cache answer them; chunked prefill trades TTFT against ITL; else a GPU"
    " with more compute, or one more replica.",
    "decode": "Fewer requests at once per GPU hold ITL: add a replica; a quantized model or a GPU with more memory"
    " bandwidth makes each step shorter.",
}


def section(searched: SearchReport) -> Section | None:
    """By the levels nearest to the estimate that tell, of each history."""
    blocks: list[Block] = []
    several = len(searched.report.histories) > 1
    for each in searched.report.histories:
        lines = _binds(searched, each)
        if not lines:
            continue
        if several and each.history is not None:
            blocks.append(Paragraph(f"With {format_count(each.history)} tokens of history:"))
        blocks.append(Bullets((*lines, *_gains(searched, each))))
    return Section("What limits, what to change first, and what it buys", tuple(blocks)) if blocks else None


def _binds(searched: SearchReport, each: HistoryCapacity) -> list[str]:
    """One resource, read at the nearest level that tells; both where the levels below and above the limit differ."""
    found, unit = each.beside_the_limit, searched.report.unit
    if not found:
        return []
    outcome, figures = found[0]
    at = f"At {load_of(outcome.offered, unit)}{_side(each, outcome)}"
    if figures.binds.resource is None:
        return [f"{at} it is not known what binds: {figures.binds.why}."]
    lines = [f"{at} {figures.binds.resource} binds: {figures.binds.why}. {CHANGES[figures.binds.resource]}"]
    for further, told in found[1:]:
        resource = told.binds.resource
        if resource is not None and resource != figures.binds.resource:
            at = f"At {load_of(further.offered, unit)}{_side(each, further)}"
            lines.append(f"{at} it is {resource}: {told.binds.why}. {CHANGES[resource]}")
    return lines


def _side(each: HistoryCapacity, outcome: Outcome) -> str:
    """Where the level lies, if it is not at the limit itself."""
    best = each.answer.best
    if best is None or abs(outcome.offered / best - 1) < SAME:
        return ""
    return ", above the limit," if outcome.offered > best else ", below the limit,"


def _gains(searched: SearchReport, each: HistoryCapacity) -> list[str]:
    """Estimates, each named as one; where there is none, that it is not measured and what would measure it."""
    manifest = searched.manifest
    found = gains(searched.report, each, {} if manifest is None else manifest.flags)
    lines = [_gain(searched, gain, each) for gain in found]
    if any(gain.setting for gain in found):
        return lines
    command = _command(searched, "KEY=VALUE", each)
    return [
        *lines,
        f"What a changed setting buys is not measured, and these levels do not tell it. To measure: {command}.",
    ]


def _gain(searched: SearchReport, gain: Gain, each: HistoryCapacity) -> str:
    unit = searched.report.unit
    about = f"{'at most ' if gain.at_most else ''}about {load_of(_rounded(gain.load, unit), unit)}"
    high = "no end known" if gain.high is None else _short(gain.high, unit)
    line = f"Estimate, not measured: {gain.change}, {about} ({_short(gain.low, unit)} to {high}): {gain.why}."
    return line if gain.setting is None else f"{line} To measure: {_command(searched, gain.setting, each)}."


def _command(searched: SearchReport, setting: str, each: HistoryCapacity) -> str:
    """The comparison with this setting at the load that one without it is estimated to hold; of a service that someone
    else runs, which has no entry to start a variant of, the search of the other one.
    """
    load = each.answer.best or each.answer.holds or 1.0
    unit = searched.report.unit
    asked = f"--rate {load:.3g}" if unit in RATES else f"--users {max(1, round(load))}"
    url = searched.document.get("question", {}).get("url")
    if url is not None:
        return f"the same search of the changed service (`harness capacity --url {url}`, with the options of this one)"
    history = "" if each.history is None else f" --input-tokens {each.history}"
    return f"`harness ab {searched.report.model} --b {setting} {asked}{history}`"


def _rounded(load: float, unit: str) -> float:
    return load if unit in RATES else float(round(load))


def _short(load: float, unit: str) -> str:
    return load_of(_rounded(load, unit), unit).partition(" ")[0]
