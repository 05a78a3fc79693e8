"""How long a process was ready and did not run: the kernel's own counters, and what follows for late reads."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from harness.load import transport as transport_module
from harness.load.connection import Address
from harness.load.contention import Contention, RunQueue
from harness.load.stamps import Clock
from harness.load.transport import Transport
from harness.measure.client import ClientFacts, ClientSample
from harness.measure.records import Records
from harness.stats.summary import summarise
from tests.runs import closed_level, closed_loop, manifest

BURN = "import time; end = time.monotonic() + 0.6\nwhile time.monotonic() < end: pass"


def test_the_run_queue_grows_while_others_have_the_processor() -> None:
    """On one processor two that never rest wait for each other for about half of the time."""
    queue = RunQueue()
    if queue.total() == 0.0 and not os.path.exists("/proc/thread-self/schedstat"):
        pytest.skip("this kernel does not tell")
    processors = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(processors)})
        queue.since()
        with subprocess.Popen([sys.executable, "-c", BURN]):
            exec(BURN, {})
            assert queue.since() > 0.05
    finally:
        os.sched_setaffinity(0, processors)
        queue.close()
    assert all(each >= 0.0 for each in vars(Contention.now(queue)).values())


@pytest.mark.parametrize(("kept_off", "absent"), [(0.0, 0.0), (0.004, 0.004), (9.0, 0.05)])
def test_a_wait_that_ended_late_is_an_absence_by_so_much(
    kept_off: float, absent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came made the process ready; from then on until it ran, nobody looked. Never more than the wait itself."""
    moment = 100.0
    monkeypatch.setattr(transport_module, "_now", lambda: moment)
    reader = Transport(Address.of("http://127.0.0.1:1"), Clock(), 1.0)
    try:
        monkeypatch.setattr(reader.run_queue, "since", lambda: kept_off)
        reader._begin_to_wait()
        moment += 0.05
        reader._waited()
        reader.drain()
        found = list(zip(reader.absences.starts, reader.absences.ends))
        assert found == ([(pytest.approx(100.05 - absent), 100.05)] if absent else [])
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Raise --processes"),
        ({"run_queue": 0.2}, "Other work kept the client off the processor for 12.0 s"),
        ({"stolen": 0.2}, "The hypervisor took 12.0 s"),
        ({"throttled": 0.2}, "CPU quota held the client back for 12.0 s"),
    ],
)
def test_late_reads_name_their_cause(changes: dict[str, Any], words: str) -> None:
    """More load processes help only where the load itself is too much."""
    level = closed_level(0, 4, 0.0, 60.0, warmup=0.0)
    plain = ClientSample(0.0, "0", 0.3, 0.001, events=100, late_events=5, answers=10)
    samples = tuple(replace(plain, at=float(second), **changes) for second in range(1, 61))
    summary = summarise(Records.from_list(closed_loop(level)), manifest([level]), ClientFacts(samples))
    (reason,) = [each for each in summary.total.reasons if each.rule == "late_events"]
    assert words in reason.advice
