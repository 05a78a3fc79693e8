"""What is asked, as a value: conversations by number, most of them of one Request; the same ones in every process.

A Workload travels to the load processes as JSON (`as_dict`, `from_dict`) and is in the manifest as `describe` says.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Protocol

from harness.workload.chat import Chat
from harness.workload.dataset import Dataset, dataset
from harness.workload.drawn import DrawnWorkload, drawn
from harness.workload.mix import Mix
from harness.workload.replayed import ReplayedWorkload, replayed
from harness.workload.request import LEVEL_NUMBERS, Player, Script

__all__ = [
    "LEVEL_NUMBERS",
    "AnyWorkload",
    "Chat",
    "Dataset",
    "DrawnWorkload",
    "Mix",
    "ReplayedWorkload",
    "Workload",
    "dataset",
    "drawn",
    "from_dict",
    "replayed",
    "spread",
    "summarise",
]

SAMPLED_REQUESTS = 1000
"""How many requests a summary of what is drawn looks at, where nothing says how many there will be."""


class Workload(Protocol):
    """What is asked, by number, from 0. name: how reports call it."""

    @property
    def name(self) -> str: ...

    @property
    def offsets(self) -> tuple[float, ...] | None:
        """The moment of each request in seconds from the first, where the workload is a trace; else None."""
        ...

    @property
    def converses(self) -> bool:
        """Whether it goes on with the answers that it gets."""
        ...

    def start(self, number: int, player: Player | None = None) -> Script:
        """What is asked under this number: a conversation, or one request alone. The same in any process and order,
        as long as the answers are. player: plays the conversation, in place of the usual one.
        """
        ...

    def pause_after(self, number: int) -> float:
        """Seconds that a user of a closed loop waits before it begins another."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """What `from_dict` makes the same workload of; JSON."""
        ...

    def describe(self) -> dict[str, Any]:
        """For manifest and report: short, with the hash of what is asked."""
        ...


AnyWorkload = DrawnWorkload | ReplayedWorkload | Dataset | Chat | Mix
KINDS: dict[str, type[AnyWorkload]] = {
    "drawn": DrawnWorkload,
    "replayed": ReplayedWorkload,
    "dataset": Dataset,
    "chat": Chat,
    "mix": Mix,
}


def from_dict(fields: dict[str, Any]) -> AnyWorkload:
    """The workload that said this of itself with `as_dict`. Raises UsageError where its file has changed since."""
    return KINDS[fields["kind"]].from_dict(fields)


def summarise(workload: AnyWorkload, requests: int | None = None) -> dict[str, Any]:
    """The lengths of the first requests, as they are drawn with this seed: how many, and their spread.

    requests: how many there will be, as far as that is known. A trace is summarised whole.
    """
    if isinstance(workload, ReplayedWorkload):
        requests = len(workload.trace.rows)
    lengths = [workload.lengths(number) for number in range(requests or SAMPLED_REQUESTS)]
    return {
        "requests": len(lengths),
        "input_tokens": spread([tokens for tokens, _ in lengths if tokens is not None]),
        "output_tokens": spread([tokens for _, tokens in lengths]),
    }


def spread(lengths: Sequence[int]) -> dict[str, float] | None:
    """Mean, standard deviation, and quantiles of type 7; None of nothing."""
    if not lengths:
        return None
    ordered = sorted(lengths)
    quantiles = statistics.quantiles(ordered, n=100, method="inclusive") if len(ordered) > 1 else ordered * 99
    return {
        "mean": round(statistics.fmean(ordered), 1),
        "deviation": round(statistics.pstdev(ordered), 1),
        "min": ordered[0],
        "p50": quantiles[49],
        "p95": quantiles[94],
        "max": ordered[-1],
    }
