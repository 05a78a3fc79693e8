"""Workloads with a name: what `--workload` and the files in locustfiles/ mean by chat, summarise and code.

Answers stay at or below 1,024 tokens: beyond, TGI runs a request in pieces and queues it anew between them
(router/src/validation.rs:152-169), which is a workload of its own.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from harness.errors import UsageError


@dataclass(frozen=True)
class NamedWorkload:
    """input_tokens, output_tokens: distributions as `--input-tokens` takes them. reason: why these."""

    input_tokens: str
    output_tokens: str
    reason: str


WORKLOADS = {
    "chat": NamedWorkload(
        "lognormal:161:160:8:2048",
        "lognormal:338:250:16:1024",
        "Short questions, medium answers. Means of the ShareGPT conversations in Kwon et al., PagedAttention, SOSP "
        "2023 (161 and 338 tokens), before the cut; log-normal, because few questions are long. The spread is our "
        "choice.",
    ),
    "summarise": NamedWorkload(
        "normal:1800:400:512:3072",
        "normal:120:40:16:256",
        "Long texts, short answers: prefill-heavy. A summary of the CNN/DailyMail articles is a fourteenth of the text "
        "(See et al., ACL 2017: 781 and 56 words), which is the ratio here, for texts of some 1,400 words.",
    ),
    "code": NamedWorkload(
        "lognormal:450:250:64:1536",
        "normal:600:180:64:1024",
        "An instruction with an excerpt, and a function or a file as the answer: decode-heavy. Our choice; the answer "
        "is somewhat longer than the question, and almost all of the time is decode.",
    ),
}


def named(name: str) -> NamedWorkload:
    """The workload of this name. Raises UsageError with the nearest names."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    near = difflib.get_close_matches(name, WORKLOADS, n=1)
    advice = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(WORKLOADS)}."
    raise UsageError(f"unknown workload {name!r}", advice=advice)
