"""What a burst of requests says of the engine that answered it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from harness.drive.in_flight import at_steps, beside, carried, running_at_death
from harness.load.burst import Burst, BurstAnswer
from harness.probe.setting import CHUNK, Load, LoadResult, Verdict
from harness.stats.quantile import quantile


def judge(load: Load, burst: Burst) -> LoadResult:
    """What a burst says about the engine."""
    answers = burst.answers
    begun = [each for each in answers if each.begun]
    # What leads is read before, and no part of it.
    meant = [each for each in answers if each.begun and not load.leads(each.request.max_new_tokens)]
    refused = [each for each in answers if each.error_kind == "overloaded"]
    wrong = [each for each in answers if not each.ok and each.error_kind != "overloaded"]
    verdict, reason = _verdict(burst, wrong, len(refused), load)
    dead = verdict in ("died", "stalled")
    gaps = [after - before for each in begun for before, after in pairwise(each.token_at)]
    ends = [end for end, *_ in load.stairs]
    reads = at_steps(answers, ends)
    later = answers[ends[len(reads)] :] if len(reads) < len(ends) else ()
    firsts = [each.token_at[0] - each.sent_at for each in begun if each.sent_at is not None]
    return LoadResult(
        load=load,
        verdict=verdict,
        begun=len(begun),
        begun_tokens=_reserved(begun),
        carried=running_at_death(begun) if dead else carried(meant, to_end=load.kind == "write"),
        beside=beside(begun),
        reads=reads,
        overtaken=_reserved(each for each in later if each.begun),
        completed=sum(each.ok and not each.left for each in answers),
        ended_early=sum(_ended_early(each) for each in answers),
        refused=len(refused),
        waited=sum(not each.begun for each in answers),
        ttft_p95=quantile(firsts, 0.95) if firsts else None,
        itl_p95=quantile(gaps, 0.95) if gaps else None,
        rate=_rate(begun),
        seconds=burst.seconds,
        reason=reason,
    )


def _verdict(burst: Burst, wrong: Sequence[BurstAnswer], refused: int, load: Load) -> tuple[Verdict, str | None]:
    if burst.ending == "died":
        return "died", next((each.error for each in wrong if each.error), None) or "the engine ended"
    if burst.ending == "stalled":
        waiting = sum(not each.begun for each in burst.answers)
        return "stalled", f"{waiting} requests wait and nobody gets a token"
    if burst.ending == "late":
        return "cut short", "took too long"
    if wrong:
        kinds = {each.error_kind for each in wrong}
        return ("refused" if kinds == {"validation"} else "failed"), wrong[0].error or str(wrong[0].error_kind)
    if refused > load.expected_rejections:
        return "refused", f"{refused} of {len(burst.answers)} requests were refused as too many"
    return "held", None


def _reserved(answers: Iterable[BurstAnswer]) -> int:
    return sum(each.request.input_tokens + each.request.max_new_tokens for each in answers)


def _ended_early(each: BurstAnswer) -> bool:
    """Whether the model ended an answer, by a token that says so; a longer one than a chunk ends where no more fits."""
    tokens = len(each.token_at) if each.output_tokens is None else each.output_tokens
    return each.ok and not each.left and tokens < min(each.request.max_new_tokens, CHUNK)


def _rate(begun: Sequence[BurstAnswer]) -> float | None:
    """Tokens per second between the last first token and the first last one, when all are running."""
    if not begun:
        return None
    start, end = max(each.token_at[0] for each in begun), min(each.token_at[-1] for each in begun)
    tokens = sum(start < moment <= end for each in begun for moment in each.token_at)
    return tokens / (end - start) if end > start and tokens else None
