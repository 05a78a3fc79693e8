"""A row of a trace as a request: its own text, or words of its length that begin as its blocks say."""

from __future__ import annotations

from harness.workload.prompts import prompt_of_blocks
from harness.workload.request import Request
from harness.workload.seeds import derive
from harness.workload.traces.messages import estimated_tokens
from harness.workload.traces.row import TraceRow
from harness.workload.vocabulary import Vocabulary


def request_of(
    row: TraceRow, vocabulary: Vocabulary, block_tokens: int, seed: int, salt: str, number: int, *, sampled: bool
) -> Request:
    """Equal blocks are equal beginnings within one pass through the trace; a text stays as it is in each."""
    text, tokens = row.text, row.input_tokens
    if text is None:
        name = f"{salt}/{row.repeat}" if row.repeat else salt
        text, tokens = prompt_of_blocks(vocabulary, tokens or 0, seed, name, number, row.blocks, block_tokens or 1)
    return Request(
        text,
        estimated_tokens(text) if tokens is None else tokens,
        max(1, row.output_tokens or 0),
        seed=derive(seed, "sampling", number) if sampled else None,
        session_id=row.session_id,
        turn=row.turn,
        counted=tokens is not None,
    )
