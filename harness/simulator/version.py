"""What changed between TGI's releases and matters to memory and limits (read at the git tags)."""

from __future__ import annotations

import re

Release = tuple[int, ...]

LATEST: Release = (3, 3, 7)

# One day's build, 2023-07-19, between 0.9.3 and 0.9.4: the first that inferred the budget, from PyTorch's own peak.
MAIN_2023_07_19: Release = (0, 9, 3, 1)


def parse_release(text: str | None) -> Release:
    """`3.3.7`, `v2.4`, `~1.0`, `sha-...`: numbers compare as tuples; what has none counts as the latest release."""
    if text is None:
        return LATEST
    if "2023-07-19" in text:
        return MAIN_2023_07_19
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else LATEST


def wiggle_room(release: Release) -> float:
    """Default of TGI_WIGGLE_ROOM in the server, or the fixed factor before it existed; 1.0 where there was none."""
    if release >= (3, 3):
        return 0.90
    if release >= (3, 1):
        return 0.93
    if release >= (3, 0):
        return 0.95
    if release >= (2, 4):
        return 0.90
    return 0.95 if release >= (1, 4, 1) else 1.0


def default_limits(release: Release, context: int, max_input: int | None) -> tuple[int | None, int | None, int | None]:
    """Defaults of max input, max total and max batch prefill tokens; None where the engine decides at warm-up.

    From 3.0 the prefill default depends on the GPU: see launcher.default_prefill.
    """
    if release >= (3, 0):
        return None, None, None
    capped = min(context, 4096)
    if release >= (2, 4):
        return None, None, capped
    if release >= (2, 0):
        return capped - 1, capped, (max_input if max_input is not None else capped - 1) + 50
    return 1024, 2048, 4096


def chunks_by_default(release: Release) -> bool:
    """Prefill chunking is on unless switched off."""
    return release >= (3, 0)


def logits_of_whole_prompt(release: Release, prefill_logprobs: bool) -> int:
    """Buffers of prompt tokens x vocabulary that the warm-up prefill makes: logits, and their log-softmax.

    Up to 2.3 the log-softmax is a second buffer, in 2.4 it is made in place, from 3.0 on neither is made unless
    --enable-prefill-logprobs asks for it.
    """
    if release >= (3, 0):
        return 1 if prefill_logprobs else 0
    return 1 if release >= (2, 4) else 2
