"""Long answers in TGI: made in chunks of at most 1024 tokens, the grown prompt queued again after each.

router/src/validation.rs:25, 151-200 and router/src/infer/mod.rs:130-197 of TGI 3.3.7. The layer above the scheduler
does this, be it the emulator's HTTP side or a run in virtual time.
"""

from __future__ import annotations

from dataclasses import dataclass

CHUNK_TOKENS = 1024
"""Most new tokens that one queue entry may ask for (DEFAULT_GENERATION_LENGTH)."""


@dataclass(frozen=True)
class LengthLimits:
    """Limits that validation holds every chunk against, in tokens."""

    max_input_tokens: int
    max_total_tokens: int


@dataclass(frozen=True)
class AnswerProgress:
    """How far one answer is.

    requested: new tokens asked for, None for as many as fit. wanted: what the first chunk made of that.
    """

    limits: LengthLimits
    requested: int | None
    wanted: int
    produced: int = 0


class TooLong(ValueError):
    """The prompt, or the prompt with its chunk, exceeds a limit. kind: `input` or `total`, checked in TGI's order."""

    def __init__(self, kind: str, input_tokens: int, new_tokens: int) -> None:
        super().__init__(f"{kind}: {input_tokens} input tokens, {new_tokens} new tokens")
        self.kind, self.input_tokens, self.new_tokens = kind, input_tokens, new_tokens


def chunk_length(limits: LengthLimits, requested: int | None, input_tokens: int) -> int:
    """New tokens of the next queue entry for a prompt of this length. Raises TooLong, total before input."""
    wanted = max(0, limits.max_total_tokens - input_tokens) if requested is None else requested
    chunk = min(wanted, CHUNK_TOKENS)
    if input_tokens + chunk > limits.max_total_tokens:
        raise TooLong("total", input_tokens, chunk)
    if input_tokens > limits.max_input_tokens:
        raise TooLong("input", input_tokens, chunk)
    return chunk


def first_chunk(limits: LengthLimits, requested: int | None, input_tokens: int) -> tuple[AnswerProgress, int]:
    """The answer's state, and the new tokens of its first queue entry. Raises TooLong."""
    chunk = chunk_length(limits, requested, input_tokens)
    wanted = limits.max_total_tokens - input_tokens if requested is None else requested
    return AnswerProgress(limits, requested, wanted), chunk


def next_chunk(
    answer: AnswerProgress, finished: str, produced: int, input_tokens: int
) -> tuple[AnswerProgress, int | None]:
    """After a chunk ended: the new state, and the new tokens of the next queue entry, None if the answer ends here.

    finished: why the chunk ended. produced: its tokens. input_tokens: length of the prompt with everything generated so
    far, tokenised again (and truncated again where the request says so). A chunk that would break a limit is not
    refused: the answer ends with `length`. The last chunk is not shortened, so 1025 tokens asked give 2048.
    """
    grown = AnswerProgress(answer.limits, answer.requested, answer.wanted, answer.produced + produced)
    if finished != "length" or grown.produced >= grown.wanted:
        return grown, None
    try:
        return grown, chunk_length(grown.limits, grown.requested, input_tokens)
    except TooLong:
        return grown, None
