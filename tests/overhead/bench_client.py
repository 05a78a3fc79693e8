"""What the client itself costs and falsifies, beside plain Locust and a minimal asyncio client in the same run.

    python tests/overhead/bench_client.py [--only 512,open] [--repeats 3] [--truth-server PATH]

The client runs on one core, the engine on another; every figure is held against the engine's own log, event by event,
and a table of figures and goals is printed. Without --truth-server the judge is the project's null engine, which keeps
its schedule up to about 30,000 tokens per second. Nothing else should run meanwhile: what other programs used of the
machine stands in the table, and of several repeats the median counts. As root both sides get the highest priority.
The processor time is that of all processes of a client, from start to end, and for the harness also that of its load
processes while they load, where starting and summing up do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from judges import Judge, Shape, Wrote
from numpy.typing import NDArray

from harness.measure.client import read_client
from harness.measure.run_folder import RunFolder

HERE = Path(__file__).resolve().parent
ENGINE_CORE, CLIENT_CORE = "0", "1"


@dataclass(frozen=True)
class Saw:
    """What a client says of one request. planned_at: as sent_at where nothing was planned."""

    planned_at: float
    sent_at: float
    token_at: NDArray[np.float64]
    finished_at: float


@dataclass(frozen=True)
class Told:
    """What a client says of a run. load_cpu: seconds of its load processes while they loaded, NaN if it is silent."""

    saw: dict[str, Saw]
    verdict: str = "says nothing"
    load_cpu: float = float("nan")


@dataclass
class Outcome:
    """One run of one client. cpu: seconds of all its processes; others: share of the machine that others used."""

    told: Told
    wrote: dict[str, Wrote]
    cpu: float
    others: float
    began: float = 0.0

    @property
    def saw(self) -> dict[str, Saw]:
        return self.told.saw

    def pairs(self) -> list[tuple[Saw, Wrote]]:
        joined = [(saw, self.wrote[name]) for name, saw in self.saw.items() if name in self.wrote]
        return [(saw, wrote) for saw, wrote in joined if wrote.done and len(saw.token_at) == len(wrote.token_at)]


@dataclass(frozen=True)
class Scene:
    """A load. goals: figure -> the most, or for `ideal` the least, that is asked of the harness."""

    name: str
    options: Sequence[str]
    shape: Shape = field(default_factory=Shape)
    users: int | None = None
    seconds: float = 14.0
    freeze: tuple[float, float] | None = None
    rivals: bool = False
    figures: Sequence[str] = ()
    goals: dict[str, float] = field(default_factory=dict)


def closed(users: int, name: str | None = None, cycles: float = 3.4, **changes: Any) -> Scene:
    """Each user asks again when it was answered; cycles: answers of each, and what is under way then ends as well."""
    shape = changes.pop("shape", Shape())
    seconds = cycles * (shape.ttft + shape.itl * (shape.tokens - 1))
    # In step: of what pauses cost there would be no ideal to hold the rate against.
    options = [
        "--in-step",
        "--users",
        str(users),
        "--duration",
        f"{seconds:.1f}s",
        "--output-tokens",
        str(shape.tokens),
    ]
    return Scene(name or str(users), options, shape, users, seconds, **changes)


TAILS = ("ideal", "ttft_p50", "ttft_p99", "itl_p99", "tpot_p99", "stamp_p99", "cpu", "load_cpu")
GAPS = ("itl_p50", "itl_p99", "glued", "stamp_p99")
ALIGNED = {"itl_p50": 2.0, "itl_p99": 2.0, "stamp_p99": 1.0}
SCENES = (
    closed(64, rivals=True, figures=TAILS, goals={"ttft_p50": 0.5, "ttft_p99": 0.5}),
    closed(
        512, cycles=7.4, rivals=True, figures=TAILS,
        goals={"ideal": 99.5, "ttft_p99": 2, "itl_p99": 1, "tpot_p99": 0.2, "cpu": 12},
    ),
    closed(1024, rivals=True, figures=TAILS, goals={"ideal": 99.5, "ttft_p99": 5, "itl_p99": 2}),
    closed(2048, rivals=True, figures=TAILS, goals={"ideal": 99.0}),
    closed(256, "stalls", shape=Shape(stall=(0.02, 0.3)), figures=GAPS, goals=dict.fromkeys(GAPS[:3], 2.0)),
    closed(256, "glued", shape=Shape(glue=4), figures=GAPS, goals=dict.fromkeys(GAPS[:3], 2.0)),
    closed(256, "aligned 256", shape=Shape(align=True), figures=GAPS, goals=ALIGNED),
    closed(512, "aligned 512", shape=Shape(align=True), figures=GAPS, goals=ALIGNED),
    Scene(
        "open", ["--rate", "200", "--arrival", "constant", "--duration", "30s", "--output-tokens", "20"],
        Shape(tokens=20), seconds=30.0, freeze=(17.0, 2.0),
        figures=("ttft_p99", "e2e_p99", "lag_p99"), goals={"ttft_p99": 1, "e2e_p99": 1, "lag_p99": 1},
    ),
)  # fmt: skip


def figures(scene: Scene, outcome: Outcome) -> dict[str, float]:
    """Errors in % of the true quantile; stamps and lag in ms; ideal in %; both cpu in seconds per million events."""
    pairs = outcome.pairs()
    planned = scene.users is None
    start = [saw.planned_at if planned else wrote.received_at for saw, wrote in pairs]
    values = {
        "ttft": (
            [saw.token_at[0] - saw.planned_at for saw, _ in pairs],
            [wrote.token_at[0] - zero for (_, wrote), zero in zip(pairs, start)],
        ),
        "itl": tuple(np.concatenate([np.diff(each[side].token_at) for each in pairs]) for side in (0, 1)),
        "tpot": tuple([float(np.diff(each[side].token_at).mean()) for each in pairs] for side in (0, 1)),
        "e2e": (
            [saw.finished_at - saw.planned_at for saw, _ in pairs],
            [wrote.ended_at - zero for (_, wrote), zero in zip(pairs, start)],
        ),
    }
    found = {}
    for name, (seen, true) in values.items():
        for level in (50, 99):
            found[f"{name}_p{level}"] = error(np.quantile(seen, level / 100), np.quantile(true, level / 100))
    late = np.concatenate([saw.token_at - wrote.token_at for saw, wrote in pairs])
    found["stamp_p99"] = 1000 * float(np.quantile(late, 0.99))
    found["glued"] = error(float((values["itl"][0] == 0).mean()), float((values["itl"][1] < 1e-9).mean()))
    found["lag_p99"] = 1000 * float(np.quantile([saw.sent_at - saw.planned_at for saw, _ in pairs], 0.99))
    events = sum(len(saw.token_at) for saw in outcome.saw.values())
    found["cpu"], found["load_cpu"] = 1e6 * outcome.cpu / events, 1e6 * outcome.told.load_cpu / events
    if scene.users is not None:
        found["ideal"] = ideal(scene, scene.users, outcome)
    return found


def error(seen: float, true: float) -> float:
    """In % of the true value; without end where only that is 0."""
    if seen == true:
        return 0.0
    return 100 * abs(seen - true) / true if true else float("inf")


def ideal(scene: Scene, users: int, outcome: Outcome) -> float:
    """Tokens written in whole cycles of all streams, in % of what an ideal client would have had written."""
    cycle = scene.shape.ttft + scene.shape.itl * (scene.shape.tokens - 1)
    begin = sorted(saw.sent_at for saw in outcome.saw.values())[:users][-1] + 0.3
    last = max(saw.finished_at for saw in outcome.saw.values())
    cycles = int((last - cycle - begin) / cycle)
    written = np.concatenate([each.token_at for each in outcome.wrote.values()])
    inside = np.count_nonzero((written >= begin) & (written < begin + cycles * cycle))
    return 100 * inside / (cycles * scene.shape.tokens * users) if cycles > 0 else float("nan")


def run_harness(scene: Scene, url: str, folder: Path, extra: Sequence[str] = ()) -> tuple[list[str], Callable[[], Any]]:
    run = folder / "run"
    command = [sys.executable, "-m", "harness", "bench", "--url", url, "--output", str(run), "--no-report", "--json"]

    def read() -> Told:
        zero = json.loads((run / "manifest.json").read_text())["clock"]["monotonic"]
        rows = pq.read_table(run / "records.parquet").to_pylist()
        saw = {
            row["request_id"]: Saw(
                row["scheduled_at"] + zero, row["sent_at"] + zero, np.array(row["token_at"]) + zero,
                (row["finished_at"] or 0.0) + zero,
            )
            for row in rows if row["sent_at"] is not None
        }  # fmt: skip
        validity = json.loads((run / "summary.json").read_text())["validity"]
        rules = ", ".join(reason["rule"] for reason in validity["reasons"])
        return Told(saw, validity["verdict"] + (f" ({rules})" if rules else ""), load_cpu(run))

    return [*command, "--input-tokens", "3", *scene.options, *extra], read


def load_cpu(run: Path) -> float:
    """CPU seconds by the load processes' own samples, from first to last."""
    facts, seconds = read_client(RunFolder(run)), 0.0
    latest: dict[str, float] = {}
    for sample in facts.samples if facts is not None else ():
        seconds += sample.cpu_fraction * (sample.at - latest.get(sample.process, 0.0))
        latest[sample.process] = sample.at
    return seconds


def run_rival(name: str, scene: Scene, url: str, folder: Path) -> tuple[list[str], Callable[[], Any]]:
    out = folder / "rows.json"
    words = [url, str(scene.users), str(scene.seconds), str(scene.shape.tokens), str(out)]

    def read() -> Told:
        rows = json.loads(out.read_text())
        return Told({
            row["request_id"]: Saw(row["sent_at"], row["sent_at"], np.array(row["token_at"]), row["token_at"][-1])
            for row in rows if row["token_at"]
        })  # fmt: skip

    return [sys.executable, str(HERE / "rivals" / f"{name}.py"), *words], read


def measure(client: str, scene: Scene, server: Path | None) -> Outcome:
    """One client against one engine, pinned to a core each."""
    with tempfile.TemporaryDirectory(prefix="bench-client-") as name:
        folder = Path(name)
        judge = Judge(scene.shape, folder, server, pinned(ENGINE_CORE))
        favour(judge.process.pid)
        runs = run_harness if client == "harness" else lambda *given: run_rival(client, *given)
        command, read = runs(scene, judge.url, folder)
        if scene.freeze is not None:
            threading.Timer(scene.freeze[0], judge.freeze, [scene.freeze[1]]).start()
        busy, at = busy_seconds(), time.monotonic()
        cpu = run_pinned(command)
        others = busy_seconds() - busy - cpu - judge.cpu()
        share = max(0.0, others / (time.monotonic() - at) / (os.cpu_count() or 1))
        wrote = judge.stop()
        return Outcome(read(), wrote, cpu, share, at)


def pinned(core: str) -> list[str]:
    return ["nice", "-n", "-20" if os.geteuid() == 0 else "0", "taskset", "-c", core]


def favour(pid: int) -> None:
    """A session is scheduled as one group where the kernel does so: the nice value of the group counts as well."""
    if os.geteuid() != 0:
        return
    for each in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            Path(f"/proc/{each.pid}/autogroup").write_text("-20")
        except OSError:
            continue


def run_pinned(command: Sequence[str]) -> float:
    """CPU seconds of a client and all its processes."""
    # Compiled once and kept, as of an installed program.
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": ""}
    process = subprocess.Popen(
        [*pinned(CLIENT_CORE), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    )  # fmt: skip
    words: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: words.extend(process.stderr or ()), daemon=True)
    reader.start()
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            break
        favour(process.pid)
        time.sleep(0.25)
    reader.join(timeout=5)
    if process.returncode != 0:
        print("".join(words[-5:]), file=sys.stderr)
    return usage.ru_utime + usage.ru_stime


def busy_seconds() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[at]) for at in (0, 1, 2, 5, 6)) / 100


def startup(server: Path | None) -> list[float]:
    """Seconds from the start of `bench` to its first request, a few times."""
    scene = Scene("startup", ["--users", "1", "--requests", "2", "--output-tokens", "5"], Shape(ttft=0.01, itl=0.005))
    return [first_sent(measure("harness", scene, server)) for _ in range(3)]


def first_sent(outcome: Outcome) -> float:
    return min(saw.sent_at for saw in outcome.saw.values()) - outcome.began


def calibrate(streams: set[int]) -> None:
    """Beforehand, so that no run of the harness has to do it and counts it as its own cost."""
    names = ",".join(map(str, sorted(streams)))
    run_pinned([sys.executable, "-m", "harness", "calibrate", "--users", names])


def two_processes(server: Path | None) -> str:
    """How much more two load processes carry than one: only where three cores are there."""
    cores = os.cpu_count() or 1
    if cores < 4:
        return f"skipped: {cores} cores, and the engine needs cores of its own beside two load processes"
    rates = []
    for processes in ("1", "2"):
        scene = closed(4096, shape=Shape(itl=0.02))
        scene = Scene(scene.name, [*scene.options, "--processes", processes], scene.shape, 4096, scene.seconds)
        rates.append(ideal(scene, 4096, measure("harness", scene, server)))
    return f"{rates[1] / rates[0]:.2f} times"


def judged(name: str, value: float, goal: float | None) -> str:
    if goal is None:
        return ""
    return "yes" if (value >= goal if name == "ideal" else value <= goal) else "NO"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="scenes, such as 64,512,open,startup,processes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--truth-server", type=Path, help="a compiled truth server, used as the judge")
    parser.add_argument("--no-rivals", action="store_true")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    os.environ.setdefault("XDG_STATE_HOME", tempfile.mkdtemp(prefix="bench-client-state-"))
    chosen = [scene for scene in SCENES if not only or scene.name in only]
    calibrate({scene.users or 128 for scene in chosen} | {1})
    print("| load | client | figure | measured (each run) | goal | reached | others used |")
    print("|---|---|---|---|---|---|---|")
    for scene in chosen:
        clients = ["harness", *(["fast_http", "plain_asyncio"] if scene.rivals and not options.no_rivals else [])]
        for client in clients:
            report(scene, client, options)
    if not only or "startup" in only:
        seconds = startup(options.truth_server)
        middle = statistics.median(seconds)
        print(f"| start | harness | first request | {middle:.2f} s | 2 s | {judged('', middle, 2.0)} | |")
    if not only or "processes" in only:
        print(f"| two processes | harness | rate | {two_processes(options.truth_server)} | 1.8 times | | |")


def report(scene: Scene, client: str, options: argparse.Namespace) -> None:
    outcomes = [measure(client, scene, options.truth_server) for _ in range(options.repeats)]
    found = [figures(scene, each) for each in outcomes]
    others = "/".join(f"{100 * each.others:.0f} %" for each in outcomes)
    for name in scene.figures:
        values = [each[name] for each in found]
        if np.isnan(values).all():
            continue
        middle = statistics.median(values)
        goal = scene.goals.get(name) if client == "harness" else None
        each_run = "/".join(f"{value:.3g}" for value in values)
        print(
            f"| {scene.name} | {client} | {name} | {middle:.4g} ({each_run}) | {'' if goal is None else goal} "
            f"| {judged(name, middle, goal)} | {others} |",
            flush=True,
        )
    print(
        f"| {scene.name} | {client} | verdict | {' / '.join(each.told.verdict for each in outcomes)} | | | |",
        flush=True,
    )


if __name__ == "__main__":
    main()
