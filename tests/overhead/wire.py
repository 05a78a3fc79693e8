"""`python -m tests.overhead.wire`: what a bench records of a real llama.cpp, held against a packet capture beside it.

    python -m tests.overhead.wire [--users N] [--duration 20s] [--hogs N,...] [--stops] [--width N] [--quota PERCENT]

For each number of hogs (processes that never rest) one `harness bench --url` at llama.cpp's own server with a model of
random weights, and beside it a capture of its port. Every token's moment and every first token is joined with the
segment that carried it, by the request's id. Printed: the error of the reported figures in ms, how many stamps were
truly late (by more than half of their answer's usual gap), how many the client itself counted as late, its verdict and
the causes that it names. --stops: the load process is stopped for 30 ms, ten times a second, which no counter of the
kernel's run queue tells. Linux, as root: a packet socket needs it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from harness.load.stamps import measure_offset
from harness.measure.records import COMPLETED, read_parquet
from tests.llama import running
from tests.overhead.capture import Capture, Wire

HOG = "while True: pass"
STOP, PERIOD = 0.03, 0.1  # seconds


@dataclass(frozen=True)
class Compared:
    """Arrays of seconds over all token events that both sides have; errors are record - wire."""

    ttft: np.ndarray
    true_ttft: np.ndarray
    gaps: np.ndarray
    true_gaps: np.ndarray
    errors: np.ndarray
    usual: np.ndarray
    sent_errors: np.ndarray
    differing: int


def compare(folder: Path, wires: Sequence[Wire], offset: float) -> Compared:
    """offset: CLOCK_REALTIME - CLOCK_MONOTONIC, seconds. differing: answers whose number of events is not the same."""
    manifest = json.loads((folder / "manifest.json").read_text())
    start = float(manifest["clock"]["monotonic"])
    records = read_parquet(folder / "records.parquet")
    by_id = {wire.request_id: wire for wire in wires}
    parts = [list[np.ndarray]() for _ in range(8)]
    differing = 0
    for row in range(len(records)):
        wire = by_id.get(str(records.request_id[row]))
        seen = np.array(records.token_at[records.offsets[row] : records.offsets[row + 1]])
        if wire is None or records.status[row] != COMPLETED or not len(seen):
            continue
        true = np.array(wire.tokens) * 1e-9 - offset - start
        if len(true) != len(seen):
            differing += 1
            continue
        sent, true_sent = records.sent_at[row], wire.sent * 1e-9 - offset - start
        usual = (true[-1] - true[0]) / max(1, len(true) - 1)
        found = (
            [seen[0] - records.scheduled_at[row]], [true[0] - true_sent], np.diff(seen), np.diff(true),
            seen - true, np.full(len(seen), usual), [sent - true_sent],
        )  # fmt: skip
        for part, values in zip(parts, found):
            part.append(np.asarray(values))
    joined = [np.concatenate(part) if part else np.empty(0) for part in parts[:7]]
    return Compared(*joined, differing=differing)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:9.3f}"


def show(title: str, compared: Compared, folder: Path, lost: int) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    samples = json.loads((folder / "client.json").read_text())["samples"]
    events, late = (sum(each[name] for each in samples) for name in ("events", "late_events"))
    print(f"\n{title}: {len(compared.errors)} tokens of {len(compared.ttft)} answers, {lost} segments lost, "
          f"{compared.differing} answers differ")  # fmt: skip
    for name, seen, true in (("TTFT", compared.ttft, compared.true_ttft), ("ITL", compared.gaps, compared.true_gaps)):
        for share in (0.5, 0.9, 0.99):
            found, right = np.quantile(seen, share), np.quantile(true, share)
            off = f"{ms(found - right)} ms ({100 * (found / right - 1):+.2f} %)"
            print(f"  {name:<5}p{round(100 * share)}  reported {ms(found)}  wire {ms(right)}  off {off}")
    errors = compared.errors
    tells = ", ".join(
        f"{100 * np.mean(errors > limit):.2f} % by > {1000 * limit:g} ms" for limit in (1e-4, 1e-3, 3e-3, 1e-2)
    )
    print(f"  stamps late: {tells}; the largest {ms(errors.max())} ms, the smallest {ms(errors.min())} ms")
    print(f"  late by more than half of the usual gap: {100 * np.mean(errors > compared.usual / 2):.3f} %; "
          f"the client counted {100 * late / max(1, events):.3f} %")  # fmt: skip
    print(f"  sent noted {ms(np.quantile(-compared.sent_errors, 0.5))} ms before the wire at p50, "
          f"{ms(np.quantile(-compared.sent_errors, 0.99))} at p99")  # fmt: skip
    queue, stolen, throttled = (sum(each[name] for each in samples) for name in ("run_queue", "stolen", "throttled"))
    print(f"  run queue {queue:.2f} s, stolen {stolen:.2f} s, throttled {throttled:.2f} s of {len(samples)} s")
    validity = summary["validity"]
    print(f"  verdict: {validity['verdict']}")
    for reason in [*validity["reasons"], *validity.get("warnings", [])]:
        print(f"    {reason['rule']}: {reason['found']} (limit {reason['limit']}). {reason['advice']}")


@contextmanager
def hogs(count: int) -> Iterator[None]:
    running_ = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    try:
        yield
    finally:
        for each in running_:
            each.kill()
            each.wait()


@contextmanager
def stopping(process: int) -> Iterator[None]:
    """Stop the load processes among the children again and again."""
    over = threading.Event()

    def stop() -> None:
        while not over.wait(PERIOD):
            for child in psutil.Process(process).children():
                if "harness.load.worker" in " ".join(child.cmdline()):
                    child.send_signal(signal.SIGSTOP)
                    time.sleep(STOP)
                    child.send_signal(signal.SIGCONT)

    def guarded() -> None:
        try:
            stop()
        except psutil.Error:  # the bench is over
            return

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def quota(percent: float) -> Iterator[str]:
    """A control group (version 1 or 2) with so much of one processor; gives the file to write a process id to."""
    one = Path("/sys/fs/cgroup/cpu")
    folder = (one if one.is_dir() else Path("/sys/fs/cgroup")) / f"harness-wire-{os.getpid()}"
    folder.mkdir()
    try:
        if one.is_dir():
            (folder / "cpu.cfs_period_us").write_text("100000")
            (folder / "cpu.cfs_quota_us").write_text(str(int(1000 * percent)))
        else:
            (folder / "cpu.max").write_text(f"{int(1000 * percent)} 100000")
        yield str(folder / "cgroup.procs")
    finally:
        folder.rmdir()


def measure(told: argparse.Namespace, port: int, hogs_: int, folder: Path) -> None:
    out = folder / f"run-{hogs_}"
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "harness", "bench", "--url", url, "--users", str(told.users), "--duration",
               told.duration, "--warmup", "2s", "--input-tokens", "32", "--output-tokens", "64",
               "--output", str(out), "--no-report"]  # fmt: skip
    with ExitStack() as stack:
        capture = stack.enter_context(Capture(port))
        stack.enter_context(hogs(hogs_))
        if told.quota:
            group = stack.enter_context(quota(told.quota))
            command = ["sh", "-c", f'echo $$ > {group}; exec "$@"', "sh", *command]
        offset = measure_offset()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as bench:
            stack.enter_context(stopping(bench.pid) if told.stops else ExitStack())
            _, said = bench.communicate()
        offset = (offset + measure_offset()) // 2
    if not (out / "summary.json").exists():
        print(said)
        return
    title = f"{told.users} users beside {hogs_} hogs" + (", stopped again and again" if told.stops else "")
    title += f", quota {told.quota:g} %" if told.quota else ""
    show(title, compare(out, capture.requests(), offset * 1e-9), out, capture.lost)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.overhead.wire")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--duration", default="20s")
    parser.add_argument("--hogs", default="0,2,4")
    parser.add_argument("--stops", action="store_true")
    parser.add_argument("--quota", type=float)
    parser.add_argument("--width", type=int, default=768, help="of the model: 768 is some 5 ms a token")
    parser.add_argument("--keep", type=Path, help="a folder for the runs")
    told = parser.parse_args(arguments)
    if missing := running.missing():
        print(missing)
        return 3
    from tests.llama import model

    model.WIDTH, model.LAYERS, model.FEED_FORWARD = told.width, 8, 2 * told.width
    model.HEADS, model.KV_HEADS = told.width // 32, told.width // 64
    with tempfile.TemporaryDirectory(prefix="wire-") as name:
        folder = told.keep or Path(name)
        folder.mkdir(exist_ok=True)
        program = running.write_program(Path(name) / "llama-server")
        weights = model.write(Path(name) / "model.gguf")
        slots = ("-m", str(weights), "-np", str(told.users), "-c", str(512 * told.users))
        server = running.LlamaServer(program, Path(name) / "log", *slots)
        try:
            for count in told.hogs.split(","):
                measure(told, server.port, int(count), folder)
        finally:
            server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
