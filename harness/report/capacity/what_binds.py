"""What limits at the knee, what to change first, and what that would buy as far as it was measured."""

from __future__ import annotations

from harness.report.capacity.subject import Searched, load_of
from harness.report.document import Bullets, Section
from harness.stats.capacity_report import HistoryCapacity
from harness.stats.outcome import Outcome
from harness.units import format_count

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


def section(searched: Searched) -> Section | None:
    """By the levels nearest to the estimate that tell, of each history."""
    lines = [line for each in searched.report.histories for line in _lines(searched, each)]
    if not lines:
        return None
    lines.append("What a change buys is not measured here: make it, and search again, or compare with `harness ab`.")
    return Section("What limits, and what to change first", (Bullets(tuple(lines)),))


def _lines(searched: Searched, each: HistoryCapacity) -> list[str]:
    """One resource, read at the nearest level that tells; both where the levels below and above the limit differ."""
    found, unit = each.beside_the_limit, searched.report.unit
    if not found:
        return []
    where = "" if each.history is None else f"With {format_count(each.history)} tokens of history, at "
    outcome, figures = found[0]
    at = f"{where or 'At '}{load_of(outcome.load, unit)}{_side(each, outcome)}"
    if figures.binds.resource is None:
        return [f"{at} it is not known what binds: {figures.binds.why}."]
    lines = [f"{at} {figures.binds.resource} binds: {figures.binds.why}. {CHANGES[figures.binds.resource]}"]
    for further, told in found[1:]:
        resource = told.binds.resource
        if resource is not None and resource != figures.binds.resource:
            at = f"{where or 'At '}{load_of(further.load, unit)}{_side(each, further)}"
            lines.append(f"{at} it is {resource}: {told.binds.why}. {CHANGES[resource]}")
    return lines


def _side(each: HistoryCapacity, outcome: Outcome) -> str:
    """Where the level lies, if it is not at the limit itself."""
    best = each.answer.best
    if best is None or outcome.load == best:
        return ""
    return ", above the limit," if outcome.load > best else ", below the limit,"
