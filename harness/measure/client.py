"""The load processes' samples of themselves: whether the client, not the server, limited the figures.

In the journal while the run lasts, in client.json afterwards.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.input_files import as_type, read_json_object
from harness.measure.run_folder import MOST_SECONDS, RunFolder, write_atomically


@dataclass(frozen=True)
class ClientSample:
    """One load process over the last short while, about a second. Seconds and counts since its previous sample.

    at: run-relative. cpu_fraction: CPU time of its busiest thread / wall time, 1 is a whole core. loop_lag_max: the
    longest that its event loop was late. streams: answers being read at the moment. events: token events read.
    late_events: those whose moment was noted too late to be true, by the load's own rule. backlog: bytes of answers not
    decoded yet. answers: those of which events were read; late_answers: those of them whose first event was
    late, or whose request left late. run_queue, stolen, throttled: seconds in which it was ready and did not run,
    because of other work on the machine, of the hypervisor (of all processors), of its control group's quota; 0 where
    nobody tells.
    """

    at: float
    process: str
    cpu_fraction: float
    loop_lag_max: float
    streams: int = 0
    events: int = 0
    late_events: int = 0
    backlog: int = 0
    answers: int = 0
    late_answers: int = 0
    run_queue: float = 0.0
    stolen: float = 0.0
    throttled: float = 0.0


@dataclass(frozen=True)
class Floor:
    """The client's own error on this machine, measured against a null engine that answers on a known schedule. Seconds.

    ttft, itl: what the client alone adds at p99. streams, events_per_second: the largest load that was calibrated;
    what lies beyond is not covered. measured: UTC of the calibration.
    """

    ttft: float
    itl: float
    streams: int
    events_per_second: float | None = None
    measured: str | None = None


@dataclass(frozen=True)
class SessionCount:
    """How many conversations of a level ended so: `completed`, `history_full` (the next turn no longer fitted),
    `failed` (a turn of theirs did), `cut` (the level was over).
    """

    level: int
    ended: str
    count: int


@dataclass(frozen=True)
class ClientFacts:
    """All that is known of the client. lost_processes: load processes that died during the run, by name. sessions: how
    its conversations ended.
    """

    samples: tuple[ClientSample, ...] = ()
    lost_processes: tuple[str, ...] = ()
    floor: Floor | None = None
    sessions: tuple[SessionCount, ...] = ()


def write_client(folder: RunFolder, facts: ClientFacts) -> None:
    """client.json, replaced in one step."""
    write_atomically(folder.client, (json.dumps(dataclasses.asdict(facts)) + "\n").encode())


def read_client(folder: RunFolder) -> ClientFacts | None:
    """client.json, or None where there is none yet."""
    if not folder.client.exists():
        return None
    facts = as_type(ClientFacts, read_json_object(folder.client), folder.client)
    if not all(_bounded(sample) for sample in facts.samples):
        raise UsageError("not as expected: a sample beyond all bounds", where=str(folder.client))
    return facts


def samples_from_notes(notes: Sequence[Mapping[str, Any]], where: object) -> tuple[ClientSample, ...]:
    """Samples of a journal's notes, by their moment. Raises UsageError where one is none."""
    samples = as_type(tuple[ClientSample, ...], [note for note in notes if note.get("kind") == "sample"], where)
    if not all(_bounded(sample) for sample in samples):
        raise UsageError("not as expected: a sample beyond all bounds", where=str(where))
    return tuple(sorted(samples, key=lambda sample: (sample.at, sample.process)))


@dataclass(frozen=True)
class _SessionEnd:
    level: int
    ended: str


def sessions_from_notes(notes: Sequence[Mapping[str, Any]], where: object) -> tuple[SessionCount, ...]:
    """How the conversations ended, as each process noted it of its own. Raises UsageError where a note is none."""
    ends = as_type(tuple[_SessionEnd, ...], [note for note in notes if note.get("kind") == "session"], where)
    counted = Counter((end.level, end.ended) for end in ends)
    return tuple(SessionCount(level, ended, count) for (level, ended), count in sorted(counted.items()))


def _bounded(sample: ClientSample) -> bool:
    return all(abs(each) <= MOST_SECONDS for each in (sample.at, sample.cpu_fraction, sample.loop_lag_max))
