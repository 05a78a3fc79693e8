"""The capacity card: how many chats of each history fit at once, by the engine's own block arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness.engines.base import EngineFacts
from harness.probe.recommendation import answer_room
from harness.probe.setting import ProbeGoal, Setting, Shape

HISTORIES = (500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000)


@dataclass(frozen=True)
class Cell:
    """One row of the card. chats_fit: by memory alone, before the concurrency limit caps it. ttft_p95, itl_p95:
    seconds, where so many chats of this history were measured; meets_slo: None without a measurement or without an SLO.
    """

    history_tokens: int
    answer_tokens: int
    chats_fit: int
    ttft_p95: float | None = None
    itl_p95: float | None = None
    meets_slo: bool | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "history_tokens": self.history_tokens,
            "answer_tokens": self.answer_tokens,
            "chats_fit": self.chats_fit,
            "ttft_p95": self.ttft_p95,
            "itl_p95": self.itl_p95,
            "meets_slo": self.meets_slo,
        }


@dataclass(frozen=True)
class Card:
    """Limits of the running engine, and what follows from them. version: its rule for long answers depends on it."""

    started: EngineFacts
    setting: Setting
    answer_tokens: int
    version: tuple[int, int, int] = (3, 3, 7)

    @property
    def _answer(self) -> int:
        return answer_room(self.answer_tokens, self.version)

    def longest_history(self) -> int:
        """The largest history of one chat that leaves the answer free, as the flags and the allocator allow."""
        total = self.setting.max_total_tokens or self.started.max_total_tokens or 0
        if self.started.kind == "pool":
            return max(0, min(self._longest_in_pool(), total) - self.answer_tokens)
        limit = self.setting.max_input_tokens or self.started.max_input_tokens or 0
        # A long answer grows the prompt piece by piece, and each grown prompt must be within the input limit again.
        by_flags = min(total - self._answer, limit - (self._answer - min(self._answer, 1024)))
        if self.started.kind == "flash" and self.started.usable is not None:
            by_flags = min(by_flags, self.started.usable + 1 - self.started.speculate - self._answer)
        return max(0, by_flags)

    def _longest_in_pool(self) -> int:
        told, asked = self.started.max_total_tokens, self.setting.max_input_tokens
        known = [told, self.started.budget, None if asked is None else asked + self.answer_tokens]
        return min((each for each in known if each is not None), default=0)

    def chats_fit(self, history: int) -> int:
        """Chats of this history that can be in flight at once, each with its whole answer; 0 where one is refused."""
        if history > self.longest_history():
            return 0
        if self.started.kind == "pool":
            block = self.started.block_size
            fit = (self.started.budget or 0) // block // blocks_of(history + self.answer_tokens, block)
            return min(fit, self.started.rows or fit) if self.started.split else fit
        if self.started.kind == "flash" and self.started.usable is not None:
            return _by_blocks(self.started, history + self._answer)
        budget = self.setting.max_batch_total_tokens or self.started.budget or 0
        fit = max(0, budget - self.started.speculate) // (history + self._answer)
        return min(fit, self.setting.max_batch_size or fit)

    def verdict(self, history: int, chats: int) -> Literal["fits", "queues", "refused"]:
        """What becomes of so many chats that arrive together."""
        concurrency = self.setting.max_concurrent_requests or self.started.max_concurrent_requests
        if history > self.longest_history() or (concurrency is not None and chats > concurrency):
            return "refused"
        return "fits" if chats <= self.chats_fit(history) else "queues"

    def histories(self) -> list[int]:
        """Round histories up to the longest, and the longest itself."""
        longest = self.longest_history()
        return [*(each for each in HISTORIES if each < longest * 0.95), longest] if longest else []

    def cells(self) -> list[Cell]:
        return [Cell(each, self.answer_tokens, self.chats_fit(each)) for each in self.histories()]


def blocks_of(total: int, block_size: int) -> int:
    """Whole blocks of a chat of so many tokens; the last one generated is never written into the cache."""
    return max(1, -(-(total - 1) // block_size))


def _by_blocks(started: EngineFacts, total: int) -> int:
    """input + answer + speculate - 1 slots each, in whole blocks, of which one is reserved."""
    blocks = -(-Shape(total - 1, 1).reserved(started.speculate) // started.block_size)
    return max(0, (started.usable or 0) // started.block_size) // max(1, blocks)


def measured(
    cells: Sequence[Cell], figures: Iterable[tuple[int, float | None, float | None]], asked: ProbeGoal
) -> list[Cell]:
    """The cells with what was measured of some of them: (history, ttft_p95, itl_p95)."""
    known = {history: (ttft, itl) for history, ttft, itl in figures}
    return [
        _with_figures(cell, *known[cell.history_tokens], asked) if cell.history_tokens in known else cell
        for cell in cells
    ]


def _with_figures(cell: Cell, ttft: float | None, itl: float | None, asked: ProbeGoal) -> Cell:
    return replace(cell, ttft_p95=ttft, itl_p95=itl, meets_slo=meets(ttft, itl, asked))


def meets(ttft: float | None, itl: float | None, asked: ProbeGoal) -> bool | None:
    """Whether both bounds hold; None where nothing is asked, or what is asked was not measured."""
    pairs = [(value, bound) for value, bound in ((ttft, asked.ttft), (itl, asked.itl)) if bound is not None]
    if not pairs or any(value is None for value, _ in pairs):
        return None
    return all(value <= bound for value, bound in pairs if value is not None)


def sentence(cells: Sequence[Cell], let_in: int | None = None) -> str:
    """`history up to 30,000 tokens for one chat; 12 chats at 2,000; 40 at 500`. let_in: chats that the limits allow at
    once, however many the memory holds.
    """
    if not cells:
        return "not even one chat fits"
    fits = [(cell.history_tokens, min(cell.chats_fit, let_in or cell.chats_fit)) for cell in cells]
    longest, most = fits[-1]
    parts = [f"history up to {longest:,} tokens for {_chats(most)}"]
    shorter = [(history, chats) for history, chats in fits[:-1] if chats > most]
    middle = [shorter[len(shorter) // 2]] if len(shorter) > 2 else []
    for history, chats in [*middle, *shorter[:1]]:
        parts.append(f"{_chats(chats)} at {history:,}")
    return "; ".join(parts)


def _chats(count: int) -> str:
    return "one chat" if count == 1 else f"{count:,} chats"
