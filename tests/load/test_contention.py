"""How long a process was ready and did not run: the kernel's own counters, and what follows for late reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from harness.drive.calibration import null_engine
from harness.load import contention, runner
from harness.load import transport as transport_module
from harness.load.connection import Address
from harness.load.contention import Contention, RunQueue, quota_files, throttled
from harness.load.null_engine import read_log
from harness.load.plan import LoadPlan
from harness.load.stamps import Clock
from harness.load.transport import BEAT, Transport
from harness.load.worker_pool import WorkerPool
from harness.measure.client import ClientFacts, ClientSample, samples_from_notes
from harness.measure.journal import read_journal
from harness.measure.records import Records
from harness.measure.run_folder import Level
from harness.stats.summary import Summary, summarise
from harness.workload.workload import drawn
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


@pytest.mark.parametrize(
    ("kept_off", "late", "absent"),
    [
        (0.0, 0.0, 0.0),
        (0.004, 0.0, 0.004),
        (9.0, 0.0, 0.05),
        (0.0, 0.002, 0.0),  # the loop's own clock has milliseconds
        (0.0, 0.03, 0.03 + BEAT),  # stopped, which no run queue tells: perhaps from right after the beat before
        (0.04, 0.03, 0.04),
        (0.0, 0.3, 0.05),
    ],
)
def test_a_wait_that_ended_late_is_an_absence_by_so_much(
    kept_off: float, late: float, absent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came made the process ready; from then on until it ran, nobody looked. Never more than the wait itself."""
    moment = 100.0
    monkeypatch.setattr(transport_module, "_now", lambda: moment)
    reader = Transport(Address.of("http://127.0.0.1:1"), Clock(), 1.0)
    try:
        monkeypatch.setattr(reader.run_queue, "since", lambda: kept_off)
        reader._begin_to_wait()
        moment += 0.05
        reader._beat_due = moment - late
        reader._waited()
        reader.drain()
        found = list(zip(reader.absences.starts, reader.absences.ends))
        assert found == ([(pytest.approx(100.05 - absent), 100.05)] if absent else [])
    finally:
        reader.close()


def test_a_stopped_load_process_knows_that_it_was_late(tmp_path: Path) -> None:
    """Whoever stopped it, and though it stood in no run queue: most of the events that came meanwhile are counted."""
    with null_engine(tmp_path / "log", ttft_ms=20, itl_ms=4) as url, WorkerPool(1) as pool:
        level = Level(0, users=4, duration=3.0)
        workload = drawn("stops", "8", "100", seed=1).as_dict()
        plan = LoadPlan(url, "tgi", "tgi", True, 30.0, workload, 1, str(tmp_path), time.monotonic())
        process = pool.processes[0]

        def stop_again_and_again() -> None:
            for _ in range(8):
                time.sleep(0.2)
                process.send_signal(signal.SIGSTOP)
                time.sleep(0.1)
                process.send_signal(signal.SIGCONT)

        stops = Thread(target=stop_again_and_again)
        runner.run(
            plan, (level,), pool=pool, on_level=lambda level: stops.start() if level.ended_at is None else stops.join()
        )
    journal = read_journal(tmp_path)
    samples = samples_from_notes(journal.notes, tmp_path)
    truths = read_log(tmp_path / "log")
    behind = 0
    for record in journal.records:
        true = np.array(truths[record.request_id].written_at)[: len(record.token_at)]
        behind += int(np.count_nonzero(np.array(record.token_at) + plan.clock_monotonic - true > 0.02))
    assert behind > 100
    assert sum(each.late_events for each in samples) > 0.8 * behind


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "The client had a processor and was late all the same: it was stopped"),
        ({"cpu_fraction": 0.8}, "Raise --processes"),
        ({"run_queue": 0.2}, "Other work kept the client off the processor for 12.0 s"),
        ({"stolen": 0.2}, "The hypervisor took 12.0 s"),
        ({"throttled": 0.2}, "CPU quota held the client back for 12.0 s"),
        ({"throttled": 0.2, "run_queue": 0.21}, "CPU quota held the client back for 12.0 s"),  # in the queue meanwhile
        ({"stolen": 0.05, "run_queue": 0.2}, "Other work kept the client off the processor for 12.0 s"),
        ({"stolen": 0.2, "run_queue": 0.2}, "Other work kept the client"),  # stolen from four processors, not from one
        ({"run_queue": 0.2, "cpu_fraction": 0.95}, "Raise --processes"),
    ],
)
@pytest.mark.parametrize("processes", [1, 3])
def test_late_reads_name_their_cause(changes: dict[str, Any], words: str, processes: int) -> None:
    """More load processes help only where the load itself is too much. What the machine tells, each process noted."""
    summary = judged(processes, **changes)
    (reason,) = [each for each in summary.total.reasons if each.rule == "late_events"]
    assert words in reason.advice


def test_load_processes_that_fill_the_machine_are_named() -> None:
    """They keep one another off the processors: more of them would be worse."""
    (reason,) = [each for each in judged(8, run_queue=0.4, cpu_fraction=0.48).total.reasons if each.about == "client"]
    assert "The load processes alone used 3.8 of this machine's 4 processors" in reason.advice


def judged(processes: int, **changes: Any) -> Summary:
    """A run of a minute on four processors with too many late events."""
    level = closed_level(0, 4, 0.0, 60.0, warmup=0.0)
    plain = ClientSample(0.0, "0", 0.3, 0.001, events=100, late_events=5, answers=10)
    samples = tuple(
        replace(plain, at=float(second), process=str(process), **changes)
        for second in range(1, 61)
        for process in range(processes)
    )
    run = manifest([level], host={"cpus": 4})
    return summarise(Records.from_list(closed_loop(level)), run, ClientFacts(samples))


@pytest.mark.parametrize(
    ("told", "files", "seconds"),
    [
        ("0::/\n", {"": "usage_usec 5\nthrottled_usec 2500000\n"}, 2.5),
        ("0::/a.slice/b.service\n", {"": "usage_usec 5\n", "a.slice/b.service": "throttled_usec 1500000\n"}, 1.5),
        ("0::/a/b\n", {"a": "throttled_usec 4000000\n", "a/b": "throttled_usec 0\n"}, 4.0),  # the quota of a pod
        ("0::/docker/x\n", {"": "throttled_usec 500000\n"}, 0.5),  # a path that only the host sees
        ("0::/../../x\n", {"": "throttled_usec 500000\n"}, 0.5),
        ("4:memory:/m\n3:cpu,cpuacct:/k\n", {"cpu,cpuacct/k": "nr_periods 3\nthrottled_time 3000000000\n"}, 3.0),
        ("2:cpuacct:/\n1:cpu:/\n0::/\n", {"cpu": "throttled_time 7000000000\n", "cpuacct": "throttled_time 9\n"}, 7.0),
        ("0::/\n", {"": "nonsense\n"}, 0.0),
        ("", {}, 0.0),
    ],
)
def test_the_quota_of_any_control_group_above_is_seen(
    told: str, files: dict[str, str], seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of version 1 in nanoseconds, of version 2 in microseconds, from inside a container and from outside."""
    (tmp_path / "told").write_text(told)
    for group, text in files.items():
        folder = tmp_path / "mounted" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.stat").write_text(text)
    found = quota_files(tmp_path / "told", tmp_path / "mounted")
    monkeypatch.setattr(contention, "quota_files", lambda: found)
    assert throttled() == pytest.approx(seconds)
