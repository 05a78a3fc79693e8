"""Turns the evidence into the fields of probe.json: limits with their sources and boundaries, and advice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.probe import mixing
from harness.probe.ask import Search
from harness.probe.batching import BatchPoint, knee, largest_within, of_history, points
from harness.probe.card import Card, Cell
from harness.probe.checks import checks_of
from harness.probe.evidence import Evidence
from harness.probe.mixing import Mix
from harness.probe.padded_evidence import at_length, pads_batch
from harness.probe.pool import PoolSearch
from harness.probe.recommendation import LOW_PREFILL, Recommendation
from harness.probe.setting import Bracket, ProbeGoal, Setting, effective_prefill
from harness.units import format_duration

TOO_LARGE = "length limit exceeded"  # of a request's body, in the words of TGI's web server
MOVED = 0.01  # share of a budget by which starts must differ to be worth a word


def limits_of(found: Recommendation, card: Card, evidence: Evidence, asked: ProbeGoal) -> dict[str, int | None]:
    """The limits with the recommended flags. max_batch_size: the most chats that held the SLO, else the knee.

    The cache of an engine that died of what was in it counts as far as the chats that are let in can fill it.
    """
    setting, started = found.setting, card.started
    budget = started.budget if started.kind in ("flash", "pool") else setting.max_batch_total_tokens
    if started.kind == "flash" and evidence.tokens.smallest_failed is not None and found.capacity is not None:
        budget = min(budget or found.capacity, found.capacity)
    most, reasonable = setting.max_concurrent_requests, reasonable_batch(evidence, asked)
    batch = min((each for each in (reasonable, most) if each is not None), default=None)
    return {
        "max_batch_total_tokens": budget,
        "max_input_tokens": card.longest_history(),
        "max_total_tokens": setting.max_total_tokens,
        "max_batch_prefill_tokens": setting.max_batch_prefill_tokens,
        "max_batch_size": setting.max_batch_size or batch,
        "max_concurrent_requests": setting.max_concurrent_requests,
    }


def curves(evidence: Evidence) -> list[list[BatchPoint]]:
    """Measured speed over the number of chats, one curve per history length, shortest first."""
    known = points(result for outcome in evidence.outcomes for result in outcome.loads)
    return [of_history(known, history) for history in sorted({point.history_tokens for point in known})]


def reasonable_batch(evidence: Evidence, asked: ProbeGoal) -> int | None:
    """Of the longest history that was measured at several sizes: the largest batch within the SLO, else the knee."""
    for curve in reversed(curves(evidence)):
        if len(curve) >= 3:
            return largest_within(curve, asked) or knee(curve)
    return None


def sources_of(limits: dict[str, int | None], found: Recommendation, evidence: Evidence) -> dict[str, str]:
    """Where each limit comes from: `engine log`, `measured` or `derived`."""
    flash = evidence.kind in ("flash", "pool")
    sources = {
        "max_batch_total_tokens": "engine log" if flash else "measured" if evidence.tokens != Bracket() else "derived",
        "max_input_tokens": "derived",
        "max_total_tokens": "derived",
        "max_batch_prefill_tokens": "engine log" if evidence.prefill.smallest_failed is None else "measured",
        "max_batch_size": "measured" if curves(evidence) else "derived",
        "max_concurrent_requests": "measured" if evidence.rows.largest_ok else "derived",
    }
    return {name: source for name, source in sources.items() if limits.get(name) is not None}


def boundaries(evidence: Evidence, found: Recommendation) -> dict[str, Bracket]:
    """Evidence for each limit that was searched."""
    known: dict[str, Bracket] = {}
    if evidence.kind in ("flash", "pool"):
        if evidence.tokens.smallest_failed is not None:
            known["max_batch_total_tokens"] = evidence.tokens
    else:
        by_area = pads_batch(evidence) and evidence.tokens.smallest_failed is None
        known["max_batch_total_tokens"] = evidence.area if by_area else evidence.tokens
    if evidence.prefill.smallest_failed is not None:
        known["max_batch_prefill_tokens"] = evidence.prefill
    known = {name: bracket for name, bracket in known.items() if bracket != Bracket()}
    if evidence.rows != Bracket():
        known["max_concurrent_requests"] = evidence.rows
    if evidence.single.largest_ok is not None or evidence.single.smallest_failed is not None:
        known["max_total_tokens"] = evidence.single
    return known


def measured_cells(evidence: Evidence, card: Card) -> Iterable[tuple[int, float | None, float | None]]:
    """(history, ttft_p95, itl_p95) of the card's cells that were loaded in the last start."""
    last = evidence.last_up
    for result in last.loads if last else ():
        kind, history = result.load.kind, result.load.history
        if kind == "cell" and history is not None and result.verdict == "held":
            yield history, result.ttft_p95, result.itl_p95
        elif kind == "longest" and result.verdict == "held" and card.chats_fit(result.load.longest) == 1:
            yield result.load.longest, result.ttft_p95, result.itl_p95


def corrected(cells: Sequence[Cell], evidence: Evidence) -> tuple[list[Cell], list[str]]:
    """The card with fewer chats where a load of just so many chats did not run all of them together, and what is to be
    said of it. Only loads that the client left count: in others some chats may have ended before the last began.
    """
    last = evidence.last_up
    seen = {
        result.load.history: (len(result.load.shapes), result.beside)
        for result in (last.loads if last else ())
        if result.load.kind == "cell"
        and result.verdict == "held"
        and result.load.leave_after_tokens is not None
        and result.completed == 0
    }
    found, lines = [], []
    for cell in cells:
        sent, beside = seen.get(cell.history_tokens, (0, None))
        if beside is not None and beside < min(sent, cell.chats_fit):
            lines.append(
                f"By arithmetic {cell.chats_fit:,} chats of {cell.history_tokens:,} tokens fit at once; {sent:,} were"
                f" sent and only {beside:,} ran together, so the card says {beside:,}."
            )
            found.append(replace(cell, chats_fit=beside))
        else:
            found.append(cell)
    return found, lines


def advice_of(search: Search, found: Recommendation, mixed: Mix | None) -> list[str]:
    """What the reader should know beside the flags, most important first."""
    evidence, asked = search.evidence, search.asked
    if isinstance(search, PoolSearch):
        return [*search.advice(found), *_batch_advice(evidence, asked)]
    lines = [
        _case(evidence, found.setting),
        *_bracket(evidence, found),
        *_moved(evidence),
        *_proof(search),
        *_overload(found, evidence.refused_fast),
    ]
    lines += _batch_advice(evidence, asked)
    lines += _prefill_advice(search, found)
    if asked.answer_tokens > 1024:
        lines.append(
            f"Answers above 1,024 tokens are generated in pieces that queue again; each chat holds up to"
            f" {found.answer:,} tokens for its answer."
        )
    if mixed is not None:
        lines.append(mixing.advice(mixed))
    return lines


def _case(evidence: Evidence, setting: Setting) -> str:
    if evidence.kind == "flash":
        return (
            "Flash attention: the engine measures its KV memory itself and ignores MAX_BATCH_TOTAL_TOKENS, so the token"
            " budget was read from its log and that flag is not among those to set."
        )
    if pads_batch(evidence):
        protects = "MAX_CONCURRENT_REQUESTS" if setting.max_batch_size is None else "MAX_BATCH_SIZE"
        return (
            "No flash attention: a long prompt makes its whole batch as long, which the engine's own budget does not"
            f" count. {protects} is what protects it; raise it only together with shorter prompts."
        )
    alone = "MAX_BATCH_TOTAL_TOKENS and MAX_INPUT_TOKENS are all that protects it"
    if evidence.tokens == Bracket():
        return f"The engine does not check its memory: {alone}, and without load they are a guess."
    why = "No flash attention" if evidence.kind == "padded" else "The engine tells no token budget of its own"
    return f"{why}: it does not check its memory. {alone}, so both were searched under load."


def _bracket(evidence: Evidence, found: Recommendation) -> list[str]:
    """What the boundary of tokens in flight rests on."""
    if evidence.kind == "flash":
        held, died = evidence.tokens.largest_ok, evidence.tokens.smallest_failed
        if held is None or died is None:
            return []
        return [
            f"It died of what was in flight: {held:,} tokens held, {died:,} killed it. The limits keep what is in"
            " flight below that."
        ]
    bracket = at_length(evidence, found.setting.max_input_tokens or found.history)
    if bracket.largest_ok is None or bracket.smallest_failed is None:
        return []
    return [
        f"With prompts of up to {found.setting.max_input_tokens:,} tokens, {bracket.largest_ok:,} tokens reserved and"
        f" written held at once; it died at {bracket.smallest_failed:,}."
    ]


def _moved(evidence: Evidence) -> list[str]:
    """What free memory that differed between starts cost."""
    least: dict[tuple[int | None, float | None], list[int]] = {}
    for each in evidence.outcomes:
        if each.started is not None and each.started.kind == "flash" and each.started.budget:
            key = (effective_prefill(each), each.setting.cuda_memory_fraction)
            least.setdefault(key, []).append(each.started.budget)
    low, high = max(((min(b), max(b)) for b in least.values()), key=lambda each: each[1] - each[0], default=(0, 0))
    if high == 0 or (high - low) / high < MOVED:
        return []
    return [
        f"Free memory differed between starts: the budget was {low:,} to {high:,} tokens. The limits are those of the"
        f" worst state that was seen, which costs {high - low:,} tokens; see with nvidia-smi who else uses the GPU."
    ]


def _proof(search: Search) -> list[str]:
    if search.proved is not None:
        missing = [f"{each.name}: {each.why}" for each in checks_of(search.evidence) if not (each.ran and each.held)]
        too_large = [
            "Prompts as long as that are larger than the server takes in one request: raise its limit, which is"
            " PAYLOAD_LIMIT in bytes on TGI, under env: in the entry."
        ]
        lines = [f"Not proved, because not every check ran and held: {'; '.join(missing)}."] if missing else []
        return lines + (too_large if any(TOO_LARGE in each for each in missing) else [])
    if search.asked.quick:
        return ["Not proved: --quick sends no load. A start that succeeds may still die under load."]
    return [
        "Not proved: the search ended before a setting survived every load. `--resume` with a larger --max-starts goes"
        " on."
    ]


def _overload(found: Recommendation, rejected_fast: bool | None) -> list[str]:
    concurrency = found.setting.max_concurrent_requests or 0
    if rejected_fast is None:
        return []
    seen = "was seen to be" if rejected_fast else "is"
    return [
        f"Request number {concurrency + 1:,} {seen} refused at once (429). Clients should wait a moment and try again,"
        " not queue by themselves."
    ]


def _batch_advice(evidence: Evidence, asked: ProbeGoal) -> list[str]:
    lines = []
    for curve in curves(evidence):
        if len(curve) < 3:
            continue
        best, bend = largest_within(curve, asked), knee(curve)
        history = f"{curve[0].history_tokens:,}"
        if best is not None:
            lines.append(
                f"With {history} tokens of history, {_chats(best)} at once hold{'s' if best == 1 else ''} the SLO."
            )
        elif asked.itl or asked.ttft:
            alone = f"TTFT p95 {format_duration(curve[0].ttft_p95)}, ITL p95 {format_duration(curve[0].itl_p95)}"
            lines.append(f"With {history} tokens of history, not even a chat alone holds the SLO: {alone}.")
        if bend is not None:
            lines.append(f"With {history} tokens of history, more than {bend:,} chats at once bring little more speed.")
    return lines


def _chats(count: int) -> str:
    return "one chat" if count == 1 else f"{count:,} chats"


def _prefill_advice(search: Search, found: Recommendation) -> list[str]:
    started, share = search.evidence.started, search.prior.prefill_share
    prefill = found.setting.max_batch_prefill_tokens or 0
    if started is None or not started.chunking or share is None or prefill < 2 * LOW_PREFILL:
        return []
    gain = int((prefill - LOW_PREFILL) * share)
    return [
        f"MAX_BATCH_PREFILL_TOKENS={LOW_PREFILL} would free about {gain:,} tokens of KV cache (an estimate) and shorten"
        " the pauses of running chats, at the price of slower reading: `--goal chats` tries it."
    ]
