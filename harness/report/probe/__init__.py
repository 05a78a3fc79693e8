"""The report of a probe: what fits, what to set, how fast it is, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable

from harness.probe.card import sentence
from harness.probe.file import ProbeFile
from harness.report.document import Document, Notice, Section, Sheet, Verdict
from harness.report.probe import batch, card, limits, proof, settings
from harness.units import format_count

# In reading order. A new section is a file with a function `section`, and one line here.
SECTIONS: tuple[Callable[[ProbeFile], Section | None], ...] = (
    card.section,
    settings.section,
    batch.section,
    proof.section,
    limits.section,
)


def probe_document(found: ProbeFile, name: str) -> Document:
    """name: of its folder."""
    what = f"Limits of {found.model} on {found.gpu or 'this GPU'}, {found.engine}"
    let_in = found.limits.get("max_concurrent_requests")
    proved, fits = found.verified_under_load, sentence(found.capacity, int(let_in) if let_in else None)
    return Document(
        title=f"Emulated probe: {what}" if found.emulated else what,
        about=" · ".join(part for part in (found.image, name) if part),
        answer=f"{fits[:1].upper()}{fits[1:]}; {'proved' if proved else 'not proved'} under load.",
        sections=tuple(made for make in SECTIONS if (made := make(found)) is not None),
        data=found.document,
        verdict=Verdict("proved", "good") if proved else Verdict("not proved", "care"),
        notices=(Notice("note", "Emulated: the engine was a simulation. These limits are not those of a GPU."),)
        if found.emulated
        else (),
        sheet=_sheet(found),
        card=_card(found),
        kind="probe",
        name=name,
    )


def _card(found: ProbeFile) -> tuple[tuple[str, str], ...]:
    longest = max(found.capacity, key=lambda cell: cell.history_tokens, default=None)
    pairs = [
        ("Model", found.model),
        ("GPU", found.gpu or "not known"),
        ("Engine", found.engine),
        ("Verdict", "proved under load" if found.verified_under_load else "not proved under load"),
    ]
    if longest is not None:
        fit = f"{format_count(longest.history_tokens)} tokens, {format_count(longest.chats_fit)} at once"
        pairs.append(("Largest history", fit))
    for cell in found.capacity:
        pairs.append((f"Chats of {format_count(cell.history_tokens)} tokens that fit", format_count(cell.chats_fit)))
    return tuple(pairs)


def _sheet(found: ProbeFile) -> Sheet:
    """One row per history of the card; durations in seconds."""
    columns = (
        "model",
        "gpu",
        "engine",
        "history_tokens",
        "answer_tokens",
        "chats_fit",
        "ttft_p95",
        "itl_p95",
        "meets_slo",
    )
    rows = tuple(
        (
            found.model,
            found.gpu,
            found.engine,
            cell.history_tokens,
            cell.answer_tokens,
            cell.chats_fit,
            cell.ttft_p95,
            cell.itl_p95,
            cell.meets_slo,
        )
        for cell in found.capacity
    )
    return Sheet(columns, rows)
